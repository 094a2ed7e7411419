"""A scale set and a load balancer, as GET shows them."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rollcall_contracts.model import LATEST, ImageReference

from http_api.domain.conditions import etag_of
from http_api.domain.documents import at
from http_api.domain.parts import CHILDREN
from http_api.domain.policy import upgrade_policy_json
from http_api.domain.resource_ids import LOAD_BALANCERS, SCALE_SETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A resource as it is kept: its model is what the client wrote, without secrets."""

    id: str
    model: Mapping[str, Any]
    created_at: datetime

    @property
    def name(self) -> str:
        """Return the last part of the id."""
        return self.id.rpartition("/")[2]

    @property
    def etag(self) -> str:
        """Return what changes with each change of what is kept."""
        return etag_of(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredScaleSet(Stored):
    """A scale set as it is kept."""

    secrets: Mapping[str, Any] = field(repr=False)  # sealed
    generation: int
    load_balancer: str | None
    warnings: Sequence[Mapping[str, Any]]

    @property
    def etag(self) -> str:
        """Return what changes with each change of what is kept, secrets too."""
        return etag_of(self.model, self.secrets)

    @property
    def capacity(self) -> int:
        """Return how many instances there should be."""
        return int(at(self.model, "sku.capacity"))

    @property
    def image(self) -> ImageReference:
        """Return the image that the set follows."""
        reference = ImageReference.model_validate(
            at(self.model, "properties.virtualMachineProfile.storageProfile.imageReference")
        )
        is_latest = reference.version.lower() == LATEST
        return reference.model_copy(update={"version": LATEST}) if is_latest else reference

    @property
    def location(self) -> str:
        """Return the Azure location that the model names."""
        return str(self.model["location"])


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetState:
    """What the orchestrator makes of a scale set."""

    phases: Mapping[str, int] = field(default_factory=dict)  # instances by phase
    held: Mapping[str, Any] | None = None  # why an upgrade does not start
    barred_version: str | None = None
    waiting: Mapping[str, Any] | None = None  # {code, message, until}
    broken: bool = False  # an instance could not be made
    revision: int = 0  # of the model that it has taken over

    def provisioning(self, capacity: int) -> str:
        """Return the provisioningState of a set of this capacity."""
        stuck = self.held is not None and self.held.get("code") in STUCK
        return provisioning_state(capacity, self.phases, broken=self.broken, stuck=stuck)


# What keeps instances from being made until somebody does something.
STUCK = ("ImageNotFound", "NoHostAvailable")


def provisioning_state(
    capacity: int, phases: Mapping[str, int], *, broken: bool = False, stuck: bool = False
) -> str:
    """Return Succeeded once there are as many instances as asked for, and none is on its way.

    `broken`: some could not be made; `stuck`: there is nothing to make the missing ones from, or
    nowhere to make them.
    """
    kept = sum(count for phase, count in phases.items() if phase != "deleting")
    moving = phases.get("creating", 0) or phases.get("deleting", 0)
    if kept == capacity and not moving:
        return "Failed" if broken else "Succeeded"
    if kept < capacity and stuck and not moving:
        return "Failed"
    return (
        "Updating" if kept > phases.get("creating", 0) or phases.get("deleting", 0) else "Creating"
    )


def scale_set_json(
    stored: StoredScaleSet, state: FleetState, *, provisioning: str | None = None
) -> dict[str, Any]:
    """Return the resource: what the client wrote, and what Rollcall knows of it.

    `provisioning`: its provisioningState, where that is known better than by counting instances.
    """
    properties = dict(stored.model.get("properties") or {})
    rollcall: dict[str, Any] = {
        "generation": stored.generation,
        "warnings": list(stored.warnings),
    }
    if state.held is not None:
        rollcall["held"] = state.held
    if state.barred_version is not None:
        rollcall["barredVersion"] = state.barred_version
    if state.waiting is not None:
        rollcall["waitingFor"] = state.waiting
    return {
        "id": stored.id,
        "name": stored.name,
        "type": SCALE_SETS,
        "etag": stored.etag,
        **{key: value for key, value in stored.model.items() if key != "properties"},
        "properties": {
            "lifecycleHooksProfile": {"lifecycleHooks": []},
            **properties,
            "upgradePolicy": upgrade_policy_json(properties.get("upgradePolicy")),
            "provisioningState": provisioning or state.provisioning(stored.capacity),
            "uniqueId": str(uuid.uuid5(uuid.NAMESPACE_URL, stored.id.lower())),
            "timeCreated": stored.created_at.isoformat(),
            "rollcall": rollcall,
        },
    }


def sku_json(stored: StoredScaleSet) -> dict[str, Any]:
    """Return the set's size as a list of sizes shows it."""
    sku = stored.model.get("sku") or {}
    return {
        "resourceType": SCALE_SETS,
        "sku": {"name": sku.get("name"), "tier": sku.get("tier")},
        "capacity": {
            "minimum": 0,
            "maximum": 100_000,
            "defaultCapacity": stored.capacity,
            "scaleType": "Automatic",
        },
    }


def extensions_json(stored: StoredScaleSet) -> list[dict[str, Any]]:
    """Return the model's extensions as resources."""
    found = at(stored.model, "properties.virtualMachineProfile.extensionProfile.extensions")
    return [
        {
            **item,
            "id": f"{stored.id}/extensions/{item['name']}",
            "type": f"{SCALE_SETS}/extensions",
            "properties": _provisioned(item.get("properties")),
        }
        for item in found or []
    ]


def load_balancer_json(stored: Stored) -> dict[str, Any]:
    """Return the resource, with an id for each of its parts."""
    return {"sku": {"name": "Basic"}, **kept_json(stored, LOAD_BALANCERS)}


def kept_json(stored: Stored, type: str) -> dict[str, Any]:
    """Return a resource that is given back as it came, with an id for each of its parts.

    Parts that it has none of are empty lists, as in Azure: az reads them without asking. So is
    what was stored as parts and is no list.
    """
    properties = dict(stored.model.get("properties") or {})
    for kind in CHILDREN.get(type.lower(), ()):
        parts = properties.get(kind)
        properties[kind] = [
            _child_json(stored, type, kind, item)
            for item in (parts if isinstance(parts, list) else [])
        ]
    return {
        "id": stored.id,
        "name": stored.name,
        "type": type,
        "etag": stored.etag,
        **{key: value for key, value in stored.model.items() if key != "properties"},
        "properties": {**properties, "provisioningState": "Succeeded"},
    }


def _child_json(parent: Stored, type: str, kind: str, item: Any) -> Any:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        return item
    return {
        **item,
        "id": f"{parent.id}/{kind}/{item['name']}",
        "type": f"{type}/{kind}",
        "etag": parent.etag,
        "properties": _provisioned(item.get("properties")),
    }


def _provisioned(properties: Any) -> Any:
    """Return properties as those of something that is there; what is no object stays as it came."""
    if properties is not None and not isinstance(properties, Mapping):
        return properties
    return {**(properties or {}), "provisioningState": "Succeeded"}


def group_json(stored: Stored) -> dict[str, Any]:
    """Return a resource group."""
    return {
        "id": stored.id,
        "name": stored.name,
        "type": "Microsoft.Resources/resourceGroups",
        **stored.model,
        "properties": {"provisioningState": "Succeeded"},
    }
