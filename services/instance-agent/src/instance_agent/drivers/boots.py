"""A limit on machines that boot at once, across all agents of a host that know the same folder.

A turn is a file that is locked (flock): the kernel frees it when its process ends, however it ends.
"""

import asyncio
import fcntl
import os
import tempfile
from pathlib import Path

_ASK_AGAIN = 0.1  # seconds between two looks; a boot takes seconds
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


def usual_folder(remote: str = "") -> Path:
    """Return where the agents of one user on this host meet; `remote`: of which other host."""
    of = f"-{remote}" if remote else ""
    return Path(tempfile.gettempdir()) / f"rollcall-boots-{os.getuid()}{of}"


class Turn:
    """The right to boot one machine."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def end(self) -> None:
        """Let another one boot."""
        os.close(self._descriptor)


class Boots:
    """Gives out `count` turns. Agents with different counts share: the largest is the limit."""

    def __init__(self, folder: Path, count: int) -> None:
        """Make the folder. Raises OSError where it is another user's, or a link."""
        self._path = folder
        self._count = count
        os.close(self._folder())

    def _folder(self) -> int:
        """Return the folder, opened: others can make links where all files for a time are."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_DIRECTORY | _FLAGS)
        if os.fstat(descriptor).st_uid != os.getuid():
            os.close(descriptor)
            raise PermissionError(f"{self._path} belongs to another user")
        return descriptor

    async def take(self) -> Turn:
        """Wait for a turn."""
        while True:
            turn = self._try()
            if turn is not None:
                return turn
            await asyncio.sleep(_ASK_AGAIN)

    def _try(self) -> Turn | None:
        folder = self._folder()
        try:
            for number in range(self._count):
                flags = os.O_CREAT | os.O_RDWR | _FLAGS
                descriptor = os.open(str(number), flags, 0o600, dir_fd=folder)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    return Turn(descriptor)
        finally:
            os.close(folder)
        return None
