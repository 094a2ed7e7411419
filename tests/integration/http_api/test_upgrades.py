"""Instances and upgrades over HTTP, in the words of the seed and of Azure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts.events import (
    ModelDeployRequested,
    UpgradeCancelRequested,
    UpgradeStartRequested,
)

NOW = datetime.now(UTC)


@pytest.fixture
async def fleet(api: Any) -> Any:
    """Return the API with a set of three instances."""
    body = api.scale_set_body(3, osProfile={"computerNamePrefix": "app"})
    await api.put(api.set, {**body, "tags": {"a": "b"}}, 201)
    await api.add_fleet()
    (event,) = await api.events()
    generation = event.spec.provisioning.generation
    error = {"code": "InstanceStartFailed", "message": "init exited", "target": None}
    await api.add_instance("0", generation=generation, zone="1")
    await api.add_instance("2", generation=generation, version="2.0.0", health="Unhealthy")
    await api.add_instance(
        "10", generation=0, phase="failed", power="stopped", health="Unknown", error=error
    )
    return api


async def test_instances_have_azures_shape(fleet: Any) -> None:
    page = await fleet.get(f"{fleet.set}/virtualmachines")
    assert [item["instanceId"] for item in page["value"]] == ["0", "2", "10"]
    first, second, failed = page["value"]
    assert first["id"] == f"{fleet.set}/virtualMachines/0"
    assert first["name"] == "web_0"
    assert first["type"] == "Microsoft.Compute/virtualMachineScaleSets/virtualMachines"
    assert first["zones"] == ["1"]
    assert first["tags"] == {"a": "b"}
    properties = first["properties"]
    assert properties["latestModelApplied"] is True
    assert properties["provisioningState"] == "Succeeded"
    assert properties["osProfile"]["computerName"] == "app0"
    assert properties["storageProfile"]["imageReference"] == {
        "publisher": "Contoso",
        "offer": "Web",
        "sku": "stable",
        "version": "1.0.0",
        "exactVersion": "1.0.0",
    }
    assert "instanceView" not in properties
    assert properties["rollcall"]["host"] == "host-1"
    assert properties["rollcall"]["port"] == 20000
    assert second["properties"]["storageProfile"]["imageReference"]["version"] == "2.0.0"
    assert failed["properties"]["latestModelApplied"] is False
    assert failed["properties"]["provisioningState"] == "Failed"
    assert failed["properties"]["rollcall"]["error"]["code"] == "InstanceStartFailed"


@pytest.mark.parametrize("options", [{"api_page_size": 2}])
async def test_instances_come_in_pages_with_their_views(fleet: Any) -> None:
    page = await fleet.get(f"{fleet.set}/virtualMachines", params={"$expand": "instanceView"})
    following = (await fleet.http.get(page["nextLink"])).json()
    assert "nextLink" not in following
    items = page["value"] + following["value"]
    assert [item["instanceId"] for item in items] == ["0", "2", "10"]
    views = [item["properties"]["instanceView"] for item in items]
    assert [view["vmHealth"]["status"]["code"] for view in views] == [
        "HealthState/healthy",
        "HealthState/unhealthy",
        "HealthState/unknown",
    ]
    assert [[status["code"] for status in view["statuses"]] for view in views] == [
        ["ProvisioningState/succeeded", "PowerState/running"],
        ["ProvisioningState/succeeded", "PowerState/running"],
        ["ProvisioningState/failed/InstanceStartFailed", "PowerState/stopped"],
    ]


async def test_one_instance_and_its_view(fleet: Any) -> None:
    one = await fleet.get(f"{fleet.set}/virtualMachines/2", params={"$expand": "InstanceView"})
    view = await fleet.get(f"{fleet.set}/virtualmachines/2/instanceview")
    assert one["properties"]["instanceView"] == view
    assert view["computerName"] == "app2"
    error = await fleet.error("GET", f"{fleet.set}/virtualMachines/%00", 400)
    assert error["code"] == "InvalidResourceName"
    for path in ("99", "99/instanceView"):
        error = await fleet.error("GET", f"{fleet.set}/virtualMachines/{path}", 404)
        assert error["code"] == "InstanceNotFound"
    error = await fleet.error("GET", f"{fleet.set}x/virtualMachines/2", 404)
    assert error["code"] == "ResourceNotFound"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("properties/latestModelApplied eq true", {"0", "2"}),
        ("startswith(instanceView/statuses/code,'PowerState') eq true", {"0", "2", "10"}),
        ("startswith(instanceView/statuses/code, 'ProvisioningState/failed') eq true", {"10"}),
    ],
)
@pytest.mark.parametrize("options", [{"api_page_size": 1}])
async def test_a_filter_goes_through_all_pages(fleet: Any, text: str, expected: set[str]) -> None:
    instances = {
        i["instanceId"] for i in (await fleet.get(f"{fleet.set}/virtualMachines"))["value"]
    }
    assert len(instances) == 1
    found: set[str] = set()
    page = await fleet.get(f"{fleet.set}/virtualMachines", params={"$filter": text})
    while True:
        found |= {item["instanceId"] for item in page["value"]}
        if "nextLink" not in page:
            break
        page = (await fleet.http.get(page["nextLink"])).json()
    assert found == expected


async def test_an_unknown_filter_is_not_ignored(fleet: Any) -> None:
    path = f"{fleet.set}/virtualMachines"
    await fleet.get(path, 400, params={"$filter": "name eq 'x'"})


async def test_the_sets_view_counts_states(fleet: Any) -> None:
    view = await fleet.get(f"{fleet.set}/instanceView")
    assert view["virtualMachine"]["statusesSummary"] == [
        {"code": "HealthState/healthy", "count": 1},
        {"code": "HealthState/unhealthy", "count": 1},
        {"code": "HealthState/unknown", "count": 1},
        {"code": "PowerState/running", "count": 2},
        {"code": "PowerState/stopped", "count": 1},
        {"code": "ProvisioningState/failed", "count": 1},
        {"code": "ProvisioningState/succeeded", "count": 2},
    ]


async def test_m50_history_is_the_seeds_json(fleet: Any) -> None:
    await fleet.add_upgrade(
        {"succeeded": 3, "restored": 1, "restore_failed": 1, "pending": 2},
        status="Faulted",
        error={"code": "Code", "message": "why", "target": None},
    )
    entry = (await fleet.get(f"{fleet.set}/osUpgradeHistory"))["value"][0]
    running = entry["properties"].pop("runningStatus")
    own = entry["properties"].pop("rollcall")
    assert (own["override"], own["rollbackOf"], own["skippedInstanceCount"]) == (False, None, 0)
    assert set(running) == {"code", "startTime", "endTime", "completedTime"}
    assert running["code"] == "Faulted"
    assert running["endTime"] == running["completedTime"]
    for moment in ("startTime", "endTime"):
        assert datetime.fromisoformat(running[moment]).utcoffset() == timedelta(0)
    assert entry == {
        "properties": {
            "progress": {
                "successfulInstanceCount": 3,
                "failedInstanceCount": 2,
                "inProgressInstanceCount": 0,
                "pendingInstanceCount": 2,
            },
            "startedBy": "Platform",
            "targetImageReference": {
                "publisher": "Contoso",
                "offer": "Web",
                "sku": "stable",
                "version": "2.0.0",
            },
            "rollbackInfo": {
                "successfullyRolledbackInstanceCount": 1,
                "failedRolledbackInstanceCount": 1,
            },
            "error": {"code": "Code", "message": "why"},
        },
        "type": "Microsoft.Compute/virtualMachineScaleSets/rollingUpgrades",
        "location": "local",
    }


async def test_m50_history_of_a_running_upgrade_has_no_end_and_no_error(fleet: Any) -> None:
    await fleet.add_upgrade({"upgrading": 1}, status="RollingForward", ended_at=None)
    (entry,) = (await fleet.get(f"{fleet.set}/osUpgradeHistory"))["value"]
    assert set(entry["properties"]["runningStatus"]) == {"code", "startTime"}
    assert set(entry["properties"]) == {
        *("runningStatus", "progress", "startedBy", "targetImageReference", "rollbackInfo"),
        "rollcall",
    }


async def test_m50_history_is_five_of_two_months_and_the_rest_is_kept(fleet: Any) -> None:
    ids = [
        await fleet.add_upgrade({}, started_at=NOW - timedelta(days=days))
        for days in (1, 2, 3, 4, 5, 6, 70)
    ]
    history = (await fleet.get(f"{fleet.set}/osUpgradeHistory"))["value"]
    times = [entry["properties"]["runningStatus"]["startTime"] for entry in history]
    assert [datetime.fromisoformat(time) for time in times] == [
        NOW - timedelta(days=days) for days in (1, 2, 3, 4, 5)
    ]
    path = f"{fleet.set}/rollcall/upgrades"
    found: list[str] = []
    link: str | None = f"{path}?api-version=2018-10-01&$top=3"
    while link:
        page = (await fleet.http.get(link)).json()
        found += [item["id"] for item in page["value"]]
        link = page.get("nextLink")
    assert found == ids


async def test_m50_an_old_upgrade_alone_is_no_history(fleet: Any) -> None:
    await fleet.add_upgrade({}, started_at=NOW - timedelta(days=70))
    assert await fleet.get(f"{fleet.set}/osUpgradeHistory") == {"value": []}


async def test_the_full_record_has_batches_and_each_result(fleet: Any) -> None:
    id = await fleet.add_upgrade({"succeeded": 1, "failed": 1})
    await fleet.add_batch(id, 1)
    one = await fleet.get(f"{fleet.set}/rollcall/upgrades/{id.upper()}")
    assert one["id"] == id
    assert one["reason"] == "2.0.0 is newer than 1.0.0"
    (batch,) = one["batches"]
    assert (batch["number"], batch["size"], batch["reason"]) == (1, 2, "2 of 10")
    assert [(r["instanceId"], r["state"], r["reason"]) for r in one["instances"]] == [
        ("0", "succeeded", "is succeeded"),
        ("1", "failed", "is failed"),
    ]
    page = await fleet.get(f"{fleet.set}/rollcall/upgrades")
    assert "instances" not in page["value"][0]
    page = await fleet.get(f"{fleet.set}/rollcall/upgrades", params={"$expand": "instances"})
    assert page["value"] == [one]
    error = await fleet.error("GET", f"{fleet.set}/rollcall/upgrades/nothing", 404)
    assert error["code"] == "RollingUpgradeNotFound"


async def test_m52_latest(fleet: Any) -> None:
    path = f"{fleet.set}/rollingUpgrades/latest"
    assert (await fleet.error("GET", path, 404))["code"] == "RollingUpgradeNotFound"
    await fleet.add_upgrade({"succeeded": 2, "pending": 1}, started_at=NOW - timedelta(hours=1))
    await fleet.add_upgrade({"upgrading": 1}, status="RollingForward", ended_at=None)
    latest = await fleet.get(path)
    assert latest["id"] == path
    assert latest["name"] == "latest"
    assert latest["type"] == "Microsoft.Compute/virtualMachineScaleSets/rollingUpgrades"
    assert latest["location"] == "local"
    properties = latest["properties"]
    assert set(properties) == {"policy", "runningStatus", "progress", "rollcall"}
    status = properties["runningStatus"]
    assert (status["code"], status["lastAction"]) == ("RollingForward", "Start")
    assert status["lastActionTime"] == status["startTime"]
    assert properties["progress"]["inProgressInstanceCount"] == 1
    assert properties["policy"]["pauseTimeBetweenBatches"] == "PT0S"


async def test_m52_cancel(fleet: Any) -> None:
    path = f"{fleet.set}/rollingUpgrades/cancel"
    await fleet.add_upgrade({}, started_at=NOW - timedelta(hours=1))
    error = await fleet.error("POST", path, 409)
    assert error["message"] == "There is no ongoing Rolling Upgrade to cancel."
    id = await fleet.add_upgrade({"upgrading": 1}, status="RollingForward", ended_at=None)
    assert (await fleet.ask("POST", path)).status_code == 202
    assert (await fleet.events())[-1] == UpgradeCancelRequested(scale_set=fleet.set, upgrade_id=id)
    await fleet.pool.execute("UPDATE upgrades SET cancel_requested = true WHERE id::text = $1", id)
    status = (await fleet.get(f"{fleet.set}/rollingUpgrades/latest"))["properties"]["runningStatus"]
    assert status["lastAction"] == "Cancel"
    assert status["lastActionTime"] > status["startTime"]


async def test_m52_start(fleet: Any) -> None:
    path = f"{fleet.set}/osRollingUpgrade"
    error = await fleet.error("POST", path, 409)
    assert error["code"] == "OperationNotAllowed"
    assert "No image" in error["message"]
    await fleet.add_image("3.0.0", exclude_from_latest=True)
    await fleet.add_image("4.0.0", withdrawn=True)
    assert "No image" in (await fleet.error("POST", path, 409))["message"]
    await fleet.add_image("2.0.0")
    assert (await fleet.ask("POST", path)).status_code == 202
    assert (await fleet.events())[-1] == UpgradeStartRequested(scale_set=fleet.set)
    await fleet.add_upgrade({"upgrading": 1}, status="RollingForward", ended_at=None)
    assert "cancel" in (await fleet.error("POST", path, 409))["message"]


async def test_m52_start_with_nothing_to_do(fleet: Any) -> None:
    path = f"{fleet.set}/osRollingUpgrade"
    await fleet.add_image("2.0.0")
    await fleet.pool.execute("UPDATE instances SET version = '2.0.0'")
    assert "2.0.0" in (await fleet.error("POST", path, 409))["message"]
    await fleet.pool.execute("DELETE FROM instances")
    assert "no instances" in (await fleet.error("POST", path, 409))["message"]
    pinned = fleet.scale_set_body(3)
    profile = pinned["properties"]["virtualMachineProfile"]
    profile["storageProfile"]["imageReference"]["version"] = "2.0.0"
    await fleet.put(fleet.set, pinned)
    assert "version set to latest" in (await fleet.error("POST", path, 400))["message"]
    assert (await fleet.error("POST", path.replace("web", "x"), 404))["code"] == "ResourceNotFound"


async def test_m41_deploy_the_model(fleet: Any) -> None:
    path = f"{fleet.set}/manualupgrade"
    assert (await fleet.ask("POST", path, {"instanceIds": ["10", "0"]})).status_code == 202
    assert (await fleet.ask("POST", path, {"InstanceIds": ["*"]})).status_code == 202
    some, every = (await fleet.events())[-2:]
    assert some == ModelDeployRequested(scale_set=fleet.set, instance_ids=("10", "0"))
    assert every == ModelDeployRequested(scale_set=fleet.set, instance_ids=("*",))
    error = await fleet.error("POST", path, 400, {"instanceIds": ["0", "7"]})
    assert "7" in error["message"]
    bodies: list[Any] = [{}, [], *({"instanceIds": wrong} for wrong in ([], "0", [0]))]
    for body in bodies:
        await fleet.error("POST", path, 400, body)
