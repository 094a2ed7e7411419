"""What the two private servers have in common: start on free ports, wait, try again, stop."""

import asyncio
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from rollcall_embedded.process import EmbeddedError, alive_in, tail
from rollcall_embedded.together import together

ATTEMPTS = 4  # on other ports each time


class Server(ABC):
    """A private server in a folder of its own, a child of this process."""

    name: str
    start_patience: float = 60

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.log = self.folder / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Make the folder ready; may take seconds, and does nothing the second time."""

    @abstractmethod
    def choose_ports(self) -> None:
        """Take free ports; again when a start on the last ones failed."""

    @abstractmethod
    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the process on the chosen ports."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Say whether the server takes connections."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the server; nothing of it stays running."""

    async def start(self) -> None:
        """Start the server and wait until it takes connections.

        Raises EmbeddedError with the end of the server's log when it does not start.
        """
        await asyncio.to_thread(self.prepare)
        for _ in range(ATTEMPTS):
            self.choose_ports()
            if await self.relaunch():
                return
            await self.stop()
        raise EmbeddedError(f"{self.name} does not start; the end of {self.log}:\n{tail(self.log)}")

    async def relaunch(self) -> bool:
        """Start the process on the ports that it has; say whether it came to take connections."""
        process = self.process = self.launch()
        deadline = time.monotonic() + self.start_patience
        while process.poll() is None and time.monotonic() < deadline:
            if self.is_ready():
                return True
            await asyncio.sleep(0.05)
        return False

    def await_predecessor(self, pid_file: Path) -> None:
        """Wait for the server of a parent that was killed: the kernel has told it to stop.

        Raises EmbeddedError when it is still there after 20 seconds.
        """
        try:
            pid = int(pid_file.read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return
        deadline = time.monotonic() + 20
        while alive_in(pid, self.folder):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"another {self.name} (pid {pid}) runs in {self.folder}")
            time.sleep(0.1)

    @property
    def is_running(self) -> bool:
        """Say whether the process lives."""
        return self.process is not None and self.process.poll() is None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def start_together(*servers: Server) -> None:
    """Start servers side by side; when one fails, all are stopped."""
    try:
        await together(*(server.start() for server in servers))
    except BaseException:
        for server in servers:
            await server.stop()
        raise
