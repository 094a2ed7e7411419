"""`rollcall explain`, `plan` and `replay` as a person runs them, on the embedded stack."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_testing import eventually, until

CAPACITY = 10
HEALTH_TIMEOUT = "PT20S"  # a shorter one would fail what is only slow on a busy machine
ROLLCALL = str(Path(sys.executable).with_name("rollcall"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command printed, and how it exited."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Return what it printed, as JSON."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A running stack with a set called web, and a hand at its commands."""

    stack: Stack
    fleet: DemoFleet
    feed: Feed
    folder: Path

    async def ask(self, *arguments: str, token_file: Path | None = None) -> Said:
        """Run a command against the stack."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ROLLCALL_")}
        process = await asyncio.create_subprocess_exec(
            ROLLCALL,
            *arguments,
            "--token-file",
            str(token_file or self.stack.token_file),
            env={**kept, "ROLLCALL_URL": self.stack.api_url, "TZ": "UTC"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return Said(code=process.returncode or 0, out=out.decode(), err=err.decode())

    async def rolled(self, version: str, *, healthy: bool = True) -> str:
        """Publish a version, wait for its upgrade to end, and return the upgrade's id."""
        self.feed.publish(version, healthy=healthy)
        ended = await until(self.fleet.view, lambda view: view.has_ended(version) is not None)
        assert ended.upgrade is not None
        return str(ended.upgrade["id"])

    def file(self, policy: dict[str, Any]) -> str:
        """Write a policy file, and return where it is."""
        path = self.folder / "policy.json"
        path.write_text(json.dumps(policy))
        return str(path)


@asynccontextmanager
async def running(folder: Path, **policy: Any) -> AsyncIterator[Place]:
    """Give a stack with a healthy set of ten at version 1.0.0."""
    feed = Feed(folder, boot_seconds=0.3)
    feed.publish("1.0.0")
    options = StackOptions(state_dir=folder / "state", config=feed.write_config(), throwaway=True)
    async with Stack(options) as stack:
        fleet = DemoFleet(stack.api_url, stack.token)
        place = Place(stack=stack, fleet=fleet, feed=feed, folder=folder)
        try:
            await fleet.create(CAPACITY, health_timeout=HEALTH_TIMEOUT, policy=policy)
            await until(place.fleet.view, lambda view: view.is_healthy_at("1.0.0", CAPACITY))
            yield place
        finally:
            await fleet.close()


async def decided(place: Place) -> list[str]:
    """Return the entries of the log but those of probing, which goes on by itself."""
    probing = ("probe.requested.v1", "instance.healthy.v1", "instance.unhealthy.v1")
    return [e["id"] for e in await place.fleet.events() if e["type"] not in probing]


async def test_what_was_can_be_replayed_and_what_would_be_planned(folder: Path) -> None:
    async with running(folder) as place:
        assumed = (await place.ask("plan", "web", "--image", "2.0.0", "--json")).document
        assert assumed["assumed"]["provisioning"]["samples"] == 0
        good = await place.rolled("2.0.0")
        bad = await place.rolled("3.0.0", healthy=False)
        await until(place.fleet.view, lambda view: view.is_healthy_at("2.0.0", CAPACITY))

        await _plans(place, assumed)
        await _replays_the_good_one(place, good)
        await _replays_the_bad_one(place, bad)
        await _explains(place, bad)
        await _names_slips(place)


async def _plans(place: Place, assumed: dict[str, Any]) -> None:
    before = await decided(place)
    said = await place.ask("plan", "web", "--image", "4.0.0")
    assert said.code == 0, said.err
    assert "web: to 4.0.0 takes" in said.out
    assert "in 5 batches: Completed at" in said.out
    assert "1 of 2 fail" in said.out
    document = (await place.ask("plan", place.fleet.id, "--image", "4.0.0", "--json")).document
    assert document["succeeds"] is True
    # The two of 3.0.0 that were put back were provisioned, but never healthy on it.
    assert document["assumed"]["provisioning"]["samples"] >= CAPACITY
    assert document["assumed"]["healthy"]["samples"] >= CAPACITY
    assert document["assumed"]["provisioning"]["median"] < 30
    (upgrade,) = document["upgrades"]
    assert [batch["instances"] for batch in upgrade["batches"]] == [
        batch["instances"] for batch in assumed["upgrades"][0]["batches"]
    ]
    assert [batch["failuresToStop"] for batch in upgrade["batches"]] == [1, 1, 2, 2, None]
    wide = place.file({"maxBatchInstancePercent": 50, "maxUnhealthyInstancePercent": 50})
    other = await place.ask("plan", "web", "--image", "4.0.0", "--policy", wide, "--json")
    assert len(other.document["upgrades"][0]["batches"]) == 2
    # What failed here is not tried again by itself, which a plan without a version says.
    barred = await place.ask("plan", "web")
    assert "did not succeed here before" in barred.out
    assert await decided(place) == before  # nothing was changed, nothing begun


