"""Read-only SQL behind explanations: what was decided, whole rows, and how long things took."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollcall_kit.outbox import Connection

from http_api.domain.hook_events import HookEvent, hook_from_log
from http_api.domain.measuring import MEASURED, Durations, measure
from http_api.domain.present.explanations import LogRow, Rows

RECENT = 100_000  # entries of a set's log that are looked through, at most
UPGRADES_MEASURED = 5
ENDED = ("upgrade.completed.v1", "upgrade.faulted.v1", "upgrade.cancelled.v1")
SEEN = (
    "instance.healthy.v1",
    "instance.unhealthy.v1",
    "instance.restored.v1",
    "probe.requested.v1",
)
_HOOK_STARTED = "lifecycle_hook.started.v1"
_HOOK_COMPLETED = "lifecycle_hook.completed.v1"
_RECENT = (
    "stream = $1 AND sequence > "
    f"(SELECT coalesce(max(sequence), 0) - {RECENT} FROM event_view WHERE stream = $1)"
)


async def decisions(connection: Connection, stream: str, *, limit: int) -> list[LogRow]:
    """Return the newest entries that were decided, or asked for by people, newest first.

    What the rules decide carries its reason; what agents report mostly does not. What probers saw
    does, and the consoles of boots that failed, which would hide the rest.
    """
    rows = await connection.fetch(
        f"SELECT sequence, time, type, body FROM event_view WHERE {_RECENT} "
        "AND (source = 'http-api' OR coalesce(body::jsonb ->> 'reason', '') <> '') "
        "AND type <> ALL($3::text[]) ORDER BY sequence DESC LIMIT $2",
        stream,
        limit,
        list(SEEN),
    )
    return [
        LogRow(
            sequence=row["sequence"],
            time=row["time"],
            type=row["type"],
            body=json.loads(row["body"]),
        )
        for row in rows
    ]


async def past_hooks(
    connection: Connection, stream: str, *, id: str | None = None, limit: int = 20
) -> list[HookEvent]:
    """Return the lifecycle hooks in the log, newest first; only one where an id is given."""
    rows = await connection.fetch(
        f"SELECT time, type, body FROM event_view WHERE {_RECENT} AND type = ANY($4::text[]) "
        "AND ($2::text IS NULL OR body::jsonb ->> 'hook_id' = $2) "
        "ORDER BY sequence DESC LIMIT $3",
        stream,
        id,
        2 * limit,  # a start and an end of each
        [_HOOK_STARTED, _HOOK_COMPLETED],
    )
    completed: dict[str, Any] = {}
    found: list[HookEvent] = []
    for row in rows:
        body = json.loads(row["body"])
        if row["type"] == _HOOK_COMPLETED:
            completed[body["hook_id"]] = body
        else:
            found.append(hook_from_log(body, row["time"], completed.get(body["hook_id"])))
    return found[:limit]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From which entry of the log to which an upgrade reaches; without an end while it runs."""

    first: int
    last: int | None


async def span(connection: Connection, stream: str, upgrade_id: str, started_at: datetime) -> Span:
    """Return where in the log an upgrade is."""
    row = await connection.fetchrow(
        "SELECT min(sequence) FILTER (WHERE type = 'upgrade.started.v1') AS first, "
        "min(sequence) FILTER (WHERE type = ANY($4::text[])) AS last FROM event_view "
        "WHERE stream = $1 AND correlation_id = $2 AND time >= $3::timestamptz - interval '1 min'",
        stream,
        upgrade_id,
        started_at,
        list(ENDED),
    )
    return Span(first=row["first"] or 1, last=row["last"])


async def durations(connection: Connection, scale_set: str) -> Durations:
    """Return how long the instances of the last upgrades took.

    An upgrade ends when that is decided, and its last reports enter the log a moment later.
    """
    rows = await connection.fetch(
        "SELECT DISTINCT e.sequence, e.type, e.time, e.body FROM (SELECT started_at, ended_at "
        "FROM upgrade_status_view WHERE scale_set = $1 ORDER BY started_at DESC LIMIT $3) u "
        "JOIN event_view e ON e.time >= u.started_at "
        "AND e.time <= coalesce(u.ended_at + interval '1 min', 'infinity') "
        "WHERE e.stream = $2 AND e.type = ANY($4::text[]) ORDER BY e.sequence",
        scale_set,
        scale_set.lower(),
        UPGRADES_MEASURED,
        list(MEASURED),
    )
    return measure((row["type"], row["time"], json.loads(row["body"])) for row in rows)


async def whole_rows(connection: Connection, scale_set: str) -> Rows:
    """Return the set's instances, and the upgrade that runs with its members, column by column."""
    instances = await connection.fetch(
        "SELECT to_jsonb(i) AS row FROM instance_view i WHERE scale_set = $1 "
        "ORDER BY length(id), id",
        scale_set,
    )
    running = await connection.fetchrow(
        "SELECT id, to_jsonb(u) AS row FROM upgrade_view u "
        "WHERE scale_set = $1 AND status = 'RollingForward'",
        scale_set,
    )
    upgrade = None
    if running is not None:
        members = await connection.fetch(
            "SELECT to_jsonb(r) AS row FROM upgrade_result_view r WHERE upgrade_id = $1 "
            "ORDER BY length(id), id",
            running["id"],
        )
        upgrade = {
            **json.loads(running["row"]),
            "members": [json.loads(member["row"]) for member in members],
        }
    return Rows(instances=[json.loads(each["row"]) for each in instances], upgrade=upgrade)
