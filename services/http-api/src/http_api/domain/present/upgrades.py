"""Upgrades in the seed's words (M50, M52), and in full for Rollcall's own endpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollcall_contracts.model import RollingPolicy

from http_api.domain.fields import to_json
from http_api.domain.resource_ids import SCALE_SETS

_TYPE = f"{SCALE_SETS}/rollingUpgrades"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRow:
    """One row of the orchestrator's upgrade_view."""

    id: str
    status: str
    started_by: str
    image: Mapping[str, Any]
    policy: Mapping[str, Any]
    cancel_requested: bool
    pause_requested: bool
    deferred: bool
    override: bool
    rollback_of: str | None
    batch: int
    started_at: datetime
    ended_at: datetime | None
    error: Mapping[str, Any] | None
    reason: str
    successful: int
    failed: int
    in_progress: int
    pending: int  # with those skipped
    skipped: int
    restored: int
    restore_failed: int

    @property
    def is_running(self) -> bool:
        """Say whether it has not ended."""
        return self.status == "RollingForward"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One row of the orchestrator's batch_view."""

    number: int
    size: int
    started_at: datetime
    ended_at: datetime | None
    succeeded: int | None
    failed: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One row of the orchestrator's upgrade_result_view."""

    id: str
    state: str
    batch: int | None
    from_version: str | None
    since: datetime
    error: Mapping[str, Any] | None
    reason: str
    approved: bool
    phase: int | None
    replacement: str | None


def history_json(
    upgrade: UpgradeRow, location: str, *, failure: ResultRow | None = None
) -> dict[str, Any]:
    """Return one entry of osUpgradeHistory; `failure` is the first failed instance, if any.

    The seed's page shows `completedTime` where Azure's API has `endTime`: both are given.
    """
    status: dict[str, Any] = {
        "code": upgrade.status,
        "startTime": upgrade.started_at.isoformat(),
    }
    if upgrade.ended_at is not None:
        status["endTime"] = status["completedTime"] = upgrade.ended_at.isoformat()
    properties: dict[str, Any] = {
        "runningStatus": status,
        "progress": _progress_json(upgrade),
        "startedBy": upgrade.started_by,
        "targetImageReference": _image_json(upgrade),
        "rollbackInfo": _rollback_json(upgrade),
        "rollcall": {"upgradeId": upgrade.id, **_own_json(upgrade)},
    }
    error = _shown_error(upgrade, failure)
    if error is not None:
        properties["error"] = error
    return {"properties": properties, "type": _TYPE, "location": location}


def latest_json(
    upgrade: UpgradeRow,
    *,
    scale_set: str,
    location: str,
    cancelled_at: datetime | None,
    waiting: Mapping[str, Any] | None = None,
    failure: ResultRow | None = None,
) -> dict[str, Any]:
    """Return rollingUpgrades/latest; `cancelled_at` is when a person asked to stop, if one did.

    `waiting` is what the set waits for, `failure` the first instance that failed.
    """
    acted_at = cancelled_at or upgrade.started_at
    properties: dict[str, Any] = {
        "policy": to_json(RollingPolicy.model_validate(upgrade.policy)),
        "runningStatus": {
            "code": upgrade.status,
            "startTime": upgrade.started_at.isoformat(),
            "lastAction": "Cancel" if upgrade.cancel_requested else "Start",
            "lastActionTime": acted_at.isoformat(),
        },
        "progress": _progress_json(upgrade),
        "rollcall": {
            "upgradeId": upgrade.id,
            **_own_json(upgrade),
            "pauseRequested": upgrade.pause_requested,
            "waitingFor": waiting if upgrade.is_running else None,
        },
    }
    error = _shown_error(upgrade, failure)
    if error is not None:
        properties["error"] = error
    return {
        "id": f"{scale_set}/rollingUpgrades/latest",
        "name": "latest",
        "type": _TYPE,
        "location": location,
        "properties": properties,
    }


