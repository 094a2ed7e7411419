"""The API over HTTP on a real database, and rows as the other services write them."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from http_api.app import listening_socket, serve_app
from http_api.settings import Settings
from http_api.web import create_app
from http_api.writes import Server
from rollcall_contracts.events import Event, parse
from rollcall_kit.broker import Broker
from rollcall_kit.config import CatalogueEntry, Config
from rollcall_kit.database import migrate, migrations_of
from rollcall_kit.outbox import append
from rollcall_kit.secrets import new_key
from rollcall_kit.service import Context
from rollcall_testing.seeding import prepare

TOKEN = "token-of-the-test"
GROUP = "/subscriptions/s/resourceGroups/g"
SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/web"
BALANCER = f"{GROUP}/providers/Microsoft.Network/loadBalancers/lb"
NOW = datetime.now(UTC)
IMAGE = {"publisher": "Contoso", "offer": "Web", "sku": "stable"}


def scale_set_body(capacity: int = 3, *, enable: bool = False, **profile: Any) -> dict[str, Any]:
    """Return the body of a PUT."""
    return {
        "location": "local",
        "sku": {"name": "Standard_D1", "capacity": capacity},
        "properties": {
            "upgradePolicy": {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": enable}},
            "virtualMachineProfile": {
                "storageProfile": {"imageReference": {**IMAGE, "version": "latest"}},
                **profile,
            },
        },
    }


def balancer_body(*names: str, sku: str = "Standard", interval: int = 5) -> dict[str, Any]:
    """Return the body of a load balancer with an HTTP probe of each name."""
    return {
        "location": "local",
        "sku": {"name": sku},
        "properties": {
            "probes": [
                {
                    "name": name,
                    "properties": {
                        "protocol": "Http",
                        "port": 8000,
                        "requestPath": "/health",
                        "intervalInSeconds": interval,
                    },
                }
                for name in names
            ]
        },
    }


@dataclass(kw_only=True)
class Api:
    """A client of the running API, and a hand in its database."""

    http: httpx.AsyncClient
    pool: asyncpg.Pool
    server: Server
    port: int
    set: str = SET
    balancer: str = BALANCER
    group: str = GROUP
    scale_set_body: Any = field(default=staticmethod(scale_set_body))
    balancer_body: Any = field(default=staticmethod(balancer_body))

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """Send a request with an api-version."""
        params = {"api-version": "2018-10-01", **options.pop("params", {})}
        return await self.http.request(method, path, json=body, params=params, **options)

    async def get(self, path: str, status: int = 200, **options: Any) -> Any:
        """Return the JSON of a GET."""
        response = await self.ask("GET", path, **options)
        assert response.status_code == status, response.text
        return response.json()

    async def put(self, path: str, body: Any, status: int = 200) -> Any:
        """Return the JSON of a PUT."""
        response = await self.ask("PUT", path, body)
        assert response.status_code == status, response.text
        return response.json()

    async def error(self, method: str, path: str, status: int, body: Any = None) -> dict[str, Any]:
        """Return the error of a request that must fail, after a look at its shape."""
        response = await self.ask(method, path, body)
        assert response.status_code == status, response.text
        document = response.json()
        assert set(document) == {"error"}
        assert (
            {"code", "message"}
            <= set(document["error"])
            <= {*("code", "message", "target", "details")}
        )
        assert isinstance(document["error"], dict)
        return document["error"]

    async def events(self, stream: str = SET) -> list[Event]:
        """Return the event log of a stream."""
        rows = await self.pool.fetch(
            "SELECT body FROM event_log WHERE stream = $1 ORDER BY sequence", stream.lower()
        )
        return [parse(row["body"]) for row in rows]

    async def add_fleet(self, scale_set: str = SET, **fields: Any) -> None:
        """Write a scale set's row as the orchestrator does."""
        values: dict[str, Any] = {
            "scale_set": scale_set,
            "token": uuid.uuid4(),
            "spec": {},
            "image_stream": "contoso/web/stable",
            "wake_at": NOW,
            **fields,
        }
        for name in ("spec", "held", "hook", "waiting"):
            if values.get(name) is not None:
                values[name] = json.dumps(values[name])
        await self._insert("fleets", values)

    async def set_fleet(self, **fields: Any) -> None:
        """Change the set's row as the orchestrator does; documents as JSON."""
        for name, value in fields.items():
            given = json.dumps(value) if isinstance(value, dict) else value
            await self.pool.execute(f"UPDATE fleets SET {name} = $1", given)

    async def append(self, *events: Event, source: str = "orchestrator") -> None:
        """Append to the event log as a service does."""
        async with self.pool.acquire() as connection, connection.transaction():
            await append(connection, events, source=source, now=datetime.now(UTC))

    async def add_hold(self, version: str, **fields: Any) -> None:
        """Write a hold's row as the orchestrator does."""
        image = {**IMAGE, "version": version, "url": "file:///x", "sha256": "0" * 64, "size": 1}
        error = {"code": "InstanceUnhealthy", "message": "no answer", "target": None}
        values: dict[str, Any] = {
            "stream": "contoso/web/stable",
            "version": version,
            "image": json.dumps(image),
            "by_set": SET.replace("web", "other"),
            "upgrade_id": "u-1",
            "quarantine": False,
            "error": json.dumps(error),
            "held_at": NOW,
            **fields,
        }
        await self._insert("image_holds", values)

    async def add_instance(self, id: str, scale_set: str = SET, **fields: Any) -> None:
        """Write an instance's row as the orchestrator does."""
        values: dict[str, Any] = {
            "host": "host-1",
            "zone": None,
            "attempt": 1,
            "phase": "ready",
            "version": "1.0.0",
            "generation": 1,
            "address": "127.0.0.1",
            "port": 20000,
            "power": "running",
            "health": "Healthy",
            "since": NOW,
            "lease": 1,
            "probed_until": NOW,
            "uncommitted": False,
            "deploy": False,
            "created_at": NOW,
            **fields,
        }
        if values.get("error") is not None:
            values["error"] = json.dumps(values["error"])
        await self._insert("instances", {"scale_set": scale_set, "id": id, **values})

    async def add_upgrade(self, states: Mapping[str, int], **fields: Any) -> str:
        """Write an upgrade with so many results in each state; return its id."""
        id = uuid.uuid4()
        values: dict[str, Any] = {
            "scale_set": SET,
            "status": "Completed",
            "started_by": "Platform",
            "image": {**IMAGE, "version": "2.0.0", "url": "file:///x", "sha256": "0" * 64},
            "policy": {"max_batch_instance_percent": 20},
            "restore_failed": True,
            "batch": 1,
            "open_batches": {},
            "fetches": {},
            "cancel_requested": False,
            "pause_requested": False,
            "deferred": False,
            "override": False,
            "started_at": NOW - timedelta(minutes=10),
            "ended_at": NOW,
            "reason": "2.0.0 is newer than 1.0.0",
            **fields,
        }
        for name in ("image", "policy", "open_batches", "fetches", "error"):
            if values.get(name) is not None:
                values[name] = json.dumps(values[name])
        await self._insert("upgrades", {"id": id, **values})
        number = 0
        for state, count in states.items():
            for _ in range(count):
                await self._insert(
                    "upgrade_results",
                    {
                        "upgrade_id": id,
                        "id": str(number),
                        "state": state,
                        "batch": 1,
                        "from_version": "1.0.0",
                        "since": NOW,
                        "reason": f"is {state}",
                        "approved": False,
                    },
                )
                number += 1
        return str(id)

    async def add_batch(self, upgrade_id: str, number: int) -> None:
        """Write an ended batch."""
        await self._insert(
            "batches",
            {
                "upgrade_id": uuid.UUID(upgrade_id),
                "number": number,
                "size": 2,
                "started_at": NOW,
                "ended_at": NOW,
                "succeeded": 1,
                "failed": 1,
                "reason": "2 of 10",
            },
        )

    async def add_image(self, version: str, withdrawn: bool = False, **fields: Any) -> None:
        """Write an image's row as image-publisher does."""
        image = {
            **IMAGE,
            "version": version,
            "url": "file:///x",
            "sha256": "0" * 64,
            "size": 1,
            **fields,
        }
        await self._insert(
            "images",
            {
                "stream": "/".join(str(image[p]).lower() for p in ("publisher", "offer", "sku")),
                "version": version,
                "image": json.dumps(image),
                "feed": "f",
                "product": "p",
                "document": "d",
                "location": "l",
                "published_at": NOW,
                "withdrawn_at": NOW if withdrawn else None,
            },
        )

    async def _insert(self, table: str, values: Mapping[str, Any]) -> None:
        names = ", ".join(values)
        marks = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        await self.pool.execute(
            f"INSERT INTO {table} ({names}) VALUES ({marks})",
            *values.values(),
        )


@pytest.fixture
def options() -> dict[str, Any]:
    """Settings of the API; a test module overrides this to change them."""
    return {}


@pytest.fixture
async def api(database_url: str, options: dict[str, Any]) -> AsyncIterator[Api]:
    """The API, served by uvicorn on a loopback port."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=6) as pool:
        await prepare(pool)
        await migrate(pool, [migrations_of("http_api")])
        settings = Settings(
            api_token=TOKEN, api_port=0, secrets_key=new_key(), database_url=database_url, **options
        )
        context = Context(name="http-api", broker=Broker("", source="http-api"), pool=pool)
        catalogue: Sequence[CatalogueEntry] = (
            CatalogueEntry(publisher="Contoso", offer="*", sku="*"),
        )
        config = Config(catalogue=tuple(catalogue), location="local")
        server = Server(context=context, settings=settings, config=config)
        listener = listening_socket(settings)
        port = listener.getsockname()[1]
        serving = asyncio.create_task(serve_app(create_app(server), listener, context, settings))
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}
        ) as http:
            yield Api(http=http, pool=pool, server=server, port=port)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
