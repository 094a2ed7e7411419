"""Between the rollout's values and the tables' rows."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rollcall_contracts.model import (
    Failure,
    Health,
    Image,
    Power,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import Instance, InstancePhase, Member, MemberState, Upgrade
from rollcall_rollout.state import UpgradeStatus

Row = Mapping[str, Any]

INSTANCE_COLUMNS = (
    "scale_set", "id", "host", "zone", "attempt", "phase", "version", "generation", "address",
    "port", "power", "health", "since", "lease", "probed_until", "uncommitted", "deploy", "error",
    "created_at",
)  # fmt: skip  # one name per line would hide that these are one list
UPGRADE_COLUMNS = (
    "id", "scale_set", "status", "started_by", "image", "policy", "restore_failed", "batch",
    "batch_open", "paused_since", "fetches", "cancel_requested", "fetch_error", "started_at",
    "ended_at", "error", "reason",
)  # fmt: skip  # as above
MEMBER_COLUMNS = (
    "upgrade_id", "id", "state", "batch", "from_version", "since", "error", "reason",
)  # fmt: skip  # as above


def instance(row: Row) -> Instance:
    """Return an instance from its row."""
    return Instance(
        id=row["id"],
        host=row["host"],
        zone=row["zone"],
        attempt=row["attempt"],
        phase=InstancePhase(row["phase"]),
        version=row["version"],
        generation=row["generation"],
        address=row["address"],
        port=row["port"],
        power=Power(row["power"]),
        health=Health(row["health"]),
        since=row["since"],
        lease=row["lease"],
        probed_until=row["probed_until"],
        uncommitted=row["uncommitted"],
        deploy=row["deploy"],
        error=_failure(row["error"]),
        created_at=row["created_at"],
    )


def instance_row(scale_set: str, value: Instance) -> dict[str, object]:
    """Return an instance's row, as JSON takes it."""
    return {
        "scale_set": scale_set,
        "id": value.id,
        "host": value.host,
        "zone": value.zone,
        "attempt": value.attempt,
        "phase": value.phase,
        "version": value.version,
        "generation": value.generation,
        "address": value.address,
        "port": value.port,
        "power": value.power,
        "health": value.health,
        "since": _time(value.since),
        "lease": value.lease,
        "probed_until": _time(value.probed_until),
        "uncommitted": value.uncommitted,
        "deploy": value.deploy,
        "error": value.error.model_dump() if value.error else None,
        "created_at": _time(value.created_at),
    }


def upgrade(row: Row, members: Mapping[str, Member]) -> Upgrade:
    """Return an upgrade from its row and its members."""
    return Upgrade(
        id=str(row["id"]),
        image=Image.model_validate_json(row["image"]),
        policy=RollingPolicy.model_validate_json(row["policy"]),
        started_by=StartedBy(row["started_by"]),
        restore_failed=row["restore_failed"],
        started_at=row["started_at"],
        reason=row["reason"],
        members=members,
        fetches=json.loads(row["fetches"]),
        fetch_error=_failure(row["fetch_error"]),
        batch=row["batch"],
        batch_open=row["batch_open"],
        paused_since=row["paused_since"],
        cancel_requested=row["cancel_requested"],
        status=UpgradeStatus(row["status"]),
        ended_at=row["ended_at"],
        error=_failure(row["error"]),
    )


def upgrade_row(scale_set: str, value: Upgrade) -> dict[str, object]:
    """Return an upgrade's row, as JSON takes it."""
    return {
        "id": value.id,
        "scale_set": scale_set,
        "status": value.status,
        "started_by": value.started_by,
        "image": value.image.model_dump(),
        "policy": value.policy.model_dump(),
        "restore_failed": value.restore_failed,
        "batch": value.batch,
        "batch_open": value.batch_open,
        "paused_since": _time(value.paused_since),
        "fetches": dict(value.fetches),
        "cancel_requested": value.cancel_requested,
        "fetch_error": value.fetch_error.model_dump() if value.fetch_error else None,
        "started_at": _time(value.started_at),
        "ended_at": _time(value.ended_at),
        "error": value.error.model_dump() if value.error else None,
        "reason": value.reason,
    }


def member(row: Row) -> Member:
    """Return one instance's part in an upgrade from its row."""
    return Member(
        id=row["id"],
        state=MemberState(row["state"]),
        since=row["since"],
        batch=row["batch"],
        from_version=row["from_version"],
        error=_failure(row["error"]),
        reason=row["reason"],
    )


def member_row(upgrade_id: str, value: Member) -> dict[str, object]:
    """Return the row of one instance's part in an upgrade, as JSON takes it."""
    return {
        "upgrade_id": upgrade_id,
        "id": value.id,
        "state": value.state,
        "batch": value.batch,
        "from_version": value.from_version,
        "since": _time(value.since),
        "error": value.error.model_dump() if value.error else None,
        "reason": value.reason,
    }


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value is not None else None


def _failure(text: str | None) -> Failure | None:
    return Failure.model_validate_json(text) if text else None
