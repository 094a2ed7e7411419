"""A scale set's ARM JSON, read into what Rollcall acts on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rollcall_contracts.model import (
    LATEST,
    Extension,
    Failure,
    ImageReference,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
)

from http_api.domain.documents import Reader, at
from http_api.domain.extensions import health_extension, read_health_extension
from http_api.domain.load_balancers import LoadBalancer
from http_api.domain.policy import (
    AUTOMATIC,
    MODES,
    ROLLING,
    UPGRADE_POLICY,
    read_policy,
    unknown_members,
)
from http_api.domain.resource_ids import probe_parts
from http_api.domain.rules import Health, check_automatic_upgrade, check_health, check_surge
from http_api.domain.schedule import read_hooks, read_windows

PROFILE = "properties.virtualMachineProfile"
IMAGE = f"{PROFILE}.storageProfile.imageReference"
PROBE = f"{PROFILE}.networkProfile.healthProbe.id"
EXTENSIONS = f"{PROFILE}.extensionProfile.extensions"
DATA_DISKS = f"{PROFILE}.storageProfile.dataDisks"
MAX_CAPACITY = 100_000
MAX_EXTENSION_SECONDS = 5_400.0  # 90 minutes, as in Azure
MAX_IMAGE_AGE = 30 * 86_400.0  # seconds
SERVICE_FABRIC = ("servicefabricnode", "servicefabriclinuxnode")
UPDATE_DOMAINS = 5  # of a Service Fabric set, as in Azure


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the installation decides: its catalogue (M20), and how strict M34 is."""

    supports: Callable[[ImageReference], bool]
    require_health_source: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A set's secrets, sealed: only agents open them."""

    custom_data: str | None = None
    extensions: Mapping[str, str]  # protected settings by the extension's name in lower case


