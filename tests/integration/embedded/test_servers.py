"""The private servers: they start, keep their data, and leave nothing behind."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rollcall_embedded.packages import ensure_packages
from rollcall_embedded.postgres import PostgresServer
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.rabbitmq import NODE, RabbitServer
from rollcall_embedded.server import Server, start_together
from rollcall_testing import eventually


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    ensure_packages(lambda _: None)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the database's own user may pass through; pytest's tmp_path is not."""
    with TemporaryDirectory(prefix="rollcall-embedded-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines and working directories that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            place = os.readlink(entry / "cwd")
        except OSError:
            continue
        if str(folder).encode() in command or place.startswith(str(folder)):
            found.append(f"{entry.name} {command.decode(errors='replace')}")
    return found


async def test_postgres_keeps_its_data_over_a_restart_and_leaves_no_process(folder: Path) -> None:
    async with PostgresServer(folder / "postgres") as server:
        first = await asyncpg.connect(server.url())
        await first.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        await first.close()
        assert _processes_of(folder)
    assert _processes_of(folder) == []
    async with PostgresServer(folder / "postgres") as server:
        second = await asyncpg.connect(server.url())
        assert await second.fetchval("SELECT n FROM kept") == 7
        await second.close()


async def test_postgres_listens_on_loopback_only_and_wants_a_password(folder: Path) -> None:
    async with PostgresServer(folder / "postgres", throwaway=True) as server:
        connection = await asyncpg.connect(server.url())
        assert await connection.fetchval("SHOW listen_addresses") == "127.0.0.1"
        assert await connection.fetchval("SHOW unix_socket_directories") == ""
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url().replace(server.password, "wrong"))


async def test_rabbitmq_keeps_messages_over_a_restart_and_leaves_no_process(folder: Path) -> None:
    async with RabbitServer(folder / "rabbitmq") as server:
        async with await aio_pika.connect(server.url()) as connection:
            channel = await connection.channel()
            await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
            message = aio_pika.Message(b"hello", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, "kept")
        assert _processes_of(folder)
    await eventually(lambda: not _processes_of(folder), timeout=5)
    async with (
        RabbitServer(folder / "rabbitmq") as server,
        await aio_pika.connect(server.url()) as connection,
    ):
        queue = await (await connection.channel()).get_queue("kept")
        received = await queue.get(timeout=5)
        assert received is not None
        assert received.body == b"hello"


async def test_the_auditor_account_reads_its_queue_and_cannot_publish(folder: Path) -> None:
    async with (
        RabbitServer(folder / "rabbitmq", throwaway=True) as server,
        await aio_pika.connect(server.auditor_url) as connection,
    ):
        channel = await connection.channel()
        queue = await channel.get_queue("auditor", ensure=False)
        received: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        assert await queue.consume(received.put, no_ack=True)  # the broker agrees, or raises
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match="ACCESS_REFUSED"):
            await channel.default_exchange.publish(aio_pika.Message(b"forged"), "auditor")


async def test_rabbitmq_takes_no_request_away_that_is_worked_on(folder: Path) -> None:
    longest = timedelta(days=1)  # provisioningTimeout at most
    asked = "application:get_env(rabbit, consumer_timeout)."
    async with RabbitServer(folder / "rabbitmq", throwaway=True) as server:
        told = await asyncio.create_subprocess_exec(
            *("/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", NODE, "eval", asked),
            env=server._environment(),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await told.communicate()
    (value,) = re.findall(r"\{ok,(\d+)\}", output.decode())
    assert timedelta(milliseconds=int(value)) > 2 * longest
    composed = Path(__file__).parents[3] / "deploy" / "rabbitmq.conf"
    assert f"consumer_timeout = {value}" in composed.read_text().splitlines()


async def test_a_server_that_dies_comes_back_on_the_same_port(folder: Path) -> None:
    async with PostgresServer(folder / "postgres") as server:
        port = server.port
        assert server.process is not None
        server.process.kill()
        server.process.wait()
        assert not server.is_running
        assert await server.relaunch()
        assert server.port == port
        connection = await asyncpg.connect(server.url())
        await connection.close()


async def test_a_taken_port_makes_the_start_try_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PostgresServer(folder / "first", throwaway=True) as first:
        ports = iter([first.port])
        second = PostgresServer(folder / "second", throwaway=True)
        choose = second.choose_ports

        def taken_then_free() -> None:
            choose()
            second.port = next(ports, second.port)

        monkeypatch.setattr(second, "choose_ports", taken_then_free)
        async with second:
            assert second.port != first.port


def _start_servers_and_kill_their_parent(folder: Path) -> None:
    code = f"""
import asyncio, pathlib
from rollcall_embedded.postgres import PostgresServer
from rollcall_embedded.rabbitmq import RabbitServer
from rollcall_embedded.server import start_together
async def main():
    folder = pathlib.Path({str(folder)!r})
    await start_together(PostgresServer(folder / "postgres"), RabbitServer(folder / "rabbitmq"))
    print("started", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"started\n"
        parent.send_signal(signal.SIGKILL)


async def test_servers_end_with_a_parent_that_is_killed_and_the_folder_can_be_used_again(
    folder: Path,
) -> None:
    _start_servers_and_kill_their_parent(folder)
    servers: list[Server] = [PostgresServer(folder / "postgres"), RabbitServer(folder / "rabbitmq")]
    await start_together(*servers)  # waits for the old ones to be gone
    for server in servers:
        await server.stop()
    await eventually(lambda: not _processes_of(folder), timeout=15)


async def test_a_start_that_fails_shows_the_end_of_the_log(folder: Path) -> None:
    server = PostgresServer(folder / "postgres", throwaway=True)
    async with server:
        pass
    (server.data / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match="no_such_setting"):
        await server.start()
