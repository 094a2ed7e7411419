"""Long-running operations in Postgres: begun with what they are about, judged when asked for."""

import json
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from rollcall_kit.outbox import Connection

from http_api import installation, queries, store
from http_api.domain.operations import (
    DONE,
    RUNNING,
    InstanceFacts,
    Kind,
    Operation,
    Outcome,
    SetFacts,
    Status,
    UpgradeFacts,
    judge_cancel,
    judge_deletion,
    judge_instances,
    judge_power,
    judge_protection,
    judge_reimage,
    judge_removal,
    judge_set,
    judge_start,
    to_wait_for,
)

KEPT = timedelta(days=7)
REPEATS = timedelta(minutes=10)  # how long a request may come again and mean the same one
_OPERATION = "id, kind, resource, goal, status, error, started_at, ended_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that begins an operation."""

    action: str  # such as osRollingUpgrade
    client_request: str | None = None  # the same when the client repeats the request


async def begin(
    connection: Connection,
    kind: Kind,
    resource: str,
    asked: Asked,
    now: datetime,
    goal: Mapping[str, Any] | None = None,
) -> Operation:
    """Keep a new operation; one of kind NOTHING has ended already."""
    done = kind is Kind.NOTHING
    operation = Operation(
        id=str(uuid.uuid4()),
        kind=kind,
        resource=resource,
        goal=goal or {},
        status=Status.SUCCEEDED if done else Status.IN_PROGRESS,
        started_at=now,
        ended_at=now if done else None,
    )
    await connection.execute("DELETE FROM operations WHERE started_at < $1", now - KEPT)
    await connection.execute(
        f"INSERT INTO operations ({_OPERATION}, action, resource_key, client_request) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        uuid.UUID(operation.id),
        operation.kind,
        resource,
        json.dumps(operation.goal),
        operation.status,
        None,
        now,
        operation.ended_at,
        asked.action,
        resource.lower(),
        asked.client_request,
    )
    return operation


async def repeated(
    connection: Connection,
    resource: str,
    asked: Asked,
    now: datetime,
    within: timedelta = REPEATS,
) -> Operation | None:
    """Return the operation that the same request began before, `within` that time, if it did.

    Clients repeat a request that they got no good answer to, POST included. Whoever asks holds a
    lock until the transaction ends, so of two at once the second finds what the first began.
    """
    if asked.client_request is None:
        return None
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))",
        f"{resource.lower()} {asked.action}",
    )
    row = await connection.fetchrow(
        f"SELECT {_OPERATION} FROM operations WHERE resource_key = $1 AND action = $2 "
        "AND client_request = $3 AND started_at > $4 ORDER BY started_at DESC LIMIT 1",
        resource.lower(),
        asked.action,
        asked.client_request,
        now - within,
    )
    return None if row is None else _operation(row)


async def unfinished(
    connection: Connection, resource: str, action: str, now: datetime
) -> Operation | None:
    """Return the newest operation of an action on a resource, if it still goes on."""
    row = await connection.fetchrow(
        f"SELECT {_OPERATION} FROM operations WHERE resource_key = $1 AND action = $2 "
        "ORDER BY started_at DESC LIMIT 1",
        resource.lower(),
        action,
    )
    if row is None:
        return None
    found = await judged(connection, _operation(row), now)
    return found if found.status is Status.IN_PROGRESS else None


async def find(connection: Connection, id: str, now: datetime) -> Operation | None:
    """Return an operation as it is now; an id that is no UUID is nobody's."""
    try:
        key = uuid.UUID(id)
    except ValueError:
        return None
    row = await connection.fetchrow(f"SELECT {_OPERATION} FROM operations WHERE id = $1", key)
    return None if row is None else await judged(connection, _operation(row), now)


async def judged(connection: Connection, operation: Operation, now: datetime) -> Operation:
    """Return the operation with its present status; an end is kept."""
    if operation.status is not Status.IN_PROGRESS:
        return operation
    outcome = await _outcome(connection, operation, now)
    if outcome.status is Status.IN_PROGRESS:
        return operation
    await connection.execute(
        "UPDATE operations SET status = $2, error = $3, ended_at = $4 "
        "WHERE id = $1 AND ended_at IS NULL",
        uuid.UUID(operation.id),
        outcome.status,
        None if outcome.error is None else json.dumps(outcome.error),
        now,
    )
    return replace(operation, status=outcome.status, error=outcome.error, ended_at=now)


