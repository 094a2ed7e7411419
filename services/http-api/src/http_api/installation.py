"""Read-only SQL on what belongs to no scale set: feeds, hosts, the event log, and the metrics."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from rollcall_kit.outbox import Connection

EVENT = (
    "stream, sequence, id, type, source, subject, correlation_id, time, body, previous_hash, hash"
)


async def feeds(connection: Connection) -> list[dict[str, Any]]:
    """Return each feed with its present error and its errors so far."""
    errors: dict[str, list[dict[str, Any]]] = {}
    for row in await connection.fetch(
        "SELECT feed, code, count, last_at, last_message FROM feed_error_view ORDER BY feed, code"
    ):
        errors.setdefault(row["feed"], []).append(
            {
                "code": row["code"],
                "count": row["count"],
                "lastTime": row["last_at"].isoformat(),
                "lastMessage": row["last_message"],
            }
        )
    rows = await connection.fetch(
        "SELECT feed, url, checked_at, updated_at, feed_updated, error FROM feed_view ORDER BY feed"
    )
    return [
        {
            "name": row["feed"],
            "url": _without_password(row["url"]),
            "up": row["error"] is None,
            "checkedTime": row["checked_at"].isoformat() if row["checked_at"] else None,
            "acceptedTime": row["updated_at"].isoformat() if row["updated_at"] else None,
            "feedUpdated": row["feed_updated"],
            "error": None if row["error"] is None else json.loads(row["error"]),
            "errors": errors.get(row["feed"], []),
        }
        for row in rows
    ]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


async def hosts(connection: Connection) -> list[dict[str, Any]]:
    """Return each host with the time of its agent's last sign of life, and its instances' count."""
    rows = await connection.fetch(
        """
        SELECT h.host, h.driver, h.capacity, h.seen_at, count(i.id) AS instances, ARRAY(
            SELECT f.scale_set FROM fleet_view f
            WHERE NOT h.tcp_probe_proves_guest AND NOT f.deleted
                AND f.spec -> 'probe' ->> 'protocol' = 'Tcp'
                AND EXISTS (SELECT FROM instance_view m
                            WHERE m.scale_set = f.scale_set AND m.host = h.host)
            ORDER BY f.scale_set
        ) AS blindly_probed
        FROM host_view h LEFT JOIN instance_view i USING (host)
        GROUP BY h.host, h.driver, h.capacity, h.seen_at, h.tcp_probe_proves_guest ORDER BY h.host
        """
    )
    return [
        {
            "host": row["host"],
            "driver": row["driver"],
            "seenTime": row["seen_at"].isoformat(),
            "instances": row["instances"],
            "capacity": row["capacity"],
            "blindlyProbed": row["blindly_probed"],  # sets whose TCP probe proves nothing there
        }
        for row in rows
    ]


async def clock(connection: Connection) -> str:
    """Return the time by the database's own clock, in ISO 8601."""
    now = await connection.fetchval("SELECT clock_timestamp()")
    return str(now.isoformat())


async def unpublished(connection: Connection) -> int:
    """Return how many entries of the log wait to be published."""
    return int(
        await connection.fetchval(
            "SELECT coalesce(sum(s.last_sequence - r.published), 0) "
            "FROM event_streams s JOIN event_relay r USING (stream)"
        )
    )


async def events(
    connection: Connection, stream: str, *, after: int, limit: int, last: int | None = None
) -> Sequence[Mapping[str, Any]]:
    """Return a stream's entries after a sequence number, up to the last one that is wanted.

    Entries are numbered without gaps and become visible in order, since each writer holds the
    stream's head until it commits: whoever reads on from the last number misses nothing.
    """
    rows: Sequence[Mapping[str, Any]] = await connection.fetch(
        f"SELECT {EVENT} FROM event_view WHERE stream = $1 AND sequence > $2 "
        "AND ($4::bigint IS NULL OR sequence <= $4) ORDER BY sequence LIMIT $3",
        stream,
        after,
        limit,
        last,
    )
    return rows


async def last_sequence(connection: Connection, stream: str) -> int:
    """Return the number of a stream's newest entry; 0 where there is none."""
    return int(
        await connection.fetchval(
            "SELECT coalesce(max(sequence), 0) FROM event_view WHERE stream = $1", stream
        )
    )


async def instance_metrics(connection: Connection) -> Sequence[Mapping[str, Any]]:
    """Count instances by set, version and health."""
    rows: Sequence[Mapping[str, Any]] = await connection.fetch(
        "SELECT scale_set, coalesce(version, '') AS version, health, count(*) AS count "
        "FROM instance_view GROUP BY scale_set, version, health"
    )
    return rows


async def upgrade_metrics(connection: Connection) -> Sequence[Mapping[str, Any]]:
    """Count upgrades by status and the code of their error, '' where there is none."""
    rows: Sequence[Mapping[str, Any]] = await connection.fetch(
        "SELECT status, coalesce(error_code, '') AS error_code, count(*) AS count "
        "FROM upgrade_status_view GROUP BY status, error_code"
    )
    return rows
