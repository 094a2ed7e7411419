"""The rules of what may be switched on, with Azure's own words where they are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_contracts.model import LATEST, Failure, ImageReference, Probe, RollingPolicy

from http_api.domain.documents import Reader, at

_PROFILE = "properties.virtualMachineProfile"
_IMAGE = f"{_PROFILE}.storageProfile.imageReference"
_DATA_DISKS = f"{_PROFILE}.storageProfile.dataDisks"
_OS_DISK = f"{_PROFILE}.storageProfile.osDisk"
_UPDATES = f"{_PROFILE}.osProfile.windowsConfiguration.enableAutomaticUpdates"
_PATCH_MODES = tuple(
    f"{_PROFILE}.osProfile.{system}Configuration.patchSettings.patchMode"
    for system in ("windows", "linux")
)
SLOW_PROBE = 120  # seconds (M31)

MUST_BE_LATEST = (
    "virtualMachineScaleSets with Automatic OS Upgrade enabled must use Platform or Gallery Image "
    "with version set to 'latest'."
)
NO_HEALTH_SOURCE = (
    "Automatic OS Upgrade is not supported for this Virtual Machine Scale Set because a health "
    "probe or health extension was not specified."
)
NO_HEALTH_SOURCE_TO_ROLL = (
    "Rolling Upgrade mode is not supported for this Virtual Machine Scale Set because a health "
    "probe or health extension was not provided."
)
UPDATES_INSIDE = (
    "windowsConfiguration.enableAutomaticUpdates cannot be set to true if "
    "upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade is already true, starting "
    "from APIversion 2019-03-01"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Where a set's health comes from."""

    probe: Probe | None
    standard: bool  # the probe's load balancer is Standard
    one_group: bool  # singlePlacementGroup


def check_automatic_upgrade(
    reader: Reader, image: ImageReference | None, *, supported: bool
) -> None:
    """Note what keeps automatic OS upgrade from being enabled (M07, M20, M21)."""
    is_custom = at(reader.document, f"{_IMAGE}.id") is not None
    if is_custom or (image is not None and image.version != LATEST):
        reader.fault(f"{_IMAGE}.{'id' if is_custom else 'version'}", MUST_BE_LATEST, "BadRequest")
    elif image is not None and not supported:
        reader.fault(
            _IMAGE,
            f"the image {image.publisher}:{image.offer}:{image.sku} is not supported for automatic "
            "OS upgrade: add it to `catalogue` in the configuration file, or use a supported one",
            "BadRequest",
        )
    encryption = os_disk_encryption(reader.document)
    if encryption is not None:
        reader.fault(
            encryption,
            "Automatic OS Upgrade cannot be enabled for a model with OS disk encryption: remove "
            f"{encryption} or leave enableAutomaticOSUpgrade false",
            "BadRequest",
        )
    _check_patching(reader)


def _check_patching(reader: Reader) -> None:
    """Note what would patch the OS from inside: only one of both may (azure-aws-gcp.md 1.9)."""
    if reader.flag(_UPDATES):
        reader.fault(_UPDATES, UPDATES_INSIDE, "BadRequest")
    for path in _PATCH_MODES:
        if str(at(reader.document, path)).lower() == "automaticbyplatform":
            reader.fault(
                path,
                f"{path.rpartition('osProfile.')[2]} must not be AutomaticByPlatform where "
                "enableAutomaticOSUpgrade is true: choose another patchMode",
                "BadRequest",
            )


def check_surge(reader: Reader, policy: RollingPolicy | None, *, had_disks: bool) -> None:
    """Note what does not go with new instances in the place of old ones (azure-aws-gcp.md 1.12).

    `had_disks`: by the model before, the set's instances have data disks. Where a model names none,
    each has one, unless the set was made with maxSurge.
    """
    if policy is None or not policy.max_surge:
        return
    if at(reader.document, _DATA_DISKS):
        reader.fault(
            _DATA_DISKS,
            "maxSurge deletes instances with their disks, and data disks are never lost: take "
            "dataDisks out of the model, or leave maxSurge false",
            "BadRequest",
        )
    elif had_disks and at(reader.document, _DATA_DISKS) is None:
        reader.fault(
            _DATA_DISKS,
            "the instances of this set have data disks (one of lun 0 where the model names none), "
            "and maxSurge would delete them: write dataDisks [] to say that nothing on them is "
            "needed, or leave maxSurge false",
            "BadRequest",
        )
    if reader.flag("properties.overprovision"):
        reader.fault(
            "properties.overprovision", "overprovision must be false with maxSurge", "BadRequest"
        )


def os_disk_encryption(model: Mapping[str, Any]) -> str | None:
    """Return the place in the model that asks for OS disk encryption, if any does (M07)."""
    for path in (
        f"{_OS_DISK}.encryptionSettings.enabled",
        f"{_PROFILE}.securityProfile.encryptionAtHost",
    ):
        if at(model, path) is True:
            return path
    for path in (
        f"{_OS_DISK}.managedDisk.diskEncryptionSet",
        f"{_OS_DISK}.managedDisk.securityProfile.diskEncryptionSet",
    ):
        if at(model, path):
            return path
    return _disk_encryption_extension(model)


def _disk_encryption_extension(model: Mapping[str, Any]) -> str | None:
    """Find Azure Disk Encryption, which is an extension; the seed names it as not supported."""
    path = f"{_PROFILE}.extensionProfile.extensions"
    extensions = at(model, path)
    for index, item in enumerate(extensions if isinstance(extensions, list) else []):
        kind = str(at(item, "properties.type") or "").lower()
        settings = at(item, "properties.settings")
        volumes = "all"
        for key, value in settings.items() if isinstance(settings, Mapping) else ():
            if key.lower() == "volumetype":
                volumes = str(value).lower()
        if kind.startswith("azurediskencryption") and volumes != "data":
            return f"{path}[{index}]"
    return None


def check_health(
    reader: Reader, health: Health, *, automatic: bool, rolling: bool, required: bool
) -> tuple[Failure, ...]:
    """Note a health source that cannot be used (M32, M34); return warnings (M31, M34).

    Azure asks for one where upgrades are automatic, and where the policy's mode is Rolling.
    """
    target = f"{_PROFILE}.networkProfile.healthProbe"
    if health.probe is None:
        if not (automatic or rolling) or at(reader.document, target) is not None:
            return ()
        if required:
            words = NO_HEALTH_SOURCE if automatic else NO_HEALTH_SOURCE_TO_ROLL
            reader.fault(target, words, "BadRequest")
            return ()
        return (
            Failure(
                code="NoHealthSource",
                message="no health probe is named: an instance counts as healthy as soon as it "
                "runs and its extensions succeeded. A probe is strongly recommended",
                target=target,
            ),
        )
    if not health.one_group and not health.standard:
        reader.fault(
            target,
            "a scale set of several placement groups (singlePlacementGroup false) must use a "
            "probe of a Standard load balancer",
            "BadRequest",
        )
    if health.probe.interval >= SLOW_PROBE:
        return (
            Failure(
                code="SlowProbe",
                message=f"the health probe asks every {health.probe.interval:g} seconds: less than "
                f"{SLOW_PROBE} is recommended, for an upgrade waits for its answers",
                target=target,
            ),
        )
    return ()
