"""A limit on machines that boot at once, across all agents of a host that know the same folder.

A turn is a file that is locked (flock): the kernel frees it when its process ends, however it ends.
"""

import asyncio
import fcntl
import os
import tempfile
from pathlib import Path

_ASK_AGAIN = 0.1  # seconds between two looks; a boot takes seconds


def usual_folder() -> Path:
    """Return where the agents of one user on this host meet."""
    return Path(tempfile.gettempdir()) / f"rollcall-boots-{os.getuid()}"


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
        """Make the folder. Raises PermissionError where it is another user's."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        self._files = [folder / str(number) for number in range(count)]

    async def take(self) -> Turn:
        """Wait for a turn."""
        while True:
            for file in self._files:
                descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    return Turn(descriptor)
            await asyncio.sleep(_ASK_AGAIN)
