"""The state of one scale set, as the rules see it: immutable values and plain questions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rollcall_contracts.model import (
    Failure,
    Health,
    Image,
    Power,
    RollingPolicy,
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
