"""The event log: numbers without gaps, an unbroken chain, and the relay's order."""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractIncomingMessage
from rollcall_contracts.chain import GENESIS, Entry, is_intact
from rollcall_contracts.events import Event, FeedRecovered, UpgradeStartRequested
from rollcall_kit.broker import EXCHANGE, Broker
from rollcall_kit.cloudevents import attributes
from rollcall_kit.database import migrate, migrations_of, open_pool
from rollcall_kit.outbox import Relay, append
from rollcall_testing import eventually


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    opened = await open_pool(database_url, size=10)
    await migrate(opened, [migrations_of("rollcall_kit")])
    yield opened
    await opened.close()


async def write(pool: asyncpg.Pool, events: list[Event]) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await append(connection, events, source="test", now=datetime.now(UTC))


async def chains(pool: asyncpg.Pool) -> dict[str, list[Entry]]:
    """Return each stream's entries in order; each was checked against its own hash."""
    found: dict[str, list[Entry]] = defaultdict(list)
    for row in await pool.fetch(
        "SELECT stream, sequence, id::text, type, source, time, body, previous_hash, hash"
        " FROM event_log ORDER BY stream, sequence"
    ):
        found[row["stream"]].append(Entry(**dict(row)))
    return found


async def test_concurrent_writers_leave_no_gap_and_one_chain(pool: asyncpg.Pool) -> None:
    chance = random.Random(7)

    async def writer(number: int) -> None:
        for turn in range(15):
            events: list[Event] = [
                FeedRecovered(feed=f"{number}-{turn}"),
                UpgradeStartRequested(scale_set="/Sets/A", reason=f"{number}-{turn}"),
                UpgradeStartRequested(scale_set="/sets/a", reason="the same set: ids ignore case"),
                UpgradeStartRequested(scale_set=f"/sets/{chance.choice('bc')}"),
            ]
            chance.shuffle(events)
            try:
                async with pool.acquire() as connection, connection.transaction():
                    await append(connection, events, source="test", now=datetime.now(UTC))
                    if turn % 5 == 4:
                        raise RuntimeError("this transaction is rolled back")
            except RuntimeError:
                continue

    await asyncio.gather(*(writer(number) for number in range(8)))

    streams = await chains(pool)
    assert len(streams["images"]) == 8 * 12
    assert len(streams["/sets/a"]) == 8 * 12 * 2
    for entries in streams.values():
        assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))
        assert all(is_intact(entry) for entry in entries)
        previous = [GENESIS, *(entry.hash for entry in entries)]
        assert [entry.previous_hash for entry in entries] == previous[:-1]


async def test_a_changed_body_breaks_the_chain(pool: asyncpg.Pool) -> None:
    await write(pool, [FeedRecovered(feed="a"), FeedRecovered(feed="b")])
    await pool.execute("UPDATE event_log SET body = replace(body, 'a', 'x') WHERE sequence = 1")
    first, second = (await chains(pool))["images"]
    assert not is_intact(first)
    assert is_intact(second)


class Reader:
    """Notes all entries that the broker gives, as an auditor's queue would."""

    def __init__(self) -> None:
        self.seen: dict[str, list[int]] = defaultdict(list)

    async def note(self, message: AbstractIncomingMessage) -> None:
        values = attributes(message)
        self.seen[values["stream"]].append(int(values["sequence"]))

    def is_complete(self, counts: dict[str, int]) -> bool:
        return all(set(self.seen[name]) == set(range(1, n + 1)) for name, n in counts.items())

    def assert_first_copies_in_order(self) -> None:
        for numbers in self.seen.values():
            assert list(dict.fromkeys(numbers)) == list(range(1, max(numbers) + 1))


@asynccontextmanager
async def reading(amqp_url: str) -> AsyncIterator[Reader]:
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True
        )
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        reader = Reader()
        await queue.consume(reader.note, no_ack=True)
        yield reader


@asynccontextmanager
async def connected(amqp_url: str) -> AsyncIterator[Broker]:
    broker = Broker(amqp_url, source="test")
    keeper = asyncio.create_task(broker.run())
    await asyncio.wait_for(broker.wait_up(), 20)
    try:
        yield broker
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)


async def test_two_relays_at_once_keep_each_streams_order(
    pool: asyncpg.Pool, amqp_url: str
) -> None:
    names = [f"/sets/{letter}" for letter in "abcdef"]

    async def writer() -> None:
        for _ in range(40):
            await write(pool, [UpgradeStartRequested(scale_set=name) for name in names * 2])

    async def drain(relay: Relay) -> None:
        # Few streams and entries at a time, so that the two take turns on each stream.
        while sum(map(len, reader.seen.values())) < 6 * 240:
            await relay.relay_once(streams=2, entries=7)

    async with (
        reading(amqp_url) as reader,
        connected(amqp_url) as first,
        connected(amqp_url) as second,
        asyncio.timeout(60),
    ):
        await asyncio.gather(
            writer(),
            writer(),
            writer(),
            drain(Relay(pool, first)),
            drain(Relay(pool, second)),
        )
    # Without a crash nothing is published twice: the order is exact.
    assert reader.seen == {name: list(range(1, 241)) for name in names}


_KILLED_BETWEEN_PUBLISH_AND_COMMIT = """
import asyncio, os, signal, sys
from rollcall_kit.broker import Broker
from rollcall_kit.database import open_pool
from rollcall_kit.outbox import Relay

class Killed(Broker):
    async def publish_entries(self, entries):
        await super().publish_entries(entries)
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    broker = Killed(os.environ["AMQP"], source="test")
    keeper = asyncio.create_task(broker.run())
    await Relay(await open_pool(os.environ["DATABASE"]), broker).relay_once(entries=10)

asyncio.run(main())
"""


async def test_a_relay_killed_between_publish_and_commit_loses_nothing(
    pool: asyncpg.Pool, amqp_url: str, database_url: str
) -> None:
    await write(pool, [FeedRecovered(feed=str(number)) for number in range(35)])
    environment = {**os.environ, "AMQP": amqp_url, "DATABASE": database_url}
    async with reading(amqp_url) as reader:
        for _ in range(2):
            killed = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", _KILLED_BETWEEN_PUBLISH_AND_COMMIT],
                env=environment,
                timeout=60,
            )
            assert killed.returncode == -signal.SIGKILL
        assert await pool.fetchval("SELECT published FROM event_relay") == 0
        async with connected(amqp_url) as broker:
            relay = asyncio.create_task(Relay(pool, broker).run())
            await eventually(lambda: reader.is_complete({"images": 35}), 20)
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)
    assert len(reader.seen["images"]) == 10 + 10 + 35
    reader.assert_first_copies_in_order()


async def test_a_running_relay_publishes_what_another_process_left(
    pool: asyncpg.Pool, amqp_url: str
) -> None:
    async with reading(amqp_url) as reader, connected(amqp_url) as broker:
        relay = asyncio.create_task(Relay(pool, broker, poll=0.1).run())
        await write(pool, [FeedRecovered(feed="a")])  # nobody wakes the relay
        await eventually(lambda: reader.is_complete({"images": 1}))
        relay.cancel()
        await asyncio.gather(relay, return_exceptions=True)
