"""Consumers: from deliveries to handled events, with dead letters for what nobody can handle."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import asyncpg
import structlog
from aio_pika.abc import AbstractConnection, AbstractIncomingMessage
from pydantic import ValidationError
from rollcall_contracts.events import Event, parse

from rollcall_kit.broker import BROKER_ERRORS, QueueSpec
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.metrics import batch_seconds, messages_handled

if TYPE_CHECKING:
    from rollcall_kit.service import Context

log = structlog.get_logger()
C = TypeVar("C")

RETRY_PAUSE = 0.2  # seconds
INTERFACE_TRIES = 20  # some 30 s: a connection that is lost is told otherwise by then


class Reject(Exception):
    """Raised by a handler for an event that no retry will help: a dead letter at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConsumer(Generic[C]):
    """Hands what waits in the queue to `handle`, together, in one transaction.

    `handle(events, connection, context)` returns the events that follow; they enter the event log.
    """

    queue: QueueSpec
    handle: Callable[[Sequence[Event], Any, C], Awaitable[Sequence[Event]]]
    max_batch: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConsumer(Generic[C]):
    """Hands each delivery to `handle(event, context)` in a task of its own.

    Tasks outlive a lost connection: the delivery then comes again while the first may still run, so
    `handle` must be idempotent.
    """

    queue: QueueSpec
    handle: Callable[[Event, C], Awaitable[None]]
    longest_retry_pause: float = 60.0  # seconds


async def start_consumer(
    consumer: "BatchConsumer[Context] | TaskConsumer[Context]",
    context: "Context",
    connection: AbstractConnection,
) -> None:
    """Start consuming on a fresh connection."""
    match consumer:
        case BatchConsumer():
            inbox: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()

            async def enqueue(message: AbstractIncomingMessage) -> None:
                inbox.put_nowait(message)

            await context.broker.subscribe(connection, consumer.queue, enqueue)
            task = asyncio.create_task(_batches(consumer, context, inbox))
            task.add_done_callback(lambda done: _batches_ended(done, context))
            connection.close_callbacks.add(lambda *_: task.cancel())
        case TaskConsumer():

            async def start(message: AbstractIncomingMessage) -> None:
                # A task of the service's own: aio-pika cancels its callbacks with the connection.
                task = asyncio.create_task(_one_task(consumer, context, message))
                context.tasks.add(task)
                task.add_done_callback(context.tasks.discard)

            await context.broker.subscribe(connection, consumer.queue, start)


def _batches_ended(task: "asyncio.Task[None]", context: "Context") -> None:
    if not task.cancelled():  # it never ends by itself
        log.error("consumer_failed", exc_info=task.exception())
        context.broker.reconnect()


async def _batches(
    consumer: "BatchConsumer[Context]",
    context: "Context",
    inbox: "asyncio.Queue[AbstractIncomingMessage]",
) -> None:
    while True:
        messages = [await inbox.get()]
        while len(messages) < consumer.max_batch and not inbox.empty():
            messages.append(inbox.get_nowait())
        started = time.perf_counter()
        try:
            await _handle_batch(consumer, context, messages)
        except BROKER_ERRORS as error:
            log.warning("acknowledgement_failed", error=str(error))  # they will come again
        batch_seconds.labels(consumer.queue.name).observe(time.perf_counter() - started)


async def _handle_batch(
    consumer: "BatchConsumer[Context]",
    context: "Context",
    messages: Sequence[AbstractIncomingMessage],
) -> None:
    readable: list[tuple[AbstractIncomingMessage, Event]] = []
    for message in messages:
        event = await _parse_or_reject(consumer.queue.name, message)
        if event is not None:
            readable.append((message, event))
    if not readable:
        return
    try:
        await _transact(consumer, context, [event for _, event in readable])
    except Exception as error:
        log.warning(
            "batch_failed", queue=consumer.queue.name, size=len(readable), error=repr(error)
        )
        for message, event in readable:  # one of them is to blame: find it, keep the others
            await _handle_single(consumer, context, message, event)
        return
    await readable[-1][0].ack(multiple=True)
    messages_handled.labels(consumer.queue.name, "handled").inc(len(readable))


async def _transact(
    consumer: "BatchConsumer[Context]", context: "Context", events: Sequence[Event]
) -> None:
    pause, tries = 0.05, 0
    while True:
        try:
            await context.transact(lambda connection: consumer.handle(events, connection, context))
            return
        except DATABASE_AWAY as error:
            tries += 1
            if isinstance(error, asyncpg.InterfaceError) and tries > INTERFACE_TRIES:
                raise  # asyncpg says the same of a lost connection and of a wrong argument
            # Waiting here, not by redelivery: an outage must not use up the delivery limit.
            log.warning("database_unavailable", error=str(error) or type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2)


async def _handle_single(
    consumer: "BatchConsumer[Context]",
    context: "Context",
    message: AbstractIncomingMessage,
    event: Event,
) -> None:
    try:
        await _transact(consumer, context, [event])
    except Reject as error:
        await _reject(consumer.queue.name, message, str(error))
    except Exception:
        await _requeue(consumer.queue.name, message, event)
    else:
        await message.ack()
        messages_handled.labels(consumer.queue.name, "handled").inc()


async def _one_task(
    consumer: "TaskConsumer[Context]", context: "Context", message: AbstractIncomingMessage
) -> None:
    try:
        event = await _parse_or_reject(consumer.queue.name, message)
        if event is None:
            return
        try:
            await consumer.handle(event, context)
        except Reject as error:
            await _reject(consumer.queue.name, message, str(error))
        except Exception:
            # Later and later: what a full disk needs is time, and 20 tries are soon used up.
            await _requeue(consumer.queue.name, message, event, _retry_pause(consumer, message))
        else:
            await message.ack()
            messages_handled.labels(consumer.queue.name, "handled").inc()
    except BROKER_ERRORS as error:
        log.info("acknowledgement_failed", id=message.message_id, error=str(error))


async def _parse_or_reject(queue: str, message: AbstractIncomingMessage) -> Event | None:
    try:
        return parse(message.body)
    except ValidationError as error:
        await _reject(queue, message, str(error))
        return None


async def _reject(queue: str, message: AbstractIncomingMessage, why: str) -> None:
    log.error(
        "message_rejected",
        queue=queue,
        routing_key=message.routing_key,
        id=message.message_id,
        why=why,
    )
    messages_handled.labels(queue, "rejected").inc()
    await message.nack(requeue=False)


def _retry_pause(consumer: "TaskConsumer[Context]", message: AbstractIncomingMessage) -> float:
    """Return the seconds before the next try: twice as long each time."""
    tries = int(str(message.headers.get("x-delivery-count") or 0))
    return float(min(RETRY_PAUSE * 2**tries, consumer.longest_retry_pause))


async def _requeue(
    queue: str, message: AbstractIncomingMessage, event: Event, pause: float = RETRY_PAUSE
) -> None:
    log.exception("message_failed", queue=queue, event_type=event.type, id=message.message_id)
    messages_handled.labels(queue, "failed").inc()
    await asyncio.sleep(pause)
    await message.nack(requeue=True)
