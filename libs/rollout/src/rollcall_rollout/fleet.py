"""One scale set as the rules see it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from rollcall_contracts.model import LATEST, Failure, Image, ScaleSetSpec

from rollcall_rollout.census import Census
from rollcall_rollout.copying import replace
from rollcall_rollout.state import Hold, Hook, Instance, Upgrade


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsaved:
    """The ids of what changed since a fleet was saved, so that nobody has to look for it."""

    instances: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()  # of the upgrade that runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """One scale set: what it should be, its instances, and its upgrade, if one runs."""

    spec: ScaleSetSpec
    instances: Mapping[str, Instance] = field(default_factory=dict)
    upgrade: Upgrade | None = None  # the one that runs
    ended: tuple[Upgrade, ...] = ()  # since the state was last saved
    images: tuple[Image, ...] = ()  # published for the set's reference and not withdrawn
    hosts: tuple[str, ...] = ()  # whose agents answer
    next_id: int = 0
    deleted: bool = False
    barred_version: str | None = None  # did not succeed everywhere: not tried again by itself
    # The version that would start, and why it does not; no version: why instances are missing.
    held: tuple[str, Failure] | None = None
    start_requested: bool = False
    start_override: bool = False
    start_reimage: bool = False
    start_reason: str = ""  # the person's words
    rollback_requested: bool = False
    hook: Hook | None = None
    last_version: str | None = None  # what the last upgrade brought; a rollback leads away from it
    last_image: Image | None = None  # the same: it may have been withdrawn since
    batch_seconds: tuple[float, ...] = ()  # how long the last batches took
    holds: Mapping[str, Hold] = field(default_factory=dict)  # by version of the model's line
    room: Mapping[str, int] = field(default_factory=dict)  # by host, of those that have a limit
    blind_hosts: frozenset[str] = frozenset()  # where a TCP probe says nothing of the guest
    _census: Census | None = field(init=False, default=None, compare=False, repr=False)
    _unsaved: Unsaved | None = field(init=False, default=None, compare=False, repr=False)

    @property
    def unsaved(self) -> Unsaved | None:
        """Return what changed since `saved`, or None when that is not known."""
        return self._unsaved

    def saved(self) -> "Fleet":
        """Return this state as one that is stored."""
        fleet = self.amended(ended=())
        fleet.carry(unsaved=Unsaved())
        return fleet

    @property
    def census(self) -> Census:
        """Return this state's counts."""
        if self._census is None:
            census = Census()
            for instance in self.instances.values():
                census.add_instance(instance)
            for member in self.upgrade.members.values() if self.upgrade else ():
                census.add_member(member)
            self.carry(census=census)
            return census
        return self._census

    @property
    def has_census(self) -> bool:
        """Say whether the counts are there already."""
        return self._census is not None

    def amended(
        self,
        *,
        images: tuple[Image, ...] | None = None,
        hosts: tuple[str, ...] | None = None,
        ended: tuple[Upgrade, ...] | None = None,
        holds: Mapping[str, Hold] | None = None,
        room: Mapping[str, int] | None = None,
        blind_hosts: frozenset[str] | None = None,
    ) -> "Fleet":
        """Return this state with other surroundings, on which what it carries does not depend."""
        fleet = replace(
            self,
            images=self.images if images is None else images,
            hosts=self.hosts if hosts is None else hosts,
            ended=self.ended if ended is None else ended,
            holds=self.holds if holds is None else holds,
            room=self.room if room is None else room,
            blind_hosts=self.blind_hosts if blind_hosts is None else blind_hosts,
        )
        fleet.carry(census=self._census, unsaved=self._unsaved)
        return fleet

    def carry(self, *, census: Census | None = None, unsaved: Unsaved | None = None) -> None:
        """Take what is known to be so of this state."""
        if census is not None:
            object.__setattr__(self, "_census", census)
        if unsaved is not None:
            object.__setattr__(self, "_unsaved", unsaved)

    @property
    def latest(self) -> Image | None:
        """Return the highest version that counts as latest (M21)."""
        return _highest(image for image in self.images if not image.exclude_from_latest)

    def offers(self, image: Image) -> bool:
        """Say whether a version is of the model's line, and published still."""
        return image.stream == self.spec.image.stream and any(
            known.version == image.version for known in self.images
        )

    @property
    def wanted_image(self) -> Image | None:
        """Return the image that the set is brought to: during an upgrade, its target.

        A target that was withdrawn, or is not of the model's line any more, is none.
        """
        if self._target_of_upgrade is not None:
            return self._target_of_upgrade
        if self.spec.image.version == LATEST:
            return self.latest
        return next((i for i in self.images if i.version == self.spec.image.version), None)

    @property
    def _target_of_upgrade(self) -> Image | None:
        if self.upgrade is None or not self.offers(self.upgrade.image):
            return None
        return self.upgrade.image

    def target(self, now: datetime) -> Image | None:
        """Return the version that an automatic upgrade goes to: the latest that is old enough."""
        return _highest(
            i for i in self.images if not i.exclude_from_latest and self.ripe_at(i) <= now
        )

    def ripe_at(self, image: Image) -> datetime:
        """Return when a version is old enough for automatic upgrades (`minimumImageAge`)."""
        if image.published_at is None:
            return datetime.min.replace(tzinfo=UTC)
        return image.published_at + timedelta(seconds=self.spec.minimum_image_age)

    def hold_on(self, version: str) -> Hold | None:
        """Return what keeps this set off a version.

        A fault of the set's own is no hold: the version is barred there, which a model update ends.
        """
        hold = self.holds.get(version)
        if hold is None:
            return None
        own = hold.by_set.lower() == self.spec.scale_set.lower()
        applies = hold.quarantine if own else self.spec.hold_faulted_versions
        return hold if applies else None

    def image_of_new(self, now: datetime) -> Image | None:
        """Return the image that a new instance is made from: during an upgrade, its target.

        Of a set that follows `latest`, not one that is held while there is another; and of those
        not one that is too young, or did not work in it, while there is another.
        """
        target, upgrade = self._target_of_upgrade, self.upgrade
        if self.spec.image.version != LATEST:
            return self.wanted_image
        forced = upgrade is not None and upgrade.is_forced
        if target is not None and (forced or self.hold_on(target.version) is None):
            return target
        free = self._not_held()
        good = (i for i in free if i.version != self.barred_version and self.ripe_at(i) <= now)
        return _highest(good) or _highest(free) or self.wanted_image

    @property
    def image_to_deploy(self) -> Image | None:
        """Return the image that a deployment of the model brings.

        Of a set that follows `latest`, the highest that is not held, while there is one: a person
        does not wait for its age, nor for one that did not work in the set.
        """
        if self.upgrade is not None or self.spec.image.version != LATEST:
            return self.wanted_image
        return _highest(self._not_held()) or self.latest

    @property
    def hold_on_deployment(self) -> Hold | None:
        """Return what keeps a deployment from all that do not run its version already."""
        image = self.image_to_deploy
        if image is None or self.spec.image.version != LATEST:
            return None  # who pins a version asks for that one
        return self.hold_on(image.version)

    def _not_held(self) -> list[Image]:
        return [
            image
            for image in self.images
            if not image.exclude_from_latest and self.hold_on(image.version) is None
        ]


def _highest(images: Iterable[Image]) -> Image | None:
    return max(images, key=lambda image: image.order, default=None)
