"""What a set waits for and why, its state for planners, and an upgrade's part of the log."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts.events import (
    BatchHeld,
    BatchStarted,
    InstanceHealthy,
    InstanceRestored,
    InstanceUpgraded,
    UpgradeCompleted,
    UpgradeStarted,
)
from rollcall_contracts.model import Image, RollingPolicy, ScaleSetSpec, StartedBy

NOW = datetime.now(UTC)
IMAGE = Image(
    publisher="Contoso",
    offer="Web",
    sku="stable",
    version="2.0.0",
    url="file:///x",
    sha256="0" * 64,
    size=1,
)
WAITING = {"code": "Paused", "message": "A person paused the upgrade.", "until": None}


def started(scale_set: str, id: str) -> UpgradeStarted:
    return UpgradeStarted(
        scale_set=scale_set,
        upgrade_id=id,
        image=IMAGE,
        policy=RollingPolicy(),
        started_by=StartedBy.PLATFORM,
        restore_failed=True,
        instance_ids=("0", "1"),
        reason="2 of 3 are below 2.0.0",
    )


@pytest.fixture
async def fleet(api: Any) -> Any:
    """Return the API with a set of three instances, as the orchestrator has it."""
    await api.put(api.set, api.scale_set_body(3, osProfile={"customData": "aGk="}), 201)
    (event,) = await api.events()
    await api.add_fleet(spec=event.spec.model_dump(mode="json"), waiting=WAITING)
    for id in ("0", "1", "2"):
        await api.add_instance(id)
    return api


async def test_a_set_that_nobody_has_taken_over(api: Any) -> None:
    await api.put(api.set, api.scale_set_body(3), 201)
    shown = await api.get(f"{api.set}/explain")
    assert shown["waitingFor"]["code"] == "NotTakenOver"
    assert [entry["type"] for entry in shown["decisions"]] == ["scale_set.changed.v1"]
    assert shown["upgrade"] is None
    error = await api.error("GET", f"{api.set}/state", 503)
    assert "orchestrator" in error["message"]
    await api.error("GET", f"{api.set}x/explain", 404)


async def test_explain_a_running_upgrade(fleet: Any) -> None:
    id = await fleet.add_upgrade(
        {"succeeded": 1, "pending": 1}, status="RollingForward", ended_at=None
    )
    await fleet.append(started(fleet.set, id))
    await fleet.append(
        InstanceHealthy(scale_set=fleet.set, instance_id="0", attempt=1, reason="HTTP 200"),
        InstanceRestored(
            scale_set=fleet.set,
            instance_id="1",
            attempt=2,
            version="1.0.0",
            generation=1,
            address="10.0.0.1",
            port=80,
            reason="its console ended with: panic",  # shown with the instance
        ),
        BatchHeld(scale_set=fleet.set, upgrade_id=id, code="Paused", reason="A person paused."),
    )
    shown = await fleet.get(f"{fleet.set}/explain")
    assert shown["waitingFor"] == {**WAITING, "details": {}}
    assert "1 of 2 instances are done" in shown["sentence"]
    assert shown["upgrade"]["id"] == id
    assert [entry["type"] for entry in shown["decisions"]] == [
        "batch.held.v1",
        "upgrade.started.v1",
        "scale_set.changed.v1",
    ]
    held = shown["decisions"][0]
    assert (held["reason"], held["code"], held["upgradeId"]) == ("A person paused.", "Paused", id)
    assert [(item["id"], item["state"]) for item in shown["instances"]] == [
        ("0", "succeeded"),
        ("1", "pending"),
        ("2", None),
    ]
    one = await fleet.get(f"{fleet.set}/Explain", params={"$top": "1"})
    assert len(one["decisions"]) == 1


async def test_explain_shows_the_hook_that_asks(fleet: Any) -> None:
    moment = NOW.isoformat()
    await fleet.set_fleet(
        waiting={"code": "LifecycleHookWaiting", "message": "asks", "until": moment},
        hook={
            "id": "h-1",
            "type": "UpgradeAutoOSScheduling",
            "upgrade_id": None,
            "version": "2.0.0",
            "created_at": moment,
            "wait_until": moment,
            "max_wait_until": moment,
            "default_action": "Approve",
            "targets": {"*": "Waiting"},
        },
    )
    waiting = (await fleet.get(f"{fleet.set}/explain"))["waitingFor"]
    hook = waiting["details"]["lifecycleHookEvent"]
    assert hook["id"] == f"{fleet.set}/lifecycleHookEvents/h-1"
    assert waiting["until"] == moment


async def test_the_state_is_all_that_a_planner_needs(fleet: Any) -> None:
    await fleet.add_image("1.0.0")
    await fleet.add_image("2.0.0")
    await fleet.add_image("3.0.0", withdrawn=True)
    await fleet.add_hold("2.0.0")
    await fleet.set_fleet(barred_version="2.0.0", last_version="1.0.0")
    shown = await fleet.get(f"{fleet.set}/state")
    assert NOW <= datetime.fromisoformat(shown["time"]) <= datetime.now(UTC)
    spec = ScaleSetSpec.model_validate(shown["spec"])
    assert spec.capacity == 3
    assert shown["spec"]["provisioning"]["sealed_custom_data"] is None
    assert [row["id"] for row in shown["instances"]] == ["0", "1", "2"]
    columns = await fleet.pool.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'instance_view'"
    )
    assert set(shown["instances"][0]) == {row["column_name"] for row in columns}
    images = [Image.model_validate(image) for image in shown["images"]]
    assert sorted(image.version for image in images) == ["1.0.0", "2.0.0"]
    assert all(image.published_at is not None for image in images)
    assert shown["upgrade"] is None
    assert (shown["barredVersion"], shown["lastVersion"]) == ("2.0.0", "1.0.0")
    assert [hold["version"] for hold in shown["holds"]] == ["2.0.0"]
    id = await fleet.add_upgrade({"pending": 2}, status="RollingForward", ended_at=None)
    upgrade = (await fleet.get(f"{fleet.set}/state"))["upgrade"]
    assert upgrade["id"] == id
    assert RollingPolicy.model_validate(upgrade["policy"]) == RollingPolicy()
    assert [(member["id"], member["state"]) for member in upgrade["members"]] == [
        ("0", "pending"),
        ("1", "pending"),
    ]


async def test_durations_are_measured_in_the_log(fleet: Any) -> None:
    begin = datetime.now(UTC) - timedelta(seconds=1)
    # It ends when that is decided; what was reported with it enters the log a moment later.
    id = await fleet.add_upgrade({"succeeded": 1}, started_at=begin, ended_at=datetime.now(UTC))
    await fleet.add_upgrade({}, started_at=begin - timedelta(seconds=9), ended_at=begin)
    await fleet.append(
        BatchStarted(scale_set=fleet.set, upgrade_id=id, batch=1, instance_ids=("0",))
    )
    report = {"scale_set": fleet.set, "instance_id": "0", "attempt": 2}
    await fleet.append(
        InstanceUpgraded(**report, version="2.0.0", generation=1, address="a", port=1)
    )
    await fleet.append(InstanceHealthy(**report))
    times = await fleet.pool.fetch(
        "SELECT extract(epoch FROM time)::float8 AS at FROM event_log WHERE type IN "
        "('batch.started.v1', 'instance.upgraded.v1', 'instance.healthy.v1') ORDER BY sequence"
    )
    first, second, third = (row["at"] for row in times)
    found = (await fleet.get(f"{fleet.set}/state"))["durations"]
    assert found["provisioning"] == [pytest.approx(second - first, abs=1e-4)]
    assert found["healthy"] == [pytest.approx(third - second, abs=1e-4)]


async def test_the_events_of_one_upgrade(fleet: Any) -> None:
    ids = [
        await fleet.add_upgrade({}, started_at=datetime.now(UTC), ended_at=None),
        await fleet.add_upgrade(
            {}, started_at=datetime.now(UTC), ended_at=None, status="RollingForward"
        ),
    ]
    report = InstanceHealthy(scale_set=fleet.set, instance_id="0", attempt=1)
    await fleet.append(report, started(fleet.set, ids[0]), report)
    await fleet.append(UpgradeCompleted(scale_set=fleet.set, upgrade_id=ids[0]), report)
    await fleet.append(started(fleet.set, ids[1]), report)
    path = f"{fleet.set}/rollcall/upgrades"
    found: list[dict[str, Any]] = []
    link: str | None = f"{path}/{ids[0]}/events?api-version=2018-10-01&limit=2"
    while link:
        page = (await fleet.http.get(link)).json()
        found += page["value"]
        link = page.get("nextLink")
    assert [event["type"] for event in found] == [
        "upgrade.started.v1",
        "instance.healthy.v1",
        "upgrade.completed.v1",
    ]
    assert [event["sequence"] for event in found] == ["3", "4", "5"]
    running = await fleet.get(f"{path}/{ids[1]}/Events")
    assert [event["sequence"] for event in running["value"]] == ["7", "8"]
    await fleet.error("GET", f"{path}/nothing/events", 404)


async def test_the_latest_upgrade_shows_what_azure_has_no_place_for(fleet: Any) -> None:
    await fleet.add_upgrade(
        {"succeeded": 9, "failed": 1, "skipped": 2, "pending": 1},
        status="RollingForward",
        ended_at=None,
        override=True,
        pause_requested=True,
    )
    properties = (await fleet.get(f"{fleet.set}/rollingUpgrades/latest"))["properties"]
    assert properties["progress"] == {
        "successfulInstanceCount": 9,
        "failedInstanceCount": 1,
        "inProgressInstanceCount": 0,
        "pendingInstanceCount": 3,
    }
    own = properties["rollcall"]
    assert own["waitingFor"] == WAITING
    assert (own["skippedInstanceCount"], own["override"], own["pauseRequested"]) == (2, True, True)
    error = properties["error"]
    assert error["code"] == "RollingUpgradeInProgressWithFailedUpgradedVMs"
    assert "First failed instance ID is: 9." in error["message"]
    assert properties["policy"]["bakeTime"] == "PT0S"
    (entry,) = (await fleet.get(f"{fleet.set}/osUpgradeHistory"))["value"]
    assert entry["properties"]["error"] == error
    assert entry["properties"]["rollcall"]["override"] is True
    assert (await fleet.get(fleet.set))["properties"]["rollcall"]["waitingFor"] == WAITING


async def test_an_older_orchestrator_is_waited_for(fleet: Any) -> None:
    await fleet.pool.execute("ALTER VIEW fleet_view RENAME COLUMN waiting TO waits")
    error = await fleet.error("GET", fleet.set, 503)
    assert error["code"] == "ServiceUnavailable"
