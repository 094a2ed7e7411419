"""An instance and its instance view, as Azure shows them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from http_api.domain.documents import at
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.resource_ids import SCALE_SETS

_PROVISIONING = {
    "creating": "Creating",
    "ready": "Succeeded",
    "upgrading": "Updating",
    "restoring": "Updating",
    "deleting": "Deleting",
    "failed": "Failed",
}
_HEALTH_TEXT = {
    "Healthy": "The VM is reporting itself as healthy or is known to be healthy",
    "Unhealthy": "The VM is reporting itself as unhealthy or is known to be unhealthy",
    "Initializing": "The application says that it is starting",
    "Unknown": "Nobody has been able to ask the application yet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One row of the orchestrator's instance_view."""

    id: str
    host: str
    zone: str | None
    attempt: int
    phase: str
    version: str | None
    generation: int
    address: str | None
    port: int | None
    power: str
    health: str
    since: datetime
    error: Mapping[str, Any] | None
    created_at: datetime
    previous_version: str | None
    replaces: str | None
    protect_from_scale_in: bool
    protect_from_scale_set_actions: bool
    phase_order: int | None
    skip_upgrade: bool


def instance_json(
    scale_set: StoredScaleSet, instance: InstanceRow, *, with_view: bool
) -> dict[str, Any]:
    """Return one instance; its image reference has the version that it really runs."""
    id = f"{scale_set.id}/virtualMachines/{instance.id}"
    profile = at(scale_set.model, "properties.virtualMachineProfile") or {}
    storage = profile.get("storageProfile") or {}
    reference = {**(storage.get("imageReference") or {})}
    # Before its first disk there is no version to show.
    reference["version"] = instance.version or reference.get("version")
    if instance.version is not None:
        reference["exactVersion"] = instance.version
    os_profile = dict(profile.get("osProfile") or {})
    os_profile.pop("computerNamePrefix", None)
    properties: dict[str, Any] = {
        "latestModelApplied": is_latest_model(scale_set, instance),
        "vmId": str(uuid.uuid5(uuid.NAMESPACE_URL, id.lower())),
        "storageProfile": {**storage, "imageReference": reference},
        "osProfile": {**os_profile, "computerName": computer_name(scale_set, instance.id)},
        "provisioningState": _PROVISIONING[instance.phase],
        "protectionPolicy": {
            "protectFromScaleIn": instance.protect_from_scale_in,
            "protectFromScaleSetActions": instance.protect_from_scale_set_actions,
        },
        "timeCreated": instance.created_at.isoformat(),
        "rollcall": {
            "host": instance.host,
            "address": instance.address,
            "port": instance.port,
            "phase": instance.phase,
            "since": instance.since.isoformat(),
            "attempt": instance.attempt,
            "generation": instance.generation,
            "health": instance.health,
            "error": instance.error,
            "previousVersion": instance.previous_version,
            "replaces": instance.replaces,
            "phaseOrderingNumber": instance.phase_order,
            "skipUpgrade": instance.skip_upgrade,
        },
    }
    if with_view:
        properties["instanceView"] = instance_view_json(scale_set, instance)
    result: dict[str, Any] = {
        "id": id,
        "name": f"{scale_set.name}_{instance.id}",
        "type": f"{SCALE_SETS}/virtualMachines",
        "location": scale_set.location,
        "instanceId": instance.id,
        "sku": {k: v for k, v in (scale_set.model.get("sku") or {}).items() if k != "capacity"},
        "properties": properties,
    }
    if instance.zone is not None:
        result["zones"] = [instance.zone]
    if "tags" in scale_set.model:
        result["tags"] = scale_set.model["tags"]
    return result


def computer_name(scale_set: StoredScaleSet, instance_id: str) -> str:
    """Return the instance's host name: the model's prefix, or the set's name, and the id."""
    prefix = at(scale_set.model, "properties.virtualMachineProfile.osProfile.computerNamePrefix")
    return f"{prefix or scale_set.name}{instance_id}"


def is_latest_model(scale_set: StoredScaleSet, instance: InstanceRow) -> bool:
    """Say whether the model was applied; a newer image under `latest` is no change of the model."""
    return instance.phase == "ready" and instance.generation == scale_set.generation


def instance_view_json(scale_set: StoredScaleSet, instance: InstanceRow) -> dict[str, Any]:
    """Return the state of one instance at this moment."""
    return {
        "computerName": computer_name(scale_set, instance.id),
        "vmHealth": {
            "status": {
                "code": f"HealthState/{instance.health.lower()}",
                "level": "Info" if instance.health == "Healthy" else "Warning",
                "displayStatus": _HEALTH_TEXT.get(instance.health, instance.health),
            }
        },
        "statuses": [
            _provisioning_status(instance),
            {
                "code": f"PowerState/{instance.power}",
                "level": "Info",
                "displayStatus": f"VM {instance.power}",
            },
        ],
    }


def _provisioning_status(instance: InstanceRow) -> dict[str, Any]:
    state = _PROVISIONING[instance.phase]
    status: dict[str, Any] = {
        "code": f"ProvisioningState/{state.lower()}",
        "level": "Error" if state == "Failed" else "Info",
        "displayStatus": f"Provisioning {state.lower()}" if state != "Creating" else "Creating",
        "time": instance.since.isoformat(),
    }
    if instance.error is not None:
        status["code"] += f"/{instance.error.get('code')}"
        status["message"] = instance.error.get("message")
    return status


def set_view_json(
    counts: Sequence[tuple[str, str, str, int]], state: str, now: datetime
) -> dict[str, Any]:
    """Return a scale set's instance view; `counts` are (phase, power, health, how many)."""
    summary: dict[str, int] = {}
    for phase, power, health, count in counts:
        for code in (
            f"ProvisioningState/{_PROVISIONING[phase].lower()}",
            f"PowerState/{power}",
            f"HealthState/{health.lower()}",
        ):
            summary[code] = summary.get(code, 0) + count
    return {
        "virtualMachine": {
            "statusesSummary": [
                {"code": code, "count": count} for code, count in sorted(summary.items())
            ]
        },
        "extensions": [],
        "statuses": [
            {
                "code": f"ProvisioningState/{state.lower()}",
                "level": "Info",
                "displayStatus": f"Provisioning {state.lower()}",
                "time": now.isoformat(),
            }
        ],
    }