def probe_reference(model: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the load balancer key and the probe name that the model names, if it does."""
    id = at(model, PROBE)
    return probe_parts(id) if isinstance(id, str) else None


def read_scale_set(
    model: Mapping[str, Any],
    *,
    id: str,
    name: str,
    revision: int,
    generation: int,
    sealed: Sealed,
    balancer: LoadBalancer | None,
    rules: Rules,
    had_disks: bool = False,
) -> tuple[ScaleSetSpec, tuple[Failure, ...]]:
    """Return the spec of a whole model, with warnings about what is accepted but unwise.

    `balancer` is the load balancer that `probe_reference` names, if it exists. `had_disks` is what
    `has_data_disks` says of the model before, if there was one. Raises ModelError, which lists
    every fault with its place.
    """
    reader = Reader(model)
    location = reader.text("location")
    capacity = reader.whole("sku.capacity", low=0, high=MAX_CAPACITY)
    _require(reader, "location", "sku.capacity")
    mode = reader.choice(f"{UPGRADE_POLICY}.mode", MODES, MODES[0])
    policy = read_policy(reader)
    check_surge(reader, policy, had_disks=had_disks)
    automatic = reader.flag(f"{AUTOMATIC}.enableAutomaticOSUpgrade")
    no_rollback = reader.flag(f"{AUTOMATIC}.disableAutomaticRollback")
    reader.flag(f"{AUTOMATIC}.useRollingUpgradePolicy")  # kept: the set's own is always used
    deferral = reader.flag(f"{AUTOMATIC}.osRollingUpgradeDeferral")
    image_age = reader.duration(
        f"{AUTOMATIC}.minimumImageAge", high=MAX_IMAGE_AGE, default=0, zero=True
    )
    hold_faulted = reader.flag(f"{AUTOMATIC}.holdFaultedVersions", default=True)
    hooks, windows = read_hooks(reader), read_windows(reader)
    image = _image(reader, automatic=automatic)
    health = _health(reader, balancer)
    if automatic:
        check_automatic_upgrade(
            reader, image, supported=image is not None and rules.supports(image)
        )
    warnings = check_health(
        reader,
        health,
        automatic=automatic,
        rolling=mode == "Rolling",
        required=rules.require_health_source,
    )
    provisioning = Provisioning(
        generation=generation,
        computer_name_prefix=reader.text(f"{PROFILE}.osProfile.computerNamePrefix") or name,
        sealed_custom_data=sealed.custom_data,
        extensions=_extensions(reader, sealed),
        data_disks=_data_disks(reader, default=() if policy and policy.max_surge else (0,)),
    )
    zones, domains = _zones(reader), _update_domains(reader)
    reader.finish()
    spec = ScaleSetSpec(
        scale_set=id,
        revision=revision,
        location=location or "",
        capacity=capacity or 0,
        zones=zones,
        image=image or ImageReference(publisher="", offer="", sku=""),
        automatic_os_upgrade=automatic,
        disable_automatic_rollback=no_rollback,
        os_rolling_upgrade_deferral=deferral,
        minimum_image_age=image_age,
        hold_faulted_versions=hold_faulted,
        policy=policy or RollingPolicy(),
        lifecycle_hooks=hooks,
        maintenance_windows=windows,
        update_domains=domains,
        probe=health.probe,
        provisioning=provisioning,
    )
    return spec, warnings + unknown_members(model)


def has_data_disks(model: Mapping[str, Any]) -> bool:
    """Say whether instances of a model have data disks, named or not."""
    named = at(model, DATA_DISKS)
    return at(model, f"{ROLLING}.maxSurge") is not True if named is None else bool(named)


def _require(reader: Reader, *paths: str) -> None:
    for path in paths:
        if at(reader.document, path) is None:
            reader.fault(path, f"{path} is required")


def _image(reader: Reader, *, automatic: bool) -> ImageReference | None:
    if at(reader.document, f"{IMAGE}.id") is not None:
        if not automatic:  # else the rules say so in Azure's words
            reader.fault(
                f"{IMAGE}.id",
                "instances cannot be made from a custom image: name a publisher, an offer and a "
                "sku that an image feed publishes",
            )
        return None
    _require(reader, *(f"{IMAGE}.{part}" for part in ("publisher", "offer", "sku")))
    publisher, offer, sku = (reader.text(f"{IMAGE}.{p}") for p in ("publisher", "offer", "sku"))
    version = reader.text(f"{IMAGE}.version", LATEST) or LATEST
    if not (publisher and offer and sku):
        return None
    if version.lower() == LATEST:
        version = LATEST
    return ImageReference(publisher=publisher, offer=offer, sku=sku, version=version)


def _health(reader: Reader, balancer: LoadBalancer | None) -> Health:
    one_group = reader.flag("properties.singlePlacementGroup", default=True)
    id = reader.text(PROBE)
    extension = health_extension(reader.document)
    if id is None:
        # The extension is inside of each instance: no load balancer's limits concern it (M32).
        probe = None if extension is None else read_health_extension(reader, extension)
        return Health(probe=probe, standard=probe is not None, one_group=one_group)
    parts = probe_parts(id)
    probe = balancer.probes.get(parts[1]) if parts is not None and balancer is not None else None
    if probe is None:
        reader.fault(PROBE, f"the health probe {id} was not found", code="InvalidResourceReference")
    standard = balancer is not None and balancer.standard
    return Health(probe=probe, standard=standard, one_group=one_group)


def _extensions(reader: Reader, sealed: Sealed) -> tuple[Extension, ...]:
    budget = reader.duration(
        f"{PROFILE}.extensionProfile.extensionsTimeBudget",
        high=120 * 60,
        default=MAX_EXTENSION_SECONDS,
    )
    found: dict[str, Extension] = {}
    for index, item in enumerate(reader.objects(EXTENSIONS)):
        place = f"{EXTENSIONS}[{index}]"
        name, settings = item.get("name"), at(item, "properties.settings")
        if not isinstance(name, str) or not name or "/" in name:
            reader.fault(f"{place}.name", f"{place}.name must be the extension's name")
            continue
        if name.lower() in found:
            reader.fault(f"{place}.name", f"two extensions are named {name}")
            continue
        if settings is not None and not isinstance(settings, Mapping):
            reader.fault(
                f"{place}.properties.settings", f"the settings of {name} must be an object"
            )
            continue
        found[name.lower()] = Extension(
            name=name,
            publisher=str(at(item, "properties.publisher") or ""),
            extension_type=str(at(item, "properties.type") or ""),
            settings=dict(settings or {}),
            sealed_protected_settings=sealed.extensions.get(name.lower()),
            timeout=min(budget, MAX_EXTENSION_SECONDS),
        )
    return tuple(found.values())


def _data_disks(reader: Reader, *, default: tuple[int, ...]) -> tuple[int, ...]:
    """Return the data disks' luns.

    By default each instance has one, so that an application always has a place for its data; not
    where a surge would delete it.
    """
    path = DATA_DISKS
    if at(reader.document, path) is None:
        return default
    luns: list[int] = []
    for index, item in enumerate(reader.objects(path)):
        lun = item.get("lun")
        if isinstance(lun, bool) or not isinstance(lun, int) or not 0 <= lun <= 63:
            reader.fault(f"{path}[{index}].lun", "a data disk's lun must be from 0 to 63")
        elif lun in luns:
            reader.fault(f"{path}[{index}].lun", f"two data disks have the lun {lun}")
        else:
            luns.append(lun)
    return tuple(luns)


def _update_domains(reader: Reader) -> int:
    """Return in how many update domains a Service Fabric set is upgraded (M33); else 0."""
    count = reader.whole(
        "properties.platformUpdateDomainCount", low=1, high=20, default=UPDATE_DOMAINS
    )
    extensions = at(reader.document, EXTENSIONS)
    for item in extensions if isinstance(extensions, list) else []:
        publisher = str(at(item, "properties.publisher")).lower()
        kind = str(at(item, "properties.type")).lower()
        if publisher == "microsoft.azure.servicefabric" and kind in SERVICE_FABRIC:
            return count or UPDATE_DOMAINS
    return 0


def _zones(reader: Reader) -> tuple[str, ...]:
    zones = at(reader.document, "zones")
    if zones is None:
        return ()
    if not isinstance(zones, list) or not all(isinstance(zone, str) and zone for zone in zones):
        reader.fault("zones", "zones must be a list of texts such as ['1', '2']")
        return ()
    return tuple(dict.fromkeys(zones))
