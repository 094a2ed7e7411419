"""The event log: entries are written in the transaction that decided them, and relayed in order."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import structlog
from rollcall_contracts.chain import GENESIS, entry_hash
from rollcall_contracts.events import Event, routing_key, stream, subject

from rollcall_kit.broker import Broker
from rollcall_kit.cloudevents import OutgoingEntry
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.metrics import events_published

log = structlog.get_logger()

Connection = Any  # asyncpg.Connection or the pool's proxy of one: asyncpg-stubs keep the two apart

_COLUMNS = (
    "stream, sequence, id, type, source, subject, correlation_id, routing_key, time, body, "
    "previous_hash, hash"
)


async def append(
    connection: Connection,
    events: Sequence[Event],
    *,
    source: str,
    now: datetime,
) -> None:
    """Add events to the log, inside the caller's transaction, numbered and chained per stream.

    The stream's head row is locked until the transaction ends; streams are taken in sorted order so
    that two writers cannot wait for each other.
    """
    by_stream: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_stream[stream(event)].append(event)
    for name in sorted(by_stream):
        await _append_stream(connection, name, by_stream[name], source=source, now=now)


async def lock_stream(connection: Connection, name: str) -> tuple[int, str]:
    """Let nobody else append to a stream until the transaction ends; return where its log ends.

    Whoever decides by what the log's other writers did takes it first: what they append is then
    either committed already, or comes after what is appended here.
    """
    head = await connection.fetchrow(
        """
        INSERT INTO event_streams AS s (stream, last_sequence, last_hash) VALUES ($1, 0, $2)
        ON CONFLICT (stream) DO UPDATE SET stream = s.stream
        RETURNING last_sequence, last_hash
        """,
        name,
        GENESIS,
    )
    return int(head["last_sequence"]), str(head["last_hash"])


async def _append_stream(
    connection: Connection, name: str, events: Sequence[Event], *, source: str, now: datetime
) -> None:
    sequence, previous = await lock_stream(connection, name)
    if sequence == 0:
        await connection.execute(
            "INSERT INTO event_relay (stream, published) VALUES ($1, 0) ON CONFLICT DO NOTHING",
            name,
        )
    rows = []
    for event in events:
        sequence += 1
        id = uuid.uuid4()
        body = event.model_dump_json()
        digest = entry_hash(
            stream=name,
            sequence=sequence,
            id=str(id),
            type=event.type,
            source=source,
            time=now,
            body=body,
            previous_hash=previous,
        )
        correlation = getattr(event, "upgrade_id", None)
        rows.append(
            (
                sequence,
                id,
                event.type,
                subject(event),
                correlation,
                routing_key(event),
                body,
                previous,
                digest,
            )
        )
        previous = digest
    columns = list(zip(*rows, strict=True))
    await connection.execute(
        f"""
        INSERT INTO event_log ({_COLUMNS})
        SELECT $1, u.sequence, u.id, u.type, $2, u.subject, u.correlation_id, u.routing_key, $3,
               u.body, u.previous_hash, u.hash
        FROM unnest($4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::text[],
                    $10::text[], $11::text[], $12::text[])
             AS u(sequence, id, type, subject, correlation_id, routing_key, body,
                  previous_hash, hash)
        """,
        name,
        source,
        now,
        *columns,
    )
    await connection.execute(
        "UPDATE event_streams SET last_sequence = $2, last_hash = $3 WHERE stream = $1",
        name,
        sequence,
        previous,
    )


class Relay:
    """Publishes the log's entries to the broker, each stream in order.

    Any number of relays may run: a stream's row in event_relay is locked by the one that publishes
    from it, so no two can reorder it. A crash between publish and commit publishes again: at least
    once, and the sequence lets a consumer drop the second copy.
    """

    def __init__(self, pool: asyncpg.Pool, broker: Broker, *, poll: float = 0.5) -> None:
        self._pool = pool
        self._broker = broker
        self._poll = poll
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Tell the relay that a transaction with events was committed in this process."""
        self._wake.set()

    async def run(self) -> None:
        """Relay until cancelled."""
        while True:
            self._wake.clear()
            try:
                while await self.relay_once():
                    pass
            except (*DATABASE_AWAY, asyncpg.PostgresError) as error:
                log.warning("relay_failed", error=str(error))
                await asyncio.sleep(self._poll)
            try:
                async with asyncio.timeout(self._poll):
                    await self._wake.wait()
            except TimeoutError:
                continue  # look by itself too: another process may have died before publishing

    async def relay_once(self, *, streams: int = 20, entries: int = 1000) -> int:
        """Publish what waits, at most so many streams and entries of each; return how many went."""
        total = 0
        async with self._pool.acquire() as connection, connection.transaction():
            behind = await connection.fetch(
                """
                SELECT r.stream, r.published FROM event_relay r JOIN event_streams s USING (stream)
                WHERE s.last_sequence > r.published
                LIMIT $1 FOR UPDATE OF r SKIP LOCKED -- in no order: a moved row goes to the end
                """,
                streams,
            )
            for position in behind:
                rows = await connection.fetch(
                    f"SELECT {_COLUMNS} FROM event_log WHERE stream = $1 AND sequence > $2"
                    " ORDER BY sequence LIMIT $3",
                    position["stream"],
                    position["published"],
                    entries,
                )
                if not rows:
                    continue
                await self._broker.publish_entries([OutgoingEntry(**dict(row)) for row in rows])
                await connection.execute(
                    "UPDATE event_relay SET published = $2 WHERE stream = $1",
                    position["stream"],
                    rows[-1]["sequence"],
                )
                total += len(rows)
        events_published.inc(total)
        return total
