"""Read-only SQL on the views that the other services' migrations define."""

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rollcall_contracts.model import LATEST, Image, ImageReference
from rollcall_kit.outbox import Connection

from http_api.domain.actions import Chosen
from http_api.domain.asking import Standing
from http_api.domain.present.explanations import FleetRow
from http_api.domain.present.images import HoldRow
from http_api.domain.present.instances import Alike, InstanceRow, power_state
from http_api.domain.present.scale_sets import FleetState
from http_api.domain.present.upgrades import BatchRow, ResultRow, UpgradeRow

VIEWS = (
    *("fleet_view", "instance_view", "upgrade_view", "upgrade_status_view", "batch_view"),
    *("upgrade_result_view", "host_view", "image_view", "image_hold_view", "feed_view"),
    *("feed_error_view", "event_view"),
)
_INSTANCE = (
    "id, host, zone, attempt, phase, version, generation, address, port, power, health, since, "
    "error, created_at, previous_version, replaces, protect_from_scale_in, "
    "protect_from_scale_set_actions, phase_order, skip_upgrade, wish, power_due, "
    "coalesce(seen_at > now() - interval '30 seconds', false) AS agent_answers"
)
_INSTANCES = "instance_view LEFT JOIN host_view USING (host)"
_UPGRADE = (
    "id, status, started_by, image, policy, cancel_requested, pause_requested, deferred, override, "
    "rollback_of, batch, started_at, ended_at, error, reason, successful, failed, in_progress, "
    "pending, skipped, restored, restore_failed"
)
_RESULT = "id, state, batch, from_version, since, error, reason, approved, phase, replacement"


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
    broken: set[str] = set()
    for row in await connection.fetch(
        "SELECT scale_set, phase, count(*) AS count, bool_or(version IS NULL) AS unmade "
        "FROM instance_view WHERE scale_set = ANY($1::text[]) GROUP BY scale_set, phase",
        list(ids),
    ):
        phases[row["scale_set"]][row["phase"]] = row["count"]
        if row["phase"] == "failed" and row["unmade"]:
            broken.add(row["scale_set"])
    fleets = {
        row["scale_set"]: row
        for row in await connection.fetch(
            "SELECT scale_set, held, barred_version, waiting, "
            "coalesce((spec ->> 'revision')::int, 0) AS revision FROM fleet_view "
            "WHERE scale_set = ANY($1::text[]) AND NOT deleted",
            list(ids),
        )
    }
    return {
        id: FleetState(
            phases=phases[id],
            held=_json(fleets[id]["held"]) if id in fleets else None,
            barred_version=fleets[id]["barred_version"] if id in fleets else None,
            waiting=_json(fleets[id]["waiting"]) if id in fleets else None,
            broken=id in broken,
            revision=fleets[id]["revision"] if id in fleets else 0,
        )
        for id in ids
    }


async def fleet(connection: Connection, scale_set: str) -> FleetRow | None:
    """Return the orchestrator's row of a scale set, once it has taken it over."""
    row = await connection.fetchrow(
        "SELECT spec, held, barred_version, start_requested, rollback_requested, hook, "
        "last_version, batch_seconds, waiting FROM fleet_view WHERE scale_set = $1 AND NOT deleted",
        scale_set,
    )
    if row is None:
        return None
    values = dict(row)
    for name in ("spec", "held", "hook", "batch_seconds", "waiting"):
        values[name] = _json(values[name])
    return FleetRow(**values)


async def instances(
    connection: Connection, scale_set: str, *, after: str = "", limit: int
) -> list[InstanceRow]:
    """Return instances in the order of their numbers."""
    rows = await connection.fetch(
        f"""
        SELECT {_INSTANCE} FROM {_INSTANCES}
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
        f"SELECT {_INSTANCE} FROM {_INSTANCES} WHERE scale_set = $1 AND id = $2", scale_set, id
    )
    return None if row is None else _instance(row)


async def awaits_reimage(connection: Connection, scale_set: str) -> bool:
    """Say whether any instance waits for the new OS disk that a person asked for."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM instance_view WHERE scale_set = $1 AND reimage)", scale_set
        )
    )


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


