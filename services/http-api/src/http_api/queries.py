"""Read-only SQL on the views that the other services' migrations define."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rollcall_contracts.model import Image
from rollcall_kit.outbox import Connection

from http_api.domain.present.instances import InstanceRow
from http_api.domain.present.scale_sets import FleetState
from http_api.domain.present.upgrades import BatchRow, ResultRow, UpgradeRow

VIEWS = (
    *("fleet_view", "instance_view", "upgrade_view", "upgrade_status_view", "batch_view"),
    *("upgrade_result_view", "host_view", "image_view", "feed_view", "feed_error_view"),
    "event_view",
)
_INSTANCE = (
    "id, host, zone, attempt, phase, version, generation, address, port, power, health, since, "
    "error, created_at"
)
_UPGRADE = (
    "id, status, started_by, image, policy, cancel_requested, batch, started_at, ended_at, error, "
    "reason, successful, failed, in_progress, pending, restored, restore_failed"
)


async def missing_views(connection: Connection) -> list[str]:
    """Return the views that are not there yet, because their service has not migrated."""
    rows = await connection.fetch(
        "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL", list(VIEWS)
    )
    return [row["name"] for row in rows]


async def former_id(connection: Connection, key: str) -> str | None:
    """Return the id under which the orchestrator knows a set of the same key, deleted ones too."""
    id = await connection.fetchval(
        "SELECT scale_set FROM fleet_view WHERE lower(scale_set) = $1 LIMIT 1", key
    )
    return None if id is None else str(id)


async def fleet_states(connection: Connection, ids: Sequence[str]) -> dict[str, FleetState]:
    """Return what the orchestrator makes of each scale set; of an unknown one, nothing yet."""
    phases: dict[str, dict[str, int]] = {id: {} for id in ids}
    for row in await connection.fetch(
        "SELECT scale_set, phase, count(*) AS count FROM instance_view "
        "WHERE scale_set = ANY($1::text[]) GROUP BY scale_set, phase",
        list(ids),
    ):
        phases[row["scale_set"]][row["phase"]] = row["count"]
    fleets = {
        row["scale_set"]: row
        for row in await connection.fetch(
            "SELECT scale_set, held, barred_version FROM fleet_view "
            "WHERE scale_set = ANY($1::text[]) AND NOT deleted",
            list(ids),
        )
    }
    return {
        id: FleetState(
            phases=phases[id],
            held=_json(fleets[id]["held"]) if id in fleets else None,
            barred_version=fleets[id]["barred_version"] if id in fleets else None,
        )
        for id in ids
    }


async def instances(
    connection: Connection, scale_set: str, *, after: str = "", limit: int
) -> list[InstanceRow]:
    """Return instances in the order of their numbers."""
    rows = await connection.fetch(
        f"""
        SELECT {_INSTANCE} FROM instance_view
        WHERE scale_set = $1 AND (length(id), id) > (length($2::text), $2::text)
        ORDER BY length(id), id LIMIT $3
        """,
        scale_set,
        after,
        limit,
    )
    return [_instance(row) for row in rows]


async def instance(connection: Connection, scale_set: str, id: str) -> InstanceRow | None:
    """Return one instance, if it exists."""
    row = await connection.fetchrow(
        f"SELECT {_INSTANCE} FROM instance_view WHERE scale_set = $1 AND id = $2", scale_set, id
    )
    return None if row is None else _instance(row)


async def known_instances(
    connection: Connection, scale_set: str, ids: Sequence[str]
) -> frozenset[str]:
    """Return which of these ids are instances of the set."""
    rows = await connection.fetch(
        "SELECT id FROM instance_view WHERE scale_set = $1 AND id = ANY($2::text[])",
        scale_set,
        list(ids),
    )
    return frozenset(row["id"] for row in rows)


async def instance_counts(
    connection: Connection, scale_set: str
) -> list[tuple[str, str, str, int]]:
    """Return how many instances there are, by (phase, power, health)."""
    rows = await connection.fetch(
        "SELECT phase, power, health, count(*) AS count FROM instance_view WHERE scale_set = $1 "
        "GROUP BY phase, power, health",
        scale_set,
    )
    return [(row["phase"], row["power"], row["health"], row["count"]) for row in rows]


async def versions_in_use(connection: Connection, scale_set: str) -> dict[str | None, int]:
    """Return how many instances run each version."""
    rows = await connection.fetch(
        "SELECT version, count(*) AS count FROM instance_view "
        "WHERE scale_set = $1 AND phase <> 'deleting' GROUP BY version",
        scale_set,
    )
    return {row["version"]: row["count"] for row in rows}


async def recent_upgrades(
    connection: Connection, scale_set: str, now: datetime, *, limit: int = 5
) -> list[UpgradeRow]:
    """Return the last upgrades of the past two months, newest first (M50)."""
    rows = await connection.fetch(
        f"SELECT {_UPGRADE} FROM upgrade_view "
        "WHERE scale_set = $1 AND started_at > $2::timestamptz - interval '2 months' "
        "ORDER BY started_at DESC, id LIMIT $3",
        scale_set,
        now,
        limit,
    )
    return [_upgrade(row) for row in rows]


async def upgrades(
    connection: Connection, scale_set: str, *, offset: int = 0, limit: int
) -> list[UpgradeRow]:
    """Return upgrades of any age, newest first."""
    rows = await connection.fetch(
        f"SELECT {_UPGRADE} FROM upgrade_view WHERE scale_set = $1 "
        "ORDER BY started_at DESC, id OFFSET $2 LIMIT $3",
        scale_set,
        offset,
        limit,
    )
    return [_upgrade(row) for row in rows]


async def upgrade(connection: Connection, scale_set: str, id: str) -> UpgradeRow | None:
    """Return one upgrade; an id that is no UUID is nobody's."""
    try:
        key = uuid.UUID(id)
    except ValueError:
        return None
    row = await connection.fetchrow(
        f"SELECT {_UPGRADE} FROM upgrade_view WHERE scale_set = $1 AND id = $2",
        scale_set,
        key,
    )
    return None if row is None else _upgrade(row)


