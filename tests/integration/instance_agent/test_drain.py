"""Instances that are emptied before they are stopped: real processes that answer by HTTP."""

import asyncio
import gzip
import hashlib
import io
import os
import re
import signal
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from instance_agent.app import build_host
from instance_agent.domain.record import Operation, Order, Record
from instance_agent.drivers import procfs
from instance_agent.host import Job
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
from prometheus_client import REGISTRY
from rollcall_contracts.events import (
    Event,
    InstanceCreated,
    InstanceDeleted,
    InstanceReport,
    InstanceRestored,
    InstanceUpgraded,
)
from rollcall_contracts.model import Drain, Image, Provisioning
from rollcall_testing import eventually
from rollcall_testing.instances import HOST

SET = "/sets/web"

APP = Path(__file__).with_name("draining_app.py").read_text()


class Rig:
    """One host with one instance that can be drained, and what was reported of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings.model_validate(
            {"host": HOST, "state_dir": folder / "agent", "stop_grace": 2}
        )
        self.host = build_host(self.settings)
        self.reports: list[Event] = []

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def image(self, version: str, init: str) -> Image:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            member = tarfile.TarInfo("init")
            member.size, member.mode = len(init), 0o755
            tar.addfile(member, io.BytesIO(init.encode()))
        content = gzip.compress(raw.getvalue())
        path = self.folder / f"{version}.tar.gz"
        path.write_bytes(content)
        return Image(
            publisher="P",
            offer="O",
            sku="S",
            version=version,
            url=path.as_uri(),
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
        )

    async def ask(
        self,
        operation: Operation,
        attempt: int,
        image: Image | None = None,
        drain: Drain | None = None,
    ) -> Event:
        """Give an order, and return the last thing reported."""
        order = Order(
            scale_set=SET,
            instance_id="0",
            attempt=attempt,
            operation=operation,
            version=image.version if image else "",
            generation=attempt,
        )
        provisioning = Provisioning(generation=attempt)
        job = Job(order=order, image=image, provisioning=provisioning, drain=drain)
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    async def begin(self, *answers: int | str) -> None:
        """Make the instance, whose hook gives these answers."""
        image = self.image("1.0.0", APP.replace("ANSWERS = [202]", f"ANSWERS = {list(answers)}"))
        assert isinstance(await self.ask(Operation.CREATE, 1, image), InstanceCreated)
        await eventually((self.data / "listens").exists)

    async def upgrade(self, attempt: int = 2, **drain: object) -> InstanceReport:
        image = self.image("2.0.0", "#!/bin/sh\nexec sleep 1000\n")
        report = await self.ask(Operation.UPGRADE, attempt, image, hook(**drain))
        assert isinstance(report, InstanceUpgraded), report
        return report

    @property
    def data(self) -> Path:
        (top,) = (self.settings.state_dir / "instances").iterdir()
        return top / "data" / "0"

    def posts(self) -> list[list[str]]:
        """Return what the hook was asked: when, the path, and the OS disks there were."""
        path = self.data / "posts"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def record(self) -> Record:
        record = self.host.journal.get(SET, "0")
        assert record is not None
        return record


def hook(**changes: object) -> Drain:
    return Drain.model_validate({"request_path": "/drain?now=1", "deadline": 60, **changes})


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("rollcall_instance_drains_total", {"outcome": outcome}) or 0.0


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    await rig.host.power.close()
    rig.host.journal.close()
    assert await stop_all(rig.settings.model_copy(update={"stop_grace": 0.2})) == 0


async def test_an_instance_is_stopped_when_it_says_that_it_is_empty(rig: Rig) -> None:
    await rig.begin(202, 202, 200)
    before = counted("empty")
    # A port of the model is the instance's own; this driver has mapped it to another.
    upgraded = await rig.upgrade(port=1)
    assert re.fullmatch(r"drained in 0\.\d s, asked 3 times", upgraded.reason)
    posts = rig.posts()
    assert [path for _, path, _ in posts] == ["/drain?now=1"] * 3
    # What can be done before is done before: the new OS disk lay ready at the first question.
    assert posts[0][2] == "000001-1.0.0,000002-2.0.0"
    assert counted("empty") == before + 1
    assert rig.record.draining is None
    again = await rig.upgrade()
    assert (again, len(rig.posts())) == (upgraded, 3)


async def test_one_that_never_empties_is_stopped_at_the_deadline(rig: Rig) -> None:
    await rig.begin(202)
    before = counted("deadline")
    started = time.monotonic()
    upgraded = await rig.upgrade(deadline=1)
    assert 1 <= time.monotonic() - started < 10
    assert re.fullmatch(
        r"not drained in 1\.\d s, stopped all the same; the last of it: "
        r"POST http://127\.0\.0\.1:\d+/drain\?now=1 answered 202",
        upgraded.reason,
    )
    times = [float(when) for when, _, _ in rig.posts()]
    assert len(times) >= 3
    assert times[-1] - times[0] < 1.5
    assert counted("deadline") == before + 1


@pytest.mark.parametrize(
    ("answers", "asked"),
    [((503, 429, 204), 3), ((202, 404, "drop", 302, 200), 5), ((500, "drop", 200), 3)],
)
async def test_trouble_is_waited_out_where_the_hook_is_there(
    rig: Rig, answers: tuple[int | str, ...], asked: int
) -> None:
    await rig.begin(*answers)
    upgraded = await rig.upgrade()
    assert upgraded.reason.startswith("drained in ")
    assert len(rig.posts()) == asked


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (404, "answered 404"),
        (401, "answered 401"),
        (302, "answered 302"),
        ("drop", "ServerDisconnectedError"),
        ("hang", "had no answer in 0.5 s"),
    ],
)
async def test_without_a_hook_it_is_stopped_at_once(rig: Rig, answer: int | str, why: str) -> None:
    await rig.begin(answer)
    before = counted("no_hook")
    upgraded = await rig.upgrade(deadline=0.5)
    assert upgraded.reason.startswith("not drained, stopped all the same: POST http://127.0.0.1:")
    assert upgraded.reason.endswith(why)
    assert len(rig.posts()) == 1
    assert counted("no_hook") == before + 1


async def test_where_nobody_listens_it_is_stopped_at_once(rig: Rig) -> None:
    image = rig.image("1.0.0", "#!/bin/sh\nexec sleep 1000\n")
    await rig.ask(Operation.CREATE, 1, image)
    assert (await rig.upgrade()).reason.endswith("Connection refused")


async def test_one_that_ends_by_itself_is_not_waited_for(rig: Rig) -> None:
    await rig.begin("exit")
    upgraded = await rig.upgrade()
    assert re.fullmatch(r"ended by itself 0\.\d s after it was asked to drain", upgraded.reason)
    assert [type(report) for report in rig.reports] == [InstanceCreated, InstanceUpgraded]


async def test_a_stopped_instance_is_not_asked(rig: Rig) -> None:
    await rig.begin(202)
    for process, values in procfs.leaders_with("ROLLCALL_DATA_DIR"):
        if values["ROLLCALL_DATA_DIR"] == str(rig.data):
            os.kill(process.pid, signal.SIGKILL)
    await eventually(lambda: len(rig.reports) == 2)  # its power has changed
    assert (await rig.upgrade()).reason == ""
    assert rig.posts() == []


async def test_a_deletion_drains_too(rig: Rig) -> None:
    await rig.begin(202, 200)
    top = rig.data.parent.parent
    deleted = await rig.ask(Operation.DELETE, 2, drain=hook())
    assert isinstance(deleted, InstanceDeleted)
    assert re.fullmatch(r"drained in 0\.\d s, asked 2 times", deleted.reason)
    assert not top.exists()


async def test_without_a_drain_nothing_is_asked(rig: Rig) -> None:
    await rig.begin(202)
    report = await rig.ask(Operation.UPGRADE, 2, rig.image("2.0.0", "#!/bin/sh\nsleep 1000\n"))
    assert isinstance(report, InstanceUpgraded)
    assert (report.reason, rig.posts()) == ("", [])


async def test_a_newer_attempt_ends_a_drain(rig: Rig) -> None:
    await rig.begin(202)
    image = rig.image("2.0.0", "#!/bin/sh\nexec sleep 1000\n")
    upgrade = asyncio.create_task(rig.ask(Operation.UPGRADE, 2, image, hook(deadline=3600)))
    await eventually(lambda: len(rig.posts()) >= 2)
    assert rig.record.draining is not None
    (rig.data / "listens").unlink()
    restored = await rig.ask(Operation.RESTORE, 3)
    await upgrade
    assert isinstance(restored, InstanceRestored)
    assert (restored.version, restored.reason) == ("1.0.0", "")
    assert rig.record.draining is None
    assert not any(isinstance(report, InstanceUpgraded) for report in rig.reports)
    # The next upgrade has a deadline of its own.
    await eventually((rig.data / "listens").exists)
    assert (await rig.upgrade(attempt=4, deadline=0.5)).reason.startswith("not drained in 0.")
