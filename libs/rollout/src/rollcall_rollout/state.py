"""The state of one scale set, as the rules see it: immutable values and plain questions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rollcall_contracts.model import (
    Failure,
    Health,
    HookAction,
    Image,
    LifecycleHookType,
    MetricOutcome,
    Power,
    PowerAction,
    PowerWish,
    RollingPolicy,
    StartedBy,
)


class InstancePhase(StrEnum):
    """What is going on with an instance."""

    CREATING = "creating"  # requested of its host; no disk may exist yet
    READY = "ready"  # the last operation succeeded; its health says the rest
    UPGRADING = "upgrading"  # asked for a new OS disk; down, or about to be
    RESTORING = "restoring"  # asked for its previous OS disk
    POWERING = "powering"  # asked to start, stop or restart
    DELETING = "deleting"  # asked to go
    FAILED = "failed"  # the last operation did not succeed


class MemberState(StrEnum):
    """How far one instance is in an upgrade."""

    PENDING = "pending"  # on the old version, waiting for its batch
    SKIPPED = "skipped"  # left out: protected, by its own wish, or rejected by a hook
    UPGRADING = "upgrading"  # its batch runs; the agent works on it
    SURGING = "surging"  # its batch runs; the instance that takes its place is being made
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


IN_FLIGHT = frozenset(
    {
        MemberState.UPGRADING,
        MemberState.SURGING,
        MemberState.PROVISIONED,
        MemberState.RESTORING,
    }
)
UNTOUCHED = frozenset({MemberState.PENDING, MemberState.SKIPPED})


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
    reimage: bool = False  # to get a new OS disk when its turn comes
    reimage_number: int = 0  # of the newest reimage that was asked for
    wish: PowerWish = PowerWish.RUNNING  # a person's
    power_due: PowerAction | None = None  # what its agent is to be asked for that
    power_number: int = 0  # of the newest change of power that was asked for
    booting: bool = False  # taken down because a person asked for that, and not healthy since
    error: Failure | None = None
    previous_version: str | None = None  # what its last upgrade found, until it is rolled back
    replaces: str | None = None  # the instance whose place it takes, while that one is there
    protect_from_scale_in: bool = False
    protect_from_scale_set_actions: bool = False
    phase_order: int | None = None  # its application's wish: PhaseOrderingNumber
    skip_upgrade: bool = False  # its application's wish: SkipUpgrade

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

    @property
    def is_parked(self) -> bool:
        """Say whether it is down because a person wants that, or about to be.

        It counts neither as unhealthy nor as one of the set's, and nothing but a person starts it.
        """
        return (
            self.wish is not PowerWish.RUNNING
            and self.power_due is None
            and self.version is not None
            and self.phase in (InstancePhase.READY, InstancePhase.POWERING, InstancePhase.FAILED)
        )

    @property
    def is_excluded(self) -> bool:
        """Say whether an upgrade that starts now leaves it out (azure-aws-gcp.md 1.3, 1.8)."""
        return self.protect_from_scale_set_actions or self.skip_upgrade or self.is_parked


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
    approved: bool = False  # of a deferred upgrade
    phase: int | None = None  # PhaseOrderingNumber at the start; none comes last
    replacement: str | None = None  # the instance that a surge puts in its place


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBatch:
    """A batch that is under way."""

    started_at: datetime
    instance_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricCheck:
    """The last question to the metric gate."""

    number: int
    asked_at: datetime
    outcome: MetricOutcome | None = None  # none: not answered yet
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A lifecycle hook that asks, or was answered and not acted on yet."""

    id: str
    type: LifecycleHookType
    version: str
    created_at: datetime
    wait_until: datetime
    max_wait_until: datetime
    default_action: HookAction
    targets: Mapping[str, HookAction | None]  # by instance, `*` for the set; none: not answered
    upgrade_id: str | None = None
    completed: bool = False

    @property
    def approved(self) -> frozenset[str]:
        """Return the targets that may go on."""
        return frozenset(t for t, action in self.targets.items() if action is HookAction.APPROVE)

    @property
    def is_rejected(self) -> bool:
        """Say whether it came to nothing."""
        return self.completed and not self.approved


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Why sets keep off a version, until a person clears it."""

    by_set: str
    upgrade_id: str
    error: Failure
    quarantine: bool = False  # rolled back: `by_set`, too, keeps off it


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
    open_batches: Mapping[int, OpenBatch] = field(default_factory=dict)  # several only when sliding
    paused_since: datetime | None = None  # when the last batch ended
    cancel_requested: bool = False
    pause_requested: bool = False
    deferred: bool = False  # each instance waits for its approval
    override: bool = False  # brought to a sick set on purpose
    rollback_of: str | None = None  # the version that the set is brought back from
    reimage: bool = False  # also of instances that run the target already
    breach: Failure | None = None  # what it will fault for, once failed instances are put back
    held: str | None = None  # the code for which the next batch was last said to wait
    check: MetricCheck | None = None
    status: UpgradeStatus = UpgradeStatus.ROLLING_FORWARD
    ended_at: datetime | None = None
    error: Failure | None = None

    @property
    def batch_open(self) -> bool:
        """Say whether a batch is under way."""
        return bool(self.open_batches)

    @property
    def is_forced(self) -> bool:
        """Say whether it goes on in a sick set: asked for so, or bringing the set back."""
        return self.override or self.rollback_of is not None
