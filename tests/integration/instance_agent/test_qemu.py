"""The qemu driver with an operating system in the guest: scripts, the power button, failures."""

import asyncio
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from instance_agent.app import build_driver, build_host
from instance_agent.domain.record import Disk, Operation
from instance_agent.driver import InstanceRef, NewDisk, Script
from instance_agent.drivers import procfs
from instance_agent.drivers.qemu import qmp
from instance_agent.drivers.qemu.accelerator import accelerator, trial
from instance_agent.failures import OperationFailed
from instance_agent.settings import Settings
from rollcall_contracts.events import (
    InstanceCreated,
    InstanceFailed,
    InstanceUpgraded,
)
from rollcall_contracts.model import Extension, FailureCode
from rollcall_testing import eventually
from rollcall_testing.instances import HOST
from rollcall_testing.machines import BOOT, Rig, status


@pytest.fixture
async def rig(tmp_path: Path, test_os: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    for name, value in {
        "ACCEL": "tcg",
        "MEMORY": "96",
        "DATA_DISK_BYTES": str(16 * 1024**2),
        "ANSWER_TIME": str(BOOT),
    }.items():
        monkeypatch.setenv(f"ROLLCALL_QEMU_{name}", value)
    rig = Rig(tmp_path, test_os)
    yield rig
    await rig.driver.stop(rig.ref(), 0.5)
    await rig.host.power.close()
    rig.host.journal.close()


async def test_an_upgrade_keeps_the_data_and_runs_scripts_again_and_a_restore_does_not(
    rig: Rig,
) -> None:
    extension = Extension(name="e", settings={"commandToExecute": "echo e >>/data/extensions"})
    created = await rig.ask(Operation.CREATE, 1, "v1", extensions=(extension,))
    facts = {"version": "v1", "boots": 1, "history": "v1", "custom_data": "0"}
    assert await status(created) == facts
    upgraded = await rig.ask(Operation.UPGRADE, 2, "v2", extensions=(extension,))
    facts = {"version": "v2", "boots": 2, "history": "v1 v2", "custom_data": "0"}
    assert await status(upgraded) == facts
    assert isinstance(upgraded, InstanceUpgraded)
    assert isinstance(created, InstanceCreated)
    assert (upgraded.address, upgraded.port) == (created.address, created.port)
    code, said = await rig.in_guest("cat /data/boots /data/custom-data /data/extensions")
    assert (code, said.split()) == (0, ["v1", "v2", "v1", "v2", "e", "e"])
    (data,) = (await rig.driver.observe(rig.ref())).data_disks.values()
    assert data.content.startswith("ext:")

    restored = await rig.ask(Operation.RESTORE, 3)
    assert (await status(restored))["boots"] == 3
    code, said = await rig.in_guest("cat /data/custom-data; ls /run/rollcall")
    assert said.split()[:2] == ["v1", "v2"]
    assert "v1" not in said.split()[2:]
    consoles = sorted((rig.top() / "logs").glob("boot-*.log"))
    assert len(consoles) == 3  # one for each boot
    assert "init: stopping v1" in consoles[0].read_text()  # by the power button, not by force


async def test_a_script_that_fails_and_one_that_hangs_are_told_apart(rig: Rig) -> None:
    failed = await rig.ask(
        Operation.CREATE, 1, "v1", custom_data="#!/bin/sh\necho no such luck\nexit 3\n"
    )
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.CUSTOM_DATA
    assert "exit code 3: no such luck" in failed.error.message

    hanging = Extension(
        name="e", settings={"commandToExecute": "echo $$ >/run/hanging; sleep 900"}, timeout=2
    )
    failed = await rig.ask(Operation.UPGRADE, 2, "v2", extensions=(hanging,), custom_data="")
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.EXTENSION
    assert "did not end within 2 s" in failed.error.message
    code, said = await rig.in_guest('test -d "/proc/$(cat /run/hanging)" || echo gone')
    assert (code, said) == (0, "gone")  # nothing of it goes on


async def test_files_of_any_length_come_whole_and_an_agent_that_goes_ends_its_script(
    rig: Rig, tmp_path: Path
) -> None:
    await rig.ask(Operation.CREATE, 1, "v1")
    content = os.urandom(700_000)
    (tmp_path / "big").write_bytes(content)
    record = rig.host.journal.get("/sets/vm", "0")
    assert record is not None
    assert record.disk is not None
    script = Script(
        name="s",
        command=("/bin/sh", "-c", "sha256sum big; echo '{files}'", "x", "{files}/big"),
        files={"big": tmp_path / "big"},
        timeout=BOOT,
    )
    result = await rig.driver.run(rig.ref(), record.disk, script)
    assert result.exit_code == 0
    assert result.output.startswith(hashlib.sha256(content).hexdigest())

    task = asyncio.create_task(rig.in_guest("touch /run/begun; sleep 900; touch /run/ended"))
    await asyncio.wait((task,), timeout=2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    _, said = await rig.in_guest("ls /run/begun /run/ended")
    assert "/run/begun" in said.split()
    assert "/run/ended" not in said.split()


async def test_an_image_that_does_not_boot_fails_with_its_console(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLCALL_QEMU_ANSWER_TIME", "30")
    rig.host.journal.close()
    rig.host = build_host(rig.settings)
    failed = await rig.ask(Operation.CREATE, 1, "v4-unbootable")
    assert isinstance(failed, InstanceFailed), failed
    assert failed.error.code == FailureCode.START
    assert "initrd: no root file system" in failed.error.message
    assert "Kernel panic" in failed.error.message


async def test_a_guest_that_hangs_is_stopped_all_the_same(rig: Rig) -> None:
    await rig.ask(Operation.CREATE, 1, "v4-unbootable", custom_data="")
    process = rig.driver._folders(rig.ref()).process()
    os.kill(process.pid, signal.SIGSTOP)  # it answers neither the power button nor QMP
    await rig.driver.stop(rig.ref(), 0.5)
    assert not procfs.is_alive(process)
    assert not (await rig.driver.observe(rig.ref())).running


async def test_a_power_button_that_was_pressed_too_early_is_pressed_again_and_ends_it_gracefully(
    rig: Rig,
) -> None:
    """The first press comes while the firmware runs, and is lost."""
    await rig.ask(Operation.CREATE, 1, "v1", custom_data="")
    await rig.driver.stop(rig.ref(), BOOT)
    (console,) = (rig.top() / "logs").glob("boot-*.log")
    assert "init: stopping v1" in console.read_text()
    assert not (await rig.driver.observe(rig.ref())).running


async def test_a_guest_that_ignores_the_power_button_is_made_to_quit_and_not_killed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.ask(Operation.CREATE, 1, "v4-unbootable", custom_data="")
    process = rig.driver._folders(rig.ref()).process()
    asked, killed = [], []

    async def execute(folder: Path, command: str, *more: float) -> object:
        asked.append(command)
        return await ask(folder, command, *more)

    def signal_group(process: procfs.Process, number: signal.Signals) -> None:
        killed.append(number)
        kill(process, number)

    ask, kill = qmp.execute, procfs.signal_group
    monkeypatch.setattr(qmp, "execute", execute)
    monkeypatch.setattr(procfs, "signal_group", signal_group)
    await rig.driver.stop(rig.ref(), 0.3)
    assert set(asked) == {"system_powerdown", "quit"}
    assert asked[-1] == "quit"
    assert killed == []
    assert not procfs.is_alive(process)


async def test_a_halted_guest_does_not_count_as_running_and_start_lets_it_go_on(
    rig: Rig,
) -> None:
    created = await rig.ask(Operation.CREATE, 1, "v1")
    await qmp.execute(rig.top(), "stop")
    assert not (await rig.driver.observe(rig.ref())).running
    record = rig.host.journal.get("/sets/vm", "0")
    assert record is not None
    await rig.driver.start(rig.ref(), record.disk)
    assert (await rig.driver.observe(rig.ref())).running
    assert (await status(created))["boots"] == 1


async def test_a_port_that_somebody_took_is_not_held_against_a_new_instance(
    rig: Rig,
) -> None:
    image = await rig.host.images.fetch(rig.image("v4-unbootable"))
    disk = Disk(name="1", version="4.0.0", generation=1)
    await rig.driver.prepare(rig.ref(), NewDisk(disk=disk, image=image))
    await rig.driver.swap(rig.ref(), None, disk.name)
    port = rig.driver._folders(rig.ref()).port()
    with socket.create_server(("127.0.0.1", port)):
        endpoint = await rig.driver.start(rig.ref(), disk)
        assert endpoint.port != port
        await rig.driver.stop(rig.ref(), 0.5)
    taken = pytest.raises(OperationFailed, match=f"port {endpoint.port} .* taken by another")
    with socket.create_server(("127.0.0.1", endpoint.port)), taken:
        await rig.driver.start(rig.ref(), disk)


async def test_a_tcp_connection_says_nothing_of_the_guest(rig: Rig) -> None:
    """Why the rules ask for an HTTP probe: QEMU takes connections for a guest that never boots."""
    created = await rig.ask(Operation.CREATE, 1, "v4-unbootable", custom_data="")
    assert isinstance(created, InstanceCreated)
    _, writer = await asyncio.open_connection(created.address, created.port)
    writer.close()
    assert not rig.driver.capabilities.tcp_probe_proves_guest  # so the rules hold such a set


async def test_the_accelerator_is_the_one_with_which_a_guest_really_ends_sooner(
    qemu_packages: None, tmp_path: Path
) -> None:
    binary = "qemu-system-x86_64"
    assert await trial(binary, ("-accel", "tcg", "-cpu", "max"), 30) is not None
    assert await trial(binary, ("-accel", "tcg", "-cpu", "max"), 0.01) is None
    memory = tmp_path / "memory.json"
    chosen = await accelerator("auto", binary, memory)
    assert chosen in ("kvm", "tcg")
    if memory.exists():  # the host has the device, so it was tried
        known = json.loads(memory.read_text())
        assert known["accelerator"] == chosen
        memory.write_text(json.dumps(known | {"accelerator": "kept"}))
        assert await accelerator("auto", binary, memory) == "kept"  # not tried again
    assert await accelerator("kvm", binary, memory) == "kvm"


@pytest.mark.usefixtures("qemu_packages")
async def test_a_start_that_is_cancelled_leaves_nobody_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "qemu"
    silent.write_text("#!/bin/sh\nexec sleep 60\n")
    silent.chmod(0o755)
    monkeypatch.setenv("ROLLCALL_QEMU_BINARY", str(silent))
    monkeypatch.setenv("ROLLCALL_QEMU_ACCEL", "tcg")
    settings = Settings.model_validate({"host": HOST, "driver": "qemu", "state_dir": tmp_path})
    driver: Any = build_driver(settings)
    ref = InstanceRef(scale_set="/sets/web", instance_id="0")
    folders = driver._folders(ref)
    for each in (folders.disks / "1", folders.logs, folders.top / "data"):
        each.mkdir(parents=True)
    folders.swap(None, "1", ref.instance_id)
    disk = Disk(name="1", version="1.0.0", generation=1)
    before = asyncio.all_tasks()
    started = asyncio.create_task(driver.start(ref, disk))
    await eventually(lambda: folders.process() is not None)
    await asyncio.sleep(0.1)  # it is asked whether it answers
    started.cancel()
    await asyncio.wait([started])
    await driver.stop(ref, 0)
    await driver.delete(ref)
    await eventually(lambda: asyncio.all_tasks() <= before)
