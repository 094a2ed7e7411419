"""Steering upgrades over HTTP: pause, roll back, override, approve, protect, answer, release."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts.events import (
    ImageReleased,
    InstanceProtectionChanged,
    LifecycleHookAnswered,
    LifecycleHookCompleted,
    LifecycleHookStarted,
    UpgradeApproveRequested,
    UpgradeCancelRequested,
    UpgradePauseRequested,
    UpgradeResumeRequested,
    UpgradeRollbackRequested,
    UpgradeStarted,
    UpgradeStartRequested,
)
from rollcall_contracts.model import (
    HookAction,
    Image,
    LifecycleHookType,
    RollingPolicy,
    StartedBy,
)
from rollcall_kit.outbox import append

NOW = datetime.now(UTC)
RUNNING: dict[str, Any] = {"status": "RollingForward", "ended_at": None}
HOOK: dict[str, Any] = {
    "id": "7d1c3c3e-0000-4000-8000-000000000001",
    "type": "UpgradeAutoOSRollingBatchStarting",
    "upgrade_id": "u-1",
    "version": "2.0.0",
    "created_at": NOW.isoformat(),
    "wait_until": (NOW + timedelta(hours=4)).isoformat(),
    "max_wait_until": (NOW + timedelta(hours=6)).isoformat(),
    "default_action": "Reject",
    "targets": {"0": "Waiting", "1": "Waiting"},
    "completed": False,
}


@pytest.fixture
async def fleet(api: Any) -> Any:
    """Return the API with a set of three instances at version 1.0.0."""
    await api.put(api.set, api.scale_set_body(3), 201)
    await api.add_fleet()
    for id in ("0", "1", "2"):
        await api.add_instance(id)
    return api


async def accepted(fleet: Any, path: str, body: Any = None) -> Any:
    """Return the event that an accepted request logged."""
    response = await fleet.ask("POST", f"{fleet.set}/{path}", body)
    assert response.status_code == 202, response.text
    return (await fleet.events())[-1]


async def refused(fleet: Any, path: str, status: int = 409, body: Any = None) -> str:
    """Return the message of a refused request, which must not have logged anything."""
    before = await fleet.events()
    error = await fleet.error("POST", f"{fleet.set}/{path}", status, body)
    assert await fleet.events() == before
    assert status != 409 or error["code"] == "OperationNotAllowed"
    return str(error["message"])


async def test_a_start_that_an_upgrade_of_the_same_moment_overtakes_is_refused(fleet: Any) -> None:
    await fleet.add_image("2.0.0")
    await fleet.add_fleet(f"{fleet.set}-not-yet")
    id = await fleet.add_upgrade({"pending": 1}, scale_set=f"{fleet.set}-not-yet", **RUNNING)
    started = UpgradeStarted(
        scale_set=fleet.set,
        upgrade_id=id,
        image=Image(
            publisher="Contoso",
            offer="Web",
            sku="stable",
            version="2.0.0",
            url="file:///x",
            sha256="0" * 64,
            size=1,
        ),
        policy=RollingPolicy(),
        started_by=StartedBy.PLATFORM,
        restore_failed=True,
        instance_ids=("0",),
        reason="2.0.0 is newer than 1.0.0",
    )
    # The orchestrator's transaction, which is not at its end when the request comes.
    async with fleet.pool.acquire() as connection, connection.transaction():
        await append(connection, [started], source="orchestrator", now=NOW)
        await connection.execute("UPDATE upgrades SET scale_set = $1", fleet.set)
        asking = asyncio.create_task(fleet.ask("POST", f"{fleet.set}/osRollingUpgrade"))
        await asyncio.wait([asking], timeout=1)
    assert (await asking).status_code == 409


@pytest.mark.parametrize("action", ["pause", "resume", "rollback"])
async def test_a_request_that_its_client_repeats_is_logged_once(fleet: Any, action: str) -> None:
    if action != "rollback":
        await fleet.add_upgrade({"pending": 1}, **RUNNING, pause_requested=action == "resume")
    if action == "resume":
        await fleet.append(UpgradePauseRequested(scale_set=fleet.set))
    await fleet.set_fleet(last_version="1.0.0")
    await fleet.pool.execute("UPDATE instances SET previous_version = '0.9.0'")
    before = len(await fleet.events())
    for _ in range(2):
        answer = await fleet.ask(
            "POST",
            f"{fleet.set}/rollingUpgrades/{action}",
            headers={"x-ms-client-request-id": "the same"},
        )
        assert answer.status_code == 202, answer.text
    assert len(await fleet.events()) == before + 1


async def test_pause_and_resume(fleet: Any) -> None:
    assert "to pause" in await refused(fleet, "rollingUpgrades/pause")
    assert "to resume" in await refused(fleet, "rollingUpgrades/resume")
    id = await fleet.add_upgrade({"upgrading": 1}, **RUNNING)
    assert "not paused" in await refused(fleet, "rollingUpgrades/resume")
    event = await accepted(fleet, "rollingupgrades/PAUSE", {"reason": "release party"})
    assert event == UpgradePauseRequested(
        scale_set=fleet.set, upgrade_id=id, reason="release party"
    )
    # before the orchestrator's row shows it, the log does
    assert await accepted(fleet, "rollingUpgrades/resume") == UpgradeResumeRequested(
        scale_set=fleet.set, upgrade_id=id
    )
    assert "not paused" in await refused(fleet, "rollingUpgrades/resume")
    await fleet.pool.execute("UPDATE upgrades SET cancel_requested = true")
    assert "cancelled" in await refused(fleet, "rollingUpgrades/pause")


async def test_a_pause_of_an_earlier_upgrade_counts_no_more(fleet: Any) -> None:
    await fleet.add_upgrade({}, **RUNNING)
    await accepted(fleet, "rollingUpgrades/pause")
    await fleet.pool.execute("UPDATE upgrades SET status = 'Cancelled', ended_at = now()")
    later = datetime.now(UTC) + timedelta(seconds=1)
    await fleet.add_upgrade({}, **RUNNING, started_at=later)
    assert "not paused" in await refused(fleet, "rollingUpgrades/resume")


async def test_cancel_keeps_its_reason_and_names_the_upgrade_that_is_meant(fleet: Any) -> None:
    id = await fleet.add_upgrade({}, **RUNNING)
    event = await accepted(fleet, "rollingUpgrades/cancel", {"reason": "wrong day"})
    assert event == UpgradeCancelRequested(scale_set=fleet.set, upgrade_id=id, reason="wrong day")


async def test_cancel_of_waiting_reimages_names_no_upgrade(fleet: Any) -> None:
    await fleet.pool.execute("UPDATE instances SET reimage = true")
    event = await accepted(fleet, "rollingUpgrades/cancel")
    assert event == UpgradeCancelRequested(scale_set=fleet.set)


async def test_roll_back(fleet: Any) -> None:
    path = "rollingUpgrades/rollback"
    assert "nothing to roll back" in await refused(fleet, path)
    await fleet.set_fleet(last_version="2.0.0")
    await fleet.pool.execute("UPDATE instances SET version = '2.0.0', previous_version = '1.0.0'")
    event = await accepted(fleet, path, {"reason": "slow"})
    assert event == UpgradeRollbackRequested(scale_set=fleet.set, version="2.0.0", reason="slow")
    await fleet.pool.execute("UPDATE instances SET protect_from_scale_set_actions = true")
    assert "unprotected" in await refused(fleet, path)
    id = await fleet.add_upgrade({"upgrading": 1}, **RUNNING)
    running = await fleet.pool.fetchval("SELECT image ->> 'version' FROM upgrades")
    assert await accepted(fleet, path) == UpgradeRollbackRequested(
        scale_set=fleet.set, version=running
    )
    await fleet.pool.execute("UPDATE upgrades SET rollback_of = '2.0.0' WHERE id::text = $1", id)
    assert "already" in await refused(fleet, path)


async def test_an_override_is_started_with_its_reason(fleet: Any) -> None:
    await fleet.add_image("2.0.0")
    assert "reason" in await refused(fleet, "osRollingUpgrade", 400, {"override": True})
    event = await accepted(fleet, "osRollingUpgrade", {"override": True, "reason": "the fix"})
    assert event == UpgradeStartRequested(scale_set=fleet.set, override=True, reason="the fix")
    event = await accepted(fleet, "osRollingUpgrade", {"reason": "today"})
    assert event == UpgradeStartRequested(scale_set=fleet.set, reason="today")
    assert await accepted(fleet, "osRollingUpgrade") == UpgradeStartRequested(scale_set=fleet.set)


async def test_a_set_that_is_all_protected_is_not_started(fleet: Any) -> None:
    await fleet.add_image("2.0.0")
    await fleet.pool.execute("UPDATE instances SET skip_upgrade = true")
    assert "SkipUpgrade" in await refused(fleet, "osRollingUpgrade")
    await fleet.pool.execute("UPDATE instances SET protect_from_scale_set_actions = true")
    assert "unprotected instances" in await refused(fleet, "osRollingUpgrade", 400)
    await fleet.pool.execute(
        "UPDATE instances SET protect_from_scale_set_actions = false, skip_upgrade = false "
        "WHERE id = '2'"
    )
    await accepted(fleet, "osRollingUpgrade")


async def test_approve(fleet: Any) -> None:
    path = "approveRollingUpgrade"
    assert "to approve" in await refused(fleet, path)
    id = await fleet.add_upgrade({"pending": 2}, **RUNNING)
    assert "osRollingUpgradeDeferral" in await refused(fleet, path)
    await fleet.pool.execute("UPDATE upgrades SET deferred = true WHERE id::text = $1", id)
    assert await accepted(fleet, path) == UpgradeApproveRequested(
        scale_set=fleet.set, instance_ids=("*",)
    )
    event = await accepted(fleet, path, {"instanceIds": ["1", "0"]})
    assert event.instance_ids == ("1", "0")
    event = await accepted(fleet, "virtualmachines/1/approverollingupgrade")
    assert event.instance_ids == ("1",)
    assert "instance 2" in await refused(fleet, path, 409, {"instanceIds": ["2"]})
    assert "no instance 9" in await refused(fleet, path, 400, {"instanceIds": ["9"]})
    error = await fleet.error("POST", f"{fleet.set}/virtualMachines/9/{path}", 404)
    assert error["code"] == "InstanceNotFound"


async def test_protect_an_instance_as_az_does(fleet: Any) -> None:
    """`az vmss update --instance-id 1 --protect-from-scale-set-actions`: GET, change, PUT."""
    path = f"{fleet.set}/virtualMachines/1"
    shown = await fleet.get(path)
    policy = shown["properties"]["protectionPolicy"]
    assert policy == {"protectFromScaleIn": False, "protectFromScaleSetActions": False}
    policy["protectFromScaleIn"] = policy["protectFromScaleSetActions"] = True
    after = await fleet.put(path, shown)
    assert after["properties"]["protectionPolicy"] == policy
    assert (await fleet.events())[-1] == InstanceProtectionChanged(
        scale_set=fleet.set,
        instance_id="1",
        protect_from_scale_in=True,
        protect_from_scale_set_actions=True,
    )
    await fleet.put(path, {"properties": {"protectionPolicy": None}})
    assert not (await fleet.events())[-1].protect_from_scale_in
    count = len(await fleet.events())
    await fleet.put(path, {"properties": {}})
    assert len(await fleet.events()) == count
    half = {"protectFromScaleIn": False, "protectFromScaleSetActions": True}
    error = await fleet.error("PUT", path, 400, {"properties": {"protectionPolicy": half}})
    assert error["target"] == "properties.protectionPolicy.protectFromScaleIn"
    await fleet.error("PUT", f"{fleet.set}/virtualMachines/9", 404, shown)
    await fleet.pool.execute("UPDATE instances SET protect_from_scale_in = true WHERE id = '1'")
    shown = await fleet.get(path)
    assert shown["properties"]["protectionPolicy"]["protectFromScaleIn"] is True


async def test_a_hook_is_shown_and_answered(fleet: Any) -> None:
    path = f"{fleet.set}/lifecycleHookEvents"
    assert await fleet.get(path) == {"value": []}
    await fleet.set_fleet(hook=HOOK)
    (event,) = (await fleet.get(path))["value"]
    assert event["id"] == f"{path}/{HOOK['id']}"
    assert event["properties"]["state"] == "Active"
    one = await fleet.get(f"{fleet.set}/LIFECYCLEHOOKEVENTS/{HOOK['id'].upper()}")
    assert one == event
    until = (NOW + timedelta(hours=5)).isoformat()
    body = {
        "properties": {
            "waitUntil": until,
            "targetResources": [
                {
                    "resource": {"id": f"{fleet.set}/virtualMachines/0"},
                    "actionState": "Approved",
                }
            ],
        }
    }
    response = await fleet.ask("PATCH", f"{path}/{HOOK['id']}", body)
    assert response.status_code == 200
    properties = response.json()["properties"]
    assert properties["waitUntil"] == until
    assert [t["actionState"] for t in properties["targetResources"]] == ["Approved", "Waiting"]
    assert (await fleet.events())[-1] == LifecycleHookAnswered(
        scale_set=fleet.set,
        hook_id=HOOK["id"],
        actions={"0": HookAction.APPROVE},
        wait_until=NOW + timedelta(hours=5),
    )
    late = {"properties": {"waitUntil": (NOW + timedelta(hours=7)).isoformat()}}
    error = await fleet.error("PATCH", f"{path}/{HOOK['id']}", 400, late)
    assert "maxWaitUntil" in error["message"]


async def test_what_a_hook_came_to_can_be_read_after_it(fleet: Any) -> None:
    path = f"{fleet.set}/lifecycleHookEvents"
    times: dict[str, Any] = {"wait_until": NOW, "max_wait_until": NOW}
    for number in ("h-1", "h-2"):
        await fleet.append(
            LifecycleHookStarted(
                scale_set=fleet.set,
                hook_id=number,
                hook_type=LifecycleHookType.SCHEDULING,
                version="2.0.0",
                default_action=HookAction.APPROVE,
                **times,
            )
        )
    await fleet.append(
        LifecycleHookCompleted(
            scale_set=fleet.set, hook_id="h-1", rejected=("*",), action=HookAction.REJECT
        )
    )
    await fleet.set_fleet(hook={**HOOK, "id": "h-2"})
    second, first = (await fleet.get(path))["value"]
    assert (second["name"], second["properties"]["state"]) == ("h-2", "Active")
    assert (first["name"], first["properties"]["state"]) == ("h-1", "Completed")
    assert first["properties"]["targetResources"] == [
        {"resource": {"id": fleet.set}, "actionState": "Rejected"}
    ]
    assert await fleet.get(f"{path}/h-1") == first
    unchanged = await fleet.ask("PATCH", f"{path}/h-1", first)
    assert unchanged.status_code == 200
    later = {"properties": {"waitUntil": (NOW - timedelta(hours=1)).isoformat()}}
    error = await fleet.error("PATCH", f"{path}/h-1", 409, later)
    assert error["code"] == "OperationNotAllowed"
    error = await fleet.error("GET", f"{path}/h-9", 404)
    assert error["code"] == "LifecycleHookEventNotFound"


async def test_held_versions_are_listed_and_released(fleet: Any) -> None:
    await fleet.add_hold("2.0.0")
    await fleet.add_hold("3.0.0", quarantine=True, held_at=NOW + timedelta(minutes=1))
    newest, older = (await fleet.get("/rollcall/holds"))["value"]
    assert (newest["version"], newest["quarantine"]) == ("3.0.0", True)
    assert older["version"] == "2.0.0"
    assert older["publisher"] == "Contoso"
    assert older["bySet"].endswith("/other")
    assert older["error"]["code"] == "InstanceUnhealthy"
    path = "/rollcall/holds/CONTOSO/web/stable/{}/release"
    response = await fleet.ask("POST", path.format("2.0.0"), {"reason": "was the network"})
    assert response.status_code == 202
    (event,) = await fleet.events("images")
    assert isinstance(event, ImageReleased)
    assert (event.image.version, event.reason) == ("2.0.0", "was the network")
    error = await fleet.error("POST", path.format("9.0.0"), 404)
    assert error["code"] == "HoldNotFound"
