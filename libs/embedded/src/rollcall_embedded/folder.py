"""The state folder of a stack: where it is, who holds it, what is in it."""

import fcntl
import os
from pathlib import Path
from typing import IO

from rollcall_embedded.process import EmbeddedError, private_folder

LOG_LIMIT = 16 * 1024 * 1024  # bytes; a longer log is put aside when its service starts


def default_state_dir() -> Path:
    """Return where a stack keeps its state unless told: as root in /var/lib, else as XDG says."""
    if os.geteuid() == 0:
        return Path("/var/lib/rollcall")
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "rollcall"


def make_state_dir(folder: Path) -> None:
    """Make the folder and its parts.

    As root others may pass through the folder, though not look: PostgreSQL runs as its own user.
    """
    try:
        private_folder(folder, 0o711 if os.geteuid() == 0 else 0o700)
        private_folder(folder / "logs")
        private_folder(folder / "agents")
    except OSError as error:
        raise EmbeddedError(
            f"{folder} cannot be used as the state folder ({error.strerror}): "
            "choose another one with --state-dir"
        ) from error


def lock(folder: Path) -> IO[str]:
    """Hold the folder until the returned file is closed or this process ends, however it ends.

    Raises EmbeddedError while another process holds it.
    """
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "unknown"
        file.close()
        raise EmbeddedError(
            f"rollcall already runs with the state folder {folder} (pid {pid}): "
            "stop it, or choose another folder with --state-dir"
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def rotated(log: Path) -> Path:
    """Return the log, after putting a long one aside."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_suffix(".1.log"))
    return log
