"""One scale set as the rules see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rollcall_contracts.model import LATEST, Failure, Image, ScaleSetSpec

from rollcall_rollout.census import Census
from rollcall_rollout.state import Instance, Upgrade


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
    ) -> "Fleet":
        """Return this state with other surroundings, on which what it carries does not depend."""
        fleet = replace(
            self,
            images=self.images if images is None else images,
            hosts=self.hosts if hosts is None else hosts,
            ended=self.ended if ended is None else ended,
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
        return max(
            (image for image in self.images if not image.exclude_from_latest),
            key=lambda image: image.order,
            default=None,
        )

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
        if self.upgrade is not None and self.offers(self.upgrade.image):
            return self.upgrade.image
        if self.spec.image.version == LATEST:
            return self.latest
        return next((i for i in self.images if i.version == self.spec.image.version), None)

    @property
    def image_of_new(self) -> Image | None:
        """Return the image that a new instance is made from.

        Of a set that follows `latest`, not one that did not work in it while there is another.
        """
        image = self.wanted_image
        follows = self.upgrade is None and self.spec.image.version == LATEST
        if image is None or not follows or image.version != self.barred_version:
            return image
        others = (i for i in self.images if not i.exclude_from_latest and i.order < image.order)
        return max(others, key=lambda other: other.order, default=image)
