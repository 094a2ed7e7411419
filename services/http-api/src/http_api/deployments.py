"""All SQL on deployments of templates and on their operations."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from rollcall_kit.outbox import Connection

from http_api import accounts
from http_api.domain.access import Grant, Principal, Role
from http_api.domain.deployments import Deployment, State, Step
from http_api.domain.resource_ids import ResourceId

_DEPLOYMENT = (
    "id, correlation, shown, state, outputs, error, cancel_requested, started_at, changed_at, "
    "ended_at"
)
_STEP = "id, resource, type, name, state, status_code, error, asks, started_at, ended_at"


class Busy(Exception):
    """Somebody works on the deployment at this moment."""


async def find(connection: Connection, key: str) -> Deployment | None:
    """Return a deployment."""
    row = await connection.fetchrow(f"SELECT {_DEPLOYMENT} FROM deployments WHERE key = $1", key)
    return None if row is None else _deployment(row)


async def hold(connection: Connection, key: str) -> Deployment | None:
    """Return a deployment that nobody works on until the transaction ends. Raises Busy.

    It does not wait: a template whose own deployment is in it would wait for itself.
    """
    if not await connection.fetchval(
        "SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", _lock(key)
    ):
        raise Busy
    return await find(connection, key)


async def lock(connection: Connection, key: str) -> bool:
    """Take a deployment in hand until `unlock`; return whether nobody else has it.

    No transaction is open meanwhile: a step asks for other things of the database, and whoever
    waited for its rows could hold what the step waits for.
    """
    return bool(
        await connection.fetchval(
            "SELECT pg_try_advisory_lock(hashtextextended($1, 0))", _lock(key)
        )
    )


async def unlock(connection: Connection, key: str) -> None:
    """Let a deployment go."""
    await connection.execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", _lock(key))


def _lock(key: str) -> str:
    return f"deployment {key}"


async def open_keys(connection: Connection) -> list[str]:
    """Return the keys of the deployments that go on, the oldest first."""
    rows = await connection.fetch(
        "SELECT key FROM deployments WHERE ended_at IS NULL ORDER BY started_at"
    )
    return [row["key"] for row in rows]


async def listed(
    connection: Connection,
    *,
    subscription: str,
    group: str,
    state: str | None,
    after: str,
    limit: int,
) -> list[Deployment]:
    """Return the deployments of a group in the order of their keys."""
    rows = await connection.fetch(
        f"SELECT {_DEPLOYMENT} FROM deployments WHERE subscription = $1 AND resource_group = $2 "
        "AND ($3::text IS NULL OR lower(state) = lower($3)) AND key > $4 ORDER BY key LIMIT $5",
        subscription.lower(),
        group.lower(),
        state,
        after,
        limit,
    )
    return [_deployment(row) for row in rows]


async def begin(
    connection: Connection,
    place: ResourceId,
    deployment: Deployment,
    *,
    sealed: str,
    principal: Principal,
) -> None:
    """Insert a deployment, or begin it anew without its former operations.

    Raises Busy where another request has just begun it.
    """
    is_account = bool(await accounts.accounts(connection, principal.id))
    await connection.execute("DELETE FROM deployments WHERE key = $1", place.key)
    inserted = await connection.fetchval(
        f"INSERT INTO deployments (key, subscription, resource_group, sealed, principal, "
        f"{_DEPLOYMENT}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, NULL, NULL, false, $10, $10, "
        "NULL) ON CONFLICT (key) DO NOTHING RETURNING 1",
        place.key,
        place.subscription.lower(),
        place.group.lower(),
        sealed,
        json.dumps({**_principal_json(principal), "is_account": is_account}),
        deployment.id,
        uuid.UUID(deployment.correlation),
        json.dumps(deployment.shown),
        deployment.state,
        deployment.started_at,
    )
    if inserted is None:
        raise Busy


async def save(connection: Connection, deployment: Deployment) -> None:
    """Save how far a deployment is."""
    await connection.execute(
        "UPDATE deployments SET state = $2, outputs = $3, error = $4, changed_at = $5, "
        "ended_at = $6 WHERE key = $1 AND correlation = $7",
        deployment.id.lower(),
        deployment.state,
        _json(deployment.outputs),
        _json(deployment.error),
        deployment.changed_at,
        deployment.ended_at,
        uuid.UUID(deployment.correlation),
    )


async def request_cancel(connection: Connection, key: str) -> bool:
    """Ask a deployment to stop; return whether it goes on."""
    return (
        await connection.fetchval(
            "UPDATE deployments SET cancel_requested = true WHERE key = $1 AND ended_at IS NULL "
            "RETURNING 1",
            key,
        )
    ) is not None


async def delete(connection: Connection, key: str) -> bool:
    """Forget a deployment; return whether there was one."""
    return (
        await connection.fetchval("DELETE FROM deployments WHERE key = $1 RETURNING 1", key)
    ) is not None


async def delete_of_group(connection: Connection, subscription: str, group: str) -> None:
    """Forget the deployments of a resource group."""
    await connection.execute(
        "DELETE FROM deployments WHERE subscription = $1 AND resource_group = $2",
        subscription.lower(),
        group.lower(),
    )


async def sealed_of(connection: Connection, key: str) -> str:
    """Return what is sealed of a deployment."""
    return str(await connection.fetchval("SELECT sealed FROM deployments WHERE key = $1", key))


async def deployer_of(connection: Connection, key: str) -> Principal | None:
    """Return who deploys, and what they may do now; None where the account is gone.

    Somebody of an external provider cannot be asked for: they keep what they might do when they
    began.
    """
    kept = json.loads(
        await connection.fetchval("SELECT principal FROM deployments WHERE key = $1", key)
    )
    found = await accounts.accounts(connection, kept["id"])
    if found:
        return Principal(name=found[0].name, id=found[0].client_id, grants=found[0].grants)
    return None if kept.get("is_account") else _principal(kept)


async def steps(connection: Connection, key: str) -> list[Step]:
    """Return the operations of a deployment in the order in which they began."""
    rows = await connection.fetch(
        f"SELECT {_STEP} FROM deployment_operations WHERE deployment = $1 ORDER BY started_at, id",
        key,
    )
    return [_step(row) for row in rows]


async def save_step(connection: Connection, key: str, step: Step) -> None:
    """Insert an operation of a deployment, or save how far it is."""
    await connection.execute(
        f"INSERT INTO deployment_operations (deployment, {_STEP}) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) "
        "ON CONFLICT (deployment, id) DO UPDATE SET state = excluded.state, "
        "status_code = excluded.status_code, error = excluded.error, asks = excluded.asks, "
        "ended_at = excluded.ended_at",
        key,
        step.id,
        step.resource,
        step.type,
        step.name,
        step.state,
        step.status_code,
        _json(step.error),
        step.asks,
        step.started_at,
        step.ended_at,
    )


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _deployment(row: Mapping[str, Any]) -> Deployment:
    return Deployment(
        id=row["id"],
        correlation=str(row["correlation"]),
        shown=json.loads(row["shown"]),
        state=State(row["state"]),
        outputs=_read(row["outputs"]),
        error=_read(row["error"]),
        cancel_requested=row["cancel_requested"],
        started_at=row["started_at"],
        changed_at=row["changed_at"],
        ended_at=row["ended_at"],
    )


def _step(row: Mapping[str, Any]) -> Step:
    return Step(
        id=row["id"],
        resource=row["resource"],
        type=row["type"],
        name=row["name"],
        state=State(row["state"]),
        status_code=row["status_code"],
        error=_read(row["error"]),
        asks=row["asks"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _principal_json(principal: Principal) -> dict[str, Any]:
    return {
        "name": principal.name,
        "id": principal.id,
        "grants": [{"role": grant.role.word, "scope": grant.scope} for grant in principal.grants],
    }


def _principal(document: Mapping[str, Any]) -> Principal:
    return Principal(
        name=document["name"],
        id=document["id"],
        grants=tuple(
            Grant(role=Role[each["role"].upper()], scope=each["scope"])
            for each in document["grants"]
        ),
    )