async def _replays_the_good_one(place: Place, id: str) -> None:
    said = await place.ask("replay", id, "--json")
    assert said.code == 0, said.err
    document = said.document
    assert document["same"] is True
    assert document["recorded"]["status"] == "Completed"
    assert len(document["replayed"]["batches"]) == 5
    assert document["unreached"] == []
    canary = place.file({"canaryInstanceCount": 1, "canaryBakeTime": "PT10M"})
    said = await place.ask("replay", id, "--set", "web", "--policy", canary)
    assert said.code == 0, said.err
    assert "was Completed after 5 batches" in said.out
    assert "it would have been Completed after 6 batches and 10 min" in said.out


async def _replays_the_bad_one(place: Place, id: str) -> None:
    said = await place.ask("replay", "latest", "--set", "web", "--json")
    assert said.code == 1, said.err  # it would not have been completed
    document = said.document
    assert document["upgradeId"] == id
    assert document["same"] is True, document
    assert document["replayed"]["status"] == "Faulted"
    assert document["replayed"]["error"]["code"] == document["recorded"]["error"]["code"]
    (batch,) = document["replayed"]["batches"]
    assert (batch["succeeded"], batch["failed"]) == (0, 2)
    lax = place.file({"maxUnhealthyUpgradedInstancePercent": 100})
    said = await place.ask("replay", id, "--policy", lax)
    assert said.code == 0, said.err
    assert "8 instances were not reached" in said.out
    one = place.file({"maxBatchInstanceCount": 1})
    said = await place.ask("replay", id, "--policy", one, "--json")
    assert [batch["instances"] for batch in said.document["replayed"]["batches"]] == [["0"]]


async def _explains(place: Place, bad: str) -> None:
    said = await place.ask("explain", "web", "--decisions", "4")
    assert said.code == 0, said.err
    first = said.out.splitlines()[0]
    assert first.startswith("The last upgrade of web, to 3.0.0, ended Faulted")
    assert f"id {bad}" in said.out
    assert "upgrade faulted" in said.out
    assert "Instance found to be unhealthy or unreachable" in said.out
    document = (await place.ask("explain", "WEB", "--json")).document
    assert document["waitingFor"]["code"] == "VersionBarred"
    assert len(document["instances"]) == CAPACITY


async def _names_slips(place: Place) -> None:
    said = await place.ask("explain", "shop")
    assert (said.code, said.out) == (2, "")
    assert said.err == "rollcall: there is no scale set shop. There are: web\n"
    said = await place.ask("plan", place.fleet.id + "x")
    assert said.code == 2
    assert "ResourceNotFound" in said.err
    said = await place.ask("replay", "5b1f0000-0000-0000-0000-000000000000")
    assert said.code == 2
    assert "no scale set has an upgrade 5b1f" in said.err
    wrong = place.folder / "token"
    wrong.write_text("another")
    said = await place.ask("explain", "web", token_file=wrong)
    assert said.code == 2
    assert "does not take this token" in said.err
    twin = DemoFleet(place.stack.api_url, place.stack.token)
    twin.id = place.fleet.id.replace("resourceGroups/demo", "resourceGroups/other")
    await twin.create(0, health_timeout=HEALTH_TIMEOUT)
    said = await place.ask("explain", "web")
    assert said.code == 2
    assert twin.id in said.err
    assert place.fleet.id in said.err
    assert (await place.ask("explain", "web", "-g", "demo")).code == 0
    await twin.close()


async def test_a_running_upgrade_is_explained_and_its_rest_planned(folder: Path) -> None:
    async with running(folder, pauseTimeBetweenBatches="PT1H") as place:
        place.feed.publish("2.0.0")
        await until(place.fleet.view, lambda v: sum(i.version == "2.0.0" for i in v.instances) == 2)

        async def paused() -> dict[str, Any] | None:
            answer = await place.fleet.http.get(f"{place.fleet.id}/explain")
            found: dict[str, Any] = answer.json()["waitingFor"]
            return found if found["code"] == "PauseBetweenBatches" else None

        waits = await eventually(paused, timeout=60, interval=0.1)
        assert waits is not None
        said = await place.ask("explain", "web")
        assert "web is brought to 2.0.0: 2 of 10 instances are done" in said.out
        assert "Until " in said.out.splitlines()[1]
        assert "waits for its batch" in said.out

        before = await decided(place)
        said = await place.ask("plan", "web", "--json")
        assert said.code == 0, said.err
        (upgrade,) = said.document["upgrades"]
        assert [batch["number"] for batch in upgrade["batches"]] == [2, 3, 4, 5]
        assert upgrade["batches"][0]["begin"] == waits["until"]
        assert upgrade["version"] == "2.0.0"
        hurry = place.file({"pauseTimeBetweenBatches": 0})
        said = await place.ask("plan", "web", "--policy", hurry)
        assert "the rest of the upgrade to 2.0.0" in said.out
        assert "keeps the policy that it started with" in said.out
        said = await place.ask("replay", "latest", "--set", "web")
        assert said.code == 2
        assert "has not ended" in said.err
        assert await decided(place) == before
