"""`rollcall up` as a person starts it: what it says, and that it stops when nobody listens."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from rollcall_embedded.packages import ensure_packages

STOPS_IN = 30.0  # seconds


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that the database's own user may pass through."""
    ensure_packages(lambda _: None)
    with TemporaryDirectory(prefix="rollcall-up-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "state"


def test_it_stops_when_its_terminal_has_gone(state: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ROLLCALL_")}
    command = [sys.executable, "-c", "from rollcall_cli.main import app; app()"]
    process = subprocess.Popen(
        [*command, "up", "--api-port", "0", "--agents", "1", "--state-dir", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        process.stdout.close()
        process.send_signal(signal.SIGHUP)

        assert process.wait(STOPS_IN) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    password = state / "rabbitmq" / "auditor-password"
    assert f"amqp://auditor:$(cat {password})@127.0.0.1:" in said
    assert "/rollcall\n" in said
