"""Consumers: what nobody can handle becomes a dead letter, and nothing else does."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aio_pika
import asyncpg
import pytest
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import ChannelNotFoundEntity
from rollcall_contracts.events import Event, FeedRecovered, FeedRejected, report_key
from rollcall_contracts.model import Failure
from rollcall_kit.broker import EXCHANGE, QueueSpec
from rollcall_kit.consume import BatchConsumer, Reject, TaskConsumer
from rollcall_kit.service import Context, Service, serve
from rollcall_kit.settings import Settings
from rollcall_testing import eventually
from rollcall_testing.proxy import Proxy, proxy_to

QUEUE = QueueSpec(name="worker", bindings=("report.#",), prefetch=100)


def feed(name: str) -> FeedRecovered:
    return FeedRecovered(feed=name)


class Worker:
    """Handles feeds; one named `poison` fails always, one named `refused` is rejected."""

    def __init__(self) -> None:
        self.handled: list[str] = []
        self.attempts: dict[str, int] = {}

    def _take(self, event: Event) -> str:
        assert isinstance(event, FeedRecovered)
        self.attempts[event.feed] = self.attempts.get(event.feed, 0) + 1
        if event.feed == "poison":
            raise ZeroDivisionError("no retry helps")
        if event.feed == "refused":
            raise Reject("this worker does not know that feed")
        return event.feed

    async def batch(
        self, events: Sequence[Event], connection: Any, context: Context
    ) -> Sequence[Event]:
        for event in events:
            name = self._take(event)
            await connection.execute("INSERT INTO handled (feed) VALUES ($1)", name)
        return [
            FeedRejected(feed=event.feed, error=Failure(code="Seen", message=""))
            for event in events
            if isinstance(event, FeedRecovered)
        ]

    async def task(self, event: Event, context: Context) -> None:
        self.handled.append(self._take(event))


class Wire:
    """The test's own connection: publishes, and looks into queues."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def send(self, *names: str) -> None:
        for name in names:
            event = feed(name)
            await self.send_raw(event.model_dump_json().encode(), report_key(event))

    async def send_raw(self, body: bytes, key: str = "report.feed.recovered.v1") -> None:
        async with self._connection.channel() as channel:
            exchange = await channel.get_exchange(EXCHANGE)
            await exchange.publish(aio_pika.Message(body), key)

    async def waiting(self, name: str) -> int | None:
        """Return how many messages are ready in a queue; None while it does not exist."""
        found = await self._look(name)
        return None if found is None else found.message_count

    async def consumed(self, name: str) -> bool:
        """Tell whether a queue has a consumer, which comes after its bindings."""
        found = await self._look(name)
        return found is not None and bool(found.consumer_count)

    async def _look(self, name: str) -> Any:
        channel = await self._connection.channel()  # the broker closes it if there is no queue
        try:
            queue = await channel.declare_queue(name, passive=True)
        except ChannelNotFoundEntity:
            return None
        await channel.close()
        return queue.declaration_result

    async def dead(self) -> list[bytes]:
        async with self._connection.channel() as channel:
            queue = await channel.get_queue("worker.dead")
            bodies = []
            while (message := await queue.get(fail=False, no_ack=True)) is not None:
                bodies.append(message.body)
            return bodies

    async def delete(self, name: str) -> None:
        async with self._connection.channel() as channel:
            await channel.queue_delete(name)


@asynccontextmanager
async def wired(amqp_url: str) -> AsyncIterator[Wire]:
    connection = await aio_pika.connect(amqp_url)
    async with connection:
        yield Wire(connection)


