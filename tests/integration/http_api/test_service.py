"""http-api as the process that it is: what it needs to start, readiness, and its end."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from http_api.app import SettingsError, build, listening_socket
from http_api.settings import Settings
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually
from rollcall_testing.seeding import prepare

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def process(environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the service; kill it if the test does not end it."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "http_api"),
        env={**os.environ, **environment},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"secrets_key": new_key()}, "ROLLCALL_API_TOKEN"),
        ({"api_token": "t"}, "ROLLCALL_SECRETS_KEY"),
        ({"api_token": "t", "secrets_key": "short"}, "ROLLCALL_SECRETS_KEY"),
    ],
)
def test_it_does_not_start_without_its_secrets(settings: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        build(Settings.model_validate(settings))


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"{port}.*ROLLCALL_API_PORT"):
            listening_socket(Settings(api_port=port))


async def test_it_becomes_ready_relays_and_ends_on_sigterm_with_streams_open(
    database_url: str, amqp_url: str
) -> None:
    port = free_port()
    environment = {
        "ROLLCALL_DATABASE_URL": database_url,
        "ROLLCALL_AMQP_URL": amqp_url,
        "ROLLCALL_API_TOKEN": "t",
        "ROLLCALL_API_PORT": str(port),
        "ROLLCALL_SECRETS_KEY": new_key(),
    }
    async with (
        process(environment) as service,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": "Bearer t"}
        ) as http,
    ):

        async def readiness() -> httpx.Response | None:
            try:
                return await http.get("/readyz")
            except httpx.TransportError:
                return None

        async def is_ready() -> bool:
            response = await readiness()
            return response is not None and response.status_code == 200

        async def lacks_only_views() -> bool:
            response = await readiness()
            if response is None or response.status_code != 503:
                return False
            targets = {detail["target"] for detail in response.json()["error"]["details"]}
            return "broker" not in targets and {"fleet_view", "image_view"} <= targets

        await eventually(lacks_only_views, timeout=30)
        async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
            await prepare(pool)
            await eventually(is_ready, timeout=30)
            body = {
                "sku": {"capacity": 1},
                "properties": {
                    "virtualMachineProfile": {
                        "storageProfile": {
                            "imageReference": {"publisher": "p", "offer": "o", "sku": "s"}
                        }
                    }
                },
            }
            response = await http.put(f"{SET}?api-version=2018-10-01", json=body)
            assert response.status_code == 201, response.text
            assert response.json()["location"] == "local"
            published = "SELECT published FROM event_relay WHERE stream = $1"
            await eventually(lambda: pool.fetchval(published, SET.lower()))
        async with http.stream(
            "GET", "/rollcall/events/stream", params={"scaleSet": SET, "after": 0}
        ) as stream:
            lines = stream.aiter_lines()
            while await anext(lines) != "id: 1":
                continue
            service.send_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                _, log = await service.communicate()
            async for _ in lines:  # the stream was ended, not cut
                continue
        assert service.returncode == 0
        assert b"service_stopped" in log
        assert b"Traceback" not in log
