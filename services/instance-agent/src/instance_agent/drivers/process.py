"""The embedded default: an instance is a process group, its disks are folders.

The process is its own session's leader, is told nothing of the agent, and outlives it. Which
process it is stands in a file, with its start time, so a later agent can tell it from another.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog
from rollcall_contracts.model import FailureCode

from instance_agent import archive
from instance_agent.domain.record import Disk
from instance_agent.driver import (
    Capabilities,
    Endpoint,
    InstanceRef,
    NewDisk,
    Observation,
    Options,
    Script,
    ScriptResult,
)
from instance_agent.drivers import procfs
from instance_agent.drivers.detached import never_ran, spawn
from instance_agent.drivers.files import Folders, bring, build_disk, drop, ports_of, tail
from instance_agent.drivers.ports import Ports
from instance_agent.drivers.procfs import Process
from instance_agent.failures import OperationFailed
from instance_agent.space import size_on_disk

log = structlog.get_logger()

SCRIPTS = ".rollcall"  # on the OS disk: what scripts brought with them


class ProcessDriver:
    """See `instance_agent.driver.Driver`."""

    name = "process"
    capabilities = Capabilities()

    def __init__(self, options: Options) -> None:
        self._options = options
        self._top = options.folder
        self._top.mkdir(parents=True, exist_ok=True)
        for doomed in self._top.glob(".*.gone"):  # of a deletion that was killed
            drop(doomed)
        self._ports = Ports(
            options.ports,
            options.address,
            options.agent,
            ports_of(self._top.iterdir()),
        )
        # Copying waits for the disk more than for a core.
        self._copies = ThreadPoolExecutor(
            max_workers=2 * (os.cpu_count() or 1), thread_name_prefix="copy"
        )
        self._end_what_was_begun()

    def _end_what_was_begun(self) -> None:
        """End what an agent before this one began and left: it is begun again."""
        for process, values in procfs.leaders_with("ROLLCALL_DATA_DIR"):
            folders = Folders(Path(values["ROLLCALL_DATA_DIR"]).parent.parent)
            if folders.top.parent != self._top.resolve():
                continue
            if "ROLLCALL_SCRIPT" in values or never_ran(process):
                procfs.signal_group(process, signal.SIGKILL)
                log.info("leftover_ended", instance=folders.top.name, pid=process.pid)
                if folders.process() == process:
                    folders.keep_process(None)

    def _folders(self, ref: InstanceRef) -> Folders:
        return Folders(self._top.resolve() / ref.key)

    async def _in_pool(self, work: Callable[[], None]) -> None:
        """Do work on files in a thread; when cancelled, not before the thread is done with them."""
        future = asyncio.get_running_loop().run_in_executor(self._copies, work)
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def import_image(self, file: Path, folder: Path) -> None:
        """Unpack the tar.gz."""
        limit = self._options.max_unpacked_bytes
        await self._in_pool(lambda: archive.unpack(file, folder, max_bytes=limit))

    async def prepare(self, ref: InstanceRef, new: NewDisk) -> None:
        """Copy the image's folder; custom data runs after the start, like other scripts."""
        folders = self._folders(ref)
        folders.make(new.data_disks)
        self._port(ref)
        folders.write_down(new.disk)
        room = self._options.room
        if not (folders.disks / new.disk.name).is_dir():
            needed = await asyncio.to_thread(size_on_disk, new.image)
            room.promise(ref.key, folders.top, needed, f"OS disk {new.disk.name}")
        try:
            await self._in_pool(lambda: build_disk(new.image, folders.disks / new.disk.name))
        finally:
            room.release(ref.key)  # it is written, or never will be

    def _port(self, ref: InstanceRef) -> int:
        folders = self._folders(ref)
        port = folders.port()
        if port is None:
            port = self._ports.take()
            folders.keep_port(port)
        return port

    async def stop(self, ref: InstanceRef, grace: float) -> None:
        """Send SIGTERM to the process group, then SIGKILL."""
        folders = self._folders(ref)
        process = folders.process()
        if process is None:
            return
        if procfs.is_alive(process):
            await procfs.stop_group(process, grace)
        else:
            procfs.reap(process)
            await asyncio.to_thread(self._end_orphans, folders, process)
        folders.keep_process(None)

    def _end_orphans(self, folders: Folders, process: Process) -> None:
        """End what an instance that died by itself has left: it may hold the port."""
        place = str(folders.data(0))
        for orphan in procfs.members(process.pid, "ROLLCALL_DATA_DIR", place):
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan.pid, signal.SIGKILL)

    async def swap(self, ref: InstanceRef, old: str | None, new: str) -> None:
        """Change where the link `os` points."""
        self._folders(ref).swap(old, new, ref.instance_id)

    async def start(self, ref: InstanceRef, disk: Disk) -> Endpoint:
        """Start `init`, and watch it for a moment."""
        folders = self._folders(ref)
        folders.refuse_other(disk.name, ref.instance_id)
        endpoint = Endpoint(address=self._options.address, port=self._port(ref))
        if self._runs(folders):
            return endpoint
        await self.stop(ref, 0)  # it died by itself, and may have left something
        await self._ports.until_free(endpoint.port, ref.instance_id)
        root = folders.disks / disk.name
        with folders.next_boot_log().open("ab") as output:
            process = spawn(
                [str(root / "init")],
                folder=root,
                environment=self._environment(ref, disk),
                output=output,
                keep=folders.keep_process,
            )
        if await self._ends_within(process, self._options.start_settle):
            code = procfs.reap(process)
            raise OperationFailed(
                FailureCode.START,
                f"init ended at once (exit code {code}): {await self.console(ref)}",
                ref.instance_id,
            )
        return endpoint

    async def _ends_within(self, process: Process, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await procfs.wait_exit(process)
        except TimeoutError:
            return not procfs.is_alive(process)
        return True

    def _environment(self, ref: InstanceRef, disk: Disk) -> dict[str, str]:
        """Return all that the instance is told; the agent's own environment holds secrets."""
        folders = self._folders(ref)
        here = os.path.dirname(sys.executable)
        return {
            "PATH": f"{here}:{os.environ.get('PATH', os.defpath)}",
            "LANG": "C.UTF-8",
            "HOME": str(folders.disks / disk.name),
            "ROLLCALL_INSTANCE_ID": ref.instance_id,
            "ROLLCALL_IMAGE_VERSION": disk.version,
            "ROLLCALL_DATA_DIR": str(folders.data(0)),
            "ROLLCALL_OS_DIR": str(folders.disks / disk.name),
            "ROLLCALL_ADDRESS": self._options.address,
            "ROLLCALL_PORT": str(self._port(ref)),
        }

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script in a process group of its own, which ends with it."""
        folders = self._folders(ref)
        root = folders.disks / disk.name
        own = root / SCRIPTS / script.name
        await asyncio.to_thread(bring, own, dict(script.files))
        output = folders.logs / f"{disk.name}-{script.name}.log"
        output.unlink(missing_ok=True)
        environment = self._environment(ref, disk) | {"ROLLCALL_SCRIPT": script.name}
        command = [part.replace("{files}", str(own)) for part in script.command]
        with output.open("ab") as written:
            process = spawn(
                command,
                folder=root if script.in_root else own,
                environment=environment,
                output=written,
                keep=_forget,
            )
        in_time = False
        try:
            in_time = await self._ends_within(process, script.timeout)
        finally:
            # Before it is reaped: until then nobody else can have its pid.
            procfs.signal_group(process, signal.SIGKILL)
            await procfs.wait_exit(process)
            code = procfs.reap(process)
        return ScriptResult(exit_code=code if in_time else None, output=tail(output))

    def _runs(self, folders: Folders) -> bool:
        process = folders.process()
        return process is not None and procfs.is_alive(process)

    async def observe(self, ref: InstanceRef) -> Observation:
        """Look at the process and the link."""
        folders = self._folders(ref)
        return Observation(
            running=self._runs(folders),
            disk=folders.in_place(),
            disks=folders.complete(),
            data_disks=folders.data_folders(),
        )

    async def wait_stopped(self, ref: InstanceRef) -> None:
        """Wait for the process to end, without asking again and again."""
        process = self._folders(ref).process()
        if process is not None:
            await procfs.wait_exit(process)
            procfs.reap(process)

    async def console(self, ref: InstanceRef) -> str:
        """Return the last of the newest boot's log."""
        logs = self._folders(ref).boot_logs()
        return tail(logs[-1]) if logs else ""

    async def commit(self, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Drop the other folders of OS disks."""
        await self._in_pool(partial(self._folders(ref).drop_disks, keep))

    async def delete(self, ref: InstanceRef) -> None:
        """Drop the instance's folder, and free its port."""
        folders = self._folders(ref)
        port = folders.port()
        await self._in_pool(partial(drop, folders.top))
        if port is not None:
            self._ports.give_back(port)


def _forget(process: Process) -> None:
    """Write no script down: an agent after this one ends it, and runs it again."""
