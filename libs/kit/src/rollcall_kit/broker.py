"""The broker: one topic exchange, quorum queues with dead letters, publisher confirms, CloudEvents.

A connection that breaks is made again for ever; whoever publishes meanwhile waits.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError
from rollcall_contracts.events import Event, report_key, subject

from rollcall_kit.cloudevents import Outgoing, OutgoingEntry, amqp_message
from rollcall_kit.metrics import broker_connected

log = structlog.get_logger()

EXCHANGE = "rollcall.events"
DEAD_LETTERS = "rollcall.dead-letters"
DELIVERY_LIMIT = 20  # RabbitMQ 4's default, set always since RabbitMQ 3 has none
IN_FLIGHT = 256  # publishes that wait for their confirm at once

BROKER_ERRORS = (OSError, AMQPError, ChannelInvalidStateError, asyncio.TimeoutError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec:
    """A durable quorum queue, and the routing keys that it is bound to."""

    name: str
    bindings: tuple[str, ...]
    prefetch: int = 2000


class Broker:
    """A connection to RabbitMQ that comes back by itself."""

    def __init__(self, url: str, *, source: str) -> None:
        self._url = url
        self.source = source
        self._up = asyncio.Event()
        self._publisher: AbstractChannel | None = None
        self._connection: AbstractConnection | None = None
        self._lost = asyncio.Event()

    async def run(
        self, consume: Callable[[AbstractConnection], Awaitable[None]] | None = None
    ) -> None:
        """Stay connected until cancelled; `consume` is called on each new connection."""
        pause = 0.1
        while True:
            self._lost = asyncio.Event()
            try:
                async with self._connected() as connection:
                    if consume is not None:
                        await consume(connection)
                    self._up.set()
                    broker_connected.set(1)
                    log.info("broker_connected")
                    pause = 0.1
                    await self._lost.wait()
                    log.warning("broker_connection_lost")
            except BROKER_ERRORS as error:
                log.warning("broker_unreachable", error=str(error) or type(error).__name__)
            finally:
                self._up.clear()
                broker_connected.set(0)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AbstractConnection]:
        connection = await aio_pika.connect(
            self._url, client_properties={"connection_name": self.source}, timeout=10
        )
        try:
            channel = await connection.channel(publisher_confirms=True)
            self._watch(connection, channel)
            await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.TOPIC, durable=True)
            await channel.declare_exchange(DEAD_LETTERS, aio_pika.ExchangeType.DIRECT, durable=True)
            self._publisher = channel
            self._connection = connection
            yield connection
        finally:
            self._publisher = None
            async with asyncio.timeout(5):  # a peer that is gone does not say goodbye
                await connection.close()

    def _watch(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        """Make the connection again when it, or one channel that a service lives on, is gone.

        `connection.closed()` only tells of a close from this side. The broker closes single
        channels too, when an exchange is missing or an acknowledgement takes longer than it allows.
        """
        lost = self._lost
        connection.close_callbacks.add(lambda *_: lost.set())
        channel.close_callbacks.add(lambda *_: lost.set())

    def reconnect(self) -> None:
        """Give the connection up and make a new one, on which consumers start afresh."""
        self._lost.set()

    @property
    def is_up(self) -> bool:
        """Say whether the connection stands."""
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Wait until the connection stands."""
        await self._up.wait()

    async def report(self, events: Sequence[Event], *, time: datetime) -> None:
        """Publish what an agent or a prober saw; returns when the broker has confirmed it."""
        stamp = time.isoformat()
        await self._publish(
            [
                (
                    amqp_message(
                        event.model_dump_json(),
                        {
                            "id": str(uuid4()),
                            "source": self.source,
                            "type": event.type,
                            "subject": subject(event),
                            "time": stamp,
                        },
                    ),
                    report_key(event),
                )
                for event in events
            ]
        )

    async def publish_entries(self, entries: Sequence[OutgoingEntry]) -> None:
        """Publish entries of the event log in their order; returns when all are confirmed."""
        await self._publish(
            [
                (
                    amqp_message(
                        entry.body,
                        {
                            "id": str(entry.id),
                            "source": entry.source,
                            "type": entry.type,
                            "subject": entry.subject,
                            "time": entry.time.isoformat(),
                            "stream": entry.stream,
                            "sequence": str(entry.sequence),
                            "previoushash": entry.previous_hash,
                            "hash": entry.hash,
                            "correlationid": entry.correlation_id,
                        },
                    ),
                    entry.routing_key,
                )
                for entry in entries
            ]
        )

    async def _publish(self, messages: Sequence[tuple[Outgoing, str]]) -> None:
        while True:
            await self._up.wait()
            try:
                for start in range(0, len(messages), IN_FLIGHT):
                    await self._publish_window(messages[start : start + IN_FLIGHT])
                return
            except BROKER_ERRORS as error:
                # All of them again: a repeated entry is dropped by its sequence.
                log.warning("publish_repeated", error=str(error) or type(error).__name__)
                await asyncio.sleep(0.2)

    async def _publish_window(self, messages: Sequence[tuple[Outgoing, str]]) -> None:
        channel = self._publisher
        if channel is None:
            raise ConnectionError("the broker connection is down")
        # Beneath aio-pika's exchange: that waits for the socket after each message, which costs
        # half of the rate. The window bounds what is in memory, and the confirms are waited for.
        underlay = await channel.get_underlay_channel()
        results = await asyncio.gather(
            *(
                underlay.basic_publish(
                    message.body,
                    exchange=EXCHANGE,
                    routing_key=key,
                    properties=message.properties,
                    wait=False,  # type: ignore[call-arg]  # aiormq's abstract class leaves it out
                )
                for message, key in messages
            ),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def subscribe(
        self,
        connection: AbstractConnection,
        spec: QueueSpec,
        receive: Callable[[AbstractIncomingMessage], Awaitable[None]],
    ) -> AbstractChannel:
        """Declare a service's queue with its dead letters, and hand each delivery to `receive`."""
        channel = await connection.channel(publisher_confirms=False)
        self._watch(connection, channel)
        lost = self._lost
        # The broker ends a consumer when its queue is deleted.
        underlay = await channel.get_underlay_channel()
        underlay.on_consumer_cancel_callbacks.add(lambda _: lost.set())
        await channel.set_qos(prefetch_count=spec.prefetch)
        queue = await channel.declare_queue(
            spec.name,
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": DELIVERY_LIMIT,
                "x-dead-letter-exchange": DEAD_LETTERS,
                "x-dead-letter-routing-key": spec.name,
            },
        )
        dead = await channel.declare_queue(
            f"{spec.name}.dead", durable=True, arguments={"x-queue-type": "quorum"}
        )
        await dead.bind(DEAD_LETTERS, routing_key=spec.name)
        for key in spec.bindings:
            await queue.bind(EXCHANGE, routing_key=key)
        await queue.consume(receive)
        return channel
