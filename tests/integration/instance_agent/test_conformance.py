"""What every driver must do, asked of each: docs/drivers.md, "What a driver promises"."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from instance_agent.app import build_host
from instance_agent.domain.record import Disk, Operation, Order
from instance_agent.driver import InstanceRef, NewDisk
from instance_agent.failures import OperationFailed
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
from rollcall_contracts.model import FailureCode, Image, Power, Provisioning
from rollcall_kit.secrets import new_key
from rollcall_testing import eventually, tiny_machine

REF = InstanceRef(scale_set="/sets/web", instance_id="0")
SECONDS = 20  # for a guest to write its line, on a busy machine


@dataclass(frozen=True, slots=True)
class Kind:
    """How instances of one driver are made and looked at from outside."""

    name: str
    build: Callable[[Path, str], Path]
    data_disk: str  # where the first one is, in an instance's folder
    boots: Callable[[Path], list[str]]  # the versions that have booted, by the data disk


def _sample_boots(data_disk: Path) -> list[str]:
    file = data_disk / "boots"
    return file.read_text().split() if file.exists() else []


def _tiny_boots(data_disk: Path) -> list[str]:
    return [f"{letter}.0.0" for letter in tiny_machine.history(data_disk)]


KINDS = {
    "process": Kind("process", build_image, "data/0", _sample_boots),
    "qemu": Kind("qemu", tiny_machine.build_tiny_machine, "data/0.raw", _tiny_boots),
}


class Rig:
    """An agent's host with one instance, through its driver."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.settings = Settings.model_validate(
            {
                "host": "h1",
                "driver": kind.name,
                "state_dir": folder / "agent",
                "stop_grace": 0.2,
                "secrets_key": new_key(),
            }
        )
        self.reports: list[Event] = []
        self.host: Host = build_host(self.settings)

    @property
    def driver(self) -> Any:
        """The driver, some of whose methods a test replaces."""
        return self.host.driver

    @property
    def top(self) -> Path:
        return self.settings.state_dir / "instances" / REF.key

    @property
    def data_disk(self) -> Path:
        return self.top / self.kind.data_disk

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def image(self, version: str) -> Image:
        path = self.kind.build(self.folder / f"image-{version}", version)
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

    async def ask(self, operation: Operation, attempt: int, version: str = "") -> Event:
        order = Order(
            scale_set=REF.scale_set,
            instance_id=REF.instance_id,
            attempt=attempt,
            operation=operation,
            version=version,
            generation=attempt,
        )
        job = Job(
            order=order,
            image=self.image(version) if version else None,
            provisioning=Provisioning(generation=attempt),
        )
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    def boots(self) -> list[str]:
        return self.kind.boots(self.data_disk)

    async def booted(self, *versions: str) -> None:
        await eventually(lambda: self.boots() == list(versions), timeout=SECONDS)

    def disks(self) -> list[str]:
        return sorted(disk.name for disk in (self.top / "disks").iterdir())

    async def agent_restarts(self) -> None:
        """Go on as another agent would, after kill -9 of this one."""
        await self.close()
        self.host = build_host(self.settings)

    async def close(self) -> None:
        await self.host.power.close()
        self.host.journal.close()


@pytest.fixture(params=list(KINDS))
async def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    if request.param == "qemu":
        request.getfixturevalue("qemu_packages")
    for name, value in tiny_machine.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    rig = Rig(KINDS[request.param], tmp_path)
    yield rig
    await rig.driver.stop(REF, 0.2)  # a test that calls the driver itself leaves no journal
    await rig.close()
    assert await stop_all(rig.settings) == 0


async def test_an_instance_lives_its_whole_life(rig: Rig) -> None:
    created = await rig.ask(Operation.CREATE, 1, "1.0.0")
    assert isinstance(created, InstanceCreated), created
    await rig.booted("1.0.0")

    upgraded = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    assert (upgraded.address, upgraded.port) == (created.address, created.port)
    await rig.booted("1.0.0", "2.0.0")  # on the same data disk
    assert rig.disks() == ["000001-1.0.0", "000002-2.0.0"]

    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    assert restored.version == "1.0.0"
    await rig.booted("1.0.0", "2.0.0", "1.0.0")
    assert rig.disks() == ["000001-1.0.0"]

    await rig.ask(Operation.UPGRADE, 4, "2.0.0")
    order = Order(scale_set=REF.scale_set, instance_id="0", attempt=4, operation=Operation.UPGRADE)
    await rig.host.commit(order)
    assert rig.disks() == ["000004-2.0.0"]
    await rig.booted("1.0.0", "2.0.0", "1.0.0", "2.0.0")

    assert isinstance(await rig.ask(Operation.DELETE, 5), InstanceDeleted)
    assert not rig.top.exists()


