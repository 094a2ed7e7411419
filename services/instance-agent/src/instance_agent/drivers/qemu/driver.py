"""The driver itself: what each step does with a virtual machine. See docs/drivers.md."""

import asyncio
import os
import re
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.qemu import PORT_TAKEN, Machine, command
from instance_agent.domain.record import Disk
from instance_agent.driver import (
    Capabilities,
    DriverNotFound,
    Endpoint,
    InstanceRef,
    NewDisk,
    Observation,
    Options,
    Script,
    ScriptResult,
)
from instance_agent.drivers import procfs
from instance_agent.drivers.addresses import until_known
from instance_agent.drivers.boots import Boots, Turn, usual_folder
from instance_agent.drivers.detached import never_ran, spawn
from instance_agent.drivers.files import Folders, drop, is_number, tail
from instance_agent.drivers.procfs import Process
from instance_agent.drivers.qemu import channel, disks, qmp
from instance_agent.drivers.qemu.accelerator import accelerator
from instance_agent.drivers.qemu.network import Networks, Plug, link_of
from instance_agent.drivers.qemu.programs import missing
from instance_agent.drivers.qemu.seed import build_seed
from instance_agent.drivers.qemu.settings import QemuSettings
from instance_agent.drivers.taps import TapBusy, TapUnusable
from instance_agent.failures import OperationFailed

log = structlog.get_logger()

MARK = "ROLLCALL_QEMU_INSTANCE"  # in QEMU's environment: the folder of its instance
_CONSOLE_TAIL = 4096  # bytes: a kernel's panic, and what came before it
_OUTPUT = "qemu.log"  # what QEMU itself said at the last start
_READY_TIME = 20.0  # seconds until QEMU answers; it takes a twentieth of one
_ASK_AGAIN = 1.0  # seconds between two presses of the power button
_QUIT_TIME = 2.0  # seconds for QEMU to end by itself
_LOOK_INTERVAL = 30.0  # seconds between two looks at a running instance
_PORTS_TRIED = 5
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t -~]")
_HALTED = frozenset({"io-error", "internal-error", "guest-panicked", "paused", "shutdown"})


class _PortTaken(Exception):
    """Another program listens on the instance's port."""


