"""All SQL on the API's own tables: scale sets and load balancers."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from rollcall_kit.outbox import Connection

from http_api.domain.present.scale_sets import Stored, StoredScaleSet
from http_api.domain.resource_ids import ResourceId

_MODELS_LOCK = 0x526F6C6C  # "Roll"; any number that nothing else in the database uses
_SCALE_SET = "id, model, secrets, generation, load_balancer, warnings, created_at"


Scopes: TypeAlias = Sequence[str] | None


def within(parameter: str) -> str:
    """Return the SQL that says whether `key` is at or below one of an array of scopes; NULL: all.

    A scope is compared as a text: nothing in it is a pattern.
    """
    return (
        f"({parameter}::text[] IS NULL OR EXISTS (SELECT FROM unnest({parameter}::text[]) AS s "
        "WHERE key = s OR starts_with(key, s || '/')))"
    )


async def lock_models(connection: Connection) -> None:
    """Let one writer of models through at a time, until the transaction ends.

    A set names a load balancer's probe and a load balancer's change goes into its sets: with row
    locks alone, two such writers could each wait for the other. Models are written rarely.
    """
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _MODELS_LOCK)


async def next_revision(connection: Connection) -> int:
    """Return a number for a write of a scale set, higher than that of any write before.

    Under `lock_models`, so that the numbers are in the order of the transactions.
    """
    return int(await connection.fetchval("SELECT nextval('model_revisions')"))


async def scale_set(connection: Connection, key: str) -> StoredScaleSet | None:
    """Return a scale set, if it exists."""
    row = await connection.fetchrow(f"SELECT {_SCALE_SET} FROM scale_sets WHERE key = $1", key)
    return None if row is None else _scale_set(row)


async def scale_sets(
    connection: Connection,
    *,
    subscription: str,
    group: str | None,
    location: str | None = None,
    after: str,
    limit: int,
    scopes: Scopes = None,
) -> list[StoredScaleSet]:
    """Return the scale sets of a subscription, group or location in the order of their keys.

    Only those within `scopes`, where these are not all.
    """
    rows = await connection.fetch(
        f"""
        SELECT {_SCALE_SET} FROM scale_sets
        WHERE subscription = $1 AND ($2::text IS NULL OR resource_group = $2) AND key > $3
            AND ($5::text IS NULL OR lower(replace(model ->> 'location', ' ', '')) = $5)
            AND {within("$6")}
        ORDER BY key LIMIT $4
        """,
        subscription.lower(),
        None if group is None else group.lower(),
        after,
        limit,
        None if location is None else location.lower(),
        scopes,
    )
    return [_scale_set(row) for row in rows]


async def scale_set_ids(connection: Connection, scopes: Scopes = None) -> list[str]:
    """Return the ids of all scale sets within some scopes, of every subscription, in order."""
    rows = await connection.fetch(
        f"SELECT id FROM scale_sets WHERE {within('$1')} ORDER BY key", scopes
    )
    return [row["id"] for row in rows]


async def scale_sets_behind(connection: Connection, load_balancer: str) -> list[StoredScaleSet]:
    """Return the scale sets whose health probe belongs to a load balancer."""
    rows = await connection.fetch(
        f"SELECT {_SCALE_SET} FROM scale_sets WHERE load_balancer = $1 ORDER BY key", load_balancer
    )
    return [_scale_set(row) for row in rows]


async def save_scale_set(
    connection: Connection, place: ResourceId, stored: StoredScaleSet, now: datetime
) -> None:
    """Insert or replace a scale set."""
    await connection.execute(
        """
        INSERT INTO scale_sets (key, id, subscription, resource_group, model, secrets, generation,
                                load_balancer, warnings, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT (key) DO UPDATE SET
            model = excluded.model, secrets = excluded.secrets, generation = excluded.generation,
            load_balancer = excluded.load_balancer, warnings = excluded.warnings,
            updated_at = excluded.updated_at
        """,
        place.key,
        stored.id,
        place.subscription.lower(),
        place.group.lower(),
        json.dumps(stored.model),
        json.dumps(stored.secrets),
        stored.generation,
        stored.load_balancer,
        json.dumps(stored.warnings),
        stored.created_at,
        now,
    )


async def save_warnings(
    connection: Connection, key: str, warnings: Sequence[Mapping[str, Any]]
) -> None:
    """Replace a scale set's warnings, after something that it refers to has changed."""
    await connection.execute(
        "UPDATE scale_sets SET warnings = $2 WHERE key = $1", key, json.dumps(warnings)
    )


async def delete_scale_set(connection: Connection, key: str) -> str | None:
    """Delete a scale set; return its id, or None if there was none."""
    id = await connection.fetchval("DELETE FROM scale_sets WHERE key = $1 RETURNING id", key)
    return None if id is None else str(id)


async def load_balancer(connection: Connection, key: str) -> Stored | None:
    """Return a load balancer, if it exists."""
    row = await connection.fetchrow(
        "SELECT id, model, created_at FROM load_balancers WHERE key = $1", key
    )
    return None if row is None else _load_balancer(row)


async def load_balancers(
    connection: Connection,
    *,
    subscription: str,
    group: str | None,
    after: str,
    limit: int,
    scopes: Scopes = None,
) -> list[Stored]:
    """Return the load balancers of a subscription or a group in the order of their keys."""
    rows = await connection.fetch(
        f"""
        SELECT id, model, created_at FROM load_balancers
        WHERE subscription = $1 AND ($2::text IS NULL OR resource_group = $2) AND key > $3
            AND {within("$5")}
        ORDER BY key LIMIT $4
        """,
        subscription.lower(),
        None if group is None else group.lower(),
        after,
        limit,
        scopes,
    )
    return [_load_balancer(row) for row in rows]


async def save_load_balancer(
    connection: Connection, place: ResourceId, stored: Stored, now: datetime
) -> None:
    """Insert or replace a load balancer."""
    await connection.execute(
        """
        INSERT INTO load_balancers (key, id, subscription, resource_group, model, created_at,
                                    updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (key) DO UPDATE SET model = excluded.model, updated_at = excluded.updated_at
        """,
        place.key,
        stored.id,
        place.subscription.lower(),
        place.group.lower(),
        json.dumps(stored.model),
        stored.created_at,
        now,
    )


async def delete_load_balancer(connection: Connection, key: str) -> bool:
    """Delete a load balancer; return whether there was one."""
    return (
        await connection.fetchval("DELETE FROM load_balancers WHERE key = $1 RETURNING 1", key)
    ) is not None


def _load_balancer(row: Mapping[str, Any]) -> Stored:
    return Stored(id=row["id"], model=json.loads(row["model"]), created_at=row["created_at"])


def _scale_set(row: Mapping[str, Any]) -> StoredScaleSet:
    return StoredScaleSet(
        id=row["id"],
        model=json.loads(row["model"]),
        secrets=json.loads(row["secrets"]),
        generation=row["generation"],
        load_balancer=row["load_balancer"],
        warnings=json.loads(row["warnings"]),
        created_at=row["created_at"],
    )
