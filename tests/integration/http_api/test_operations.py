"""Long-running operations over HTTP: where a client asks, what it is told, and how often."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from rollcall_contracts.events import (
    ModelDeployRequested,
    ScaleSetDeleted,
    UpgradeCancelRequested,
    UpgradeHeld,
    UpgradeStartRequested,
)
from rollcall_contracts.model import Failure


async def poll(api: Any, answer: httpx.Response, header: str = "azure-asyncoperation") -> Any:
    """Ask an operation's URL as clients do: as it is, and absolute."""
    link = answer.headers[header]
    assert link.startswith(f"http://127.0.0.1:{api.port}/subscriptions/s/")
    assert link.endswith("?api-version=2018-10-01")
    assert answer.headers["retry-after"] == "1"
    return await api.http.get(link)


async def status(api: Any, answer: httpx.Response) -> Any:
    """Return an operation's status document."""
    response = await poll(api, answer)
    assert response.status_code == 200, response.text
    running = response.json()["status"] == "InProgress"
    assert response.headers.get("retry-after") == ("1" if running else None)
    return response.json()


async def test_a_put_is_done_when_the_instances_are_there(api: Any) -> None:
    answer = await api.ask("PUT", api.set, api.scale_set_body(1))
    assert answer.status_code == 201
    assert "location" not in answer.headers
    assert answer.json()["properties"]["provisioningState"] == "Creating"
    assert (await status(api, answer))["status"] == "InProgress"
    revision = (await api.events())[-1].spec.revision
    await api.add_fleet(spec={"revision": revision})
    await api.add_instance("0")
    ended = await status(api, answer)
    assert ended["status"] == "Succeeded"
    assert ended["endTime"] >= ended["startTime"]
    assert (await api.get(api.set))["properties"]["provisioningState"] == "Succeeded"
    # the end is kept: what happens later changes nothing about it
    await api.pool.execute("UPDATE instances SET phase = 'creating'")
    assert await status(api, answer) == ended
    patched = await api.ask("PATCH", api.set, {"tags": {"a": "b"}})
    assert patched.status_code == 200
    assert patched.json()["properties"]["provisioningState"] == "Updating"
    assert (await status(api, patched))["status"] == "InProgress"


async def test_a_put_fails_where_an_instance_cannot_be_made(api: Any) -> None:
    answer = await api.ask("PUT", api.set, api.scale_set_body(1))
    await api.add_fleet(spec={"revision": (await api.events())[-1].spec.revision})
    error = {"code": "VMExtensionProvisioningError", "message": "401", "target": "https://x"}
    await api.add_instance("0", phase="failed", version=None, error=error)
    assert (await status(api, answer))["error"] == error
    assert (await api.get(api.set))["properties"]["provisioningState"] == "Failed"