async def _outcome(connection: Connection, operation: Operation, now: datetime) -> Outcome:
    match operation.kind:
        case Kind.NOTHING:
            return DONE
        case Kind.SET:
            return judge_set(operation, await _set_facts(connection, operation.resource), now)
        case Kind.DELETION:
            return judge_deletion(await _instances_left(connection, operation.goal["sets"]))
        case Kind.INSTANCES:
            known = await _instances(connection, operation.resource, operation.goal["attempts"])
            return judge_instances(operation, known, now)
        case Kind.REIMAGE:
            known = await _instances(connection, operation.resource, operation.goal["attempts"])
            return judge_reimage(operation, known)
        case Kind.POWER:
            known = await _instances(connection, operation.resource, operation.goal["ids"])
            return judge_power(operation, known)
        case Kind.REMOVAL:
            known = await _instances(connection, operation.resource, operation.goal["ids"])
            facts = await _set_facts(connection, operation.resource)
            return judge_removal(operation, facts, known)
        case Kind.PROTECTION:
            row = await queries.instance(connection, operation.resource, operation.goal["id"])
            protection = (
                None
                if row is None
                else (row.protect_from_scale_in, row.protect_from_scale_set_actions)
            )
            return judge_protection(operation, protection, now)
        case Kind.START:
            return judge_start(await _upgrade_facts(connection, operation))
        case Kind.CANCEL:
            found = await queries.upgrade(connection, operation.resource, operation.goal["upgrade"])
            return judge_cancel(None if found is None else found.status)
    return RUNNING


async def _set_facts(connection: Connection, id: str) -> SetFacts | None:
    stored = await store.scale_set(connection, id.lower())
    if stored is None:
        return None
    state = (await queries.fleet_states(connection, [stored.id]))[stored.id]
    error = await connection.fetchval(
        "SELECT error FROM instance_view WHERE scale_set = $1 AND phase = 'failed' "
        "AND version IS NULL ORDER BY length(id), id LIMIT 1",
        stored.id,
    )
    fallback = {"code": "VMProvisioningError", "message": "An instance could not be made."}
    return SetFacts(
        capacity=stored.capacity,
        revision=state.revision,
        phases=state.phases,
        broken=(json.loads(error) if error else fallback) if state.broken else None,
        held=state.held,
    )


async def _instances_left(connection: Connection, sets: Collection[str]) -> int:
    """Count the instances of sets that are deleted; of one that was made again none is counted."""
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM instance_view i WHERE scale_set = ANY($1::text[]) "
            "AND NOT EXISTS (SELECT FROM scale_sets s WHERE s.key = lower(i.scale_set))",
            list(sets),
        )
    )


async def _instances(
    connection: Connection, scale_set: str, ids: Collection[str]
) -> dict[str, InstanceFacts]:
    rows = await connection.fetch(
        "SELECT id, attempt, phase, deploy, error, reimage, reimage_number, power_due, "
        "power_number FROM instance_view "
        "WHERE scale_set = $1 AND id = ANY($2::text[])",
        scale_set,
        list(ids),
    )
    return {
        row["id"]: InstanceFacts(
            **{**dict(row), "error": None if row["error"] is None else json.loads(row["error"])}
        )
        for row in rows
    }


async def deployment_goal(
    connection: Connection,
    scale_set: str,
    generation: int,
    latest: str | None,
    ids: Collection[str],
) -> dict[str, Any]:
    """Return which instances a deployment of the model will change, with their attempts now.

    One that a person powered off waits for its start, and nobody waits for it.
    """
    rows = await connection.fetch(
        "SELECT id, attempt, phase = 'ready' AND generation = $2 "
        "AND ($3::text IS NULL OR version = $3) AS current FROM instance_view "
        "WHERE scale_set = $1 AND phase <> 'deleting' AND wish = 'running'",
        scale_set,
        generation,
        latest,
    )
    known = [(row["id"], row["attempt"], bool(row["current"])) for row in rows]
    return {"attempts": to_wait_for(known, ids)}


async def start_goal(connection: Connection, scale_set: str) -> dict[str, Any]:
    """Return from where in the set's log the answer to a request will be found."""
    return {"after": await installation.last_sequence(connection, scale_set.lower())}


async def _upgrade_facts(connection: Connection, operation: Operation) -> UpgradeFacts:
    """Read in the set's log what followed the request, and then the upgrade itself."""
    row = await connection.fetchrow(
        """
        SELECT type, body FROM event_view WHERE stream = $1
        AND type IN ('upgrade.started.v1', 'upgrade.held.v1') AND sequence > (
            SELECT min(sequence) FROM event_view
            WHERE stream = $1 AND type = 'upgrade.start_requested.v1' AND sequence > $2
        )
        ORDER BY sequence LIMIT 1
        """,
        operation.resource.lower(),
        int(operation.goal["after"]),
    )
    if row is None:
        return UpgradeFacts()
    body = json.loads(row["body"])
    if row["type"] == "upgrade.held.v1":
        return UpgradeFacts(held=body["error"])
    found = await queries.upgrade(connection, operation.resource, body["upgrade_id"])
    if found is None:
        return UpgradeFacts()
    return UpgradeFacts(status=found.status, error=found.error)


def _operation(row: Mapping[str, Any]) -> Operation:
    return Operation(
        id=str(row["id"]),
        kind=Kind(row["kind"]),
        resource=row["resource"],
        goal=json.loads(row["goal"]),
        status=Status(row["status"]),
        error=None if row["error"] is None else json.loads(row["error"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )
