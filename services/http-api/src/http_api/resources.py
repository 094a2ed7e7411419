"""SQL on resource groups and on resources that are kept and given back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rollcall_kit.outbox import Connection

from http_api.domain.present.scale_sets import Stored
from http_api.domain.resource_ids import ResourceId
from http_api.store import Scopes, within


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A resource of any type, as lists show it."""

    key: str
    id: str
    type: str
    location: str
    tags: Mapping[str, Any] | None


async def directory(connection: Connection) -> tuple[str, str]:
    """Return the tenant and the subscription that this installation calls its own."""
    row = await connection.fetchrow("SELECT tenant, subscription FROM directory")
    return str(row["tenant"]), str(row["subscription"])


async def subscriptions(connection: Connection) -> list[str]:
    """Return every subscription in use, in the spelling of a resource, and the own one first."""
    _, own = await directory(connection)
    rows = await connection.fetch(
        "SELECT subscription, min(split_part(id, '/', 3)) AS spelled FROM ("
        "SELECT subscription, id FROM resource_view "
        "UNION ALL SELECT subscription, id FROM resource_groups) AS all_of_them "
        "WHERE subscription <> $1 GROUP BY subscription ORDER BY subscription",
        own,
    )
    return [own, *(row["spelled"] for row in rows)]


async def save_group(connection: Connection, group: Stored, now: datetime) -> None:
    """Insert or replace a resource group."""
    await connection.execute(
        "INSERT INTO resource_groups (key, id, subscription, model, created_at) "
        "VALUES ($1, $2, $3, $4, $5) ON CONFLICT (key) DO UPDATE SET model = excluded.model",
        group.id.lower(),
        group.id,
        group.id.split("/")[2].lower(),
        json.dumps(group.model),
        now,
    )


async def groups(
    connection: Connection, subscription: str, *, location: str, name: str | None = None
) -> list[Stored]:
    """Return the groups that somebody made, or that have a resource; `location` of the latter."""
    rows = await connection.fetch(
        """
        SELECT key, id, model, created_at FROM resource_groups
        WHERE subscription = $1 AND ($2::text IS NULL OR key = $2)
        """,
        subscription.lower(),
        None if name is None else f"/subscriptions/{subscription}/resourcegroups/{name}".lower(),
    )
    found = {
        row["key"]: Stored(
            id=row["id"], model=json.loads(row["model"]), created_at=row["created_at"]
        )
        for row in rows
    }
    used = await connection.fetch(
        "SELECT DISTINCT ON (resource_group) split_part(id, '/providers/', 1) AS id "
        "FROM resource_view WHERE subscription = $1 AND ($2::text IS NULL OR resource_group = $2) "
        "ORDER BY resource_group, key",
        subscription.lower(),
        None if name is None else name.lower(),
    )
    for row in used:
        implied = Stored(
            id=row["id"], model={"location": location}, created_at=datetime.min.replace(tzinfo=UTC)
        )
        found.setdefault(row["id"].lower(), implied)
    return [found[key] for key in sorted(found)]


async def delete_group(connection: Connection, key: str) -> bool:
    """Delete a group's row; return whether there was one."""
    return (
        await connection.fetchval("DELETE FROM resource_groups WHERE key = $1 RETURNING 1", key)
    ) is not None


async def listed(
    connection: Connection,
    subscription: str,
    *,
    groups: Iterable[str],
    types: Iterable[str],
    names: Iterable[str],
    after: str,
    limit: int,
    scopes: Scopes = None,
) -> list[Listed]:
    """Return resources of any type in the order of their keys.

    A resource's group, type and name must equal each one that is given, without regard to case.
    """
    rows = await connection.fetch(
        "SELECT key, id, type, location, tags FROM resource_view WHERE subscription = $1 "
        "AND resource_group = ALL ($2::text[]) AND lower(type) = ALL ($3::text[]) "
        "AND split_part(key, '/', -1) = ALL ($7::text[]) "
        f"AND key > $4 AND {within('$6')} ORDER BY key LIMIT $5",
        subscription.lower(),
        [group.lower() for group in groups],
        [type.lower() for type in types],
        after,
        limit,
        scopes,
        [name.lower() for name in names],
    )
    return [
        Listed(
            key=row["key"],
            id=row["id"],
            type=row["type"],
            location=row["location"] or "",
            tags=None if row["tags"] is None else json.loads(row["tags"]),
        )
        for row in rows
    ]


async def resource(connection: Connection, key: str) -> Stored | None:
    """Return a resource that is kept."""
    row = await connection.fetchrow(
        "SELECT id, model, created_at FROM resources WHERE key = $1 FOR UPDATE", key
    )
    return None if row is None else _stored(row)


async def resources(
    connection: Connection,
    type: str,
    *,
    subscription: str,
    group: str | None,
    after: str,
    limit: int,
    scopes: Scopes = None,
) -> list[Stored]:
    """Return the kept resources of a type in the order of their keys."""
    rows = await connection.fetch(
        "SELECT id, model, created_at FROM resources WHERE type = $1 AND subscription = $2 "
        f"AND ($3::text IS NULL OR resource_group = $3) AND key > $4 AND {within('$6')} "
        "ORDER BY key LIMIT $5",
        type.lower(),
        subscription.lower(),
        None if group is None else group.lower(),
        after,
        limit,
        scopes,
    )
    return [_stored(row) for row in rows]


async def save_resource(
    connection: Connection, place: ResourceId, stored: Stored, now: datetime
) -> None:
    """Insert or replace a resource."""
    await connection.execute(
        """
        INSERT INTO resources (key, id, type, subscription, resource_group, model, created_at,
                               updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (key) DO UPDATE SET model = excluded.model, updated_at = excluded.updated_at
        """,
        place.key,
        stored.id,
        place.type.lower(),
        place.subscription.lower(),
        place.group.lower(),
        json.dumps(stored.model),
        stored.created_at,
        now,
    )


async def delete_resource(connection: Connection, key: str) -> bool:
    """Delete a resource; return whether there was one."""
    return (
        await connection.fetchval("DELETE FROM resources WHERE key = $1 RETURNING 1", key)
    ) is not None


async def keys_in_group(
    connection: Connection, table: str, subscription: str, group: str
) -> list[str]:
    """Return the keys of a table's resources in a group; `table` is one of ours."""
    rows = await connection.fetch(
        f"SELECT key FROM {table} WHERE subscription = $1 AND resource_group = $2 ORDER BY key",
        subscription.lower(),
        group.lower(),
    )
    return [row["key"] for row in rows]


def _stored(row: Mapping[str, Any]) -> Stored:
    return Stored(id=row["id"], model=json.loads(row["model"]), created_at=row["created_at"])