async def test_a_delete_is_done_when_the_instances_are_gone(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.add_fleet()
    await api.add_instance("0")
    answer = await api.ask("DELETE", api.set)
    assert answer.status_code == 202
    assert (await status(api, answer))["status"] == "InProgress"
    result = await poll(api, answer, "location")
    assert result.status_code == 202
    # repeated, it is the same deletion
    again = await api.ask("DELETE", api.set)
    assert again.headers["location"] == answer.headers["location"]
    assert [type(event) for event in await api.events()].count(ScaleSetDeleted) == 1
    await api.pool.execute("DELETE FROM instances")
    assert (await status(api, answer))["status"] == "Succeeded"
    assert (await poll(api, answer, "location")).status_code == 204
    assert (await api.ask("DELETE", api.set)).status_code == 204


async def test_a_start_follows_its_upgrade(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.add_fleet()
    await api.add_instance("0")
    await api.add_image("2.0.0")
    headers = {"x-ms-client-request-id": "one"}
    answer = await api.ask("POST", f"{api.set}/osRollingUpgrade", headers=headers)
    again = await api.ask("POST", f"{api.set}/osRollingUpgrade", headers=headers)
    assert answer.status_code == again.status_code == 202
    assert again.headers["location"] == answer.headers["location"]
    starts = [e for e in await api.events() if isinstance(e, UpgradeStartRequested)]
    assert len(starts) == 1, "a client repeats what it got no good answer to"
    assert (await status(api, answer))["status"] == "InProgress"
    error = Failure(code="MaxUnhealthy", message="too many")
    await api.append(UpgradeHeld(scale_set=api.set, version="2.0.0", error=error, reason="r"))
    ended = await status(api, answer)
    assert (ended["status"], ended["error"]) == (
        "Failed",
        {"code": "MaxUnhealthy", "message": "too many"},
    )
    result = await poll(api, answer, "location")
    assert result.status_code == 409
    assert result.json()["error"]["code"] == "MaxUnhealthy"
    other = await api.ask(
        "POST", f"{api.set}/osRollingUpgrade", headers={"x-ms-client-request-id": "two"}
    )
    assert other.headers["location"] != answer.headers["location"]


async def test_a_cancellation_waits_for_the_end_of_the_batch(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.add_fleet()
    await api.add_upgrade({"upgrading": 1}, status="RollingForward", ended_at=None)
    headers = {"x-ms-client-request-id": "one"}
    answer = await api.ask("POST", f"{api.set}/rollingUpgrades/cancel", headers=headers)
    assert (await status(api, answer))["status"] == "InProgress"
    await api.pool.execute("UPDATE upgrades SET status = 'Cancelled', ended_at = now()")
    assert (await status(api, answer))["status"] == "Succeeded"
    again = await api.ask("POST", f"{api.set}/rollingUpgrades/cancel", headers=headers)
    assert again.status_code == 202, "not 409: it is the request that was heeded"
    cancels = [e for e in await api.events() if isinstance(e, UpgradeCancelRequested)]
    assert len(cancels) == 1
    assert (await api.error("POST", f"{api.set}/rollingUpgrades/cancel", 409))["code"] == "Conflict"


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("manualupgrade", {"instanceIds": ["*"]}, ("*",)),
        ("manualUpgrade", {"instanceIds": ["1"]}, ("1",)),
    ],
)
async def test_instances_are_brought_to_the_model(
    api: Any, path: str, body: Any, named: tuple[str, ...]
) -> None:
    await api.put(api.set, api.scale_set_body(2), 201)
    generation = (await api.events())[-1].spec.provisioning.generation
    await api.add_image("1.0.0")
    await api.add_fleet()
    await api.add_instance("0", generation=generation)
    await api.add_instance("1", generation=generation - 1)
    answer = await api.ask("POST", f"{api.set}/{path}", body)
    assert answer.status_code == 202
    assert (await status(api, answer))["status"] == "InProgress"
    await api.pool.execute("UPDATE instances SET attempt = 2, phase = 'upgrading' WHERE id = '1'")
    assert (await status(api, answer))["status"] == "InProgress"
    await api.pool.execute("UPDATE instances SET phase = 'ready' WHERE id = '1'")
    assert (await status(api, answer))["status"] == "Succeeded"
    (asked,) = [e for e in await api.events() if isinstance(e, ModelDeployRequested)]
    assert asked.instance_ids == named


async def test_load_balancers_are_there_at_once(api: Any) -> None:
    made = await api.ask("PUT", api.balancer, api.balancer_body("app"))
    assert made.json()["properties"]["provisioningState"] == "Succeeded"
    answer = await api.ask("DELETE", api.balancer)
    assert answer.status_code == 202
    assert (await status(api, answer))["status"] == "Succeeded"


async def test_urls_are_those_that_the_client_used(api: Any) -> None:
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "rollcall.example:8443, 10.0.0.1",
        "X-Forwarded-Prefix": "/azure/",
    }
    answer = await api.ask("PUT", api.set, api.scale_set_body(1), headers=headers)
    link = answer.headers["azure-asyncoperation"]
    assert link.startswith("https://rollcall.example:8443/azure/subscriptions/s/providers/")
    odd = {"X-Forwarded-Proto": "gopher", "X-Forwarded-Host": "a b", "X-Forwarded-Prefix": "//x"}
    answer = await api.ask("PUT", api.set, api.scale_set_body(1), headers=odd)
    assert answer.headers["azure-asyncoperation"].startswith(f"http://127.0.0.1:{api.port}/sub")


async def test_nobody_finds_an_operation_under_another_subscription(api: Any) -> None:
    answer = await api.ask("PUT", api.set, api.scale_set_body(1))
    link = answer.headers["azure-asyncoperation"]
    response = await api.http.get(link.replace("/subscriptions/s/", "/subscriptions/t/"))
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "OperationNotFound"
    assert (await api.http.get(link.replace("/operations/", "/operations/x"))).status_code == 404


async def test_old_operations_are_forgotten(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(1), 201)
    await api.pool.execute(
        "UPDATE operations SET started_at = $1", datetime(2020, 1, 1, tzinfo=UTC)
    )
    await api.put(api.set, api.scale_set_body(1), 200)
    assert await api.pool.fetchval("SELECT count(*) FROM operations") == 1
