"""What a set waits for, in a sentence: the same values hold a rollout back and explain it."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rollcall_contracts.events import Event


class WaitCode(StrEnum):
    """Why nothing more is started now; stable, because people match on them."""

    PAUSED = "Paused"
    VERSION_HELD = "VersionHeld"
    IMAGE_TOO_YOUNG = "ImageTooYoung"
    PAUSE_BETWEEN_BATCHES = "PauseBetweenBatches"
    CANARY_BAKING = "CanaryBaking"
    BAKING = "Baking"
    INSTANCES_BOOTING = "InstancesBooting"
    OUTSIDE_WINDOWS = "RollingUpgradeBatchStartTimeNotWithinScheduledWindows"
    APPROVAL = "ApprovalAwaited"
    HOOK = "LifecycleHookWaiting"
    HOOK_REJECTED = "LifecycleHookRejected"
    METRIC_GATE = "MetricGate"
    BLIND_PROBE = "ProbeProvesNothing"
    NO_CANDIDATE = "NoInstanceCanGo"
    # Not holds: what an explanation says beside them.
    BATCH = "BatchInProgress"
    IMAGE_FETCH = "ImageFetch"
    RESTORING = "InstancesRestoring"
    DELETING = "Deleting"
    INSTANCES_MISSING = "InstancesMissing"
    DEPLOYING = "ModelDeployment"
    UNHEALTHY = "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade"
    VERSION_BARRED = "VersionBarred"
    PINNED = "VersionPinned"
    SWITCHED_OFF = "AutomaticOSUpgradeOff"
    EXCLUDED = "InstancesExcluded"
    NOTHING = "UpToDate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One thing that is waited for."""

    code: WaitCode
    message: str  # a sentence with the numbers
    until: datetime | None = None  # when it ends or is looked at again, where that is known
    asks: tuple[Event, ...] = ()  # what has to be asked of somebody first
