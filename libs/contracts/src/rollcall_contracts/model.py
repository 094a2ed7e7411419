"""The types of the model: images, policies, probes, extensions, and what a scale set should be.

Names are Azure's, in Python's spelling. Durations are seconds, percents are whole numbers.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    field_validator,
    model_validator,
)

from rollcall_contracts.versions import version_key

LATEST = "latest"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=100_000)]
Days30 = Annotated[float, Field(ge=0, le=30 * 86400)]  # seconds


class Model(BaseModel):
    """A value of the model: immutable, and tolerant of fields that a newer peer adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Health(StrEnum):
    """What the application says of itself; everything but `HEALTHY` counts as unhealthy."""

    UNKNOWN = "Unknown"  # nobody has been able to ask yet
    INITIALIZING = "Initializing"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"


class Power(StrEnum):
    """Whether the instance runs, as its host's agent sees it."""

    RUNNING = "running"
    STOPPED = "stopped"


class PowerWish(StrEnum):
    """What a person wants of an instance's power; the last two differ in name only."""

    RUNNING = "running"
    STOPPED = "stopped"
    DEALLOCATED = "deallocated"


class PowerAction(StrEnum):
    """What a person asks of an instance's power, in the words of Azure's operations.

    On people's own hosts `DEALLOCATE` stops as `POWER_OFF` does, and `REDEPLOY` restarts as
    `RESTART` does: the disks stay where they are.
    """

    START = "start"
    RESTART = "restart"
    REDEPLOY = "redeploy"
    POWER_OFF = "powerOff"
    DEALLOCATE = "deallocate"


class StartedBy(StrEnum):
    """Who started an upgrade (Azure's UpgradeOperationInvoker)."""

    PLATFORM = "Platform"
    USER = "User"


class ImageReference(Model):
    """What a scale set follows: a publisher, an offer, a SKU, and a version or `latest`."""

    publisher: str
    offer: str
    sku: str
    version: str = LATEST

    @property
    def stream(self) -> tuple[str, str, str]:
        """Identify the versions' common line: Azure matches these names without regard to case."""
        return (self.publisher.lower(), self.offer.lower(), self.sku.lower())


class Image(Model):
    """One published version: where its file is and what its content must be."""

    publisher: str
    offer: str
    sku: str
    version: str
    os_type: Literal["Linux", "Windows"] = "Linux"
    url: str  # http(s)://, or file:// on the agents' own hosts
    sha256: Sha256
    size: int = Field(ge=0)  # bytes
    unpacked_sha256: Sha256 | None = None  # of what is in a compressed file, where the feed says
    exclude_from_latest: bool = False
    # When it was first seen in its feed, by the publisher's clock: a feed's own dates could lie.
    published_at: AwareDatetime | None = None

    @property
    def stream(self) -> tuple[str, str, str]:
        """Identify the line of versions that this one belongs to."""
        return (self.publisher.lower(), self.offer.lower(), self.sku.lower())

    @property
    def order(self) -> tuple[tuple[int, int, str], ...]:
        """Return the key by which `latest` is chosen (M21)."""
        return version_key(self.version)


class Failure(Model):
    """Why something did not work, in Azure's error shape: a code, a sentence, and the resource."""

    code: str
    message: str
    target: str | None = None


class FailureCode(StrEnum):
    """The codes of failures that Rollcall itself reports; stable, because people match on them."""

    IMAGE_UNAVAILABLE = "ImageUnavailable"
    IMAGE_VERIFICATION = "ImageVerificationFailed"
    IMAGE_UNSAFE = "ImageUnsafe"
    IMAGE_TOO_LARGE = "ImageTooLarge"
    IMAGE_WITHDRAWN = "ImageWithdrawn"
    CREDENTIALS = "ResourceAuthenticationFailed"
    EXTENSION = "VMExtensionProvisioningError"
    CUSTOM_DATA = "CustomDataExecutionFailed"
    START = "InstanceStartFailed"
    POWER = "PowerOperationFailed"
    DRIVER = "DriverOperationFailed"
    DATA_DISK = "DataDiskChanged"
    DISK_FULL = "HostDiskFull"
    HEALTH_TIMEOUT = "InstanceUnhealthy"
    PROVISIONING_TIMEOUT = "ProvisioningTimeout"
    METRIC_GATE = "MetricGateFailed"
    # Azure's own, of a rolling upgrade's status and history.
    UNHEALTHY_BEFORE = "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade"
    UNHEALTHY_DURING = "MaxUnhealthyInstancePercentExceededInRollingUpgrade"
    UNHEALTHY_UPGRADED = "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade"
    UPGRADE_TIMEOUT = "RollingUpgradeTimeoutError"
    OUTSIDE_WINDOWS = "RollingUpgradeBatchStartTimeNotWithinScheduledWindows"
    NOT_ALLOWED = "OperationNotAllowed"
    IMAGE_NOT_FOUND = "ImageNotFound"


