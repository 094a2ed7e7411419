"""The types of the model: images, policies, probes, extensions, and what a scale set should be.

Names are Azure's, in Python's spelling. Durations are seconds, percents are whole numbers.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rollcall_contracts.versions import version_key

LATEST = "latest"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[int, Field(ge=0, le=100)]


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
    exclude_from_latest: bool = False

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
    DRIVER = "DriverOperationFailed"
    HEALTH_TIMEOUT = "InstanceUnhealthy"
    PROVISIONING_TIMEOUT = "ProvisioningTimeout"


class RollingPolicy(Model):
    """How fast and how far an upgrade may go; each upgrade keeps a snapshot (M10-M16, M42)."""

    max_batch_instance_percent: Annotated[int, Field(ge=5, le=100)] = 20
    max_unhealthy_instance_percent: Annotated[int, Field(ge=5, le=100)] = 20
    max_unhealthy_upgraded_instance_percent: Percent = 20
    pause_time_between_batches: Annotated[float, Field(ge=0, le=30 * 86400)] = 0
    enable_cross_zone_upgrade: bool = False
    # Rollcall's own, beside Azure's four: Azure fixes the first at five minutes (M13).
    health_timeout: Annotated[float, Field(gt=0, le=86400)] = 300
    provisioning_timeout: Annotated[float, Field(gt=0, le=86400)] = 2400

    @model_validator(mode="after")
    def _batch_fits_the_unhealthy_limit(self) -> Self:
        if self.max_batch_instance_percent > self.max_unhealthy_instance_percent:
            raise ValueError(
                f"maxBatchInstancePercent ({self.max_batch_instance_percent}) must not be above "
                f"maxUnhealthyInstancePercent ({self.max_unhealthy_instance_percent})"
            )
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
    zones: tuple[str, ...] = ()
    image: ImageReference
    automatic_os_upgrade: bool = False
    disable_automatic_rollback: bool = False
    policy: RollingPolicy = RollingPolicy()
    probe: Probe | None = None
    provisioning: Provisioning
