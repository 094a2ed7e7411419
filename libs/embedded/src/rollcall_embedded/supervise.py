"""Keeps one child process running: what dies is started again, later and later."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable

from rollcall_embedded.process import EmbeddedError, exited, terminate

FIRST_PAUSE = 0.2  # seconds before the first restart
LONGEST_PAUSE = 30.0
STEADY = 60.0  # seconds alive after which the pause starts over


class Supervised:
    """A child process by name, and whatever takes its place when it dies."""

    def __init__(
        self,
        name: str,
        start: Callable[[], "subprocess.Popen[bytes]"],
        report: Callable[[str], None],
        *,
        process: "subprocess.Popen[bytes] | None" = None,
    ) -> None:
        """Take how to start the child, and the running one where there is one already."""
        self.name = name
        self.process = process
        self.deaths = 0  # without having been asked to stop
        self._start = start
        self._report = report
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._pause = FIRST_PAUSE

    @property
    def pid(self) -> int:
        """Return the process id. Raises ProcessLookupError while it is not running."""
        if self.process is None or self.process.poll() is not None:
            raise ProcessLookupError(f"{self.name} is not running")
        return self.process.pid

    async def run(self) -> None:
        """Keep the child running until cancelled; start it from the main thread only."""
        while True:
            await self._wanted.wait()
            started = time.monotonic()
            try:
                if self.process is None or self.process.poll() is not None:
                    self.process = self._start()
                await ended(self.process)
                how = _how(self.process.returncode)
            except (OSError, EmbeddedError) as error:
                how = f"cannot be started: {error}"
            if not self._wanted.is_set():
                continue
            self.deaths += 1
            if time.monotonic() - started > STEADY:
                self._pause = FIRST_PAUSE
            self._report(f"{self.name} ended ({how}); starting it again")
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    async def kill(self, *, restart: bool = True) -> None:
        """Kill the child as by kill -9; it comes back unless told otherwise.

        Raises ProcessLookupError while it is not running.
        """
        victim = self.process
        os.kill(self.pid, signal.SIGKILL)
        if not restart:
            self._wanted.clear()
        if victim is not None:
            await exited(victim, 5)

    async def halt(self, patience: float) -> None:
        """Stop the child and leave it stopped; after `patience` seconds it is killed."""
        self._wanted.clear()
        if self.process is not None and not await terminate(self.process, patience=patience):
            self._report(f"{self.name} did not stop within {patience:g} s and was killed")

    def resume(self) -> None:
        """Let a child that was stopped run again."""
        self._pause = FIRST_PAUSE
        self._wanted.set()


async def ended(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the child has ended, without polling."""
    if process.poll() is not None:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    handle = os.pidfd_open(process.pid)
    loop.add_reader(handle, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"killed by {signal.Signals(-code).name}"