class GateAnswer(StrEnum):
    """What a metric gate makes of an answer that says neither success nor failure."""

    WAIT = "Wait"  # ask again; the next batch waits
    PROCEED = "Proceed"  # as if it had succeeded
    FAULT = "Fault"  # as if it had failed


_CONDITION = r"^(<=|>=|==|!=|<|>)\s*-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"
Condition = Annotated[str, Field(pattern=_CONDITION)]


class MetricGate(Model):
    """A question to a Prometheus server, asked before each batch and before the end.

    The query's one number meets `success_condition`, or `failure_condition` (when that is not
    given: does not meet the first), or is inconclusive: no number, several, NaN, or between both.
    """

    # Without user and password: the gate is part of events, which auditors read.
    server: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)]
    query: Annotated[str, Field(min_length=1, max_length=8000)]
    success_condition: Condition  # such as "<= 0.01"
    failure_condition: Condition | None = None
    on_inconclusive: GateAnswer = GateAnswer.WAIT
    on_unreachable: GateAnswer = GateAnswer.WAIT
    interval: Annotated[float, Field(ge=1, le=86400)] = 60  # seconds between questions
    timeout: Annotated[float, Field(gt=0, le=300)] = 10  # seconds for one answer


class MetricOutcome(StrEnum):
    """What a metric gate's question came to."""

    SUCCESS = "Success"
    FAILURE = "Failure"
    INCONCLUSIVE = "Inconclusive"
    UNREACHABLE = "Unreachable"


class Drain(Model):
    """How an instance is emptied before it is stopped: POST to its own HTTP endpoint.

    2xx but 202 means that it is empty; 202 means not yet, ask again. At the deadline, or when the
    hook cannot be reached, the instance is stopped all the same.
    """

    request_path: Annotated[str, Field(pattern=r"^/")]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None  # none: where the instance listens
    deadline: Annotated[float, Field(gt=0, le=86400)] = 300  # seconds


class LifecycleHookType(StrEnum):
    """When a lifecycle hook is asked (Azure's VMScaleSetLifecycleHookEventType)."""

    SCHEDULING = "UpgradeAutoOSScheduling"  # before an automatic upgrade starts
    BATCH_STARTING = "UpgradeAutoOSRollingBatchStarting"  # before each of its batches


class HookAction(StrEnum):
    """What a hook does when nobody answers (Azure's LifecycleHookAction)."""

    APPROVE = "Approve"
    REJECT = "Reject"


class LifecycleHook(Model):
    """A question to a person or a program before an upgrade, or a batch, starts."""

    type: LifecycleHookType
    wait_duration: Annotated[float, Field(ge=1, le=30 * 86400)]  # seconds for an answer
    default_action: HookAction = HookAction.REJECT


class MaintenanceWindow(Model):
    """When batches may start: a local time that recurs, in a time zone with its own clock changes.

    The first one begins at `start`; `weekdays` (Monday is 0) narrows those of `Week`.
    """

    start: NaiveDatetime  # on the clocks of `time_zone`
    time_zone: str  # an IANA name, such as Europe/Berlin
    duration: Annotated[float, Field(ge=60, le=7 * 86400)]  # seconds that really pass
    recur_every: Literal["Day", "Week"] = "Day"
    interval: Annotated[int, Field(ge=1, le=35)] = 1  # every so many days or weeks
    weekdays: tuple[Annotated[int, Field(ge=0, le=6)], ...] = ()
    expires: NaiveDatetime | None = None

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                f"{name!r} is no time zone of the IANA database, such as Europe/Berlin"
            ) from error
        return name


