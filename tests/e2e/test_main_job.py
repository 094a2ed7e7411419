"""The main job on the embedded stack: a published image rolls through, whatever is killed."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import most_down
from rollcall_testing import until

CAPACITY = 10
ROOT = Path(__file__).parents[2]


def _boots(folder: Path) -> list[list[str]]:
    """Return each instance's boots, as its application wrote them to its data disk."""
    return [path.read_text().split() for path in sorted(folder.glob("state/agents/**/boots"))]


async def test_the_auditor_sees_an_upgrade_from_publication_to_completion_in_order(
    folder: Path,
    running_set: Any,
) -> None:
    feed = Feed(folder)
    async with running_set(feed, CAPACITY) as (stack, fleet):
        auditor = await asyncio.create_subprocess_exec(
            sys.executable,
            str(ROOT / "examples" / "auditor" / "auditor.py"),
            "--url",
            stack.auditor_amqp_url,
            "--position",
            str(folder / "position.json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert auditor.stdout is not None
        feed.publish("2.0.0")
        seen: list[str] = []
        async with asyncio.timeout(60):
            while not seen or seen[-1] != "upgrade.completed.v1":
                seen.append((await auditor.stdout.readline()).decode().split()[1])
        auditor.terminate()
        _, errors = await auditor.communicate()
        history = await fleet.history()
    assert auditor.returncode == 0, errors.decode()  # no gap in the chain
    upgrade = seen[len(seen) - seen[::-1].index("image.published.v1") - 1 :]
    assert upgrade[:2] == ["image.published.v1", "upgrade.started.v1"]
    assert [t for t in upgrade if t.startswith("batch")] == [
        "batch.started.v1",
        "batch.completed.v1",
    ] * 5
    counts = Counter(upgrade)
    assert counts["instance.upgraded.v1"] == counts["instance.healthy.v1"] == CAPACITY
    # An application that is probed while it boots says "not yet" first.
    upgrade = [name for name in upgrade if name != "instance.unhealthy.v1"]
    first_batch = upgrade[upgrade.index("batch.started.v1") : upgrade.index("batch.completed.v1")]
    assert Counter(first_batch) == {
        "batch.started.v1": 1,
        "instance.upgraded.v1": 2,
        "instance.healthy.v1": 2,
    }
    assert [i["properties"]["runningStatus"]["code"] for i in history["value"]] == ["Completed"]


async def test_kill_9_of_orchestrator_and_agent_in_the_middle_repeats_and_loses_nothing(
    folder: Path,
    running_set: Any,
) -> None:
    feed = Feed(folder, boot_seconds=0.4)
    async with running_set(feed, CAPACITY) as (stack, fleet):
        feed.publish("2.0.0")
        await until(fleet.view, lambda view: any(i.phase == "upgrading" for i in view.instances))
        await stack.kill("instance-agent-host-1")  # in the middle of a swap; it is started again
        await until(fleet.view, lambda v: sum(i.version == "2.0.0" for i in v.instances) >= 2)
        await stack.kill("orchestrator")  # in the middle of a batch
        await until(fleet.view, lambda v: sum(i.version == "2.0.0" for i in v.instances) >= 5)
        await stack.kill("instance-agent-host-2")
        await stack.kill("health-prober")
        ended = await until(fleet.view, lambda view: view.has_ended("2.0.0") is not None)
        assert ended.has_ended("2.0.0") == "Completed"
        assert ended.is_healthy_at("2.0.0", CAPACITY)
        history = await fleet.history()
        events = await fleet.events()
    assert len(history["value"]) == 1
    requested = Counter(
        order["instance_id"]
        for event in events
        if event["type"] == "instances.upgrade_requested.v1"
        for order in event["data"]["instances"]
    )
    assert requested == {str(i): 1 for i in range(CAPACITY)}
    boots = _boots(folder)
    assert len(boots) == CAPACITY
    # An init that was started just before its agent died may be started again, on the same disk;
    # a second swap would bring a second change of version.
    for versions in boots:
        assert list(dict.fromkeys(versions)) == ["1.0.0", "2.0.0"], json.dumps(versions)
        assert sorted(versions) == versions
    assert most_down(events) <= 2
