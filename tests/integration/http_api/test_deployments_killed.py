"""http-api killed in the middle of a deployment: it goes on, and writes nothing twice."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
from rollcall_contracts.events import ScaleSetChanged, parse
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually
from rollcall_testing.seeding import prepare

GROUP = "/subscriptions/s/resourceGroups/g"
DEPLOYMENT = f"{GROUP}/providers/Microsoft.Resources/deployments/main"
SETS = "Microsoft.Compute/virtualMachineScaleSets"
NET = "Microsoft.Network/virtualNetworks"
VERSION = {"api-version": "2024-11-01"}
LINKS = 12  # networks that are written one after the other, each with a set after it
KILLS = 2


def chain() -> dict[str, Any]:
    """Return a template of networks, each written after the one before it, and of sets."""
    image = {"publisher": "Contoso", "offer": "Web", "sku": "stable", "version": "latest"}
    resources: list[dict[str, Any]] = []
    for number in range(LINKS):
        common = {"apiVersion": "2024-11-01", "location": "local"}
        net = {"type": NET, "name": f"n{number}", "properties": {"number": number}}
        before = {"dependsOn": [f"n{number - 1}"]} if number else {}
        fleet = {
            "type": SETS,
            "name": f"s{number}",
            "tags": {"number": f"[string(reference('n{number}').number)]"},
            "sku": {"name": "Standard_D1", "capacity": 0},
            "properties": {
                "upgradePolicy": {"mode": "Manual"},
                "virtualMachineProfile": {"storageProfile": {"imageReference": image}},
            },
        }
        resources += [{**common, **net, **before}, {**common, **fleet}]
    return {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/"
        "deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": resources,
    }


@asynccontextmanager
async def process(environment: Mapping[str, str]) -> AsyncIterator[None]:
    """Run the service; it is killed at the end, without a word."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "http_api"),
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        if started.returncode is None:
            started.send_signal(signal.SIGKILL)
        await started.wait()


async def answers(http: httpx.AsyncClient) -> bool:
    """Say whether the service is there."""
    try:
        return (await http.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def test_a_deployment_goes_on_after_kills_and_writes_nothing_twice(
    database_url: str, amqp_url: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        "ROLLCALL_DATABASE_URL": database_url,
        "ROLLCALL_AMQP_URL": amqp_url,
        "ROLLCALL_API_TOKEN": "t",
        "ROLLCALL_API_PORT": str(port),
        "ROLLCALL_SECRETS_KEY": new_key(),
    }
    headers = {"Authorization": "Bearer t"}
    async with (
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as http,
        asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
    ):
        await prepare(pool)
        for kill in range(KILLS):
            async with process(environment):
                await eventually(lambda: answers(http), timeout=120)
                if not kill:
                    body = {"properties": {"mode": "Incremental", "template": chain()}}
                    begun = await http.put(DEPLOYMENT, json=body, params=VERSION)
                    assert begun.status_code == 201, begun.text
                enough = 1 + kill * LINKS // (KILLS + 1)

                async def is_far(enough: int = enough) -> bool:
                    return bool(await pool.fetchval("SELECT count(*) FROM scale_sets") >= enough)

                await eventually(is_far, timeout=120)
            assert await pool.fetchval("SELECT count(*) FROM scale_sets") < LINKS
        async with process(environment):
            await eventually(lambda: answers(http), timeout=120)

            async def are_written() -> bool:
                steps = await pool.fetch("SELECT resource FROM deployment_operations")
                return len({step["resource"] for step in steps}) == len(steps) == 2 * LINKS

            # The sets wait for the orchestrator, which is not here: it is enough that each is told.
            await eventually(are_written, timeout=120)
        networks = await pool.fetch("SELECT state FROM deployment_operations WHERE type = $1", NET)
        assert [network["state"] for network in networks] == ["Succeeded"] * LINKS
        rows = await pool.fetch("SELECT body FROM event_log")
        events = [parse(row["body"]) for row in rows]
        changes = [event.spec for event in events if isinstance(event, ScaleSetChanged)]
        assert sorted(spec.scale_set.rpartition("/")[2] for spec in changes) == sorted(
            f"s{number}" for number in range(LINKS)
        )
