"""Virtual environments with other people's packages from PyPI, kept for the next time."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rollcall" / "clients"
_PATIENCE = 900.0  # seconds; a large client on a slow line, by pip


def environment(*requirements: str) -> Path:
    """Return the Python of a virtual environment with these packages, from PyPI.

    It is kept for the next time; the file that marks it as whole is written last.
    """
    key = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:16]
    folder = CACHE / key
    python = folder / "bin" / "python"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            for command in _commands(folder, python, requirements):
                subprocess.run(command, check=True, timeout=_PATIENCE)
            (folder / "whole").touch()
    return python


def install(package: Path, target: Path) -> None:
    """Install a package of a folder, without what it depends on, into a folder for PYTHONPATH."""
    pip = ["uv", "pip"] if shutil.which("uv") else [str(environment("pip")), "-m", "pip"]
    command = [*pip, "install", "--quiet", "--no-deps", "--target", str(target), str(package)]
    subprocess.run(command, check=True, timeout=_PATIENCE)


def _commands(folder: Path, python: Path, requirements: Sequence[str]) -> list[list[str]]:
    if (uv := shutil.which("uv")) is not None:
        return [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "install", "--quiet", "--python", str(python), *requirements],
        ]
    return [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
    ]
