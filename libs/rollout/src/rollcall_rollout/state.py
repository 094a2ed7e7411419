"""The state of one scale set, as the rules see it: immutable values and plain questions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rollcall_contracts.model import (
    LATEST,
    Failure,
    Health,
    Image,
    Power,
    RollingPolicy,
    ScaleSetSpec,
    StartedBy,
)


class InstancePhase(StrEnum):
    """What is going on with an instance."""

    CREATING = "creating"  # requested of its host; no disk may exist yet
    READY = "ready"  # the last operation succeeded; its health says the rest
    UPGRADING = "upgrading"  # asked for a new OS disk; down, or about to be
    RESTORING = "restoring"  # asked for its previous OS disk
    DELETING = "deleting"  # asked to go
    FAILED = "failed"  # the last operation did not succeed


class MemberState(StrEnum):
    """How far one instance is in an upgrade."""

    PENDING = "pending"  # on the old version, waiting for its batch
    UPGRADING = "upgrading"  # its batch runs; the agent works on it
    PROVISIONED = "provisioned"  # on the new version, its application not healthy yet
    SUCCEEDED = "succeeded"  # became healthy on the new version
    FAILED = "failed"  # did not; still as the failure left it
    RESTORING = "restoring"  # its previous OS disk is being put back
    RESTORED = "restored"  # runs on its previous OS disk again
    RESTORE_FAILED = "restore_failed"  # neither version runs


class UpgradeStatus(StrEnum):
    """How an upgrade stands (Azure's UpgradeState)."""

    ROLLING_FORWARD = "RollingForward"
    CANCELLED = "Cancelled"
    COMPLETED = "Completed"
    FAULTED = "Faulted"


IN_FLIGHT = frozenset({MemberState.UPGRADING, MemberState.PROVISIONED, MemberState.RESTORING})
UPGRADED_BADLY = frozenset(
    {MemberState.FAILED, MemberState.RESTORED, MemberState.RESTORE_FAILED, MemberState.RESTORING}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance of the set."""

    id: str
    host: str
    attempt: int
    phase: InstancePhase
    since: datetime  # when the phase began
    created_at: datetime
    zone: str | None = None
    version: str | None = None  # of the OS disk in place
    generation: int = 0  # of the model that was applied last
    address: str | None = None
    port: int | None = None
    power: Power = Power.RUNNING
    health: Health = Health.UNKNOWN
    lease: int = 0  # of probing; older ones' reports are ignored
    probed_until: datetime | None = None
    uncommitted: bool = False  # the previous OS disk is still kept
    deploy: bool = False  # to be brought to the model now (M41)
    error: Failure | None = None

    @property
    def is_healthy(self) -> bool:
        """Say whether the instance counts as healthy for every gate (M10, M15, M30)."""
        return (
            self.phase is InstancePhase.READY
            and self.power is Power.RUNNING
            and self.health is Health.HEALTHY
        )

    @property
    def is_busy(self) -> bool:
        """Say whether an agent is at work on it."""
        return self.phase not in (InstancePhase.READY, InstancePhase.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One instance's part in an upgrade."""

    id: str
    state: MemberState
    since: datetime  # when the state began
    batch: int | None = None
    from_version: str | None = None
    error: Failure | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """One upgrade of the set."""

    id: str
    image: Image
    policy: RollingPolicy
    started_by: StartedBy
    restore_failed: bool
    started_at: datetime
    reason: str
    members: Mapping[str, Member]
    fetches: Mapping[str, bool] = field(default_factory=dict)  # by host: fetched
    fetch_error: Failure | None = None
    batch: int = 0  # number of the last batch started
    batch_open: bool = False
    paused_since: datetime | None = None  # when the last batch ended
    cancel_requested: bool = False
    status: UpgradeStatus = UpgradeStatus.ROLLING_FORWARD
    ended_at: datetime | None = None
    error: Failure | None = None


@dataclass(slots=True)
class Census:
    """A fleet at one look, so that a rule need not look at every instance again."""

    unhealthy: int = 0
    versions: set[str] = field(default_factory=set)
    working: list[Instance] = field(
        default_factory=list
    )  # being made, changed or deleted, or failed
    uncommitted: list[Instance] = field(default_factory=list)
    deploying: list[Instance] = field(default_factory=list)
    next_probe: datetime | None = None  # when the first lease of probing ends; past: none yet
    awaited: list[Member] = field(default_factory=list)  # provisioned, not healthy yet
    in_flight: int = 0  # members that a batch is at work on
    failed: list[Member] = field(default_factory=list)  # neither restored nor being restored
    restored: list[Member] = field(default_factory=list)

    def count_instance(self, instance: Instance) -> None:
        """Note one instance."""
        if not instance.is_healthy:
            self.unhealthy += 1
        if instance.phase is not InstancePhase.READY:
            self.working.append(instance)
        else:
            due = instance.probed_until or instance.since
            if self.next_probe is None or due < self.next_probe:
                self.next_probe = due
        if instance.version is not None:
            self.versions.add(instance.version)
        if instance.uncommitted:
            self.uncommitted.append(instance)
        if instance.deploy:
            self.deploying.append(instance)

    def count_member(self, member: Member) -> None:
        """Note one instance's part in the upgrade."""
        if member.state in IN_FLIGHT:
            self.in_flight += 1
        if member.state is MemberState.PROVISIONED:
            self.awaited.append(member)
        elif member.state is MemberState.FAILED:
            self.failed.append(member)
        elif member.state is MemberState.RESTORED:
            self.restored.append(member)


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
    held: tuple[str, Failure] | None = None  # version that would start, and why it does not
    start_requested: bool = False
    _census: Census | None = field(init=False, default=None, compare=False, repr=False)

    @property
    def census(self) -> Census:
        """Return the counts of this state, taken once: a new state is a new object."""
        if self._census is None:
            census = Census()
            for instance in self.instances.values():
                census.count_instance(instance)
            for member in self.upgrade.members.values() if self.upgrade else ():
                census.count_member(member)
            object.__setattr__(self, "_census", census)
            return census
        return self._census

    @property
    def latest(self) -> Image | None:
        """Return the highest version that counts as latest (M21)."""
        return max(
            (image for image in self.images if not image.exclude_from_latest),
            key=lambda image: image.order,
            default=None,
        )

    @property
    def wanted_image(self) -> Image | None:
        """Return the image that a new instance is made from: during an upgrade, its target."""
        if self.upgrade is not None:
            return self.upgrade.image
        if self.spec.image.version == LATEST:
            return self.latest
        return next((i for i in self.images if i.version == self.spec.image.version), None)
