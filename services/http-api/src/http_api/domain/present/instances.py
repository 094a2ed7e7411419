"""An instance and its instance view, as Azure shows them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from http_api.domain.conditions import etag_of
from http_api.domain.documents import at
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.resource_ids import SCALE_SETS

_PROVISIONING = {
    "creating": "Creating",
    "ready": "Succeeded",
    "upgrading": "Updating",
    "restoring": "Updating",
    "powering": "Updating",
    "deleting": "Deleting",
    "failed": "Failed",
}
_EXTENSION_CODE = "VMExtensionProvisioningError"
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
    wish: str = "running"  # a person's, of its power
    power_due: str | None = None  # what its agent is still to be asked for
    agent_answers: bool = True  # its host's agent was heard of lately

    @property
    def etag(self) -> str:
        """Return what changes with each OS disk and with what a client may write: its protection.

        Not with its health or its phase, or a client could hardly write what it has read.
        """
        return etag_of(
            *(self.id, self.attempt, self.version, self.generation),
            *(self.protect_from_scale_in, self.protect_from_scale_set_actions),
        )


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
        "etag": instance.etag,
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
    power = power_state(instance.phase, instance.power, instance.wish, instance.power_due)
    return {
        "computerName": computer_name(scale_set, instance.id),
        "vmHealth": {
            "status": {
                "code": f"HealthState/{instance.health.lower()}",
                "level": "Info" if instance.health == "Healthy" else "Warning",
                "displayStatus": _HEALTH_TEXT.get(instance.health, instance.health),
            }
        },
        "vmAgent": _agent_json(instance),
        "extensions": _extensions_json(scale_set, instance),
        "statuses": [
            _provisioning_status(instance),
            {
                "code": f"PowerState/{power}",
                "level": "Info",
                "displayStatus": f"VM {power}",
            },
        ],
    }


def power_state(phase: str, power: str, wish: str, power_due: str | None) -> str:
    """Return an instance's power in Azure's words; `power` is what its agent said last.

    What a person wants is `wish`, and `power_due` what has not been asked of the agent yet.
    """
    if phase == "powering":
        return {"running": "starting", "stopped": "stopping"}.get(wish, "deallocating")
    if power != "running" and wish != "running" and power_due is None:
        return wish
    return power


def _agent_json(instance: InstanceRow) -> dict[str, Any]:
    """Return the state of the agent; here it is the host's, and looks after all instances there."""
    answers = instance.agent_answers
    return {
        "vmAgentVersion": "rollcall",
        "statuses": [
            {
                "code": f"ProvisioningState/{'succeeded' if answers else 'Unavailable'}",
                "level": "Info" if answers else "Warning",
                "displayStatus": "Ready" if answers else "Not Ready",
                "message": f"The agent of host {instance.host} "
                f"{'answers' if answers else 'was not heard of lately'}.",
            }
        ],
    }


def _extensions_json(scale_set: StoredScaleSet, instance: InstanceRow) -> list[dict[str, Any]]:
    """Return how each extension of the model ended on the OS disk in place.

    They run in their order, and the first that fails ends the provisioning. Those of a model that
    was not applied to the instance yet have not run.
    """
    found = _extensions_of(scale_set)
    states = _extension_states(
        found, instance.phase, instance.error or {}, instance.generation == scale_set.generation
    )
    return [
        {
            "name": item.get("name"),
            "type": ".".join(
                str(at(item, f"properties.{part}") or "") for part in ("publisher", "type")
            ),
            "typeHandlerVersion": at(item, "properties.typeHandlerVersion"),
            "statuses": [
                {
                    "code": f"ProvisioningState/{state}",
                    "level": "Error" if state == "failed" else "Info",
                    "displayStatus": f"Provisioning {state}",
                    "message": message,
                }
            ],
        }
        for item, (state, message) in zip(found, states, strict=True)
    ]


def _extensions_of(scale_set: StoredScaleSet) -> Sequence[Mapping[str, Any]]:
    path = "properties.virtualMachineProfile.extensionProfile.extensions"
    return at(scale_set.model, path) or ()


def _extension_states(
    extensions: Sequence[Mapping[str, Any]], phase: str, error: Mapping[str, Any], applied: bool
) -> list[tuple[str, str]]:
    """Return state and message of each extension, of an instance that this is known of."""
    failed = str(error.get("target") or "").lower() if error.get("code") == _EXTENSION_CODE else ""
    states: list[tuple[str, str]] = []
    ended = not applied or phase in ("creating", "upgrading")
    for item in extensions:
        if failed and str(item.get("name")).lower() == failed:
            states.append(("failed", str(error.get("message"))))
            ended = True
        elif ended:
            states.append(("creating", "It has not run on this OS disk yet."))
        else:
            states.append(("succeeded", "Provisioning succeeded."))
    return states


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """So many instances of which the same is known."""

    count: int
    phase: str
    generation: int
    error: Mapping[str, Any] | None


def _extension_summary(scale_set: StoredScaleSet, alike: Sequence[Alike]) -> list[dict[str, Any]]:
    found = _extensions_of(scale_set)
    summaries: list[dict[str, int]] = [{} for _ in found]
    for group in alike:
        applied = group.generation == scale_set.generation
        states = _extension_states(found, group.phase, group.error or {}, applied)
        for summary, (state, _) in zip(summaries, states, strict=True):
            code = f"ProvisioningState/{state}"
            summary[code] = summary.get(code, 0) + group.count
    return [
        {
            "name": item.get("name"),
            "statusesSummary": [{"code": c, "count": n} for c, n in sorted(summary.items())],
        }
        for item, summary in zip(found, summaries, strict=True)
    ]


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
    scale_set: StoredScaleSet,
    counts: Sequence[tuple[str, str, str, int]],
    alike: Sequence[Alike],
    state: str,
    now: datetime,
) -> dict[str, Any]:
    """Return a scale set's instance view; `counts` are (phase, power state, health, how many)."""
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
        "extensions": _extension_summary(scale_set, alike),
        "statuses": [
            {
                "code": f"ProvisioningState/{state.lower()}",
                "level": "Info",
                "displayStatus": f"Provisioning {state.lower()}",
                "time": now.isoformat(),
            }
        ],
    }
