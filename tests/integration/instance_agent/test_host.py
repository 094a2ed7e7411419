"""One host's work with real processes, files and an HTTP server; only the broker is left out."""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from instance_agent.app import build_host
from instance_agent.domain.record import Operation, Order
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
from rollcall_cli.sample_image import build_image
from rollcall_contracts.events import (
    Event,
    InstanceCreated,
    InstanceDeleted,
    InstanceFailed,
    InstancePowerChanged,
    InstanceRestored,
    InstanceUpgraded,
)
from rollcall_contracts.model import Extension, FailureCode, Image, Power, Provisioning
from rollcall_kit.secrets import new_key, seal
from rollcall_testing import eventually

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
KEY = new_key()


class Rig:
    """A host under test, with what it reported."""

    def __init__(self, folder: Path, **more: object) -> None:
        values = {
            "host": "h1",
            "state_dir": folder / "agent",
            "stop_grace": 2,
            "secrets_key": KEY,
            "download_timeout": 5,
        }
        self.folder = folder
        self.settings = Settings.model_validate({**values, **more})
        self.host: Host = build_host(self.settings)
        self.reports: list[Event] = []

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def image(self, version: str, *, init: str | None = None, **how: bool | float) -> Image:
        path = build_image(self.folder / f"{version}.tar.gz", version, **how)  # type: ignore[arg-type]  # passed on as given
        if init is not None:
            _with_init(path, init)
        return describe(path, version)

    async def ask(
        self,
        operation: Operation,
        attempt: int,
        image: Image | None = None,
        provisioning: Provisioning | None = None,
        instance: str = "vm_0",
    ) -> Event:
        """Give an order, and return the last thing reported."""
        provisioning = provisioning or Provisioning(generation=attempt)
        order = Order(
            scale_set=SET,
            instance_id=instance,
            attempt=attempt,
            operation=operation,
            version=image.version if image else "",
            generation=provisioning.generation,
        )
        await self.host.carry_out(
            Job(order=order, image=image, provisioning=provisioning), self.report
        )
        return self.reports[-1]

    async def commit(self, attempt: int) -> None:
        order = Order(
            scale_set=SET, instance_id="vm_0", attempt=attempt, operation=Operation.UPGRADE
        )
        await self.host.commit(order)

    @property
    def top(self) -> Path:
        """The folder of the only instance."""
        (folder,) = (self.settings.state_dir / "instances").iterdir()
        return folder

    def boots(self) -> list[str]:
        return (self.top / "data" / "0" / "boots").read_text().split()

    def disks(self) -> list[str]:
        return sorted(disk.name for disk in (self.top / "disks").iterdir())

    def pid(self) -> int:
        return int(json.loads((self.top / "process.json").read_text())["pid"])

    def swaps(self) -> int:
        record = self.host.journal.get(SET, "vm_0")
        assert record is not None
        return record.swaps

    async def close(self) -> None:
        """End the agent's part; the instances go on."""
        await self.host.power.close()
        self.host.journal.close()


def _with_init(path: Path, init: str) -> None:
    import gzip
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        member = tarfile.TarInfo("init")
        member.size, member.mode = len(init), 0o755
        tar.addfile(member, io.BytesIO(init.encode()))
    path.write_bytes(gzip.compress(raw.getvalue()))


def describe(path: Path, version: str) -> Image:
    content = path.read_bytes()
    return Image(
        publisher="P",
        offer="O",
        sku="S",
        version=version,
        url=f"file://{path}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(**more: object) -> Rig:
        rigs.append(Rig(tmp_path, **more))
        return rigs[-1]

    yield make
    for rig in rigs:
        with contextlib.suppress(Exception):  # closed by the test already
            await rig.close()
    if rigs:
        assert await stop_all(rigs[0].settings.model_copy(update={"stop_grace": 0.2})) == 0


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


async def get(event: Event, path: str) -> tuple[int, str]:
    assert isinstance(event, InstanceCreated | InstanceUpgraded | InstanceRestored)
    url = f"http://{event.address}:{event.port}{path}"
    async with aiohttp.ClientSession() as session:
        for _ in range(200):
            try:
                async with session.get(url) as response:
                    return response.status, (await response.text()).strip()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)
    raise AssertionError(f"{url} never answered")


