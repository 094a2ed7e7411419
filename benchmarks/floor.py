"""The floor: a bare script that does the same swaps, with the same batches, on the same machine.

No broker, no database, no journal, no verification: per instance a copy of the unpacked image,
stop, start, and HTTP probes until healthy; a batch together, one batch after the other.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

FIRST_PORT = 15_000
PROBE_EVERY = 0.01


@dataclass(kw_only=True)
class _Instance:
    folder: Path
    port: int
    disk: int = 0
    process: asyncio.subprocess.Process | None = None


async def measure(folder: Path, images: dict[str, Path], size: int, percent: int = 20) -> float:
    """Return the seconds that a rollout of `size` instances takes, first stop to last healthy."""
    unpacked = {}
    for version, archive in images.items():
        unpacked[version] = folder / f"image-{version}"
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked[version], filter="data")
    ports = _free_ports(size)
    fleet = [_Instance(folder=folder / f"floor-{i}", port=ports[i]) for i in range(size)]
    old, new = images
    try:
        await asyncio.gather(*(_swap(instance, unpacked[old], old) for instance in fleet))
        batch = max(1, size * percent // 100)
        began = time.perf_counter()
        for start in range(0, size, batch):
            part = fleet[start : start + batch]
            await asyncio.gather(*(_swap(instance, unpacked[new], new) for instance in part))
        return time.perf_counter() - began
    finally:
        await asyncio.gather(*(_stop(instance) for instance in fleet))


async def _swap(instance: _Instance, image: Path, version: str) -> None:
    instance.disk += 1
    root = instance.folder / f"os-{instance.disk}"
    await asyncio.to_thread(shutil.copytree, image, root)
    await _stop(instance)
    data = instance.folder / "data"
    data.mkdir(exist_ok=True)
    instance.process = await asyncio.create_subprocess_exec(
        "./init",
        cwd=root,
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # as the agent does
            "ROLLCALL_INSTANCE_ID": instance.folder.name,
            "ROLLCALL_IMAGE_VERSION": version,
            "ROLLCALL_DATA_DIR": str(data),
            "ROLLCALL_PORT": str(instance.port),
            "ROLLCALL_ADDRESS": "127.0.0.1",
        },
        start_new_session=True,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    while not await _is_healthy(instance.port):
        await asyncio.sleep(PROBE_EVERY)


async def _is_healthy(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.write(b"GET /health HTTP/1.1\r\nHost: floor\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return b" 200 " in line


async def _stop(instance: _Instance) -> None:
    if instance.process is not None and instance.process.returncode is None:
        os.killpg(instance.process.pid, signal.SIGTERM)
        await instance.process.wait()


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    candidate = FIRST_PORT
    while len(ports) < count:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", candidate)) != 0:  # nobody listens there
                ports.append(candidate)
        candidate += 1
    return ports
