"""Time of one swap, from the stop to the first healthy answer: each driver beside its bare tool.

Ours is the agent's own way: journal, checks of disks before and after, the driver. The floor does
by hand what must be done: stop the very same instance with the same tool, start the next one from
the same command line, and probe just as often. Both by turns in one run; the best of each counts.
"""

import argparse
import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instance_agent.app import build_host
from instance_agent.domain.record import Operation, Order
from instance_agent.driver import InstanceRef
from instance_agent.drivers.qemu import qmp
from instance_agent.host import Host, Job
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
from rollcall_cli.sample_image import build_image
from rollcall_contracts.events import Event, InstanceCreated, InstanceUpgraded
from rollcall_contracts.model import Image, Provisioning
from rollcall_kit.logging import configure_logging
from rollcall_kit.secrets import new_key
from rollcall_testing.domains import DOMAIN, libvirt_is_there
from rollcall_testing.instances import HOST, docker, kinds
from rollcall_testing.tiny_container import build_tiny_container
from rollcall_testing.vm_images import build_test_os

from benchmarks.floor import PROBE_EVERY

REF = InstanceRef(scale_set="/sets/bench", instance_id="0")
QEMU = {
    "ROLLCALL_QEMU_MEMORY": "96",
    "ROLLCALL_QEMU_DATA_DISK_BYTES": str(16 * 1024**2),
}
# Beside what the tests say; their template boots from a data disk, too.
LIBVIRT = {
    "ROLLCALL_LIBVIRT_MEMORY": "96",
    "ROLLCALL_LIBVIRT_DATA_DISK_BYTES": str(16 * 1024**2),
    "ROLLCALL_LIBVIRT_BOOT_TIME": "30",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the application answers."""

    address: str
    port: int

    async def is_healthy(self) -> None:
        """Return at the first healthy answer; one that does not come soon is asked for again."""
        while True:
            with suppress(OSError, TimeoutError):  # it is not up yet
                async with asyncio.timeout(0.5):
                    reader, writer = await asyncio.open_connection(self.address, self.port)
                    writer.write(b"GET /health HTTP/1.1\r\nHost: bench\r\n\r\n")
                    line = await reader.readline()
                    writer.close()
                if b" 200 " in line:
                    return
            await asyncio.sleep(PROBE_EVERY)


class Agent:
    """An agent's host with one instance."""

    def __init__(self, driver: str, folder: Path, file: Path) -> None:
        values = {"host": HOST, "driver": driver, "state_dir": folder, "secrets_key": new_key()}
        self.settings = Settings.model_validate(values)
        self.host: Host = build_host(self.settings)
        self._file = file
        self._stopped_at = 0.0
        self._attempt = 0
        self._reports: list[Event] = []
        driver_of: Any = self.host.driver
        stop = driver_of.stop

        async def stop_and_note(ref: InstanceRef, grace: float) -> None:
            self._stopped_at = time.perf_counter()
            await stop(ref, grace)

        driver_of.stop = stop_and_note

    async def _report(self, event: Event) -> None:
        self._reports.append(event)

    async def swap(self, operation: Operation) -> tuple[float, Place]:
        """Carry an operation out; returns the seconds from its stop to health, and where."""
        self._attempt += 1
        version = f"{self._attempt}.0.0"
        digest = hashlib.sha256(self._file.read_bytes()).hexdigest()
        image = Image(
            publisher="P",
            offer="O",
            sku="S",
            version=version,
            url=self._file.as_uri(),
            sha256=digest,
            size=self._file.stat().st_size,
        )
        order = Order(
            scale_set=REF.scale_set,
            instance_id=REF.instance_id,
            attempt=self._attempt,
            operation=operation,
            version=version,
            digest=digest,
            generation=1,
        )
        job = Job(order=order, image=image, provisioning=Provisioning(generation=1))
        await self.host.carry_out(job, self._report)
        told = self._reports[-1]
        if not isinstance(told, InstanceCreated | InstanceUpgraded):
            raise RuntimeError(f"the swap did not succeed: {told}")
        place = Place(told.address, told.port)
        await place.is_healthy()
        seconds = time.perf_counter() - self._stopped_at
        await self.host.commit(order)
        return seconds, place

    async def close(self) -> None:
        """Stop the instance."""
        await self.host.power.close()
        self.host.journal.close()
        await stop_all(self.settings.model_copy(update={"stop_grace": 2}))


@dataclass(frozen=True, slots=True)
class Started:
    """A process as it was started, to be started again by hand."""

    pid: int
    command: list[str]
    environment: dict[str, str]
    folder: str

    @classmethod
    def of(cls, pid: int) -> "Started":
        """Read it from the system."""
        there = Path(f"/proc/{pid}")
        variables = (there / "environ").read_bytes().split(b"\0")
        return cls(
            pid,
            [os.fsdecode(part) for part in (there / "cmdline").read_bytes().split(b"\0")[:-1]],
            dict(os.fsdecode(each).split("=", 1) for each in variables if b"=" in each),
            os.readlink(there / "cwd"),
        )


async def _restart(started: Started, stop: Callable[[], Awaitable[None]], place: Place) -> float:
    """Stop a process and start its like; returns the seconds from the one to the other's health."""
    began = time.perf_counter()
    await stop()
    await asyncio.to_thread(os.waitpid, started.pid, 0)
    child = await asyncio.create_subprocess_exec(
        *started.command,
        cwd=started.folder,
        env=started.environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    await place.is_healthy()
    seconds = time.perf_counter() - began
    os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
    return seconds


def _pid_of(agent: Agent) -> int:
    """Return the process that is the instance."""
    folders: Any = agent.host.driver
    return int(folders._folders(REF).process().pid)


async def _process_floor(agent: Agent, place: Place) -> float:
    started = Started.of(_pid_of(agent))

    async def stop() -> None:
        os.killpg(started.pid, signal.SIGTERM)

    return await _restart(started, stop, place)


async def _qemu_floor(agent: Agent, place: Place) -> float:
    started = Started.of(_pid_of(agent))

    async def stop() -> None:
        await qmp.execute(Path(started.folder), "system_powerdown")

    return await _restart(started, stop, place)


async def _docker_floor(agent: Agent, place: Place) -> float:
    """Stop the instance's container with the command, and start another that was made before."""
    (running,) = docker("ps", "-q", "--filter", f"label=rollcall.key={REF.key}").split()
    image = docker("inspect", "--format", "{{.Image}}", running).strip()
    published = f"{place.address}:{place.port}:8080"
    made = docker("create", "--publish", published, "--mount", "type=volume,target=/data/0", image)
    began = time.perf_counter()
    await asyncio.to_thread(docker, "stop", running)
    await asyncio.to_thread(docker, "start", made.strip())
    await place.is_healthy()
    seconds = time.perf_counter() - began
    docker("rm", "--force", "--volumes", made.strip())
    return seconds


async def _libvirt_floor(agent: Agent, place: Place) -> float:
    """Shut the instance's domain down, define it anew and start it, with virsh."""
    daemon = DOMAIN.daemon()
    (name,) = daemon.virsh("list", "--name").split()
    definition = daemon.folder / "definition.xml"
    definition.write_text(daemon.virsh("dumpxml", "--inactive", name))
    began = time.perf_counter()
    daemon.virsh("shutdown", name)
    while daemon.virsh("domstate", name).strip() != "shut off":
        await asyncio.sleep(PROBE_EVERY)
    daemon.virsh("define", str(definition))
    daemon.virsh("start", name)
    await place.is_healthy()
    seconds = time.perf_counter() - began
    daemon.virsh("destroy", name)
    return seconds


FLOORS = {
    "process": _process_floor,
    "docker": _docker_floor,
    "qemu": _qemu_floor,
    "libvirt": _libvirt_floor,
}


async def measure(driver: str, folder: Path, file: Path, rounds: int) -> tuple[float, float]:
    """Return the best seconds of the floor and of ours."""
    agent = Agent(driver, folder / "agent", file)
    ours, bare = [], []
    try:
        _, place = await agent.swap(Operation.CREATE)
        for _ in range(rounds):
            seconds, place = await agent.swap(Operation.UPGRADE)
            ours.append(seconds)
            agent.host.power.forget(REF)  # the floor's stop is no news
            bare.append(await FLOORS[driver](agent, place))
            started = await _started_again(agent)
            await started.is_healthy()
    finally:
        await agent.close()
        kinds()[driver].clear(folder / "agent")
    return min(bare), min(ours)


async def _started_again(agent: Agent) -> Place:
    """Have the agent start what the floor left stopped."""
    record = agent.host.journal.get(REF.scale_set, REF.instance_id)
    if record is None or record.disk is None:
        raise RuntimeError("the instance is gone")
    endpoint = await agent.host.driver.start(REF, record.disk)
    return Place(endpoint.address, endpoint.port)


def _files(folder: Path, images: Path | None) -> dict[str, Path]:
    """Return the image of each driver that can be measured here."""
    found = {"process": build_image(folder / "image.tar.gz", "1.0.0")}
    engine = shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True)
    if engine and engine.returncode == 0:
        found["docker"] = build_tiny_container(folder / "image.tar", "1.0.0")
    else:
        print("# docker: not measured, no engine answers here")
    images = images or _built()
    if images is None:
        print("# qemu, libvirt: not measured; run as root on Debian, or say --vm-images FOLDER")
        return found
    found["qemu"] = images / "v1.qcow2"
    if libvirt_is_there():
        found["libvirt"] = images / "v1.qcow2"
        os.environ.update({**DOMAIN.environment, **LIBVIRT})
    else:
        print("# libvirt: not measured, it is not installed (tests/vm/install-libvirt)")
    return found


def _built() -> Path | None:
    """Return the folder of the test operating system, built where what it takes can be installed.

    That is for root on Debian; elsewhere nothing is built, and nobody is asked for a password.
    """
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return None
    return build_test_os()


async def run(images: Path | None, rounds: int) -> None:
    """Measure each driver and print the table."""
    configure_logging("bench", "ERROR")
    print(f"# swaps, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores", flush=True)
    os.environ.update(QEMU)
    with tempfile.TemporaryDirectory(prefix="rollcall-bench-") as name:
        files = _files(Path(name), images)
        print(f"{'driver':>8}  {'floor':>8}  {'rollcall':>8}  ratio", flush=True)
        for driver, file in files.items():
            bare, ours = await measure(driver, Path(name) / driver, file, rounds)
            print(
                f"{driver:>8}  {bare * 1000:>6.0f}ms  {ours * 1000:>6.0f}ms  {ours / bare:.2f}",
                flush=True,
            )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--vm-images",
        type=Path,
        help="folder of tests/vm/build-test-os; without it, it is built by root on Debian",
    )
    parser.add_argument("--swaps", type=int, default=5, help="how many of each")
    options, _ = parser.parse_known_args()
    asyncio.run(run(options.vm_images, options.swaps))


if __name__ == "__main__":
    main()
