"""What the demo does through the API, and what it reads from it."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

SUBSCRIPTION = "/subscriptions/demo/resourceGroups/demo/providers"
BALANCER = f"{SUBSCRIPTION}/Microsoft.Network/loadBalancers/front"
VERSION = {"api-version": "2018-10-01"}
IMAGE = {"publisher": "Contoso", "offer": "Web", "sku": "stable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One instance, as the API shows it."""

    id: str
    host: str
    version: str
    phase: str
    health: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """The set at a glance."""

    instances: tuple[InstanceView, ...]
    upgrade: dict[str, Any] | None  # the latest

    def is_healthy_at(self, version: str, count: int) -> bool:
        """Say whether that many instances are there, all healthy at this version."""
        return len(self.instances) == count and all(
            (i.version, i.phase, i.health) == (version, "ready", "Healthy") for i in self.instances
        )

    def has_ended(self, version: str) -> str | None:
        """Return how the upgrade to this version ended, or None while it has not."""
        upgrade = self.upgrade
        if upgrade is None or upgrade["targetImageReference"]["version"] != version:
            return None
        status: str = upgrade["status"]
        return None if status == "RollingForward" else status


class DemoFleet:
    """The demo's scale set, through the API of a running stack."""

    def __init__(
        self, url: str, token: str, *, name: str = "web", image: Mapping[str, str] = IMAGE
    ) -> None:
        """Take where the API is, and which set to make, of which image."""
        self.id = f"{SUBSCRIPTION}/Microsoft.Compute/virtualMachineScaleSets/{name}"
        self.image = image
        self.http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, params=VERSION, timeout=10
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def create(
        self,
        capacity: int,
        *,
        health_timeout: str,
        policy: Mapping[str, Any] | None = None,
        custom_data: str = "",
    ) -> None:
        """Put a load balancer with its probe, and a set that upgrades by itself."""
        encoded = base64.b64encode(custom_data.encode()).decode()
        probe = {
            "name": "health",
            "properties": {
                "protocol": "Http",
                "port": 80,
                "requestPath": "/health",
                "intervalInSeconds": 5,
                "numberOfProbes": 1,
            },
        }
        balancer = {
            "location": "local",
            "sku": {"name": "Standard"},
            "properties": {"probes": [probe]},
        }
        await self._put(BALANCER, balancer)
        model = {
            "location": "local",
            "sku": {"name": "Standard_D2s_v3", "capacity": capacity},
            "properties": {
                "upgradePolicy": {
                    "mode": "Manual",
                    "automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True},
                    "rollingUpgradePolicy": {"healthTimeout": health_timeout, **(policy or {})},
                },
                "virtualMachineProfile": {
                    "storageProfile": {"imageReference": {**self.image, "version": "latest"}},
                    "osProfile": {
                        "computerNamePrefix": "web",
                        **({"customData": encoded} if encoded else {}),
                    },
                    "networkProfile": {"healthProbe": {"id": f"{BALANCER}/probes/health"}},
                },
            },
        }
        await self._put(self.id, model)

    async def _put(self, path: str, body: dict[str, Any]) -> None:
        (await self.http.put(path, json=body)).raise_for_status()

    async def hosts(self) -> int:
        """Return how many hosts' agents have been heard of."""
        answer = await self.http.get("/rollcall/hosts")
        answer.raise_for_status()
        return len(answer.json()["value"])

    async def published(self) -> set[str]:
        """Return the versions that image-publisher has taken from the feed."""
        path = (
            "/subscriptions/demo/providers/Microsoft.Compute/locations/local/publishers/"
            "{publisher}/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions"
        ).format(**self.image)
        answer = await self.http.get(path)
        if answer.status_code == 404:
            return set()
        answer.raise_for_status()
        return {item["name"] for item in answer.json()}

    async def view(self) -> FleetView:
        """Return the set as it is now."""
        # The upgrade first: where it has ended, the instances are seen as they were at its end.
        upgrades = await self.http.get(f"{self.id}/rollcall/upgrades", params={"$top": 1})
        upgrades.raise_for_status()
        answer = await self.http.get(f"{self.id}/virtualMachines")
        answer.raise_for_status()
        instances = [_instance(item) for item in answer.json()["value"]]
        return FleetView(
            instances=tuple(sorted(instances, key=lambda i: int(i.id))),
            upgrade=next(iter(upgrades.json()["value"]), None),
        )

    async def history(self) -> dict[str, Any]:
        """Return the upgrade history, in Azure's JSON."""
        answer = await self.http.get(f"{self.id}/osUpgradeHistory")
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def events(self) -> list[dict[str, Any]]:
        """Return the set's whole event log."""
        found: list[dict[str, Any]] = []
        while True:
            after = int(found[-1]["sequence"]) if found else 0
            answer = await self.http.get(
                "/rollcall/events", params={"scaleSet": self.id, "after": after, "limit": 1000}
            )
            answer.raise_for_status()
            page = answer.json()["value"]
            if not page:
                return found
            found += page


def _instance(item: dict[str, Any]) -> InstanceView:
    properties = item["properties"]
    own = properties["rollcall"]
    return InstanceView(
        id=item["instanceId"],
        host=own["host"],
        version=properties["storageProfile"]["imageReference"].get("exactVersion", ""),
        phase=own["phase"],
        health=own["health"],
    )


def most_down(events: Iterable[dict[str, Any]]) -> int:
    """Return the most instances that were ever down at once because of upgrades, by the event log.

    An instance is down from the request to replace or restore its OS disk until it is healthy.
    """
    down: set[str] = set()
    most = 0
    for event in events:
        data = event["data"]
        match event["type"]:
            case "instances.upgrade_requested.v1" | "instances.restore_requested.v1":
                down |= {order["instance_id"] for order in data["instances"]}
            case "instance.healthy.v1":
                down.discard(data["instance_id"])
        most = max(most, len(down))
    return most


def why_not(upgrade: Mapping[str, Any] | None, events: Iterable[dict[str, Any]]) -> str:
    """Return what the latest upgrade, and the instances in it, say went wrong."""
    error = (upgrade or {}).get("error") or {}
    said = [str(error.get("message", "no error is told"))]
    for event in events:
        data = event["data"]
        reason = data.get("reason") or (data.get("error") or {}).get("message")
        if event["type"] in ("instance.restored.v1", "instance.failed.v1") and reason:
            said.append(f"instance {data['instance_id']}: {reason}")
    return "\n  ".join(said)
