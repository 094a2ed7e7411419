"""What a driver must be able to do: the only door to what an instance really is.

The agent decides the order of steps and writes each one down; a driver does them. After kill -9 a
step is done again with the same arguments, so each must be idempotent: what is already so is left
so. A disk's name is the id of the operation that made it. See docs/drivers.md.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, runtime_checkable

from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.record import Disk
from instance_agent.space import Room

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
class Capabilities:
    """What a kind of instance can do; the agent goes by it."""

    # `start` returns the same endpoint for as long as the instance exists. The agent fails an
    # operation after which it is another one.
    keeps_address: bool = True
    # The OS disk can only be swapped while the instance does not run. Without it the agent does not
    # stop an instance for a swap; `start` then makes the instance run from the new disk.
    needs_stop: bool = True
    # The OS disk that was replaced is kept as it was until commit, and putting it back is one swap.
    # Without it a restore is refused before anything is touched.
    instant_restore: bool = True
    # Scripts can run in the instance. Without it an operation that would have to run some fails
    # before anything is touched.
    custom_data: bool = True
    extensions: bool = True
    # Custom data that is cloud-init's own (`#cloud-config` …) may mean something in the instance,
    # so it is run like a script. Without it, it is left alone: az sends some with each new set.
    cloud_init: bool = False
    # A connection to the endpoint is taken by the instance itself. Without it automatic upgrades of
    # a set with a TCP probe are held: an image that does not boot would pass for healthy.
    tcp_probe_proves_guest: bool = True
    # There may be machines that this driver did not make, and it is an `Adopter`: asked to create
    # an instance, the agent takes over the one that `adopt` returns as it is, with its version.
    adopts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDisk:
    """What an OS disk is to be built from. Later versions may add fields."""

    disk: Disk
    image: Path  # the folder that `import_image` filled
    data_disks: tuple[int, ...] = (0,)  # logical unit numbers; those that are missing are made
    # For a driver whose instances run it as they boot; `run` is then asked for the script
    # `CUSTOM_DATA` all the same, and tells what came of it.
    custom_data: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Facts about an instance, looked up and not remembered."""

    running: bool
    # The OS disk in place, as `prepare` was told of it, and read from where the driver wrote it
    # down with the disk.
    disk: Disk | None
    disks: frozenset[str] = frozenset()  # names of all its OS disks that are complete
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
    start_settle: float  # seconds that a start is watched
    max_unpacked_bytes: int
    room: Room = field(default_factory=Room)  # what `prepare` promises, until the operation ends

    @property
    def agent(self) -> str:
        """Which agent this is, of all on the machine: two may have hosts of the same name."""
        return f"{self.host}:{self.folder.resolve()}"


class Driver(Protocol):
    """A kind of instance. Raises OperationFailed (and OSError) for what does not work."""

    name: str
    capabilities: Capabilities

    async def import_image(self, file: Path, folder: Path) -> None:
        """Make from a verified image file what OS disks are built from, in the empty `folder`."""
        ...

    async def prepare(self, ref: InstanceRef, new: NewDisk) -> None:
        """Build the OS disk, and missing data disks, beside what runs, and touch none of that."""
        ...

    async def stop(self, ref: InstanceRef, grace: float) -> None:
        """Stop the instance: asked first, made to after `grace` seconds; with 0 at once."""
        ...

    async def swap(self, ref: InstanceRef, old: str | None, new: str) -> None:
        """Put OS disk `new` in the place of `old`, at once or not at all; back, too.

        Fails when a third disk is in place: then somebody else is at work on the instance.
        """
        ...

    async def start(self, ref: InstanceRef, disk: Disk) -> Endpoint:
        """Start the instance from the OS disk in place, unless it runs from it."""
        ...

    async def run(self, ref: InstanceRef, disk: Disk, script: Script) -> ScriptResult:
        """Run a script in the running instance; when cancelled, nothing of it goes on."""
        ...

    async def observe(self, ref: InstanceRef) -> Observation:
        """Look whether the instance runs, from which OS disk, and what disks it has."""
        ...

    async def wait_stopped(self, ref: InstanceRef) -> None:
        """Return when the instance does not run.

        Where what runs the instances goes away, and they may go with it, raise: it is asked again,
        and then an instance that should run and does not is started; a few times, if that fails.
        """
        ...

    async def console(self, ref: InstanceRef) -> str:
        """Return the last of what the instance wrote since its last start."""
        ...

    async def commit(self, ref: InstanceRef, keep: frozenset[str]) -> None:
        """Drop all of the instance's OS disks but these, half-built ones too."""
        ...

    async def delete(self, ref: InstanceRef) -> None:
        """Drop the stopped instance with all its disks."""
        ...


@runtime_checkable
class Adopter(Protocol):
    """A driver with the capability `adopts`."""

    async def adopt(self, ref: InstanceRef) -> Disk | None:
        """Take a machine that is there for the instance, and return the OS disk that it has.

        Which one it took is written down before this returns, so that it is the same one when asked
        again. None: there is none, so the instance is to be made. Raises OperationFailed.
        """
        ...


class DriverNotFound(LookupError):
    """The driver is not installed, or cannot be used here; the message says what to do."""


def load_driver(name: str, options: Options) -> Driver:
    """Return the driver of that name. Raises DriverNotFound."""
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise DriverNotFound(
            f"ROLLCALL_DRIVER={name}: no such driver is installed; there are: {', '.join(known)}"
        )
    kind = known[name].load()
    if not isinstance(getattr(kind, "capabilities", None), Capabilities):
        raise DriverNotFound(
            f"ROLLCALL_DRIVER={name}: {known[name].value} does not say what it can: give it "
            "`capabilities = Capabilities(...)`"
        )
    driver: Driver = kind(options)
    return driver