class QemuDriver:
    """See `instance_agent.driver.Driver`."""

    name = "qemu"
    capabilities = Capabilities(cloud_init=True)

    def __init__(self, options: Options) -> None:
        """Find the instances that there are. Raises DriverNotFound where QEMU is not installed."""
        self._options = options
        self._settings = QemuSettings()
        for program in (self._settings.qemu_binary, "qemu-img", "xorriso"):
            if shutil.which(program) is None:
                raise DriverNotFound(f"ROLLCALL_DRIVER=qemu: {missing(program)}")
        options.folder.mkdir(parents=True, exist_ok=True)
        self._top = options.folder.resolve()
        for doomed in self._top.glob(".*.gone"):  # of a deletion that was killed
            drop(doomed)
        self._networks = Networks(
            options,
            self._settings,
            [Folders(top) for top in self._top.iterdir() if top.is_dir()],
        )
        self.capabilities = replace(
            type(self).capabilities, tcp_probe_proves_guest=not self._networks.forwards
        )
        try:
            self._boots = Boots(
                self._settings.qemu_boot_locks or usual_folder(),
                self._settings.qemu_boots_at_once,
            )
        except OSError as error:
            raise DriverNotFound(
                f"ROLLCALL_DRIVER=qemu: {error}: set ROLLCALL_QEMU_BOOT_LOCKS to a folder of your "
                "own, the same for all agents of this machine"
            ) from error
        self._trial = asyncio.Lock()
        self._booting: set[asyncio.Task[None]] = set()
        self._end_what_was_begun()

    def _end_what_was_begun(self) -> None:
        """End what an agent before this one was about to start: it is started again."""
        for process, values in procfs.leaders_with(MARK):
            folders = Folders(Path(values[MARK]))
            if folders.top.parent == self._top and never_ran(process):
                procfs.signal_group(process, signal.SIGKILL)
                log.info("leftover_ended", instance=folders.top.name, pid=process.pid)
                if folders.process() == process:
                    folders.keep_process(None)

    def _folders(self, ref: InstanceRef) -> Folders:
        return Folders(self._top / ref.key)

    async def import_image(self, file: Path, folder: Path) -> None:
        """Make a qcow2 base, which nobody writes to any more."""
        await disks.make_base(file, folder, max_bytes=self._options.max_unpacked_bytes)

    async def prepare(self, ref: InstanceRef, new: NewDisk) -> None:
        """Make an overlay on the image's base, its seed, and data disks that are missing."""
        folders, disk, image = self._folders(ref), new.disk, new.image
        folders.top.mkdir(mode=0o700, exist_ok=True)
        for each in (folders.disks, folders.logs, folders.top / "data"):
            each.mkdir(exist_ok=True)
        self._networks.give(folders)
        self._options.room.promise(
            ref.key, folders.top, self._settings.qemu_free_bytes, "a new OS disk, as it fills,"
        )
        for lun in new.data_disks:
            disks.make_data_disk(_data_disk(folders, lun), self._settings.qemu_data_disk_bytes)
        await asyncio.to_thread(disks.check_base, image)
        place = folders.disks / disk.name
        if place.is_dir():
            return
        part = place.with_name(f".{disk.name}.part")
        if part.exists():  # of a preparation that was cut off
            drop(part)
        part.mkdir()
        await disks.make_overlay(image, part, self._settings.qemu_os_disk_bytes)
        await build_seed(part / disks.SEED, ref, disk, new.custom_data)
        folders.write_down(disk)
        await disks.name_disk(part, place)

    async def stop(self, ref: InstanceRef, grace: float) -> None:
        """Press the power button, then have QEMU quit, then kill it."""
        folders = self._folders(ref)
        process = folders.process()
        if process is None:
            return
        if procfs.is_alive(process):
            await self._end(folders, process, grace)
        procfs.reap(process)
        folders.keep_process(None)

    async def _end(self, folders: Folders, process: Process, grace: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        while (left := deadline - loop.time()) > 0:
            # Again and again: a guest that is still booting does not notice.
            with suppress(OSError):
                await qmp.execute(folders.top, "system_powerdown", left)
            if await _ends_within(process, min(_ASK_AGAIN, left)):
                return
        log.warning("machine_stopped_hard", instance=folders.top.name)
        with suppress(OSError):
            await qmp.execute(folders.top, "quit", _QUIT_TIME)
        if not await _ends_within(process, _QUIT_TIME):
            procfs.signal_group(process, signal.SIGKILL)
            await procfs.wait_exit(process)

    async def swap(self, ref: InstanceRef, old: str | None, new: str) -> None:
        """Change where the link `os` points."""
        self._folders(ref).swap(old, new, ref.instance_id)

    async def start(self, ref: InstanceRef, disk: Disk) -> Endpoint:
        """Start QEMU once it is this instance's turn to boot; returns when QEMU runs."""
        folders = self._folders(ref)
        folders.refuse_other(disk.name, ref.instance_id)
        if self._runs(folders):
            if await self._status(folders) in _HALTED:  # such as after a full disk
                await qmp.execute(folders.top, "cont")
            return await self._endpoint(ref)
        await self.stop(ref, 0)
        has_run = bool(folders.boot_logs())
        kind = await self._accelerator()
        turn = await self._boots.take()
        try:
            process = await self._launch_on_free_port(ref, disk, kind, has_run)
        except BaseException:
            turn.end()
            raise
        task = asyncio.create_task(self._watch_boot(folders, process))
        self._booting.add(task)
        task.add_done_callback(partial(self._boot_is_over, turn))
        return await self._endpoint(ref)

    async def _endpoint(self, ref: InstanceRef) -> Endpoint:
        """Return where the application listens; on a bridge, the guest must have come so far."""
        folders = self._folders(ref)
        found = self._networks.endpoint(folders)
        if found is None:
            found = await self._endpoint_once_up(folders)
        if found is None:
            raise OperationFailed(
                FailureCode.START,
                "neither a lease (ROLLCALL_QEMU_LEASES) nor the neighbour table tells the "
                "machine's address: it has none yet, or its DHCP server and gateway are elsewhere; "
                f"its console ends with: {await self.console(ref) or 'nothing'}",
                ref.instance_id,
            )
        return found

    async def _endpoint_once_up(self, folders: Folders) -> Endpoint | None:
        process = folders.process()
        if process is None:
            return None
        patience = self._settings.qemu_address_time
        looking = asyncio.create_task(
            until_known(partial(asyncio.to_thread, self._networks.endpoint, folders), patience)
        )
        ending = asyncio.create_task(procfs.wait_exit(process))
        try:
            await asyncio.wait((looking, ending), return_when=asyncio.FIRST_COMPLETED)
            return looking.result() if looking.done() else None
        finally:
            looking.cancel()
            ending.cancel()

    async def _accelerator(self) -> str:
        async with self._trial:
            memory = self._top / ".accelerator.json"
            return await accelerator(self._settings.qemu_accel, self._settings.qemu_binary, memory)

    async def _launch_on_free_port(
        self, ref: InstanceRef, disk: Disk, kind: str, has_run: bool
    ) -> Process:
        """Start QEMU; an instance that nobody knows the port of yet may get another one."""
        folders = self._folders(ref)
        for _ in range(_PORTS_TRIED):
            try:
                return await self._launch(ref, disk, kind)
            except (_PortTaken, TapBusy):
                if has_run:
                    break
                self._networks.give_another(folders)
            except TapUnusable as error:
                raise OperationFailed(FailureCode.START, str(error), ref.instance_id) from error
        raise OperationFailed(FailureCode.START, self._networks.taken(folders), ref.instance_id)

    async def _launch(self, ref: InstanceRef, disk: Disk, kind: str) -> Process:
        """Start QEMU and wait until it answers."""
        folders = self._folders(ref)
        for name in ("qmp.sock", "channel.sock"):
            (folders.top / name).unlink(missing_ok=True)
        if shutil.which(self._settings.qemu_binary) is None:
            raise missing(self._settings.qemu_binary)
        with (folders.logs / _OUTPUT).open("wb") as output:
            async with self._networks.plug(folders) as plug:
                process = spawn(
                    command(self._machine(ref, disk, kind, plug)),
                    folder=folders.top,
                    environment={
                        "PATH": os.environ.get("PATH", os.defpath),
                        MARK: str(folders.top),
                    },
                    output=output,
                    keep=folders.keep_process,
                    inherited=plug.files,
                )
        answers = asyncio.create_task(self._answers(folders))
        exits = asyncio.create_task(procfs.wait_exit(process))
        try:
            done, _ = await asyncio.wait(
                (answers, exits), timeout=_READY_TIME, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            answers.cancel()
            exits.cancel()
        settle = self._options.start_settle
        if answers in done and not await _ends_within(process, settle):
            return process
        await self._end_failed(folders, process)
        said = tail(folders.logs / _OUTPUT)
        if PORT_TAKEN in said:
            raise _PortTaken
        raise OperationFailed(
            FailureCode.START, f"QEMU did not start: {said or 'no word of it'}", ref.instance_id
        )

    async def _end_failed(self, folders: Folders, process: Process) -> None:
        if procfs.is_alive(process):
            procfs.signal_group(process, signal.SIGKILL)
            await procfs.wait_exit(process)
        procfs.reap(process)
        folders.keep_process(None)

    def _machine(self, ref: InstanceRef, disk: Disk, kind: str, plug: Plug) -> Machine:
        folders, settings = self._folders(ref), self._settings
        place = (folders.disks / disk.name).relative_to(folders.top)
        return Machine(
            binary=settings.qemu_binary,
            name=ref.key,
            kind=settings.qemu_machine,
            accelerator=kind,
            memory=settings.qemu_memory,
            cpus=settings.qemu_cpus,
            os_disk=str(place / disks.OVERLAY),
            seed=str(place / disks.SEED),
            data_disks={
                lun: str(file.relative_to(folders.top)) for lun, file in _data_disks(folders)
            },
            console=str(folders.next_boot_log().relative_to(folders.top)),
            netdev=plug.netdev,
            mac=plug.mac,
        )

    async def _answers(self, folders: Folders) -> None:
        """Return when QEMU answers."""
        while True:
            with suppress(OSError):
                await qmp.execute(folders.top, "query-status")
                return
            await asyncio.sleep(0.02)

    async def _watch_boot(self, folders: Folders, process: Process) -> None:
        """Return when the guest has booted, ended, or had its time: then the next one may boot."""
        greeting = asyncio.create_task(channel.greet(folders.top, self._settings.qemu_boot_time))
        ending = asyncio.create_task(procfs.wait_exit(process))
        try:
            await asyncio.wait((greeting, ending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            greeting.cancel()
            ending.cancel()

    def _boot_is_over(self, turn: Turn, task: asyncio.Task[None]) -> None:
        self._booting.discard(task)
        turn.end()

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Hand a script to the guest, or ask it what came of the custom data that it booted with.

        Raises OperationFailed (InstanceStartFailed), with the guest's console, where the guest does
        not answer.
        """
        folders = self._folders(ref)
        try:
            return await channel.run(folders.top, script, self._settings.qemu_answer_time)
        except channel.GuestSilent as error:
            state = "does not answer" if self._runs(folders) else "has stopped"
            raise OperationFailed(
                FailureCode.START,
                f"the guest {state}, {script.name} cannot run in it; its console ends with: "
                f"{await self.console(ref) or 'nothing'}",
                ref.instance_id,
            ) from error

    def _runs(self, folders: Folders) -> bool:
        process = folders.process()
        return process is not None and procfs.is_alive(process)

    async def _status(self, folders: Folders) -> str:
        """Return QEMU's word for the state of the guest's processors, or "" where it is silent."""
        try:
            answer = await qmp.execute(folders.top, "query-status")
        except OSError:
            return ""
        return str(answer["status"])

    async def observe(self, ref: InstanceRef) -> Observation:
        """Look at the process, at what QEMU says, at the link, and at the data disks."""
        folders = self._folders(ref)
        running = self._runs(folders) and await self._status(folders) not in _HALTED
        return Observation(
            running=running,
            disk=folders.in_place(),
            disks=folders.complete(),
            data_disks=_found(folders),
        )

    async def wait_stopped(self, ref: InstanceRef) -> None:
        """Wait for QEMU to end, or the guest to be halted; keeps its console's log small."""
        folders = self._folders(ref)
        process = folders.process()
        while process is not None and not await _ends_within(process, _LOOK_INTERVAL):
            if await self._status(folders) in _HALTED:
                return
            _cap(folders, self._settings.qemu_console_bytes)
        if process is not None:
            procfs.reap(process)

    async def console(self, ref: InstanceRef) -> str:
        """Return the last of what the guest wrote to its serial port."""
        logs = self._folders(ref).boot_logs()
        return _UNPRINTABLE.sub("", tail(logs[-1], _CONSOLE_TAIL)) if logs else ""

    async def commit(self, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Drop the other OS disks with their seeds."""
        await asyncio.to_thread(self._folders(ref).drop_disks, keep)

    async def delete(self, ref: InstanceRef) -> None:
        """Drop the instance's folder, and free its port or tap."""
        folders = self._folders(ref)
        port, link = folders.port(), link_of(folders)
        await asyncio.to_thread(partial(drop, folders.top))
        self._networks.give_back(port, link)


async def _ends_within(process: Process, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await procfs.wait_exit(process)
    except TimeoutError:
        return not procfs.is_alive(process)
    return True


def _data_disk(folders: Folders, lun: int) -> Path:
    return folders.top / "data" / f"{lun}.raw"


def _data_disks(folders: Folders) -> list[tuple[int, Path]]:
    files = (folders.top / "data").glob("*.raw")
    return sorted((int(file.stem), file) for file in files if is_number(file.stem))


def _found(folders: Folders) -> dict[int, DataDisk]:
    return {lun: disks.find_data_disk(file) for lun, file in _data_disks(folders)}


def _cap(folders: Folders, limit: int) -> None:
    """Begin a boot's log anew when a guest, such as one that reboots for ever, has filled it."""
    logs = folders.boot_logs()
    if logs and logs[-1].stat().st_size > limit:
        os.truncate(logs[-1], 0)
