"""Telling processes apart: zombies, reused pids, and processes that are nobody's child here."""

import asyncio
import os
import signal
import time
from dataclasses import replace

from instance_agent.drivers import procfs
from rollcall_testing import eventually


def sleeper(seconds: float = 60) -> int:
    """Start a process in a session of its own, as a driver does."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(seconds)
        os._exit(7)
    while os.getsid(pid) != pid:
        time.sleep(0.001)
    return pid


def orphan_sleeper() -> int:
    """Start one whose parent has ended."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.write(writing, b"%d\n" % sleeper())
        os._exit(0)
    os.waitpid(middle, 0)
    pid = int(os.read(reading, 32))
    os.close(reading)
    os.close(writing)
    return pid


def in_table(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def test_a_zombie_does_not_live() -> None:
    pid = sleeper()
    process = procfs.identify(pid)
    assert process is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(5):
        await procfs.wait_exit(process)
    assert in_table(pid)  # nobody has reaped it yet
    assert not procfs.is_alive(process)
    assert procfs.reap(process) == -signal.SIGKILL
    assert not in_table(pid)
    assert procfs.reap(process) is None


async def test_a_reused_pid_is_another_process_and_is_not_signalled() -> None:
    pid = sleeper()
    process = procfs.identify(pid)
    assert process is not None
    for other in (replace(process, started=process.started - 1), replace(process, host_boot="x")):
        assert not procfs.is_alive(other)
        async with asyncio.timeout(5):
            await procfs.wait_exit(other)
            await procfs.stop_group(other, grace=5)
        assert procfs.is_alive(process)
    await procfs.stop_group(process, grace=5)
    assert procfs.identify(pid) is None


async def test_the_end_of_a_process_that_is_no_child_is_seen_at_once() -> None:
    orphan = procfs.identify(orphan_sleeper())
    assert orphan is not None
    waiting = asyncio.create_task(procfs.wait_exit(orphan))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await procfs.stop_group(orphan, grace=5)
    async with asyncio.timeout(5):
        await waiting
    await eventually(lambda: not procfs.is_alive(orphan))
