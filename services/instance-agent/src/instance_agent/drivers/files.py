"""The folders of one process instance, and the few small files that must change at once."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rollcall_contracts.model import FailureCode

from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.record import Disk
from instance_agent.drivers.procfs import Process
from instance_agent.failures import OperationFailed

_BOOT_LOGS = 10
_TAIL = 2048  # bytes of output in a failure's message


@dataclass(frozen=True, slots=True)
class Folders:
    """Where an instance's things are."""

    top: Path

    @property
    def disks(self) -> Path:
        """Return where the OS disks lie, each a folder under its name."""
        return self.top / "disks"

    @property
    def os(self) -> Path:
        """Return the link to the OS disk in place: to change it is to swap."""
        return self.top / "os"

    @property
    def logs(self) -> Path:
        """Return where the output of each boot and script goes."""
        return self.top / "logs"

    def data(self, lun: int) -> Path:
        """Return a data disk."""
        return self.top / "data" / str(lun)

    def data_folders(self) -> dict[int, DataDisk]:
        """Return the data disks that there are, each told by its inode."""
        found = {}
        for folder in self.data(0).parent.glob("*"):
            if not is_number(folder.name):  # somebody's copy
                continue
            facts = folder.stat()
            found[int(folder.name)] = DataDisk(place=f"inode {facts.st_dev}:{facts.st_ino}")
        return found

    def make(self, data_disks: tuple[int, ...]) -> None:
        """Make what is missing; what is there stays as it is (M06)."""
        for folder in (self.disks, self.logs, *map(self.data, {0, *data_disks})):
            folder.mkdir(parents=True, exist_ok=True)

    def write_down(self, disk: Disk) -> None:
        """Write down what an OS disk is made from, before it gets its name."""
        (self.top / "facts").mkdir(exist_ok=True)
        _write(self.top / "facts" / f"{disk.name}.json", asdict(disk))

    def drop_disks(self, keep: Iterable[str]) -> None:
        """Drop the OS disks but these, and what belongs to them."""
        kept = set(keep)
        for disk in list(self.disks.iterdir()) if self.disks.is_dir() else []:
            if disk.name not in kept:
                drop(disk)
        for facts in list((self.top / "facts").glob("*.json")):
            if facts.stem not in kept:
                facts.unlink()

    def complete(self) -> frozenset[str]:
        """Return the names of the OS disks that there are."""
        entries = self.disks.iterdir() if self.disks.is_dir() else ()
        return frozenset(entry.name for entry in entries if not entry.name.startswith("."))

    def in_place(self) -> Disk | None:
        """Return the OS disk in place."""
        name = self.current()
        if name is None:
            return None
        try:
            facts = _read(self.top / "facts" / f"{name}.json")
        except OperationFailed:
            facts = None
        return Disk(**facts) if facts else Disk(name=name, version="", generation=0)

    def current(self) -> str | None:
        """Return the name of the OS disk in place."""
        try:
            return Path(os.readlink(self.os)).name
        except FileNotFoundError:
            return None

    def swap(self, old: str | None, new: str, instance: str) -> None:
        """Put OS disk `new` in the place of `old`. Raises OperationFailed, having done nothing."""
        current = self.current()
        if current == new:
            return
        if current != old:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"OS disk {current} is in place where {old} was expected; nothing was changed",
                instance,
            )
        if not (self.disks / new).is_dir():
            raise OperationFailed(FailureCode.DRIVER, f"OS disk {new} does not exist", instance)
        self.point_to(new)

    def point_to(self, disk: str) -> None:
        """Put an OS disk in place: one rename, so it is done or not."""
        fresh = self.top / "os.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("disks") / disk)
        fresh.rename(self.os)
        sync(self.top)

    def refuse_other(self, disk: str, instance: str) -> None:
        """Raise OperationFailed where another OS disk is in place than the one to start from."""
        current = self.current()
        if current != disk:
            raise OperationFailed(
                FailureCode.START,
                f"OS disk {disk} is not in place: {current or 'none'} is; nothing was started",
                instance,
            )

    def port(self) -> int | None:
        """Return the instance's port, if it has one yet."""
        port = self.identity().get("port")
        return None if port is None else int(port)

    def keep_port(self, port: int) -> None:
        """Write the port down for ever."""
        self.keep_identity({"port": port})

    def identity(self) -> dict[str, Any]:
        """Return what stays with the instance for ever; nothing before it is written down."""
        return _read(self.top / "identity.json") or {}

    def keep_identity(self, identity: dict[str, Any]) -> None:
        """Write down what stays with the instance for ever."""
        _write(self.top / "identity.json", identity)

    def address(self) -> str | None:
        """Return the address at which the instance was seen last; it is a hint, and may be lost."""
        with contextlib.suppress(OperationFailed):  # such as an empty file after a loss of power
            kept = _read(self.top / "address.json")
            return None if kept is None else str(kept.get("address"))
        return None

    def keep_address(self, address: str) -> None:
        """Write down at which address the instance is seen."""
        if address != self.address():
            _write(self.top / "address.json", {"address": address}, lasting=False)

    def process(self) -> Process | None:
        """Return the process that was started last, if it was not stopped; it may be dead."""
        path = self.top / "process.json"
        # Not written through, as its process ends with the power; that may leave an empty file.
        kept = _read(path) if path.exists() and path.stat().st_size else None
        return None if kept is None else Process(**kept)

    def keep_process(self, process: Process | None) -> None:
        """Write down which process is the instance, or that none is."""
        if process is None:
            (self.top / "process.json").unlink(missing_ok=True)
        else:
            _write(self.top / "process.json", asdict(process), lasting=False)

    def boot_logs(self) -> list[Path]:
        """Return the logs of boots, oldest first."""
        return sorted(self.logs.glob("boot-*.log"))

    def next_boot_log(self) -> Path:
        """Return a name for the next boot's log, and drop the oldest ones."""
        logs = self.boot_logs()
        for old in logs[: -_BOOT_LOGS + 1]:
            old.unlink()
        number = int(logs[-1].stem.removeprefix("boot-")) + 1 if logs else 1
        return self.logs / f"boot-{number:06d}.log"


