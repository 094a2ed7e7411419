"""All SQL of the orchestrator.

A set is locked by an advisory lock until the transaction ends: unlike a row lock it also covers the
first write, when there is no row yet. A cached copy is used while the row's token says that nobody
saved the set since.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar
from uuid import UUID, uuid4

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, Image, ScaleSetSpec
from rollcall_kit.outbox import Connection
from rollcall_rollout import Fleet, Upgrade, waiting

from orchestrator import rows

T = TypeVar("T")

HOST_SILENT = timedelta(seconds=30)
NEVER = timedelta(days=36_500)
INTERNAL = "InternalExecutionError"  # Azure's code for an error of its own


@dataclass(slots=True)
class Cache:
    """Sets as they were last saved by this process, with the token of that save."""

    fleets: dict[str, tuple[UUID, Fleet]] = field(default_factory=dict)
    limit: int = 1000

    def put(self, scale_set: str, token: UUID, fleet: Fleet) -> None:
        """Keep a set; the one kept longest goes when there are too many."""
        self.fleets.pop(scale_set, None)
        self.fleets[scale_set] = (token, fleet)
        if len(self.fleets) > self.limit:
            del self.fleets[next(iter(self.fleets))]


# --- hosts ----------------------------------------------------------------------------------------


async def note_hosts(connection: Connection, seen: Sequence[e.AgentSeen], now: datetime) -> None:
    """Record which agents answer."""
    newest = {event.host: event for event in seen}
    names = sorted(newest)
    await connection.execute(
        """
        INSERT INTO hosts (host, driver, capacity, tcp_probe_proves_guest, seen_at)
        SELECT h, d, c, p, $5
        FROM unnest($1::text[], $2::text[], $3::int[], $4::boolean[]) AS u(h, d, c, p)
        ON CONFLICT (host) DO UPDATE SET
            driver = excluded.driver, capacity = excluded.capacity, seen_at = excluded.seen_at,
            tcp_probe_proves_guest = excluded.tcp_probe_proves_guest
        """,
        names,
        [newest[name].driver for name in names],
        [newest[name].capacity for name in names],
        [newest[name].tcp_probe_proves_guest for name in names],
        now,
    )


async def with_hosts(connection: Connection, fleet: Fleet, now: datetime) -> Fleet:
    """Return the fleet with the hosts whose agents answered lately, and the room that they have.

    Two sets that are decided at the same moment can see the same room: then one host has an
    instance too many, which its agent makes all the same.
    """
    found = await connection.fetch(
        "SELECT host, capacity, tcp_probe_proves_guest FROM hosts WHERE seen_at > $1 ORDER BY host",
        now - HOST_SILENT,
    )
    limits = {row["host"]: row["capacity"] for row in found if row["capacity"] is not None}
    if limits:
        used = await connection.fetch(
            "SELECT host, count(*) AS count FROM instances WHERE host = ANY($1::text[]) "
            "GROUP BY host",
            list(limits),
        )
        for row in used:
            limits[row["host"]] = max(0, limits[row["host"]] - row["count"])
    blind = frozenset(row["host"] for row in found if not row["tcp_probe_proves_guest"])
    hosts = tuple(row["host"] for row in found)
    return fleet.amended(hosts=hosts, room=limits, blind_hosts=blind)


# --- sets -----------------------------------------------------------------------------------------


async def followers(connection: Connection, stream: tuple[str, str, str]) -> list[str]:
    """Return the sets whose model follows this line of versions."""
    found = await connection.fetch(
        "SELECT scale_set FROM fleets WHERE image_stream = $1 AND NOT deleted", "/".join(stream)
    )
    return [row["scale_set"] for row in found]


async def due(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Return sets whose time has come, the longest waiting first."""
    found = await connection.fetch(
        "SELECT scale_set FROM fleets WHERE wake_at <= $1 ORDER BY wake_at LIMIT $2", now, limit
    )
    return [row["scale_set"] for row in found]


async def try_lock(connection: Connection, scale_set: str) -> bool:
    """Take a set's lock if nobody has it."""
    taken = await connection.fetchval(
        "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", scale_set
    )
    return bool(taken)


async def postpone(
    connection: Connection, scale_set: str, until: datetime, error: Exception
) -> None:
    """Leave a set alone for a while, after it could not be decided, and have it say so."""
    message = (
        f"The orchestrator cannot decide on this set ({type(error).__name__}), and tries again at "
        f"{until:%Y-%m-%d %H:%M:%S}Z: its log says why, at set_postponed."
    )
    awaited = {"code": INTERNAL, "message": message, "until": until.isoformat()}
    await connection.execute(
        "UPDATE fleets SET wake_at = $2, waiting = $3 WHERE scale_set = $1",
        scale_set,
        until,
        json.dumps(awaited),
    )


