"""The distribution's packages that the private servers come from: found, or installed as root."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rollcall_embedded.postgres import find_postgres
from rollcall_embedded.process import EmbeddedError, free_port
from rollcall_embedded.rabbitmq import find_rabbitmq

_POLICY = Path("/usr/sbin/policy-rc.d")


def missing_packages() -> list[str]:
    """Return the Debian packages that are needed and not there."""
    needed = {
        "postgresql": find_postgres() is not None,
        "rabbitmq-server": find_rabbitmq() is not None and shutil.which("epmd") is not None,
        "gpgv": shutil.which("gpgv") is not None,
        "gnupg": shutil.which("gpg") is not None,
        "util-linux": shutil.which("setpriv") is not None,
    }
    return [name for name, present in needed.items() if not present]


def ensure_packages(report: Callable[[str], None]) -> None:
    """Install what is missing; as root on Debian and its kin only.

    No service of the packages is started or stopped. Raises EmbeddedError, which gives the command
    to run, where it cannot install.
    """
    missing = missing_packages()
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if shutil.which("apt-get") is None:
        raise EmbeddedError(
            f"needed and not installed: {', '.join(missing)} (their names on Debian). Install "
            "PostgreSQL 14 or later, RabbitMQ 3.10 or later and GnuPG with your distribution's "
            "tools, or set ROLLCALL_DATABASE_URL and ROLLCALL_AMQP_URL"
        )
    if os.geteuid() != 0:
        raise EmbeddedError(
            f"needed and not installed: {', '.join(missing)}. Run: "
            f"sudo apt-get update && sudo {shlex.join(command)}"
        )
    report(f"installing {', '.join(missing)} …")
    with _no_service_starts(), _own_epmd() as environment:
        _apt(["apt-get", "update", "-qq"], environment)
        _apt(command, environment)
    still = missing_packages()
    if still:
        raise EmbeddedError(f"installed, and yet not found: {', '.join(still)}")
    report("installed")


def _apt(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise EmbeddedError(f"`{shlex.join(command)}` failed:\n{end}")


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """Forbid the packages to start their own servers while they are installed."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


@contextmanager
def _own_epmd() -> Iterator[dict[str, str]]:
    """Stop the epmd that the installation of RabbitMQ leaves behind, by giving it our own port."""
    port = str(free_port())
    yield {
        **os.environ,
        "DEBIAN_FRONTEND": "noninteractive",
        "ERL_EPMD_PORT": port,
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    if shutil.which("epmd") is not None:
        subprocess.run(
            ["epmd", "-port", port, "-kill"], capture_output=True, check=False
        )  # fails where none was left, which is as good
