"""Between the rollout's values and the tables' rows."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rollcall_contracts.model import (
    Failure,
    Health,
    HookAction,
    Image,
    LifecycleHookType,
    MetricOutcome,
    Power,
    PowerAction,
    PowerWish,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import Instance, InstancePhase, Member, MemberState, Upgrade
from rollcall_rollout.state import Hold, Hook, MetricCheck, OpenBatch, UpgradeStatus

Row = Mapping[str, Any]

INSTANCE_COLUMNS = (
    "scale_set", "id", "host", "zone", "attempt", "phase", "version", "generation", "address",
    "port", "power", "health", "since", "lease", "probed_until", "uncommitted", "deploy", "error",
    "created_at", "previous_version", "replaces", "protect_from_scale_in",
    "protect_from_scale_set_actions", "phase_order", "skip_upgrade", "reimage", "reimage_number",
    "wish", "power_due", "power_number", "booting",
)  # fmt: skip  # one name per line would hide that these are one list
UPGRADE_COLUMNS = (
    "id", "scale_set", "status", "started_by", "image", "policy", "restore_failed", "batch",
    "open_batches", "paused_since", "fetches", "cancel_requested", "pause_requested", "deferred",
    "override", "rollback_of", "breach", "held", "metric_check", "fetch_error", "started_at",
    "ended_at", "error", "reason", "reimage",
)  # fmt: skip  # as above
MEMBER_COLUMNS = (
    "upgrade_id", "id", "state", "batch", "from_version", "since", "error", "reason", "approved",
    "phase", "replacement",
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
        previous_version=row["previous_version"],
        replaces=row["replaces"],
        protect_from_scale_in=row["protect_from_scale_in"],
        protect_from_scale_set_actions=row["protect_from_scale_set_actions"],
        phase_order=row["phase_order"],
        skip_upgrade=row["skip_upgrade"],
        reimage=row["reimage"],
        reimage_number=row["reimage_number"],
        wish=PowerWish(row["wish"]),
        power_due=PowerAction(row["power_due"]) if row["power_due"] else None,
        power_number=row["power_number"],
        booting=row["booting"],
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
        "previous_version": value.previous_version,
        "replaces": value.replaces,
        "protect_from_scale_in": value.protect_from_scale_in,
        "protect_from_scale_set_actions": value.protect_from_scale_set_actions,
        "phase_order": value.phase_order,
        "skip_upgrade": value.skip_upgrade,
        "reimage": value.reimage,
        "reimage_number": value.reimage_number,
        "wish": value.wish,
        "power_due": value.power_due,
        "power_number": value.power_number,
        "booting": value.booting,
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
        open_batches={
            int(number): OpenBatch(
                started_at=datetime.fromisoformat(batch["started_at"]),
                instance_ids=tuple(batch["instance_ids"]),
            )
            for number, batch in json.loads(row["open_batches"]).items()
        },
        paused_since=row["paused_since"],
        cancel_requested=row["cancel_requested"],
        pause_requested=row["pause_requested"],
        deferred=row["deferred"],
        override=row["override"],
        rollback_of=row["rollback_of"],
        reimage=row["reimage"],
        breach=_failure(row["breach"]),
        held=row["held"],
        check=_check(row["metric_check"]),
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
        "image": value.image.model_dump(mode="json"),
        "policy": value.policy.model_dump(mode="json"),
        "restore_failed": value.restore_failed,
        "batch": value.batch,
        "open_batches": {
            str(number): {
                "started_at": _time(batch.started_at),
                "instance_ids": batch.instance_ids,
            }
            for number, batch in value.open_batches.items()
        },
        "paused_since": _time(value.paused_since),
        "fetches": dict(value.fetches),
        "cancel_requested": value.cancel_requested,
        "pause_requested": value.pause_requested,
        "deferred": value.deferred,
        "override": value.override,
        "rollback_of": value.rollback_of,
        "reimage": value.reimage,
        "breach": value.breach.model_dump() if value.breach else None,
        "held": value.held,
        "metric_check": _check_row(value.check),
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
        approved=row["approved"],
        phase=row["phase"],
        replacement=row["replacement"],
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
        "approved": value.approved,
        "phase": value.phase,
        "replacement": value.replacement,
    }


def hook(text: str | None) -> Hook | None:
    """Return a lifecycle hook from its column."""
    if not text:
        return None
    row = json.loads(text)
    return Hook(
        id=row["id"],
        type=LifecycleHookType(row["type"]),
        version=row["version"],
        created_at=datetime.fromisoformat(row["created_at"]),
        wait_until=datetime.fromisoformat(row["wait_until"]),
        max_wait_until=datetime.fromisoformat(row["max_wait_until"]),
        default_action=HookAction(row["default_action"]),
        targets={id: _ACTIONS[state] for id, state in row["targets"].items()},
        upgrade_id=row["upgrade_id"],
        completed=row["completed"],
    )


def hook_column(value: Hook | None) -> str | None:
    """Return a lifecycle hook's column; its targets' states are Azure's."""
    if value is None:
        return None
    return json.dumps(
        {
            "id": value.id,
            "type": value.type,
            "version": value.version,
            "created_at": _time(value.created_at),
            "wait_until": _time(value.wait_until),
            "max_wait_until": _time(value.max_wait_until),
            "default_action": value.default_action,
            "targets": {id: _STATES[action] for id, action in value.targets.items()},
            "upgrade_id": value.upgrade_id,
            "completed": value.completed,
        }
    )


_ACTIONS = {"Waiting": None, "Approved": HookAction.APPROVE, "Rejected": HookAction.REJECT}
_STATES = {action: state for state, action in _ACTIONS.items()}


def hold(row: Row) -> Hold:
    """Return a hold on a version from its row."""
    return Hold(
        by_set=row["by_set"],
        upgrade_id=row["upgrade_id"],
        error=Failure.model_validate_json(row["error"]),
        quarantine=row["quarantine"],
    )


def _check(text: str | None) -> MetricCheck | None:
    if not text:
        return None
    row = json.loads(text)
    return MetricCheck(
        number=row["number"],
        asked_at=datetime.fromisoformat(row["asked_at"]),
        outcome=MetricOutcome(row["outcome"]) if row["outcome"] else None,
        reason=row["reason"],
    )


def _check_row(value: MetricCheck | None) -> dict[str, object] | None:
    if value is None:
        return None
    return {
        "number": value.number,
        "asked_at": _time(value.asked_at),
        "outcome": value.outcome,
        "reason": value.reason,
    }


def _time(value: datetime | None) -> str | None:
    return value.isoformat() if value is not None else None


def _failure(text: str | None) -> Failure | None:
    return Failure.model_validate_json(text) if text else None
