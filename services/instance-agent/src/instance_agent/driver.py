"""What a driver must be able to do: the only door to what an instance really is.

The agent decides the order of steps and writes each one down; a driver does them. After kill -9 a
step is done again, so each must be idempotent: what is already so is left so. See docs/drivers.md.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.record import Disk

GROUP = "rollcall.drivers"
CUSTOM_DATA = "custom-data"  # the name of the script that is the model's custom data


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRef:
    """Which instance is meant."""

    scale_set: str
    instance_id: str

    @property
    def key(self) -> str:
        """Return a name that is safe for files, and the same for ever."""
        digest = hashlib.sha256(f"{self.scale_set.lower()}\n{self.instance_id}".encode())
        readable = re.sub(r"[^A-Za-z0-9_-]", "_", self.instance_id)[:40]
        return f"{readable}-{digest.hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the instance's application listens: part of its identity, kept across upgrades."""

    address: str
    port: int  # the one that the driver mapped; 0: it maps none, so the model's ports count


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Facts about an instance, looked up and not remembered."""

    running: bool
    disk: str | None  # the name of the OS disk in place
    data_disks: Mapping[int, DataDisk] = field(default_factory=dict)  # by logical unit number


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Something to run inside the instance."""

    name: str  # unique within the operation, safe for files
    command: tuple[str, ...]
    timeout: float  # seconds
    files: Mapping[str, Path] = field(default_factory=dict)  # put beside it, by name, mode 0700
    in_root: bool = False  # run in the OS disk's root, not in the folder of its files


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptResult:
    """How a script ended."""

    exit_code: int | None  # None: it was killed because its time was up
    output: str  # the last of what it wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the agent tells a driver when it loads it; a driver may read variables of its own."""

    folder: Path  # the driver's own, kept across restarts
    host: str
    address: str
    ports: range
    stop_grace: float  # seconds between asking an instance to stop and making it
    start_settle: float  # seconds that a start is watched
    max_unpacked_bytes: int


class Driver(Protocol):
    """A kind of instance. Raises OperationFailed (and OSError) for what does not work."""

    name: str

    async def import_image(self, file: Path, folder: Path) -> None:
        """Make from a verified image file what OS disks are built from, in the empty `folder`."""
        ...

    async def prepare(
        self,
        ref: InstanceRef,
        disk: Disk,
        image: Path,
        data_disks: tuple[int, ...],
        custom_data: bytes,
    ) -> None:
        """Build the OS disk, and missing data disks, beside what runs, and touch none of that.

        `custom_data` is for a driver whose instances run it as they boot; `run` is then asked for
        the script `CUSTOM_DATA` all the same, and tells what came of it.
        """
        ...

    async def stop(self, ref: InstanceRef) -> None:
        """Stop the instance: asked first, made to after the grace period."""
        ...

    async def swap(self, ref: InstanceRef, old: str | None, new: str) -> None:
        """Put OS disk `new` in the place of `old`, at once or not at all.

        Fails when a third disk is in place: then somebody else is at work on the instance.
        """
        ...

    async def start(self, ref: InstanceRef, disk: Disk) -> Endpoint:
        """Start the instance from the OS disk in place, unless it runs."""
        ...

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script in the running instance; when cancelled, nothing of it goes on."""
        ...

    async def observe(self, ref: InstanceRef) -> Observation:
        """Look whether the instance runs, and from which OS disk."""
        ...

    async def wait_stopped(self, ref: InstanceRef) -> None:
        """Return when the instance does not run."""
        ...

    async def console(self, ref: InstanceRef) -> str:
        """Return the last of what the instance wrote since its last start."""
        ...

    async def discard(self, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Drop all of the instance's OS disks but these."""
        ...

    async def delete(self, ref: InstanceRef) -> None:
        """Drop the stopped instance with all its disks."""
        ...


class DriverNotFound(LookupError):
    """No installed package offers the driver; the message names those that there are."""


def load_driver(name: str, options: Options) -> Driver:
    """Return the driver of that name. Raises DriverNotFound."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise DriverNotFound(
            f"ROLLCALL_DRIVER={name}: no such driver is installed; there are: {', '.join(known)}"
        )
    driver: Driver = known[name].load()(options)
    return driver