@asynccontextmanager
async def running(service: Service, amqp_url: str, database_url: str = "") -> AsyncIterator[None]:
    """Run a service in this process; it is an error if it ends by itself."""
    stopping = asyncio.Event()
    settings = Settings(amqp_url=amqp_url, database_url=database_url)
    task = asyncio.create_task(serve(service, settings, stopping))
    connected = asyncio.create_task(_consumed(amqp_url))
    try:
        await asyncio.wait({task, connected}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done()
        yield
        assert not task.done()
    finally:
        connected.cancel()
        stopping.set()
        await asyncio.wait_for(task, 10)


async def _consumed(amqp_url: str) -> None:
    """Wait until a consumer is at the queue."""
    async with wired(amqp_url) as wire:
        while not await wire.consumed("worker"):  # noqa: ASYNC110 (polls a server)
            await asyncio.sleep(0.05)


@pytest.fixture
async def table(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE TABLE handled (feed text NOT NULL)")
    yield connection
    await connection.close()


async def feeds(table: asyncpg.Connection) -> list[str]:
    return [row["feed"] for row in await table.fetch("SELECT feed FROM handled ORDER BY feed")]


def batch_service(worker: Worker) -> Service:
    return Service(
        name="worker", consumers=[BatchConsumer(queue=QUEUE, handle=worker.batch)], database=True
    )


def task_service(worker: Worker) -> Service:
    return Service(
        name="worker",
        consumers=[TaskConsumer(queue=QUEUE, handle=worker.task, longest_retry_pause=0.2)],
    )


async def test_poison_in_a_batch_ends_as_a_dead_letter_and_its_neighbours_are_handled(
    table: asyncpg.Connection, database_url: str, amqp_url: str
) -> None:
    worker = Worker()
    async with running(batch_service(worker), amqp_url, database_url), wired(amqp_url) as wire:
        await wire.send("a", "poison", "b", "c")

        async def neighbours() -> bool:
            return await feeds(table) == ["a", "b", "c"]

        await _until(neighbours)
        await _until_waiting(wire, "worker.dead", 1)
        assert await wire.dead() == [feed("poison").model_dump_json().encode()]
        await wire.send("d")
        await _until(lambda: _has(table, ["a", "b", "c", "d"]))
    assert worker.attempts["poison"] > 5  # it was given its chances
    logged = await table.fetch("SELECT body FROM event_log ORDER BY sequence")
    assert len(logged) == 4  # nothing of a transaction that failed


async def test_poison_in_a_task_ends_as_a_dead_letter_and_the_service_lives_on(
    amqp_url: str,
) -> None:
    worker = Worker()
    async with running(task_service(worker), amqp_url), wired(amqp_url) as wire:
        await wire.send("poison", "a")
        await eventually(lambda: worker.handled == ["a"])
        await _until_waiting(wire, "worker.dead", 1)
        await wire.send("b")
        await eventually(lambda: worker.handled == ["a", "b"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b'{"type": "feed.recovered.v9", "feed": "x"}',
        b'{"type": "feed.recovered.v1"}',
        b"[" * 100_000,
    ],
    ids=["empty", "text", "binary", "unknown type", "field missing", "deep"],
)
async def test_what_cannot_be_read_is_a_dead_letter_at_once(amqp_url: str, body: bytes) -> None:
    worker = Worker()
    async with running(task_service(worker), amqp_url), wired(amqp_url) as wire:
        await wire.send_raw(body)
        await _until_waiting(wire, "worker.dead", 1)
        assert await wire.dead() == [body]
        await wire.send("a")
        await eventually(lambda: worker.handled == ["a"])


async def test_unreadable_messages_in_a_batch(
    table: asyncpg.Connection, database_url: str, amqp_url: str
) -> None:
    async with running(batch_service(Worker()), amqp_url, database_url), wired(amqp_url) as wire:
        await wire.send_raw(b"first")
        await wire.send("a")
        await wire.send_raw(b"last")
        await _until_waiting(wire, "worker.dead", 2)
        await _until(lambda: _has(table, ["a"]))
        assert sorted(await wire.dead()) == [b"first", b"last"]


async def test_a_rejected_event_is_not_tried_again(amqp_url: str) -> None:
    worker = Worker()
    async with running(task_service(worker), amqp_url), wired(amqp_url) as wire:
        await wire.send("refused")
        await _until_waiting(wire, "worker.dead", 1)
    assert worker.attempts == {"refused": 1}


async def test_a_database_outage_makes_no_dead_letter(
    table: asyncpg.Connection, database_url: str, amqp_url: str
) -> None:
    worker = Worker()
    async with (
        proxy_to(database_url) as proxy,
        running(batch_service(worker), amqp_url, proxy.url(database_url)),
        wired(amqp_url) as wire,
    ):
        await wire.send("before")
        await _until(lambda: _has(table, ["before"]))
        proxy.close()
        await wire.send(*(f"during-{number:02}" for number in range(30)))
        # Longer than the delivery limit would last at a redelivery every 0.2 s.
        await _stays_for(5.0, lambda: _has(table, ["before"]))
        await proxy.open()
        await _until(lambda: _has(table, ["before", *(f"during-{n:02}" for n in range(30))]))
        assert await wire.waiting("worker.dead") == 0


async def test_database_connections_cut_again_and_again(
    table: asyncpg.Connection, database_url: str, amqp_url: str
) -> None:
    names = [f"{number:03}" for number in range(150)]
    async with (
        proxy_to(database_url) as proxy,
        running(batch_service(Worker()), amqp_url, proxy.url(database_url)),
        wired(amqp_url) as wire,
    ):
        for start in range(0, 150, 15):
            await wire.send(*names[start : start + 15])
            proxy.cut()

        async def all_there() -> bool:
            # A commit whose answer was lost is done again: at least once.
            return sorted(set(await feeds(table))) == names

        await _until(all_there, 30)
        assert await wire.waiting("worker.dead") == 0


async def test_the_broker_connection_is_cut_while_a_batch_consumer_works(
    table: asyncpg.Connection, database_url: str, amqp_url: str
) -> None:
    names = [f"{number:03}" for number in range(200)]
    async with (
        proxy_to(amqp_url) as proxy,
        running(batch_service(Worker()), proxy.url(amqp_url), database_url),
        wired(amqp_url) as wire,
    ):
        for start in range(0, 200, 40):
            await wire.send(*names[start : start + 40])
            proxy.cut()
            await _until_connected(proxy, start // 40 + 2)

        async def all_there() -> bool:
            return sorted(set(await feeds(table))) == names

        await _until(all_there, 30)
        await wire.send("after")
        await _until(lambda: _contains(table, "after"))
        assert await wire.waiting("worker.dead") == 0


async def test_tasks_outlive_the_broker_connection(amqp_url: str) -> None:
    started, released, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
    starts = 0

    async def handle(event: Event, context: Context) -> None:
        nonlocal starts
        starts += 1
        started.set()
        await released.wait()
        finished.set()

    service = Service(name="worker", consumers=[TaskConsumer(queue=QUEUE, handle=handle)])
    async with (
        proxy_to(amqp_url) as proxy,
        running(service, proxy.url(amqp_url)),
        wired(amqp_url) as wire,
    ):
        await wire.send("long")
        await asyncio.wait_for(started.wait(), 10)
        proxy.close()
        await asyncio.sleep(0.3)  # time in which the loss would reach the task
        released.set()
        await asyncio.wait_for(finished.wait(), 5)
        await proxy.open()
        await eventually(lambda: starts == 2, 20)  # not acknowledged: it comes again
        await _until_waiting(wire, "worker", 0)


async def test_a_task_consumer_goes_on_on_the_next_connection(amqp_url: str) -> None:
    worker = Worker()
    async with (
        proxy_to(amqp_url) as proxy,
        running(task_service(worker), proxy.url(amqp_url)),
        wired(amqp_url) as wire,
    ):
        for turn in range(4):
            await wire.send(f"{turn}")
            await eventually(lambda: len(worker.handled) == 2 * turn + 1, 20)  # noqa: B023
            proxy.cut()
            await wire.send(f"{turn}-cut")
            await eventually(lambda: len(worker.handled) == 2 * turn + 2, 20)  # noqa: B023


async def test_a_queue_that_somebody_deletes_is_made_and_consumed_again(amqp_url: str) -> None:
    worker = Worker()
    async with running(task_service(worker), amqp_url), wired(amqp_url) as wire:
        await wire.send("a")
        await eventually(lambda: worker.handled == ["a"])
        await wire.delete("worker")

        async def back() -> bool:
            await wire.send("b")
            return "b" in worker.handled

        await _until(back, 20)


async def _has(table: asyncpg.Connection, expected: list[str]) -> bool:
    return await feeds(table) == expected


async def _contains(table: asyncpg.Connection, name: str) -> bool:
    return name in await feeds(table)


async def _until(predicate: Any, timeout: float = 20) -> None:  # noqa: ASYNC109 (as eventually)
    await eventually(predicate, timeout)


async def _until_waiting(wire: Wire, queue: str, count: int) -> None:
    async def there() -> bool:
        return await wire.waiting(queue) == count

    await _until(there, 30)


async def _until_connected(proxy: Proxy, count: int) -> None:
    await eventually(lambda: proxy.accepted >= count, 20)


async def _stays_for(seconds: float, predicate: Any) -> None:
    """Look all the time whether something stays so."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        assert await predicate()
        await asyncio.sleep(0.1)
