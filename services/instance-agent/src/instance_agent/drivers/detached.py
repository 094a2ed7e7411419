"""Processes that outlive the agent, and do nothing before it is written down which they are."""

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from instance_agent.drivers import procfs
from instance_agent.drivers.procfs import Process

# It becomes the command, with the same pid and start time, when it is told to; when the agent is
# killed before that, it reads nothing and ends.
_GATE = ("/bin/sh", "-c", 'read -r _ && exec "$@" </dev/null', "gate")


class _Detached(subprocess.Popen[bytes]):
    """A child that is meant to outlive this object, and is reaped by `procfs.reap`."""

    def __del__(self) -> None:
        """Not warn that it still runs."""


def spawn(
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    output: BinaryIO,
    keep: Callable[[Process], None],
    inherited: Sequence[int] = (),
) -> Process:
    """Start a command as the leader of its own session, having had `keep` write it down first.

    Without that an agent that is killed in between would leave a process that nobody finds: what a
    process was started with cannot be read while it is being started. What cannot be run ends at
    once with exit code 126 or 127, and says why in `output`. It has the descriptors `inherited`.

    It takes a millisecond, in the loop's own thread, so that no other process inherits a file that
    is still being written.
    """
    reader, writer = os.pipe()  # close-on-exec, as Python makes them
    try:
        child = _Detached(
            (*_GATE, *command),
            cwd=folder,
            env=dict(environment),
            stdin=reader,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherited,
        )
        process = procfs.identify(child.pid)
        if process is None:  # somebody killed it; it has no start time that any other could have
            return Process(pid=child.pid, started=-1, host_boot="")
        keep(process)
        with suppress(BrokenPipeError):  # killed as well: found dead by whoever looks
            os.write(writer, b"go\n")
        return process
    finally:
        os.close(reader)
        os.close(writer)


def never_ran(process: Process) -> bool:
    """Say whether a process still waits for an agent that is gone: its command was never run."""
    return tuple(procfs.command(process.pid)[: len(_GATE)]) == _GATE
