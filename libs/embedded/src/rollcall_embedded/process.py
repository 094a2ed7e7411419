"""Child processes that cannot outlive us: started in their own session, stopped in bounded time."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import SystemRandom

_random = SystemRandom()

LOOPBACK = "127.0.0.1"
INSTANCE_PORTS = range(20000, 30000)  # the agents give these to their instances
LOWEST_PORT = INSTANCE_PORTS.stop


class EmbeddedError(Exception):
    """A private server or a service cannot run here; the message says why and what to do."""


def ephemeral_ports() -> range:
    """Return the ports that the kernel gives to outgoing connections of its own accord."""
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except OSError:
        return range(32768, 61000)
    return range(int(low), int(high) + 1)


def free_port() -> int:
    """Return a loopback port that nobody listens on, outside the ephemeral range.

    Somebody may still take it before it is used: whoever binds it tries another one then.
    Raises EmbeddedError when a hundred tries find none.
    """
    taken = ephemeral_ports()
    for _ in range(100):
        port = _random.randrange(LOWEST_PORT, 65536)
        if port not in taken and _can_bind(port):
            return port
    raise EmbeddedError("no free port found on 127.0.0.1 outside the ephemeral range")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Say whether something listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


def spawn(
    command: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    death_signal: str = "TERM",
    user: str | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a child in its own session, its output added to `log`.

    The kernel sends it `death_signal` when the *thread* that started it ends, even by kill -9: call
    this from the main thread. A terminal's Ctrl-C does not reach it, so the order of stopping is
    ours. As root, `user` names the account to run as.
    """
    guard = ["setpriv", "--pdeathsig", death_signal]
    if user is not None:
        guard += ["--reuid", user, "--regid", user, "--clear-groups"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [*guard, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )


async def terminate(
    process: "subprocess.Popen[bytes]", *, patience: float, stop_signal: int = signal.SIGTERM
) -> bool:
    """Ask a child to stop, and kill it after `patience` seconds; say whether it went by itself."""
    if process.poll() is None:
        process.send_signal(stop_signal)
    if await exited(process, patience):
        return True
    process.kill()
    await exited(process, 5)
    return False


async def exited(process: "subprocess.Popen[bytes]", patience: float) -> bool:
    """Wait at most `patience` seconds for the child to end; say whether it did."""
    deadline = time.monotonic() + patience
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def alive_in(pid: int, folder: Path) -> bool:
    """Say whether the process lives and its command line names the folder, so is not another's."""
    try:
        return os.fsencode(folder) in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def private_folder(folder: Path, mode: int = 0o700) -> Path:
    """Make the folder where it is missing, with its parents, and set its mode."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)
    return folder


def write_private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that is never readable by others, not even while it is written."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.replace(path)


def kept_secret(path: Path, fresh: str) -> str:
    """Return the secret in the file; `fresh` is stored there first where none is."""
    if not path.exists():
        write_private(path, fresh + "\n")
    return path.read_text().strip()
