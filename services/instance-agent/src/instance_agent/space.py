"""Room on the host's disks: asked for before anything is stopped, and told with its numbers."""

import errno
import shutil
from pathlib import Path

from rollcall_contracts.model import FailureCode

from instance_agent.failures import OperationFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


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
    free = free_bytes(folder)
    if free - promised >= needed:
        return
    others = f", of which {promised} are promised to instances being upgraded" if promised else ""
    raise full(
        f"{what} needs {needed} bytes, and {folder} has {free} left{others}: make room on this host"
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
        self._promised: dict[str, tuple[int, int]] = {}  # by instance: device, bytes

    def promise(self, key: str, folder: Path, needed: int, what: str) -> None:
        """Set bytes aside for an instance. Raises OperationFailed (HostDiskFull)."""
        self.release(key)
        device = folder.stat().st_dev
        promised = sum(size for where, size in self._promised.values() if where == device)
        need(folder, needed, what, promised=promised)
        self._promised[key] = (device, needed)

    def release(self, key: str) -> None:
        """Say that an instance has written what it will, or never will."""
        self._promised.pop(key, None)
