"""The prober as a process on a real broker: what it holds outlives it."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from rollcall_contracts.events import (
    Event,
    InstanceHealthy,
    MetricQueried,
    MetricQueryRequested,
    ProbeRequested,
    ProbeTarget,
    parse,
)
from rollcall_contracts.model import MetricGate, MetricOutcome, Probe
from rollcall_kit.broker import EXCHANGE
from rollcall_testing import eventually

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"


@contextmanager
def prober(amqp_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a prober; kill it afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "health_prober"],
            env={**os.environ, "ROLLCALL_AMQP_URL": amqp_url, "ROLLCALL_LOG_FORMAT": "json"},
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def healthy_application() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def metric_server() -> AsyncIterator[tuple[int, asyncio.Event, asyncio.Event]]:
    """Run a server that answers 0.02 once it is released, and says when it is asked."""
    asked, release = asyncio.Event(), asyncio.Event()
    body = (
        b'{"status":"success","data":{"resultType":"vector",'
        b'"result":[{"metric":{},"value":[1795464775.036,"0.02"]}]}}'
    )

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        except ConnectionError:
            return  # the prober that asked was killed
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked, release


def connected(log: Path) -> bool:
    return "broker_connected" in log.read_text()


async def test_a_second_prober_takes_over_the_lease_of_one_that_was_killed(
    amqp_url: str, tmp_path: Path
) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection, healthy_application() as port:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True
        )
        reports = await channel.declare_queue(exclusive=True)
        await reports.bind(exchange, "report.#")

        seen: list[Event] = []

        async def note(message: AbstractIncomingMessage) -> None:
            seen.append(parse(message.body))

        await reports.consume(note, no_ack=True)
        with prober(amqp_url, tmp_path / "first.log") as first:
            await eventually(lambda: connected(tmp_path / "first.log"), 30)
            request = ProbeRequested(
                scale_set=SET,
                probe=Probe(protocol="Http", port=80, request_path="/", interval=0.5),
                targets=(
                    ProbeTarget(
                        instance_id="4", attempt=2, lease=9, address="127.0.0.1", port=port
                    ),
                ),
                until=datetime.now(UTC) + timedelta(seconds=60),
            )
            await exchange.publish(
                aio_pika.Message(request.model_dump_json().encode()), request.type
            )
            await eventually(lambda: seen, 10)
            assert isinstance(seen[0], InstanceHealthy)

            with prober(amqp_url, tmp_path / "second.log") as second:
                await eventually(lambda: connected(tmp_path / "second.log"), 30)
                first.send_signal(signal.SIGKILL)
                await eventually(lambda: len(seen) == 2, 20)
                assert seen[0] == seen[1]
                second.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(second.wait, 10) == 0
    assert "error" not in (tmp_path / "second.log").read_text().lower()


async def test_a_question_of_a_killed_prober_is_answered_by_another(
    amqp_url: str, tmp_path: Path
) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection, metric_server() as (port, asked, release):
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True
        )
        reports = await channel.declare_queue(exclusive=True)
        await reports.bind(exchange, "report.#")
        seen: list[Event] = []

        async def note(message: AbstractIncomingMessage) -> None:
            seen.append(parse(message.body))

        await reports.consume(note, no_ack=True)
        gate = MetricGate(
            server=f"http://127.0.0.1:{port}/",
            query="rate",
            success_condition="<= 0.01",
            timeout=60,
        )
        request = MetricQueryRequested(scale_set=SET, upgrade_id="u", check=3, gate=gate)
        with prober(amqp_url, tmp_path / "first.log") as first:
            await eventually(lambda: connected(tmp_path / "first.log"), 30)
            await exchange.publish(
                aio_pika.Message(request.model_dump_json().encode()), request.type
            )
            await eventually(asked.is_set)
            asked.clear()
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert seen == []
        with prober(amqp_url, tmp_path / "second.log") as second:
            await eventually(asked.is_set, 30)
            release.set()
            await eventually(lambda: seen)
            assert seen == [
                MetricQueried(
                    scale_set=SET,
                    upgrade_id="u",
                    check=3,
                    outcome=MetricOutcome.FAILURE,
                    value=0.02,
                    reason="0.02 <= 0.01 is not so",
                )
            ]

            async def waiting() -> int:
                queue = await channel.get_queue("health-prober.metrics")
                return int(queue.declaration_result.message_count or 0)

            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait, 10) == 0
            assert await waiting() == 0  # it was acknowledged