async def test_each_step_done_twice_is_done_once(rig: Rig, tmp_path: Path) -> None:
    image = await rig.host.images.fetch(rig.image("1.0.0"))
    disk = Disk(name="1", version="1.0.0", generation=1, digest="d")
    more = NewDisk(disk=disk, image=image, data_disks=(0, 1))
    for _ in range(2):
        await rig.driver.prepare(REF, NewDisk(disk=disk, image=image))
    found = (await rig.driver.observe(REF)).data_disks
    for _ in range(2):
        await rig.driver.stop(REF, 0.2)
        await rig.driver.swap(REF, None, "1")
    first, second = [await rig.driver.start(REF, disk) for _ in range(2)]
    assert first == second
    await rig.booted("1.0.0")
    await rig.driver.prepare(REF, more)  # another data disk, while it runs
    seen = await rig.driver.observe(REF)
    assert (seen.running, seen.disk, sorted(seen.data_disks)) == (True, disk, [0, 1])
    assert seen.data_disks[0] == found[0]
    for _ in range(2):
        await rig.driver.commit(REF, frozenset({"1"}))
    assert rig.disks() == ["1"]
    for _ in range(2):
        await rig.driver.stop(REF, 0.2)
    async with asyncio.timeout(5):
        await rig.driver.wait_stopped(REF)
    assert not (await rig.driver.observe(REF)).running
    for _ in range(2):
        await rig.driver.delete(REF)
    assert (await rig.driver.observe(REF)).disk is None


async def test_a_swap_changes_nothing_where_another_disk_is_in_place(rig: Rig) -> None:
    image = await rig.host.images.fetch(rig.image("1.0.0"))
    for name in ("1", "2", "3"):
        disk = Disk(name=name, version="1.0.0", generation=1)
        await rig.driver.prepare(REF, NewDisk(disk=disk, image=image))
    await rig.driver.swap(REF, None, "1")
    with pytest.raises(OperationFailed, match="1 is in place where 2 was expected"):
        await rig.driver.swap(REF, "2", "3")
    with pytest.raises(OperationFailed, match="4 does not exist"):
        await rig.driver.swap(REF, "1", "4")
    assert (await rig.driver.observe(REF)).disk.name == "1"


async def test_an_instance_outlives_the_agent_and_is_taken_over(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.booted("1.0.0")
    await rig.agent_restarts()
    await rig.host.power.recover(rig.report)
    assert (await rig.driver.observe(REF)).running
    upgraded = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    await rig.booted("1.0.0", "2.0.0")  # it was not booted again in between


async def test_an_instance_that_stopped_while_no_agent_looked_is_started(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.booted("1.0.0")
    await rig.close()
    assert await stop_all(rig.settings) == 0
    rig.host = build_host(rig.settings)
    await rig.host.power.recover(rig.report)
    await rig.booted("1.0.0", "1.0.0")


async def test_an_instance_that_ends_by_itself_is_told(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.booted("1.0.0")
    await rig.driver.stop(REF, 0.2)
    await eventually(lambda: isinstance(rig.reports[-1], InstancePowerChanged))
    (told,) = [r for r in rig.reports if isinstance(r, InstancePowerChanged)]
    assert told.power is Power.STOPPED


async def test_another_data_disk_after_the_swap_fails_the_upgrade_and_the_old_os_comes_back(
    rig: Rig,
) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.booted("1.0.0")
    swap = rig.driver.swap

    async def swap_and_lose_the_data_disk(ref: InstanceRef, old: str | None, new: str) -> None:
        await swap(ref, old, new)
        copy = shutil.copytree if rig.data_disk.is_dir() else shutil.copy
        copy(rig.data_disk, rig.folder / "copy")
        rig.data_disk.rename(rig.folder / "gone")
        (rig.folder / "copy").rename(rig.data_disk)

    rig.driver.swap = swap_and_lose_the_data_disk  # does what it must, and what it must not
    failed = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.DATA_DISK
    assert "data disk 0 was" in failed.error.message
    assert not (await rig.driver.observe(REF)).running  # it never ran on the wrong disk
    rig.driver.swap = swap
    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    await rig.booted("1.0.0", "1.0.0")


@pytest.mark.parametrize("rig", ["qemu"], indirect=True)  # a folder carries no identity
async def test_an_os_that_overwrites_its_data_disk_is_found_out(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.booted("1.0.0")
    with rig.data_disk.open("r+b") as file:
        file.seek(1080)
        file.write(b"\x53\xef")
        file.seek(1128)
        file.write(bytes(range(16)))
    start = rig.driver.start

    async def start_and_format(ref: InstanceRef, disk: Disk) -> object:
        endpoint = await start(ref, disk)
        with rig.data_disk.open("r+b") as file:
            file.seek(1128)
            file.write(bytes(16))
        return endpoint

    rig.driver.start = start_and_format
    failed = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.DATA_DISK
    assert "it was overwritten" in failed.error.message
