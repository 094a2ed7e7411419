"""The whole stack as `rollcall up` runs it: up, hurt, down, and nothing left."""

import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import aio_pika
import pytest
from rollcall_embedded.packages import ensure_packages
from rollcall_embedded.probe import is_ready, reaches_broker
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_embedded.supervise import Supervised
from rollcall_testing import eventually


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    ensure_packages(lambda _: None)


@pytest.fixture(autouse=True)
def _private_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROLLCALL_DATABASE_URL", raising=False)
    monkeypatch.delenv("ROLLCALL_AMQP_URL", raising=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A state folder that the database's own user may pass through."""
    with TemporaryDirectory(prefix="rollcall-stack-") as name:
        Path(name).chmod(0o711)
        yield Path(name) / "state"


def _processes_of(folder: Path) -> list[str]:
    """Return the processes whose command line, or working directory, is in the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes()
            place = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(folder).encode() in command or place.startswith(str(folder)):
            found.append(f"{entry.name} {command.decode(errors='replace')}")
    return [one for one in found if one[0].isdigit() and not one.startswith(f"{os.getpid()} ")]


def _status(url: str, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def _replaced(child: Supervised, before: int) -> bool:
    return child.process is not None and child.process.poll() is None and child.pid != before


async def test_a_stack_survives_the_death_of_each_part_and_leaves_nothing(folder: Path) -> None:
    said: list[str] = []
    async with Stack(StackOptions(state_dir=folder, throwaway=True, report=said.append)) as stack:
        assert await is_ready(stack.api_port)
        assert stat.S_IMODE(stack.token_file.stat().st_mode) == 0o600
        assert stack.token_file.read_text().strip() == stack.token
        subscriptions = f"{stack.api_url}/subscriptions/s/resourceGroups/g/providers/"
        sets = f"{subscriptions}Microsoft.Compute/virtualMachineScaleSets?api-version=2018-10-01"
        assert _status(sets, stack.token) == 200
        assert _status(sets, None) == 401

        with pytest.raises(EmbeddedError, match="already runs with the state folder"):
            await Stack(StackOptions(state_dir=folder)).start()
        assert await is_ready(stack.api_port)  # the refused one touched nothing

        for name in ("orchestrator", "instance-agent-host-1", "postgres"):
            child = stack.processes[name]
            before = child.pid
            await stack.kill(name)
            await eventually(partial(_replaced, child, before))
        await eventually(lambda: is_ready(stack.api_port), timeout=30)

        await stack.kill("rabbitmq")
        for name in ("orchestrator", "instance-agent-host-1", "health-prober"):
            port = int(stack.metrics_url(name).split(":")[2].split("/")[0])
            await eventually(partial(reaches_broker, port), timeout=60)
        async with await aio_pika.connect(stack.auditor_amqp_url) as connection:
            channel = await connection.channel()
            await channel.get_queue("auditor", ensure=False)

        await stack.kill("health-prober", restart=False)
        with pytest.raises(ProcessLookupError):
            await stack.kill("health-prober")
        await stack.restart("health-prober")
        assert stack.processes["health-prober"].pid
    assert _processes_of(folder) == []
    assert any(line.startswith("orchestrator ended (killed by SIGKILL)") for line in said)


async def test_what_does_not_start_is_named_with_the_end_of_its_log(folder: Path) -> None:
    broken = {"ROLLCALL_PROBE_CONCURRENCY": "none"}
    with pytest.raises(EmbeddedError, match=r"(?s)health-prober ends at once.*probe_concurrency"):
        await Stack(
            StackOptions(state_dir=folder, throwaway=True, agents=1, extra_env=broken)
        ).start()
    assert _processes_of(folder) == []


async def test_a_mistake_in_the_configuration_starts_nothing(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "rollcall.yaml"
    config.write_text("feed: []\n")
    with pytest.raises(EmbeddedError, match="feed"):
        await Stack(StackOptions(state_dir=folder, config=config)).start()
    assert _processes_of(folder) == []
    assert list(folder.parent.iterdir()) == []


def _up(folder: Path) -> "subprocess.Popen[str]":
    """Start `rollcall up` in the folder and wait until it says that it is up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rollcall_cli.main", "up", "--state-dir", str(folder),
         "--api-port", "0", "--agents", "1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C stops it" in line:
            return process
    raise AssertionError(f"rollcall up ended with {process.wait()}")


async def test_the_command_stops_at_ctrl_c_and_its_children_die_with_it(folder: Path) -> None:
    killed = _up(folder)
    with killed:
        killed.send_signal(signal.SIGKILL)
    again = _up(folder)  # waits for what the kernel has told to stop
    with again:
        again.send_signal(signal.SIGINT)
        again.send_signal(signal.SIGINT)  # an impatient second one changes nothing
        assert again.stdout is not None
        assert "nothing is left running" in again.stdout.read()
    assert again.returncode == 0
    await eventually(lambda: not _processes_of(folder), timeout=15)