def build_disk(image: Path, disk: Path) -> None:
    """Copy an image's folder; hard links would let an instance write into the image."""
    if disk.is_dir():
        return
    part = disk.with_name(f".{disk.name}.part")
    if part.exists():  # of a copy that was killed
        shutil.rmtree(part)
    shutil.copytree(image, part, symlinks=True)
    part.rename(disk)


def drop(folder: Path) -> None:
    """Remove a folder, also one with folders in it that may not be written to."""
    if not folder.exists():
        return
    doomed = folder.with_name(f".{folder.name}.gone")  # never half a disk under its name
    if not folder.name.startswith("."):
        if doomed.exists():
            _remove(doomed)
        folder.rename(doomed)
    else:
        doomed = folder
    _remove(doomed)


def _remove(folder: Path) -> None:
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, 0o700)
    shutil.rmtree(folder)


def bring(own: Path, files: dict[str, Path]) -> None:
    """Put a script's files into its own folder on the OS disk."""
    if own.exists():
        shutil.rmtree(own)
    own.mkdir(parents=True, mode=0o700)
    for name, source in files.items():
        shutil.copyfile(source, own / name)
        (own / name).chmod(0o700)


def tail(path: Path, size: int = _TAIL) -> str:
    """Return the last of a text file: that many bytes at most."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read().decode(errors="replace").strip()
    except FileNotFoundError:
        return ""


def is_number(name: str) -> bool:
    """Say whether a name is a logical unit number as this module writes it."""
    return re.fullmatch(r"0|[1-9][0-9]*", name) is not None


def ports_of(instances: Iterable[Path]) -> set[int]:
    """Return the ports of all instances; one whose port cannot be read fails by itself, later."""
    found = set()
    for top in instances:
        with contextlib.suppress(OperationFailed):
            port = Folders(top).port()
            if port is not None:
                found.add(port)
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise OperationFailed(
            FailureCode.DRIVER,
            f"{path} is damaged: put it back from a copy, or end what runs of the instance, remove "
            "its folder and delete the instance",
        )
    return value


def _write(path: Path, value: dict[str, Any], *, lasting: bool = True) -> None:
    """Write a file whole, and a lasting one so that it is there after a loss of power."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(value))
    if lasting:
        sync(fresh)
    fresh.rename(path)
    if lasting:
        sync(path.parent)


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's names, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