def upgrade_json(
    upgrade: UpgradeRow, batches: Sequence[BatchRow], results: Sequence[ResultRow] | None
) -> dict[str, Any]:
    """Return all that is known of an upgrade, with the reason of each decision."""
    document: dict[str, Any] = {
        "id": upgrade.id,
        "status": upgrade.status,
        "startedBy": upgrade.started_by,
        "startTime": upgrade.started_at.isoformat(),
        "endTime": _time(upgrade.ended_at),
        "reason": upgrade.reason,
        "error": None if upgrade.error is None else _error_json(upgrade.error),
        "cancelRequested": upgrade.cancel_requested,
        "pauseRequested": upgrade.pause_requested,
        **_own_json(upgrade),
        "targetImageReference": _image_json(upgrade),
        "policy": to_json(RollingPolicy.model_validate(upgrade.policy)),
        "progress": _progress_json(upgrade),
        "rollbackInfo": _rollback_json(upgrade),
        "batches": [_batch_json(batch) for batch in batches],
    }
    if results is not None:
        document["instances"] = [_result_json(result) for result in results]
    return document


def _batch_json(batch: BatchRow) -> dict[str, Any]:
    return {
        "number": batch.number,
        "size": batch.size,
        "startTime": batch.started_at.isoformat(),
        "endTime": _time(batch.ended_at),
        "succeeded": batch.succeeded,
        "failed": batch.failed,
        "reason": batch.reason,
    }


def _result_json(result: ResultRow) -> dict[str, Any]:
    return {
        "instanceId": result.id,
        "state": result.state,
        "batch": result.batch,
        "fromVersion": result.from_version,
        "since": result.since.isoformat(),
        "error": None if result.error is None else _error_json(result.error),
        "reason": result.reason,
        "approved": result.approved,
        "phaseOrderingNumber": result.phase,
        "replacement": result.replacement,
    }


def _own_json(upgrade: UpgradeRow) -> dict[str, Any]:
    """Return what Azure has no place for. Skipped instances are among Azure's pending ones."""
    return {
        "override": upgrade.override,
        "rollbackOf": upgrade.rollback_of,
        "deferred": upgrade.deferred,
        "skippedInstanceCount": upgrade.skipped,
    }


def _shown_error(upgrade: UpgradeRow, failure: ResultRow | None) -> dict[str, Any] | None:
    """Return why an upgrade ended, or that it goes on although instances failed."""
    if upgrade.error is not None:
        return _error_json(upgrade.error)
    if not upgrade.is_running or not upgrade.failed:
        return None
    policy = RollingPolicy.model_validate(upgrade.policy)
    done, percent = (
        upgrade.successful + upgrade.failed,
        policy.max_unhealthy_upgraded_instance_percent,
    )
    floor = policy.max_unhealthy_upgraded_instance_count
    exceeded = upgrade.failed > floor and upgrade.failed * 100 > percent * done
    limit = f"{percent}%" + (f" and {floor}" if floor else "")
    if upgrade.override or upgrade.rollback_of is not None:
        goes_on = "The rollout continues: it was asked for in spite of failures."
    elif exceeded:
        goes_on = f"The rollout stops after its current batch: more than {limit} may not fail."
    else:
        goes_on = f"The rollout continues, as long as not more than {limit} of them fail."
    first = "" if failure is None else f" First failed instance ID is: {failure.id}."
    if failure is not None and failure.error is not None:
        first = f" The first error is: {failure.error.get('message')}{first}"
    return {
        "code": "RollingUpgradeInProgressWithFailedUpgradedVMs",
        "message": f"{upgrade.failed} of {done} upgraded instances failed. {goes_on}{first}",
    }


def _progress_json(upgrade: UpgradeRow) -> dict[str, int]:
    return {
        "successfulInstanceCount": upgrade.successful,
        "failedInstanceCount": upgrade.failed,
        "inProgressInstanceCount": upgrade.in_progress,
        "pendingInstanceCount": upgrade.pending,
    }


def _image_json(upgrade: UpgradeRow) -> dict[str, Any]:
    return {key: upgrade.image.get(key) for key in ("publisher", "offer", "sku", "version")}


def _rollback_json(upgrade: UpgradeRow) -> dict[str, int]:
    return {
        "successfullyRolledbackInstanceCount": upgrade.restored,
        "failedRolledbackInstanceCount": upgrade.restore_failed,
    }


def _error_json(error: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: error.get(key) for key in ("code", "message")}
    return kept if error.get("target") is None else {**kept, "target": error["target"]}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