async def lock(connection: Connection, scale_set: str, cache: Cache) -> Fleet | None:
    """Lock a set until the transaction ends, and return its state; None when it is not known."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", scale_set)
    row = await connection.fetchrow("SELECT * FROM fleets WHERE scale_set = $1", scale_set)
    if row is None:
        return None
    kept = cache.fleets.get(scale_set)
    if kept is not None and kept[0] == row["token"]:
        return kept[1]
    instances = await connection.fetch("SELECT * FROM instances WHERE scale_set = $1", scale_set)
    held = json.loads(row["held"]) if row["held"] else None
    fleet = Fleet(
        spec=ScaleSetSpec.model_validate_json(row["spec"]),
        instances={found["id"]: rows.instance(found) for found in instances},
        upgrade=await _running_upgrade(connection, scale_set),
        next_id=row["next_id"],
        deleted=row["deleted"],
        barred_version=row["barred_version"],
        held=(held["version"], Failure.model_validate(held)) if held else None,
        start_requested=row["start_requested"],
        start_override=row["start_override"],
        start_reimage=row["start_reimage"],
        start_reason=row["start_reason"],
        rollback_requested=row["rollback_requested"],
        hook=rows.hook(row["hook"]),
        last_version=row["last_version"],
        last_image=Image.model_validate_json(row["last_image"]) if row["last_image"] else None,
        batch_seconds=tuple(json.loads(row["batch_seconds"])),
    )
    return await with_images(connection, fleet)


async def with_images(connection: Connection, fleet: Fleet) -> Fleet:
    """Return the fleet with the versions of its line, and the holds on them."""
    stream = "/".join(fleet.spec.image.stream)
    found = await connection.fetch(
        "SELECT image FROM image_view WHERE stream = $1 AND withdrawn_at IS NULL", stream
    )
    held = await connection.fetch("SELECT * FROM image_holds WHERE stream = $1", stream)
    return fleet.amended(
        images=tuple(Image.model_validate_json(row["image"]) for row in found),
        holds={row["version"]: rows.hold(row) for row in held},
    )


async def note_holds(connection: Connection, events: Sequence[e.Event], now: datetime) -> None:
    """Record the versions that these events hold or release, for sets that are loaded later."""
    for event in events:
        match event:
            case e.ImageHeld():
                await connection.execute(
                    """
                    INSERT INTO image_holds (stream, version, image, by_set, upgrade_id,
                                             quarantine, error, held_at)
                    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                    ON CONFLICT (stream, version) DO UPDATE SET
                        by_set = excluded.by_set, upgrade_id = excluded.upgrade_id,
                        quarantine = excluded.quarantine, error = excluded.error
                    WHERE excluded.quarantine AND NOT image_holds.quarantine
                    """,
                    "/".join(event.image.stream),
                    event.image.version,
                    event.image.model_dump_json(),
                    event.by_set,
                    event.upgrade_id,
                    event.quarantine,
                    event.error.model_dump_json(),
                    now,
                )
            case e.ImageReleased():
                await connection.execute(
                    "DELETE FROM image_holds WHERE stream = $1 AND version = $2",
                    "/".join(event.image.stream),
                    event.image.version,
                )


async def _running_upgrade(connection: Connection, scale_set: str) -> Upgrade | None:
    row = await connection.fetchrow(
        "SELECT * FROM upgrades WHERE scale_set = $1 AND status = 'RollingForward'", scale_set
    )
    if row is None:
        return None
    members = await connection.fetch(
        "SELECT * FROM upgrade_results WHERE upgrade_id = $1", row["id"]
    )
    return rows.upgrade(row, {found["id"]: rows.member(found) for found in members})


# --- saving ---------------------------------------------------------------------------------------


async def save(
    connection: Connection,
    before: Fleet | None,
    after: Fleet,
    decided: Sequence[e.Event],
    *,
    cache: Cache,
    wake_at: datetime,
    now: datetime,
) -> None:
    """Write what changed, and keep the new state for the next time."""
    scale_set = after.spec.scale_set
    token = uuid4()
    if after.deleted and not after.instances:
        await _bury(connection, after, token, now)
        cache.fleets.pop(scale_set, None)
        return
    await _save_fleet(connection, after, token, wake_at, now)
    await note_holds(connection, decided, now)
    old_instances = before.instances if before else {}
    touched = after.unsaved.instances if after.unsaved else None
    changed = _changed(old_instances, after.instances, touched)
    if changed:
        await connection.execute(
            _upsert("instances", rows.INSTANCE_COLUMNS, ("scale_set", "id")),
            json.dumps([rows.instance_row(scale_set, instance) for instance in changed]),
        )
    gone = [
        id
        for id in (old_instances if touched is None else touched & old_instances.keys())
        if id not in after.instances
    ]
    if gone:
        await connection.execute(
            "DELETE FROM instances WHERE scale_set = $1 AND id = ANY($2::text[])", scale_set, gone
        )
    running = before.upgrade if before else None
    for ended in after.ended:
        await _save_upgrade(connection, scale_set, running, ended)
        running = None
    if after.upgrade is not None:
        moved = after.unsaved.members if after.unsaved else None
        await _save_upgrade(connection, scale_set, running, after.upgrade, moved)
    await _save_batches(connection, decided, now)
    cache.put(scale_set, token, after.saved())


async def _bury(connection: Connection, fleet: Fleet, token: UUID, now: datetime) -> None:
    """Leave nothing of a deleted set but its revision and the numbers that it has used.

    A model of before, delivered once more, is then known as older and does not bring it back.
    """
    grave = replace(Fleet(spec=fleet.spec), deleted=True, next_id=fleet.next_id)
    scale_set = fleet.spec.scale_set
    await connection.execute("DELETE FROM instances WHERE scale_set = $1", scale_set)
    await connection.execute("DELETE FROM upgrades WHERE scale_set = $1", scale_set)
    await _save_fleet(connection, grave, token, now + NEVER, now)


_FLEET_COLUMNS = (
    "scale_set", "token", "spec", "image_stream", "deleted", "next_id", "barred_version", "held",
    "start_requested", "start_override", "start_reason", "rollback_requested", "hook",
    "last_version", "batch_seconds", "waiting", "wake_at", "start_reimage", "last_image",
)  # fmt: skip  # one name per line would hide that these are one list
_SAVE_FLEET = (
    f"INSERT INTO fleets ({', '.join(_FLEET_COLUMNS)})"
    f" VALUES ({', '.join(f'${number + 1}' for number in range(len(_FLEET_COLUMNS)))})"
    " ON CONFLICT (scale_set) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _FLEET_COLUMNS[1:])
)


async def _save_fleet(
    connection: Connection, fleet: Fleet, token: UUID, wake_at: datetime, now: datetime
) -> None:
    held = {"version": fleet.held[0], **fleet.held[1].model_dump()} if fleet.held else None
    awaited = waiting(fleet, now)
    until = awaited.until.isoformat() if awaited.until else None
    await connection.execute(
        _SAVE_FLEET,
        fleet.spec.scale_set,
        token,
        fleet.spec.model_dump_json(),
        "/".join(fleet.spec.image.stream),
        fleet.deleted,
        fleet.next_id,
        fleet.barred_version,
        json.dumps(held) if held else None,
        fleet.start_requested,
        fleet.start_override,
        fleet.start_reason,
        fleet.rollback_requested,
        rows.hook_column(fleet.hook),
        fleet.last_version,
        json.dumps(fleet.batch_seconds),
        json.dumps({"code": awaited.code, "message": awaited.message, "until": until}),
        wake_at,
        fleet.start_reimage,
        fleet.last_image.model_dump_json() if fleet.last_image else None,
    )


async def _save_upgrade(
    connection: Connection,
    scale_set: str,
    before: Upgrade | None,
    after: Upgrade,
    moved: frozenset[str] | None = None,
) -> None:
    if before is after:
        return
    await connection.execute(
        _upsert("upgrades", rows.UPGRADE_COLUMNS, ("id",)),
        json.dumps([rows.upgrade_row(scale_set, after)]),
    )
    if before is not None and before.id == after.id:
        known = before.members
    else:
        known, moved = {}, None
    changed = _changed(known, after.members, moved)
    if changed:
        await connection.execute(
            _upsert("upgrade_results", rows.MEMBER_COLUMNS, ("upgrade_id", "id")),
            json.dumps([rows.member_row(after.id, member) for member in changed]),
        )
    gone = [
        id for id in (known if moved is None else moved & known.keys()) if id not in after.members
    ]
    if gone:
        await connection.execute(
            "DELETE FROM upgrade_results WHERE upgrade_id = $1 AND id = ANY($2::text[])",
            UUID(after.id),
            gone,
        )


def _changed(
    before: Mapping[str, T], after: Mapping[str, T], touched: frozenset[str] | None
) -> list[T]:
    """Return the values that are to be written; all are compared when nobody noted the changes."""
    ids = after.keys() if touched is None else touched & after.keys()
    return [after[id] for id in ids if before.get(id) is not after[id]]


async def _save_batches(connection: Connection, decided: Sequence[e.Event], now: datetime) -> None:
    for event in decided:
        match event:
            case e.BatchStarted():
                await connection.execute(
                    """
                    INSERT INTO batches (upgrade_id, number, size, started_at, reason)
                    VALUES ($1, $2, $3, $4, $5)
                    """,
                    UUID(event.upgrade_id),
                    event.batch,
                    len(event.instance_ids),
                    now,
                    event.reason,
                )
            case e.BatchCompleted():
                await connection.execute(
                    """
                    UPDATE batches SET ended_at = $3, succeeded = $4, failed = $5
                    WHERE upgrade_id = $1 AND number = $2
                    """,
                    UUID(event.upgrade_id),
                    event.batch,
                    now,
                    event.succeeded,
                    event.failed,
                )


def _upsert(table: str, columns: Sequence[str], key: Sequence[str]) -> str:
    names = ", ".join(columns)
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in key)
    return (
        f"INSERT INTO {table} ({names}) SELECT {names}"
        f" FROM jsonb_populate_recordset(NULL::{table}, $1::jsonb)"
        f" ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"
    )
