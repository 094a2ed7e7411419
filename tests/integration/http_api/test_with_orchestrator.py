"""What people ask for over HTTP, done by a real orchestrator, with agents that answer at once."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from rollcall_contracts.model import Image, ScaleSetSpec
from rollcall_testing import eventually
from rollcall_testing.answering import AnsweringHosts
from rollcall_testing.seeding import publish_image


@pytest.fixture
def orchestrator(api: Any, database_url: str, amqp_url: str) -> Iterator[None]:
    """An orchestrator as a process of its own, on the API's database."""
    environment = {
        **os.environ,
        "ROLLCALL_DATABASE_URL": database_url,
        "ROLLCALL_AMQP_URL": amqp_url,
        "ROLLCALL_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "orchestrator"], env=environment)
    yield
    process.terminate()
    process.wait(20)


@pytest.fixture
async def stack(api: Any, orchestrator: None, amqp_url: str) -> AsyncIterator[Any]:
    """The API with an orchestrator and two hosts; one image is published."""
    async with AnsweringHosts(amqp_url=amqp_url):
        await publish(api, "1.0.0")
        yield api


async def publish(api: Any, version: str) -> None:
    await publish_image(
        api.pool,
        Image(
            publisher="Contoso",
            offer="Web",
            sku="stable",
            version=version,
            url="file:///x",
            sha256="0" * 64,
            size=1,
        ),
    )


async def create(api: Any, upgrade_policy: dict[str, Any], **properties: Any) -> None:
    """Make an automatic set of four instances, and wait for them."""
    body = api.scale_set_body(4, enable=True)
    policies = body["properties"]["upgradePolicy"]
    for name, value in upgrade_policy.items():
        policies[name] = {**policies.get(name, {}), **value}
    body["properties"] |= properties
    await api.put(api.set, body, 201)

    async def there() -> bool:
        return await versions(api) == ["1.0.0"] * 4

    await eventually(there)


async def versions(api: Any) -> list[str]:
    """Return the versions of the instances that are healthy."""
    page = await api.get(f"{api.set}/virtualMachines")
    shown = [item["properties"] for item in page["value"]]
    return [
        item["rollcall"]["phase"] == "ready"
        and item["rollcall"]["health"] == "Healthy"
        and item["storageProfile"]["imageReference"]["version"]
        for item in shown
    ]


async def until(api: Any, code: str) -> dict[str, Any]:
    """Wait until the set waits for this, and return the explanation."""
    found: list[dict[str, Any]] = []

    async def waits() -> bool:
        found.append(await api.get(f"{api.set}/explain"))
        return bool(found[-1]["waitingFor"]["code"] == code)

    await eventually(waits)
    return found[-1]


async def ask(api: Any, path: str, body: Any = None) -> None:
    response = await api.ask("POST", f"{api.set}/{path}", body)
    assert response.status_code == 202, response.text


async def ended(api: Any, code: str) -> dict[str, Any]:
    """Wait until the latest upgrade ended so, and return it."""
    found: list[dict[str, Any]] = []

    async def is_so() -> bool:
        response = await api.ask("GET", f"{api.set}/rollingUpgrades/latest")
        found.append(response.json().get("properties", {}))
        return bool(found[-1].get("runningStatus", {}).get("code") == code)

    await eventually(is_so)
    return found[-1]


async def test_pause_resume_roll_back_and_release(stack: Any) -> None:
    canary = {"canaryInstanceCount": 1, "canaryBakeTime": "P1D"}
    await create(stack, {"rollingUpgradePolicy": canary})
    assert (await until(stack, "UpToDate"))["waitingFor"]["message"]
    await publish(stack, "2.0.0")
    baking = await until(stack, "CanaryBaking")
    assert "1 of 4 instances are done" in baking["sentence"]
    assert baking["waitingFor"]["until"] is not None
    assert [item["state"] for item in baking["instances"]].count("pending") == 3

    state = await stack.get(f"{stack.set}/state")
    assert ScaleSetSpec.model_validate(state["spec"]).policy.canary_instance_count == 1
    assert len(state["upgrade"]["members"]) == 4
    assert len(state["durations"]["provisioning"]) == len(state["durations"]["healthy"]) == 1

    await ask(stack, "rollingUpgrades/pause", {"reason": "a release of ours"})
    await until(stack, "Paused")
    latest = await stack.get(f"{stack.set}/rollingUpgrades/latest")
    assert latest["properties"]["rollcall"]["pauseRequested"] is True
    await ask(stack, "rollingUpgrades/resume")
    await until(stack, "CanaryBaking")

    await ask(stack, "rollingUpgrades/rollback", {"reason": "slower"})
    back = await ended(stack, "Completed")
    assert back["rollcall"]["rollbackOf"] == "2.0.0"
    assert await versions(stack) == ["1.0.0"] * 4
    (hold,) = (await stack.get("/rollcall/holds"))["value"]
    assert (hold["version"], hold["quarantine"]) == ("2.0.0", True)
    await until(stack, "VersionHeld")
    # a model update tries a barred version again, but not one that was rolled back
    assert (await stack.ask("PATCH", stack.set, {"tags": {"a": "b"}})).status_code == 200
    held = await until(stack, "VersionHeld")
    assert [each["version"] for each in held["waitingFor"]["details"]["holds"]] == ["2.0.0"]
    reasons = [entry["reason"] for entry in held["decisions"]]
    assert "a release of ours" in reasons

    released = "/rollcall/holds/Contoso/Web/stable/2.0.0/release"
    assert (await stack.ask("POST", released, {"reason": "mended"})).status_code == 202
    await until(stack, "CanaryBaking")
    assert await stack.get("/rollcall/holds") == {"value": []}


async def test_hooks_approvals_and_protection(stack: Any) -> None:
    hooks = [{"type": "UpgradeAutoOSScheduling", "waitDuration": "PT1H"}]
    await create(
        stack,
        {"automaticOSUpgradePolicy": {"osRollingUpgradeDeferral": True}},
        lifecycleHooksProfile={"lifecycleHooks": hooks},
    )
    protected = {"properties": {"protectionPolicy": {"protectFromScaleSetActions": True}}}
    await stack.put(f"{stack.set}/virtualMachines/3", protected)

    async def is_protected() -> bool:
        shown = await stack.get(f"{stack.set}/virtualMachines/3")
        return bool(shown["properties"]["protectionPolicy"]["protectFromScaleSetActions"])

    await eventually(is_protected)
    await publish(stack, "2.0.0")
    asks = await until(stack, "LifecycleHookWaiting")
    hook = asks["waitingFor"]["details"]["lifecycleHookEvent"]
    hook["properties"]["targetResources"][0]["actionState"] = "Approved"
    assert (await stack.ask("PATCH", hook["id"], hook)).status_code == 200

    waits = await until(stack, "ApprovalAwaited")
    assert waits["waitingFor"]["details"]["instanceIds"] == ["0", "1", "2"]
    after = await stack.get(hook["id"])
    assert after["properties"]["state"] == "Completed"
    assert after["properties"]["targetResources"][0]["actionState"] == "Approved"

    await ask(stack, "virtualMachines/1/approveRollingUpgrade")

    async def one_is_done() -> bool:
        return await versions(stack) == ["1.0.0", "2.0.0", "1.0.0", "1.0.0"]

    await eventually(one_is_done)
    await ask(stack, "approveRollingUpgrade")
    done = await ended(stack, "Completed")
    assert done["rollcall"]["skippedInstanceCount"] == 1
    assert await versions(stack) == ["2.0.0", "2.0.0", "2.0.0", "1.0.0"]
    excluded = await until(stack, "InstancesExcluded")
    assert excluded["waitingFor"]["details"]["instanceIds"] == ["3"]
    (left_out,) = [item for item in excluded["instances"] if item["id"] == "3"]
    assert left_out["state"] == "skipped"
    assert "protectFromScaleSetActions" in left_out["reason"]