async def batches(connection: Connection, upgrade_ids: Sequence[str]) -> dict[str, list[BatchRow]]:
    """Return the batches of these upgrades."""
    found: dict[str, list[BatchRow]] = {id: [] for id in upgrade_ids}
    for row in await connection.fetch(
        "SELECT upgrade_id, number, size, started_at, ended_at, succeeded, failed, reason "
        "FROM batch_view WHERE upgrade_id = ANY($1::uuid[]) ORDER BY upgrade_id, number",
        list(upgrade_ids),
    ):
        values = dict(row)
        found[str(values.pop("upgrade_id"))].append(BatchRow(**values))
    return found


async def results(connection: Connection, upgrade_id: str) -> list[ResultRow]:
    """Return each instance's part in an upgrade."""
    rows = await connection.fetch(
        "SELECT id, state, batch, from_version, since, error, reason FROM upgrade_result_view "
        "WHERE upgrade_id = $1::uuid ORDER BY length(id), id",
        upgrade_id,
    )
    return [ResultRow(**{**dict(row), "error": _json(row["error"])}) for row in rows]


async def cancelled_at(connection: Connection, key: str, since: datetime) -> datetime | None:
    """Return when a person last asked to stop an upgrade that began at `since`."""
    moment = await connection.fetchval(
        "SELECT time FROM event_view WHERE stream = $1 AND type = 'upgrade.cancel_requested.v1' "
        "AND time >= $2 ORDER BY sequence DESC LIMIT 1",
        key,
        since,
    )
    return moment if isinstance(moment, datetime) else None


async def images(connection: Connection, stream: str | None = None) -> list[Image]:
    """Return the images that are published and not withdrawn, of one stream or of all."""
    rows = await connection.fetch(
        "SELECT image FROM image_view "
        "WHERE withdrawn_at IS NULL AND ($1::text IS NULL OR stream = $1)",
        stream,
    )
    return [Image.model_validate_json(row["image"]) for row in rows]


def _json(value: str | None) -> Any:
    return None if value is None else json.loads(value)


def _instance(row: Mapping[str, Any]) -> InstanceRow:
    return InstanceRow(**{**dict(row), "error": _json(row["error"])})


def _upgrade(row: Mapping[str, Any]) -> UpgradeRow:
    values = dict(row)
    values["id"] = str(values["id"])
    for name in ("image", "policy", "error"):
        values[name] = _json(values[name])
    return UpgradeRow(**values)