class RollingPolicy(Model):
    """How fast and how far an upgrade may go; each upgrade keeps a snapshot (M10-M16, M42)."""

    max_batch_instance_percent: Annotated[int, Field(ge=5, le=100)] = 20
    max_unhealthy_instance_percent: Annotated[int, Field(ge=5, le=100)] = 20
    max_unhealthy_upgraded_instance_percent: Percent = 20
    pause_time_between_batches: Annotated[float, Field(ge=0, le=30 * 86400)] = 0
    enable_cross_zone_upgrade: bool = False
    prioritize_unhealthy_instances: bool = False
    rollback_failed_instances_on_policy_breach: bool = False
    max_surge: bool = False
    # Rollcall's own, beside Azure's eight: Azure fixes the first at five minutes (M13).
    health_timeout: Annotated[float, Field(gt=0, le=86400)] = 300
    provisioning_timeout: Annotated[float, Field(gt=0, le=86400)] = 2400
    upgrade_timeout: Annotated[float, Field(gt=0, le=366 * 86400)] | None = None
    # A batch is never larger than both say.
    max_batch_instance_count: Annotated[int, Field(ge=1, le=100_000)] | None = None
    # So many are within the limit whatever the percent makes of them: for sets of few instances.
    max_unhealthy_instance_count: Count = 0
    max_unhealthy_upgraded_instance_count: Count = 0
    canary_instance_count: Count = 0  # size of the first batch, at most; 0: as the others
    canary_bake_time: Days30 = 0  # after the first batch
    bake_time: Days30 = 0  # after the last batch, before the end
    sliding_batches: bool = False
    drain: Drain | None = None
    metric_gate: MetricGate | None = None

    @model_validator(mode="after")
    def _batch_fits_the_unhealthy_limit(self) -> Self:
        if self.max_batch_instance_percent > self.max_unhealthy_instance_percent:
            raise ValueError(
                f"maxBatchInstancePercent ({self.max_batch_instance_percent}) must not be above "
                f"maxUnhealthyInstancePercent ({self.max_unhealthy_instance_percent})"
            )
        if self.max_surge and self.sliding_batches:
            raise ValueError("maxSurge and slidingBatches exclude each other: choose one")
        return self


class Probe(Model):
    """A load balancer's health probe (M31)."""

    protocol: Literal["Http", "Https", "Tcp"]
    port: Annotated[int, Field(ge=1, le=65535)]  # the process driver maps it to the instance's own
    request_path: str | None = None
    interval: Annotated[float, Field(gt=0, le=86400)] = 5
    timeout: Annotated[float, Field(gt=0, le=3600)] = 5
    number_of_probes: Annotated[int, Field(ge=1, le=24)] = 1

    @model_validator(mode="after")
    def _path_goes_with_http(self) -> Self:
        if self.protocol == "Tcp" and self.request_path:
            raise ValueError("a Tcp probe has no requestPath")
        if self.protocol != "Tcp" and not self.request_path:
            raise ValueError(f"an {self.protocol} probe needs a requestPath")
        return self


class Extension(Model):
    """A VM extension: run on each new OS disk, in the order of the model (M06)."""

    name: str
    publisher: str = ""
    extension_type: str = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    sealed_protected_settings: str | None = None  # see rollcall_kit.secrets
    timeout: Annotated[float, Field(gt=0, le=5400)] = 5400


class Provisioning(Model):
    """What runs on a new OS disk, beside the image; secrets in it are sealed."""

    generation: int  # of the model, counts up with each change
    computer_name_prefix: str = "vm"
    sealed_custom_data: str | None = None
    extensions: tuple[Extension, ...] = ()
    data_disks: tuple[int, ...] = (0,)  # logical unit numbers


class ScaleSetSpec(Model):
    """The desired state of a scale set, as far as Rollcall acts on it."""

    scale_set: str  # the ARM resource id
    revision: int = 0  # counts up with each write of the resource, also over its deletion
    location: str
    capacity: Annotated[int, Field(ge=0, le=100_000)]
    leaving: tuple[str, ...] = ()  # instances that a person deleted, until they are gone
    zones: tuple[str, ...] = ()
    image: ImageReference
    automatic_os_upgrade: bool = False
    disable_automatic_rollback: bool = False
    os_rolling_upgrade_deferral: bool = False  # each instance waits for its approval
    minimum_image_age: Days30 = 0  # of automatic upgrades' targets
    hold_faulted_versions: bool = True  # keep off a version that faulted in another set
    policy: RollingPolicy = RollingPolicy()
    lifecycle_hooks: tuple[LifecycleHook, ...] = ()
    maintenance_windows: tuple[MaintenanceWindow, ...] = ()
    update_domains: Annotated[int, Field(ge=0, le=20)] = 0  # upgraded one by one; 0: not bound
    probe: Probe | None = None
    provisioning: Provisioning
