"""Room on the host's disks: asked for before anything is stopped, and told with its numbers."""

import errno
import shutil
from pathlib import Path

from rollcall_contracts.model import Failure, FailureCode

from instance_agent.failures import OperationFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_RESERVE = 256 * 1024**2  # bytes that unpacking leaves free, or a fiftieth of a smaller disk


def free_bytes(folder: Path) -> int:
    """Return how many bytes may still be written to a folder's file system."""
    return shutil.disk_usage(folder).free


def size_on_disk(folder: Path) -> int:
    """Return how many bytes a folder's content takes."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def need(folder: Path, needed: int, what: str, *, promised: int = 0) -> None:
    """Raise OperationFailed (HostDiskFull) where a folder's file system has no room for `needed`.

    `promised` bytes of what is free belong to others, who have not written them yet.
    """
    compare(free_bytes(folder), needed, what, str(folder), promised=promised)


def compare(free: int, needed: int, what: str, where: str, *, promised: int = 0) -> None:
    """Raise OperationFailed (HostDiskFull) where `free` bytes, less those promised, are too few."""
    if free - promised >= needed:
        return
    others = f", of which {promised} are promised to instances being upgraded" if promised else ""
    raise full(
        f"{what} needs {needed} bytes, and {where} has {free} left{others}: make room on this host"
    )


def leave_room(folder: Path, size: int, what: str) -> None:
    """Raise OperationFailed (HostDiskFull) where `size` more bytes leave the disk too little.

    For what grows without anybody knowing how far: others on the disk, such as the agent's own
    journal, need some of it.
    """
    disk = shutil.disk_usage(folder)
    reserve = min(_RESERVE, disk.total // 50)
    if disk.free - size < reserve:
        raise full(
            f"{what} needs more than {folder} has: {disk.free} bytes are left, of which {reserve} "
            "stay free: make room on this host"
        )


def full(message: str, target: str | None = None) -> OperationFailed:
    """Return the failure of a host whose disk has no room."""
    return OperationFailed(FailureCode.DISK_FULL, message, target)


def is_full(error: BaseException) -> bool:
    """Say whether an error is that of a disk, or a quota, without room."""
    return isinstance(error, OSError) and error.errno in _FULL


class Room:
    """Bytes that instances under way will write, so that two do not count on the same ones."""

    def __init__(self) -> None:
        # By instance: what they are written to, a device or a name; and how many.
        self._promised: dict[str, tuple[int | str, int]] = {}

    def promise(self, key: str, folder: Path, needed: int, what: str) -> None:
        """Set bytes aside for an instance. Raises OperationFailed (HostDiskFull)."""
        self.release(key)
        device = folder.stat().st_dev
        need(folder, needed, what, promised=self._promised_at(device))
        self._promised[key] = (device, needed)

    def promise_at(self, key: str, place: str, free: int, needed: int, what: str) -> None:
        """Do the same at a place that is no folder of this host, and has so many bytes free."""
        self.release(key)
        compare(free, needed, what, place, promised=self._promised_at(place))
        self._promised[key] = (place, needed)

    def _promised_at(self, place: int | str) -> int:
        return sum(size for where, size in self._promised.values() if where == place)

    def release(self, key: str) -> None:
        """Say that an instance has written what it will, or never will."""
        self._promised.pop(key, None)


def failure_of(error: Exception, target: str | None = None) -> Failure:
    """Return what the control plane is told of an error, also of one that nobody thought of."""
    if isinstance(error, OperationFailed):
        return error.failure
    code = FailureCode.DISK_FULL if is_full(error) else FailureCode.DRIVER
    return Failure(code=code, message=f"{type(error).__name__}: {error}", target=target)
