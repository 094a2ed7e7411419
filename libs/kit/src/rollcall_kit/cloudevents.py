"""CloudEvents 1.0 over AMQP, in binary mode: the body is the event, its attributes are headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from aio_pika.abc import AbstractIncomingMessage
from pamqp.commands import Basic

PREFIX = "cloudEvents:"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingEntry:
    """One row of the event log, ready to be published."""

    stream: str
    sequence: int
    id: UUID
    type: str
    source: str
    subject: str
    correlation_id: str | None
    routing_key: str
    time: datetime
    body: str
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message as the broker takes it."""

    body: bytes
    properties: Basic.Properties


def amqp_message(body: str, values: Mapping[str, str | None]) -> Outgoing:
    """Return the message of an event; attributes without a value are left out."""
    return Outgoing(
        body.encode(),
        Basic.Properties(
            content_type="application/json",
            delivery_mode=2,  # persistent
            message_id=values["id"],
            message_type=values["type"],
            headers={
                f"{PREFIX}specversion": "1.0",
                **{f"{PREFIX}{k}": v for k, v in values.items() if v is not None},
            },
        ),
    )


def attributes(message: AbstractIncomingMessage) -> dict[str, str]:
    """Return a message's CloudEvents attributes by their names (`id`, `type`, `sequence` …)."""
    return {
        name.removeprefix(PREFIX): str(value)
        for name, value in message.headers.items()
        if name.startswith(PREFIX)
    }
