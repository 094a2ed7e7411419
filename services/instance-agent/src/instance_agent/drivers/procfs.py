"""Processes told apart for good: by pid, start time and boot of the host."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process that is, or was, there; its pid may belong to another one by now."""

    pid: int
    started: int  # clock ticks since the host's boot (proc(5), stat field 22)
    host_boot: str


def host_boot() -> str:
    """Return what tells this boot of the host from any other."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> tuple[str, int, int] | None:
    """Return a process's state, session and start time, or None where there is none."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold spaces and brackets
    return fields[0], int(fields[3]), int(fields[19])


def identify(pid: int) -> Process | None:
    """Return the process that has the pid now; a zombie is none."""
    facts = _stat(pid)
    if facts is None or facts[0] in "ZX":
        return None
    return Process(pid=pid, started=facts[2], host_boot=host_boot())


def is_alive(process: Process) -> bool:
    """Say whether this very process still runs."""
    return identify(process.pid) == process


def signal_group(process: Process, number: signal.Signals) -> None:
    """Send a signal to the whole group that the process leads, or led; nobody there is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def wait_exit(process: Process) -> None:
    """Return when the process has ended, be it a child or not; a zombie has ended."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Opened first and compared then: from here on the descriptor means one process.
        if not is_alive(process):
            return
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)


async def stop_group(process: Process, grace: float) -> None:
    """End a process and all of its group: SIGTERM, then SIGKILL after `grace` seconds."""
    if is_alive(process):
        signal_group(process, signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await wait_exit(process)
        except TimeoutError:
            if is_alive(process):
                signal_group(process, signal.SIGKILL)
            await wait_exit(process)
        # Its own children may be there still. As our child it is a zombie, so nobody can have its
        # pid; else nobody had the time.
        signal_group(process, signal.SIGKILL)
    reap(process)


def reap(process: Process) -> int | None:
    """Take a dead child's exit code off the kernel, so that no zombie stays.

    The code is negative for a signal's number, as in `subprocess`. Returns None for a process that
    still runs, or is no child: its parent, an agent before this one, is gone, and pid 1 reaps it.
    """
    try:
        result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def environment(pid: int) -> dict[str, str]:
    """Return what a process was started with; nothing for one that is gone or not ours."""
    try:
        raw = (_PROC / str(pid) / "environ").read_bytes()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return {}
    pairs = (entry.partition("=") for entry in raw.decode(errors="replace").split("\0"))
    return {name: value for name, separator, value in pairs if separator}


def command(pid: int) -> list[str]:
    """Return a process's command line; nothing for one that is gone."""
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return raw.decode(errors="replace").split("\0")[:-1]


def leaders_with(variable: str) -> Iterator[tuple[Process, dict[str, str]]]:
    """Give the session leaders that were started with an environment variable."""
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        facts = _stat(pid)
        if facts is None or facts[1] != pid:
            continue
        values = environment(pid)
        process = identify(pid)
        if process is not None and variable in values:
            yield process, values


def members(session: int, variable: str, value: str) -> Iterator[Process]:
    """Give the living processes of a session that were started with this variable."""
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        facts = _stat(pid)
        if facts is None or facts[1] != session or environment(pid).get(variable) != value:
            continue
        process = identify(pid)
        if process is not None:
            yield process