async def test_an_instance_lives_its_whole_life(rig: Rig) -> None:
    v1, v2 = rig.image("1.0.0"), rig.image("2.0.0")
    created = await rig.ask(Operation.CREATE, 1, v1)
    assert isinstance(created, InstanceCreated)
    assert (created.version, created.generation, created.attempt) == ("1.0.0", 1, 1)
    assert await get(created, "/version") == (200, "1.0.0")
    assert await get(created, "/health") == (200, '{"ApplicationHealthState": "Healthy"}')
    (rig.top / "data" / "0" / "kept").write_text("content")

    upgraded = await rig.ask(Operation.UPGRADE, 2, v2)
    assert isinstance(upgraded, InstanceUpgraded)
    assert (upgraded.address, upgraded.port) == (created.address, created.port)  # its identity
    assert await get(upgraded, "/version") == (200, "2.0.0")
    assert rig.disks() == ["000001-1.0.0", "000002-2.0.0"]

    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored)
    assert (restored.version, restored.generation) == ("1.0.0", 1)
    assert await get(restored, "/version") == (200, "1.0.0")
    assert rig.disks() == ["000001-1.0.0"]

    await rig.ask(Operation.UPGRADE, 4, v2)
    await rig.commit(4)
    assert rig.disks() == ["000004-2.0.0"]
    refused = await rig.ask(Operation.RESTORE, 5)
    assert isinstance(refused, InstanceFailed)
    assert refused.error.code == FailureCode.DRIVER
    assert "no previous OS disk" in refused.error.message

    assert await eventually(lambda: rig.boots() == ["1.0.0", "2.0.0", "1.0.0", "2.0.0"]) is not None
    assert (rig.top / "data" / "0" / "kept").read_text() == "content"
    top = rig.top
    deleted = await rig.ask(Operation.DELETE, 6)
    assert isinstance(deleted, InstanceDeleted)
    assert not top.exists()
    assert isinstance(await rig.ask(Operation.DELETE, 6), InstanceDeleted)
    assert isinstance(await rig.ask(Operation.CREATE, 1, v1), InstanceCreated)  # counts anew


async def test_asked_twice_it_answers_twice_and_acts_once(rig: Rig) -> None:
    v1, v2 = rig.image("1.0.0"), rig.image("2.0.0")
    await rig.ask(Operation.CREATE, 1, v1)
    first = await rig.ask(Operation.UPGRADE, 2, v2)
    pid = rig.pid()
    again = await asyncio.gather(*(rig.ask(Operation.UPGRADE, 2, v2) for _ in range(3)))
    assert again == [first] * 3
    assert (rig.pid(), rig.swaps()) == (pid, 2)
    count = len(rig.reports)
    await rig.ask(Operation.UPGRADE, 1, v1)
    assert len(rig.reports) == count  # an older attempt: nothing is done, nothing is said


async def test_a_redelivery_beside_the_first_handling_acts_once(rig: Rig) -> None:
    v1, v2 = rig.image("1.0.0"), rig.image("2.0.0")
    await rig.ask(Operation.CREATE, 1, v1)
    await asyncio.gather(*(rig.ask(Operation.UPGRADE, 2, v2) for _ in range(3)))
    assert rig.swaps() == 2
    assert rig.reports[1:] == [rig.reports[1]] * 3


async def test_a_failed_preparation_leaves_the_old_instance_running(rig: Rig) -> None:
    created = await rig.ask(Operation.CREATE, 1, rig.image("1.0.0"))
    pid = rig.pid()
    wrong = rig.image("2.0.0").model_copy(update={"sha256": "0" * 64})
    failed = await rig.ask(Operation.UPGRADE, 2, wrong)
    assert isinstance(failed, InstanceFailed)
    assert (failed.error.code, failed.version) == (FailureCode.IMAGE_VERIFICATION, "1.0.0")
    assert rig.pid() == pid
    assert await get(created, "/version") == (200, "1.0.0")
    restored = await rig.ask(Operation.RESTORE, 3)  # it is in place: never swapped
    assert isinstance(restored, InstanceRestored)
    assert restored.version == "1.0.0"


async def test_an_init_that_ends_at_once_is_a_failed_start(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(start_settle=5)
    await rig.ask(Operation.CREATE, 1, rig.image("1.0.0", init="#!/bin/sh\nexec sleep 1000\n"))
    broken = rig.image("2.0.0", init="#!/bin/sh\necho no such luck\nexit 3\n")
    failed = await rig.ask(Operation.UPGRADE, 2, broken)
    assert isinstance(failed, InstanceFailed)
    assert (failed.error.code, failed.version) == (FailureCode.START, "2.0.0")
    assert "exit code 3" in failed.error.message
    assert "no such luck" in failed.error.message
    unstartable = rig.image("3.0.0", init="#!/nowhere/interpreter\n")
    failed = await rig.ask(Operation.UPGRADE, 3, unstartable)
    assert isinstance(failed, InstanceFailed)
    assert failed.error.code == FailureCode.START
    restored = await rig.ask(Operation.RESTORE, 4)
    assert isinstance(restored, InstanceRestored)
    assert restored.version == "1.0.0"  # the last one that was confirmed, not the broken 2.0.0