async def chosen(connection: Connection, scale_set: str, ids: Sequence[str]) -> list[Chosen]:
    """Return these instances, in the order of their numbers; `*` is all that do not go already."""
    rows = await connection.fetch(
        "SELECT id, attempt, phase, wish, protect_from_scale_in, protect_from_scale_set_actions, "
        "replaces FROM instance_view WHERE scale_set = $1 "
        "AND (id = ANY($2::text[]) OR ($3 AND phase <> 'deleting')) ORDER BY length(id), id",
        scale_set,
        list(ids),
        "*" in ids,
    )
    return [Chosen(**dict(row)) for row in rows]


async def leaving(connection: Connection, key: str) -> list[str]:
    """Return the instances that people deleted and that are there still, or will be asked to go.

    The log has the model as it was last written, whatever the orchestrator has taken over. Ids are
    never used twice: one that is not there any more is gone for good.
    """
    rows = await connection.fetch(
        """
        SELECT i.id FROM (
            SELECT jsonb_array_elements_text(body::jsonb -> 'spec' -> 'leaving') AS id
            FROM event_view WHERE stream = $1 AND type = 'scale_set.changed.v1' AND sequence = (
                SELECT max(sequence) FROM event_view
                WHERE stream = $1 AND type = 'scale_set.changed.v1'
            )
        ) AS named
        JOIN instance_view i ON lower(i.scale_set) = $1 AND i.id = named.id
        ORDER BY length(i.id), i.id
        """,
        key,
    )
    return [row["id"] for row in rows]


async def instance_counts(
    connection: Connection, scale_set: str
) -> list[tuple[str, str, str, int]]:
    """Return how many instances there are, by (phase, power state, health)."""
    rows = await connection.fetch(
        "SELECT phase, power, health, wish, power_due, count(*) AS count FROM instance_view "
        "WHERE scale_set = $1 GROUP BY phase, power, health, wish, power_due",
        scale_set,
    )
    return [
        (
            row["phase"],
            power_state(row["phase"], row["power"], row["wish"], row["power_due"]),
            row["health"],
            row["count"],
        )
        for row in rows
    ]


async def alike(connection: Connection, scale_set: str) -> list[Alike]:
    """Count the instances by what tells how their extensions ended."""
    rows = await connection.fetch(
        "SELECT phase, generation, error, count(*) AS count FROM instance_view "
        "WHERE scale_set = $1 GROUP BY phase, generation, error",
        scale_set,
    )
    return [Alike(**{**dict(row), "error": _json(row["error"])}) for row in rows]


async def standings(connection: Connection, scale_set: str) -> list[Standing]:
    """Count the instances by version, and by whether an upgrade may touch them.

    What a person powered off is left out, as what is protected is.
    """
    rows = await connection.fetch(
        "SELECT version, protect_from_scale_set_actions OR wish <> 'running' AS protected, "
        "skip_upgrade AS skips, "
        "count(*) AS count FROM instance_view "
        "WHERE scale_set = $1 AND phase <> 'deleting' GROUP BY version, protected, skips",
        scale_set,
    )
    return [Standing(**dict(row)) for row in rows]


async def can_return(connection: Connection, scale_set: str, last_version: str | None) -> bool:
    """Say whether any instance that an upgrade may touch can go back to what it ran before."""
    return bool(
        await connection.fetchval(
            "SELECT EXISTS (SELECT FROM instance_view WHERE scale_set = $1 AND version = $2 "
            "AND previous_version IS NOT NULL AND NOT protect_from_scale_set_actions)",
            scale_set,
            last_version,
        )
    )


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


async def latest_upgrade(connection: Connection, scale_set: str) -> UpgradeRow | None:
    """Return the upgrade that runs, or the last one."""
    found = await upgrades(connection, scale_set, limit=1)
    return found[0] if found else None


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
        f"SELECT {_RESULT} FROM upgrade_result_view "
        "WHERE upgrade_id = $1::uuid ORDER BY length(id), id",
        upgrade_id,
    )
    return [_result(row) for row in rows]


