"""What every driver must do, asked of each: docs/drivers.md.

Another driver is tested in their place where ROLLCALL_CONFORMANCE names its `InstanceKind`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from instance_agent.app import build_host
from instance_agent.domain.record import Disk, Operation, Order
from instance_agent.driver import InstanceRef, NewDisk, Script, ScriptResult
from instance_agent.failures import OperationFailed
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
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
from rollcall_testing import eventually
from rollcall_testing.instances import HOST, InstanceKind, Place, kinds

REF = InstanceRef(scale_set="/sets/web", instance_id="0")
SECONDS = 20  # for a guest to write its line, on a busy machine


class Rig:
    """An agent's host with one instance, through its driver."""

    def __init__(self, kind: InstanceKind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.settings = Settings.model_validate(
            {
                "host": HOST,
                "driver": kind.driver,
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
    def place(self) -> Place:
        return Place(self.settings.state_dir, REF.key)

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def image(self, version: str) -> Image:
        path = self.kind.build(self.folder / f"image-{version}{self.kind.image_suffix}", version)
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
        image = self.image(version) if version else None
        order = Order(
            scale_set=REF.scale_set,
            instance_id=REF.instance_id,
            attempt=attempt,
            operation=operation,
            version=version,
            digest=image.sha256 if image else "",
            generation=attempt,
        )
        job = Job(
            order=order,
            image=image,
            provisioning=Provisioning(generation=attempt),
        )
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    def boots(self) -> list[str]:
        return self.kind.boots(self.place)

    async def booted(self, *versions: str) -> None:
        await eventually(lambda: self.boots() == list(versions), timeout=SECONDS)

    async def disks(self) -> list[str]:
        return sorted((await self.driver.observe(REF)).disks)

    async def in_place(self) -> Disk:
        disk: Disk = (await self.driver.observe(REF)).disk
        return disk

    async def agent_restarts(self) -> None:
        """Go on as another agent would, after kill -9 of this one."""
        await self.close()
        self.host = build_host(self.settings)

    async def close(self) -> None:
        await self.host.power.close()
        self.host.journal.close()


NEEDS = {"docker": [pytest.mark.compose], "libvirt": [pytest.mark.libvirt]}
PARAMS = [pytest.param(name, marks=NEEDS.get(name, [])) for name in kinds()]


@pytest.fixture(params=PARAMS)
async def rig(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    kind = kinds()[request.param]
    kind.install()
    for name, value in kind.environment.items():
        monkeypatch.setenv(name, value)
    rig = Rig(kind, tmp_path)
    yield rig
    await rig.driver.stop(REF, 0.2)  # a test that calls the driver itself leaves no journal
    await rig.close()
    assert await stop_all(rig.settings) == 0
    kind.clear(rig.settings.state_dir)


async def test_an_instance_lives_its_whole_life(rig: Rig) -> None:
    created = await rig.ask(Operation.CREATE, 1, "1.0.0")
    assert isinstance(created, InstanceCreated), created
    await rig.booted("1.0.0")

    upgraded = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(upgraded, InstanceUpgraded), upgraded
    assert (upgraded.address, upgraded.port) == (created.address, created.port)
    await rig.booted("1.0.0", "2.0.0")  # on the same data disk
    assert await rig.disks() == ["000001-1.0.0", "000002-2.0.0"]

    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    assert restored.version == "1.0.0"
    assert restored.reason.startswith("its console ended with: ")  # of the boot that was given up
    await rig.booted("1.0.0", "2.0.0", "1.0.0")
    assert await rig.disks() == ["000001-1.0.0"]

    await rig.ask(Operation.UPGRADE, 4, "2.0.0")
    order = Order(scale_set=REF.scale_set, instance_id="0", attempt=4, operation=Operation.UPGRADE)
    await rig.host.commit(order)
    assert await rig.disks() == ["000004-2.0.0"]
    await rig.booted("1.0.0", "2.0.0", "1.0.0", "2.0.0")

    assert isinstance(await rig.ask(Operation.DELETE, 5), InstanceDeleted)
    assert not rig.kind.exists(rig.place)


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
    assert await rig.disks() == ["1"]
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
    with pytest.raises(OperationFailed):
        await rig.driver.swap(REF, "2", "3")
    with pytest.raises(OperationFailed):
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
        rig.kind.replace_data_disk(rig.place)

    rig.driver.swap = swap_and_lose_the_data_disk  # does what it must, and what it must not
    failed = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.DATA_DISK
    assert "data disk 0 was" in failed.error.message
    assert not (await rig.driver.observe(REF)).running  # it never ran on the wrong disk
    rig.driver.swap = swap
    restored = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(restored, InstanceRestored), restored
    await eventually(lambda: rig.boots()[-1:] == ["1.0.0"], timeout=SECONDS)
    assert "2.0.0" not in rig.boots()


async def test_the_disk_in_place_is_told_with_all_that_it_was_made_from(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    digest = rig.image("2.0.0").sha256
    expected = Disk(name="000002-2.0.0", version="2.0.0", generation=2, digest=digest)
    assert await rig.in_place() == expected
    await rig.agent_restarts()
    assert await rig.in_place() == expected


async def test_nothing_is_stopped_when_the_disk_to_go_to_is_gone(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.ask(Operation.UPGRADE, 2, "2.0.0")
    await rig.driver.commit(REF, frozenset({"000002-2.0.0"}))
    refused = await rig.ask(Operation.RESTORE, 3)
    assert isinstance(refused, InstanceFailed), refused
    assert "000001-1.0.0 is gone" in refused.error.message
    assert (await rig.driver.observe(REF)).running


async def test_scripts_run_in_the_instance_and_end_with_their_time(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "1.0.0")
    await rig.booted("1.0.0")
    if not rig.kind.takes_scripts:
        return
    disk, file = await rig.in_place(), rig.folder / "given"
    file.write_text("content")

    async def run(command: str, seconds: float = 30, name: str = "s") -> ScriptResult:
        script = Script(
            name=name, command=("/bin/sh", "-c", command), timeout=seconds, files={"given": file}
        )
        result: ScriptResult = await rig.driver.run(REF, disk, script)
        return result

    for _ in range(2):
        done = await run('echo "$(cat given) on $ROLLCALL_IMAGE_VERSION"; cat "{files}/given"')
        assert (done.exit_code, done.output) == (0, "content on 1.0.0\ncontent")
    failed = await run("echo said; exit 3")
    assert failed.exit_code not in (0, None)
    assert "said" in failed.output or failed.exit_code != 3
    endless = 'while :; do echo x >>"$ROLLCALL_DATA_DIR/$ROLLCALL_SCRIPT"; sleep 0.05; done'
    assert (await run(endless, seconds=1, name="late")).exit_code is None
    cancelled = asyncio.create_task(run(endless, name="cancelled"))
    await eventually(lambda: rig.kind.lines(rig.place, "cancelled") != [], timeout=SECONDS)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    for name in ("late", "cancelled"):
        written = len(rig.kind.lines(rig.place, name))
        assert (await run("sleep 0.3")).exit_code == 0
        assert len(rig.kind.lines(rig.place, name)) == written  # nothing of it goes on


if "qemu" in kinds():  # a folder carries no identity

    @pytest.mark.parametrize("rig", ["qemu"], indirect=True)
    async def test_an_os_that_overwrites_its_data_disk_is_found_out(rig: Rig) -> None:
        await rig.ask(Operation.CREATE, 1, "1.0.0")
        await rig.booted("1.0.0")
        with (rig.place.top / "data" / "0.raw").open("r+b") as file:
            file.seek(1080)
            file.write(b"\x53\xef")
            file.seek(1128)
            file.write(bytes(range(16)))
        start = rig.driver.start

        async def start_and_format(ref: InstanceRef, disk: Disk) -> object:
            endpoint = await start(ref, disk)
            with (rig.place.top / "data" / "0.raw").open("r+b") as file:
                file.seek(1128)
                file.write(bytes(16))
            return endpoint

        rig.driver.start = start_and_format
        failed = await rig.ask(Operation.UPGRADE, 2, "2.0.0")
        assert isinstance(failed, InstanceFailed), failed
        assert failed.error.code == FailureCode.DATA_DISK
        assert "it was overwritten" in failed.error.message
