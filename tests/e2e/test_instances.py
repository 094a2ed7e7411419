"""What people do with single instances, on the embedded stack with real instances."""

import asyncio
from pathlib import Path
from typing import Any

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, most_down
from rollcall_testing import eventually, until

CAPACITY = 5


async def ask(
    fleet: DemoFleet, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Send a request, and return how its operation ended."""
    answer = await fleet.http.request(method, f"{fleet.id}/{path}", json=body)
    assert answer.status_code == 202, answer.text
    link = answer.headers["azure-asyncoperation"]

    async def look() -> dict[str, Any] | None:
        document: dict[str, Any] = (await fleet.http.get(link)).json()
        return None if document["status"] == "InProgress" else document

    found: dict[str, Any] | None = await eventually(look, timeout=120, interval=0.05)
    assert found is not None
    return found


async def power(fleet: DemoFleet, id: str) -> str:
    """Return an instance's power state, such as `running`."""
    view = await fleet.http.get(f"{fleet.id}/virtualMachines/{id}/instanceView")
    code: str = view.json()["statuses"][1]["code"]
    return code.removeprefix("PowerState/")


def boots(folder: Path) -> list[list[str]]:
    """Return each instance's boots, as its application wrote them to its data disk."""
    return sorted(path.read_text().split() for path in folder.glob("state/agents/**/boots"))


async def test_what_a_person_stopped_stays_stopped_and_follows_when_it_is_started(
    folder: Path,
    running_set: Any,
) -> None:
    feed = Feed(folder)
    async with running_set(feed, CAPACITY) as (stack, fleet):
        done = await ask(fleet, "POST", "deallocate", {"instanceIds": ["1"]})
        assert done["status"] == "Succeeded"
        assert (await ask(fleet, "POST", "virtualMachines/3/powerOff"))["status"] == "Succeeded"
        assert [await power(fleet, id) for id in "0123"] == [
            *("running", "deallocated", "running", "stopped")
        ]
        names = ["orchestrator", *(f"instance-agent-{host}" for host in stack.hosts)]
        await asyncio.gather(*(stack.kill(name) for name in names))  # each starts again
        feed.publish("2.0.0")
        await until(fleet.view, lambda view: view.has_ended("2.0.0") == "Completed")
        assert [i.version for i in (await fleet.view()).instances] == [
            *("2.0.0", "1.0.0", "2.0.0", "1.0.0", "2.0.0")
        ]
        assert [await power(fleet, id) for id in "13"] == ["deallocated", "stopped"]
        assert most_down(await fleet.events()) == 1
        started = await ask(fleet, "POST", "start")
        assert started["status"] == "Succeeded", started
        await until(fleet.view, lambda view: view.is_healthy_at("2.0.0", CAPACITY))
        twice = ["1.0.0", "2.0.0"]
        assert boots(folder) == [["1.0.0", *twice], ["1.0.0", *twice], *([twice] * 3)]


async def test_new_os_disks_come_a_few_at_a_time_and_keep_the_data_disks(
    folder: Path, running_set: Any
) -> None:
    feed = Feed(folder)
    async with running_set(feed, CAPACITY) as (_, fleet):
        assert (await ask(fleet, "POST", "reimageall"))["status"] == "Succeeded"
        await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", CAPACITY))
        assert most_down(await fleet.events()) == 1
        assert boots(folder) == [["1.0.0"] * 2] * CAPACITY
        rolled = await ask(fleet, "POST", "osRollingUpgrade", {"forceReimage": True})
        assert rolled["status"] == "Succeeded"
        assert most_down(await fleet.events()) == 1
        assert boots(folder) == [["1.0.0"] * 3] * CAPACITY
        done = await ask(fleet, "POST", "restart", {"instanceIds": ["4"]})
        assert done["status"] == "Succeeded"
        await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", CAPACITY))
        assert sorted(len(each) for each in boots(folder)) == [3, 3, 3, 3, 4]


async def test_the_very_instances_that_are_deleted_go_and_no_others(
    folder: Path, running_set: Any
) -> None:
    feed = Feed(folder, boot_seconds=0.5)
    async with running_set(feed, CAPACITY) as (_, fleet):
        feed.publish("2.0.0")
        await until(fleet.view, lambda view: any(i.phase == "upgrading" for i in view.instances))
        answer = await fleet.http.post(f"{fleet.id}/reimage", json={})
        assert answer.status_code == 409
        assert "rollingUpgrades/cancel" in answer.json()["error"]["message"]
        gone = await ask(fleet, "POST", "delete", {"instanceIds": ["0", "2"]})
        assert gone["status"] == "Succeeded"
        assert [i.id for i in (await fleet.view()).instances] == ["1", "3", "4"]
        await until(fleet.view, lambda view: view.is_healthy_at("2.0.0", 3))
        assert (await ask(fleet, "DELETE", "virtualMachines/3"))["status"] == "Succeeded"
        assert [i.id for i in (await fleet.view()).instances] == ["1", "4"]
        scaled = await fleet.http.patch(fleet.id, json={"sku": {"capacity": 3}})
        assert scaled.status_code == 200
        await until(fleet.view, lambda view: view.is_healthy_at("2.0.0", 3))
        assert [i.id for i in (await fleet.view()).instances] == ["1", "4", "5"]