async def first_failure(connection: Connection, upgrade_id: str) -> ResultRow | None:
    """Return the first instance that failed in an upgrade."""
    row = await connection.fetchrow(
        f"SELECT {_RESULT} FROM upgrade_result_view WHERE upgrade_id = $1::uuid "
        "AND state IN ('failed', 'restoring', 'restored', 'restore_failed') "
        "ORDER BY since, length(id), id LIMIT 1",
        upgrade_id,
    )
    return None if row is None else _result(row)


async def members(connection: Connection, upgrade_id: str, ids: Sequence[str]) -> frozenset[str]:
    """Return which of these instances an upgrade includes."""
    rows = await connection.fetch(
        "SELECT id FROM upgrade_result_view WHERE upgrade_id = $1::uuid AND id = ANY($2::text[])",
        upgrade_id,
        list(ids),
    )
    return frozenset(row["id"] for row in rows)


async def cancelled_at(connection: Connection, key: str, since: datetime) -> datetime | None:
    """Return when a person last asked to stop an upgrade that began at `since`."""
    found = await _last_request(connection, key, since, ("upgrade.cancel_requested.v1",))
    return None if found is None else found["time"]


async def is_paused(connection: Connection, key: str, since: datetime) -> bool:
    """Say whether a person paused an upgrade that began at `since`, and did not let it go on.

    The log knows at once what the orchestrator's row will show a moment later.
    """
    kinds = ("upgrade.pause_requested.v1", "upgrade.resume_requested.v1")
    found = await _last_request(connection, key, since, kinds)
    return found is not None and found["type"] == kinds[0]


async def _last_request(
    connection: Connection, key: str, since: datetime, kinds: Sequence[str]
) -> Mapping[str, Any] | None:
    row: Mapping[str, Any] | None = await connection.fetchrow(
        "SELECT type, time FROM event_view WHERE stream = $1 AND type = ANY($3::text[]) "
        "AND time >= $2 ORDER BY sequence DESC LIMIT 1",
        key,
        since,
        list(kinds),
    )
    return row


async def holds(connection: Connection, stream: str | None = None) -> list[HoldRow]:
    """Return the versions that sets keep off, of one line or of all, the newest hold first."""
    rows = await connection.fetch(
        "SELECT version, image, by_set, upgrade_id, quarantine, error, held_at "
        "FROM image_hold_view WHERE $1::text IS NULL OR stream = $1 "
        "ORDER BY held_at DESC, stream, version",
        stream,
    )
    return [_hold(row) for row in rows]


async def images(connection: Connection, stream: str | None = None) -> list[Image]:
    """Return the images that are published and not withdrawn, of one stream or of all."""
    rows = await connection.fetch(
        "SELECT image, published_at FROM image_view "
        "WHERE withdrawn_at IS NULL AND ($1::text IS NULL OR stream = $1)",
        stream,
    )
    return [_image(row) for row in rows]


async def wanted_version(
    connection: Connection, scale_set: str, reference: ImageReference
) -> str | None:
    """Return the version that an instance is brought to; during an upgrade it is the target."""
    last = await latest_upgrade(connection, scale_set)
    if last is not None and last.is_running:
        return str(last.image["version"])
    if reference.version != LATEST:
        return reference.version
    found = await images(connection, "/".join(reference.stream))
    offered = [image for image in found if not image.exclude_from_latest]
    return max(offered, key=lambda image: image.order).version if offered else None


def _json(value: str | None) -> Any:
    return None if value is None else json.loads(value)


def _image(row: Mapping[str, Any]) -> Image:
    image = Image.model_validate_json(row["image"])
    if image.published_at is None:  # recorded before images carried it
        return image.model_copy(update={"published_at": row["published_at"]})
    return image


def _instance(row: Mapping[str, Any]) -> InstanceRow:
    return InstanceRow(**{**dict(row), "error": _json(row["error"])})


def _result(row: Mapping[str, Any]) -> ResultRow:
    return ResultRow(**{**dict(row), "error": _json(row["error"])})


def _hold(row: Mapping[str, Any]) -> HoldRow:
    return HoldRow(**{**dict(row), "image": _json(row["image"]), "error": _json(row["error"])})


def _upgrade(row: Mapping[str, Any]) -> UpgradeRow:
    values = dict(row)
    values["id"] = str(values["id"])
    for name in ("image", "policy", "error"):
        values[name] = _json(values[name])
    return UpgradeRow(**values)
