"""The publisher when its connection is cut: nothing lost, the order of each stream kept."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from rollcall_contracts.chain import GENESIS
from rollcall_contracts.events import FeedRecovered, parse
from rollcall_kit.broker import EXCHANGE, Broker
from rollcall_kit.cloudevents import OutgoingEntry, attributes
from rollcall_testing import eventually
from rollcall_testing.proxy import proxy_to


def entries(stream: str, first: int, count: int) -> list[OutgoingEntry]:
    return [
        OutgoingEntry(
            stream=stream,
            sequence=sequence,
            id=uuid.uuid4(),
            type="feed.recovered.v1",
            source="test",
            subject=stream,
            correlation_id=None,
            routing_key="feed.recovered.v1",
            time=datetime.now(UTC),
            body=FeedRecovered(feed=stream).model_dump_json(),
            previous_hash=GENESIS,
            hash=GENESIS,
        )
        for sequence in range(first, first + count)
    ]


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


@asynccontextmanager
async def reading(amqp_url: str) -> AsyncIterator[list[AbstractIncomingMessage]]:
    """Give the list of what the broker routes, on a connection that nobody cuts."""
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(
            EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True
        )
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        seen: list[AbstractIncomingMessage] = []

        async def note(message: AbstractIncomingMessage) -> None:
            seen.append(message)

        await queue.consume(note, no_ack=True)
        yield seen


async def test_entries_survive_a_connection_that_is_cut_again_and_again(amqp_url: str) -> None:
    total = 4000
    async with (
        proxy_to(amqp_url) as proxy,
        reading(amqp_url) as seen,
        connected(proxy.url(amqp_url)) as broker,
    ):
        publisher = asyncio.create_task(broker.publish_entries(entries("s", 1, total)))
        for share in (0.05, 0.3, 0.6, 0.9):
            await eventually(lambda: len(seen) >= share * total, 30, interval=0.001)  # noqa: B023
            proxy.cut()
        await asyncio.wait_for(publisher, 60)
        await eventually(lambda: int(attributes(seen[-1])["sequence"]) == total)
    numbers = [int(attributes(message)["sequence"]) for message in seen]
    assert len(numbers) > total  # it was cut in the middle: some came twice
    assert list(dict.fromkeys(numbers)) == list(range(1, total + 1))


async def test_a_report_waits_for_the_connection(amqp_url: str) -> None:
    async with (
        proxy_to(amqp_url) as proxy,
        reading(amqp_url) as seen,
        connected(proxy.url(amqp_url)) as broker,
    ):
        proxy.close()
        await eventually(lambda: not broker.is_up)
        report = asyncio.create_task(
            broker.report([FeedRecovered(feed="a")], time=datetime.now(UTC))
        )
        await proxy.open()
        await asyncio.wait_for(report, 20)
        await eventually(lambda: seen)
        assert parse(seen[0].body) == FeedRecovered(feed="a")
        assert seen[0].routing_key == "report.feed.recovered.v1"


async def test_an_exchange_that_somebody_deletes_is_made_again(amqp_url: str) -> None:
    connection = await aio_pika.connect(amqp_url)
    async with connection, connected(amqp_url) as broker:
        channel = await connection.channel()
        await channel.exchange_delete(EXCHANGE)
        async with asyncio.timeout(20):
            await broker.publish_entries(entries("s", 1, 1))
        assert await channel.get_exchange(EXCHANGE, ensure=True)


async def test_a_message_is_a_cloudevent_that_any_client_can_read(amqp_url: str) -> None:
    async with reading(amqp_url) as seen, connected(amqp_url) as broker:
        entry = entries("s", 3, 1)[0]
        await broker.publish_entries([entry])
        await eventually(lambda: seen)
    message = seen[0]
    assert message.content_type == "application/json"
    assert message.delivery_mode is aio_pika.DeliveryMode.PERSISTENT
    assert message.body.decode() == entry.body
    assert attributes(message) == {
        "specversion": "1.0",
        "id": str(entry.id),
        "source": "test",
        "type": "feed.recovered.v1",
        "subject": "s",
        "time": entry.time.isoformat(),
        "stream": "s",
        "sequence": "3",
        "previoushash": GENESIS,
        "hash": GENESIS,
    }
