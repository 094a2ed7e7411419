"""The rules that operators ask for, on the embedded stack with real instances."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, most_down
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_testing import eventually, until


@asynccontextmanager
async def stack_with(folder: Path, feed: Feed, **names: int) -> AsyncIterator[list[DemoFleet]]:
    """Give sets of these sizes, healthy at 1.0.0, on one stack."""
    feed.publish("1.0.0")
    options = StackOptions(state_dir=folder / "state", config=feed.write_config(), throwaway=True)
    async with Stack(options) as stack:
        fleets = [DemoFleet(stack.api_url, stack.token, name=name) for name in names]
        for fleet, size in zip(fleets, names.values(), strict=True):
            await fleet.create(size, health_timeout="PT3S")
        for fleet, size in zip(fleets, names.values(), strict=True):
            await until(fleet.view, lambda view, size=size: view.is_healthy_at("1.0.0", size))  # type: ignore[misc]  # mypy infers no lambda with a default
        yield fleets
        for fleet in fleets:
            await fleet.close()


def boots(folder: Path) -> list[list[str]]:
    """Return each instance's boots, as its application wrote them to its data disk."""
    return [path.read_text().split() for path in folder.glob("state/agents/**/boots")]


async def waits_for(fleet: DemoFleet, code: str) -> dict[str, Any]:
    """Return the explanation, once it says that the set waits for this."""

    async def look() -> dict[str, Any] | None:
        answer = await fleet.http.get(f"{fleet.id}/explain")
        answer.raise_for_status()
        document: dict[str, Any] = answer.json()
        return document if document["waitingFor"]["code"] == code else None

    found: dict[str, Any] | None = await eventually(look, timeout=60, interval=0.05)
    assert found is not None
    return found


async def post(fleet: DemoFleet, path: str, body: dict[str, Any] | None = None) -> None:
    (await fleet.http.post(path, json=body or {})).raise_for_status()


async def switch(fleet: DemoFleet, *, automatic: bool) -> None:
    policy = {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": automatic}}
    body = {"properties": {"upgradePolicy": policy}}
    (await fleet.http.patch(fleet.id, json=body)).raise_for_status()


async def test_a_version_that_faulted_in_one_set_is_held_in_another_until_it_is_released(
    folder: Path,
) -> None:
    feed = Feed(folder)
    async with stack_with(folder, feed, first=2, second=2) as (first, second):
        await switch(second, automatic=False)
        feed.publish("2.0.0", healthy=False)
        await until(first.view, lambda view: view.has_ended("2.0.0") == "Faulted")
        await switch(second, automatic=True)
        held = await waits_for(second, "VersionHeld")
        assert first.id in held["sentence"]
        assert (await second.view()).upgrade is None
        await post(second, "/rollcall/holds/Contoso/Web/stable/2.0.0/release", {"reason": "again"})
        await until(second.view, lambda view: view.has_ended("2.0.0") == "Faulted")


async def test_a_rollback_brings_back_what_was_there_and_keeps_the_bad_version_off(
    folder: Path,
) -> None:
    feed = Feed(folder)
    async with stack_with(folder, feed, web=6) as (fleet,):
        feed.publish("2.0.0")
        await until(fleet.view, lambda view: view.has_ended("2.0.0") == "Completed")
        await post(fleet, f"{fleet.id}/rollingUpgrades/rollback", {"reason": "the shop is slow"})
        await until(fleet.view, lambda view: view.has_ended("1.0.0") == "Completed")
        await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", 6))
        held = await waits_for(fleet, "VersionHeld")
        assert "rolled back" in held["sentence"]
        assert most_down(await fleet.events()) == 1  # a rollback keeps the cap
        assert boots(folder) == [["1.0.0", "2.0.0", "1.0.0"]] * 6  # one data disk through it all


async def test_a_paused_upgrade_stands_still_until_it_is_resumed(folder: Path) -> None:
    feed = Feed(folder, boot_seconds=0.3)
    async with stack_with(folder, feed, web=5) as (fleet,):
        feed.publish("2.0.0")
        await until(fleet.view, lambda view: any(i.version == "2.0.0" for i in view.instances))
        await post(fleet, f"{fleet.id}/rollingUpgrades/pause")
        await waits_for(fleet, "Paused")
        batches = [e for e in await fleet.events() if e["type"] == "batch.started.v1"]
        await post(fleet, f"{fleet.id}/rollingUpgrades/resume")
        await until(fleet.view, lambda view: view.is_healthy_at("2.0.0", 5))
        assert 0 < len(batches) < 5


async def test_an_override_brings_the_fix_to_a_sick_set(folder: Path) -> None:
    feed = Feed(folder)
    async with stack_with(folder, feed, web=4) as (fleet,):
        await switch(fleet, automatic=False)
        feed.publish("2.0.0", healthy=False)
        body = {"instanceIds": ["*"]}
        await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", 4))
        await _published(fleet, "2.0.0")
        await post(fleet, f"{fleet.id}/manualupgrade", body)  # past every gate, as in Azure
        await until(fleet.view, lambda view: all(i.health == "Unhealthy" for i in view.instances))
        feed.publish("3.0.0")
        await _published(fleet, "3.0.0")
        await switch(fleet, automatic=True)
        await waits_for(fleet, "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade")
        why = {"override": True, "reason": "3.0.0 is the fix"}
        await post(fleet, f"{fleet.id}/osRollingUpgrade", why)
        await until(fleet.view, lambda view: view.is_healthy_at("3.0.0", 4))
        started = [e for e in await fleet.events() if e["type"] == "upgrade.started.v1"]
        assert "3.0.0 is the fix" in started[-1]["data"]["reason"]


async def _published(fleet: DemoFleet, version: str) -> None:
    async def look() -> bool:
        return version in await fleet.published()

    await eventually(look, timeout=60, interval=0.05)
