"""Listen to what is published, by a queue that goes with the listener."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aio_pika
from rollcall_kit.broker import EXCHANGE
from rollcall_kit.cloudevents import attributes


@dataclass(frozen=True, slots=True)
class Received:
    """An event as it came: its CloudEvents attributes, and its exact text."""

    attributes: dict[str, str]
    body: str


@asynccontextmanager
async def listen(url: str, bindings: Sequence[str]) -> AsyncIterator[AsyncIterator[Received]]:
    """Give the events that match `bindings` from now on; the exchange must be there."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        for key in bindings:
            await queue.bind(EXCHANGE, routing_key=key)

        async def receive() -> AsyncIterator[Received]:
            async with queue.iterator(no_ack=True) as messages:
                async for message in messages:
                    yield Received(attributes=attributes(message), body=message.body.decode())

        yield receive()
