"""What a set waits for and why, and all that is known of it, for people and for planners.

The sentence is the orchestrator's own: it is asked of the rules that decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollcall_contracts.model import Image

from http_api.domain.hook_events import HookEvent, hook_event_json
from http_api.domain.measuring import Durations
from http_api.domain.present.images import HoldRow, hold_json
from http_api.domain.present.instances import InstanceRow
from http_api.domain.present.upgrades import ResultRow, UpgradeRow

NOT_TAKEN_OVER = {
    "code": "NotTakenOver",
    "message": "The orchestrator has not taken the scale set over yet.",
    "until": None,
}
_IN_FLIGHT = ("upgrading", "surging", "provisioned", "restoring")
# What a decision's event says beside its reason, and under which name it is shown.
_SAID = {
    "upgrade_id": "upgradeId",
    "batch": "batch",
    "version": "version",
    "code": "code",
    "until": "until",
    "error": "error",
    "instance_id": "instanceId",
    "instance_ids": "instanceIds",
    "host": "host",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One row of the orchestrator's fleet_view."""

    spec: Mapping[str, Any]
    held: Mapping[str, Any] | None
    barred_version: str | None
    start_requested: bool
    rollback_requested: bool
    hook: Mapping[str, Any] | None
    last_version: str | None
    batch_seconds: Sequence[float]  # how long the last batches took
    waiting: Mapping[str, Any] | None  # {code, message, until}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRow:
    """An entry of the event log that is a decision, or a person's request."""

    sequence: int
    time: datetime
    type: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What an explanation is made from."""

    scale_set: str  # its id
    fleet: FleetRow | None
    hook: HookEvent | None
    holds: Sequence[HoldRow]  # of the set's line
    upgrade: UpgradeRow | None  # the one that runs, or the last
    results: Sequence[ResultRow]  # of that upgrade
    instances: Sequence[InstanceRow]


def explanation_json(
    scene: Scene, *, upgrade: Mapping[str, Any] | None, decisions: Sequence[LogRow]
) -> dict[str, Any]:
    """Return what a set waits for, in a sentence and in parts; `upgrade` as it is shown."""
    waiting = (scene.fleet.waiting if scene.fleet else None) or NOT_TAKEN_OVER
    return {
        "waitingFor": {**waiting, "details": _details(scene, str(waiting["code"]))},
        "sentence": _sentence(scene, str(waiting["message"])),
        "upgrade": upgrade,
        "decisions": [_decision_json(entry) for entry in decisions],
        "instances": _instances_json(scene),
    }


def _details(scene: Scene, code: str) -> dict[str, Any]:
    """Return what a program needs to act on a wait of this code."""
    fleet, upgrade = scene.fleet, scene.upgrade
    target = str(upgrade.image.get("version")) if upgrade and upgrade.is_running else _held(fleet)
    match code:
        case "ApprovalAwaited":
            return {"instanceIds": [r.id for r in _pending(scene) if not r.approved]}
        case "LifecycleHookWaiting" | "LifecycleHookRejected" if scene.hook is not None:
            return {"lifecycleHookEvent": hook_event_json(scene.hook, scene.scale_set)}
        case "VersionHeld":
            return {"holds": [hold_json(hold) for hold in scene.holds if hold.version == target]}
        case "VersionBarred" if fleet is not None:
            return {"barredVersion": fleet.barred_version}
        case "MetricGate" if upgrade is not None:
            return {"metricGate": upgrade.policy.get("metric_gate")}
        case "BatchInProgress" | "InstancesRestoring":
            return {"instanceIds": [r.id for r in scene.results if r.state in _IN_FLIGHT]}
        case "InstancesBooting" | "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade":
            return {"instanceIds": [i.id for i in scene.instances if not _is_healthy(i)]}
        case "InstancesExcluded":
            return {"instanceIds": [i.id for i in scene.instances if _excluded(i)]}
        case _:
            return {}


def _held(fleet: FleetRow | None) -> str | None:
    """Return the version that a set keeps off; `held` is noted a moment after `barred_version`."""
    if fleet is None:
        return None
    return (fleet.held or {}).get("version") or fleet.barred_version


def _pending(scene: Scene) -> list[ResultRow]:
    return [result for result in scene.results if result.state == "pending"]


def _is_healthy(instance: InstanceRow) -> bool:
    return (instance.phase, instance.power, instance.health) == ("ready", "running", "Healthy")


def _excluded(instance: InstanceRow) -> str | None:
    if instance.protect_from_scale_set_actions:
        return "protected from the set's actions (protectFromScaleSetActions)"
    return "its application asks to be left out (SkipUpgrade)" if instance.skip_upgrade else None


def _sentence(scene: Scene, message: str) -> str:
    name, upgrade = scene.scale_set.rpartition("/")[2], scene.upgrade
    if upgrade is None:
        return f"{name} never had an upgrade. {message}"
    target = upgrade.image.get("version")
    total = upgrade.successful + upgrade.failed + upgrade.in_progress + upgrade.pending
    counts = f"{upgrade.successful} of {total} instances are done, {upgrade.failed} failed"
    if upgrade.is_running:
        what = f"goes back from {upgrade.rollback_of}" if upgrade.rollback_of else "is brought"
        return f"{name} {what} to {target}: {counts}. {message}"
    return f"The last upgrade of {name}, to {target}, ended {upgrade.status}: {counts}. {message}"


def _decision_json(entry: LogRow) -> dict[str, Any]:
    said = {
        shown: entry.body[name] for name, shown in _SAID.items() if entry.body.get(name) is not None
    }
    return {
        "sequence": entry.sequence,
        "time": entry.time.isoformat(),
        "type": entry.type,
        "reason": entry.body.get("reason", ""),
        **said,
    }


def _instances_json(scene: Scene) -> list[dict[str, Any]]:
    """Return each instance's part; those of the upgrade that are gone by now come last."""
    results = {result.id: result for result in scene.results}
    shown = [
        {
            "id": instance.id,
            "state": result.state if result else None,
            "batch": result.batch if result else None,
            "version": instance.version,
            "health": instance.health,
            "reason": _part(scene.upgrade, instance, result)
            if result
            else _why_apart(scene.upgrade, instance),
        }
        for instance in scene.instances
        for result in (results.pop(instance.id, None),)
    ]
    gone = [
        {
            "id": result.id,
            "state": result.state,
            "batch": result.batch,
            "version": None,
            "health": None,
            "reason": result.reason
            if result.replacement is None
            else f"the instance {result.replacement} took its place",
        }
        for result in results.values()
    ]
    return shown + gone


def _part(upgrade: UpgradeRow | None, instance: InstanceRow, result: ResultRow) -> str:
    """Return why an instance of the upgrade was chosen, was left out, or waits."""
    if result.error is not None:  # what was said of it, and the numbers compared
        said = str(result.error.get("message"))
        return said if result.reason in ("", said) else f"{said} ({result.reason})"
    if result.state != "pending" or upgrade is None:
        return result.reason
    if not upgrade.is_running:
        return "the upgrade ended before its batch came"
    if instance.protect_from_scale_set_actions:
        return f"waits: {_excluded(instance)}"
    if upgrade.deferred and not result.approved:
        return "waits for its approval (approveRollingUpgrade)"
    return "waits for its batch"


def _why_apart(upgrade: UpgradeRow | None, instance: InstanceRow) -> str:
    """Return why an instance is no part of the upgrade."""
    if instance.replaces is not None:
        return f"takes the place of the instance {instance.replaces}"
    if upgrade is None:
        return _excluded(instance) or "there was no upgrade yet"
    if instance.created_at >= upgrade.started_at:
        return "was made after the upgrade had started, from its target"
    if instance.version == upgrade.image.get("version"):
        return f"ran {instance.version} already"
    return _excluded(instance) or "was at work, or above the target, when the upgrade started"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The views' rows as a planner takes them: columns by their own names."""

    instances: Sequence[Mapping[str, Any]]
    upgrade: Mapping[str, Any] | None  # with its members


def state_json(
    fleet: FleetRow,
    rows: Rows,
    *,
    images: Sequence[Image],
    holds: Sequence[HoldRow],
    durations: Durations,
    now: datetime,
) -> dict[str, Any]:
    """Return everything from which a set can be rebuilt elsewhere.

    `spec`, `images` and rows have the names of the contract and of the views, in Python's spelling.
    """
    return {
        "time": now.isoformat(),
        "spec": _without_secrets(fleet.spec),
        "instances": list(rows.instances),
        "images": [image.model_dump(mode="json") for image in images],
        "upgrade": rows.upgrade,
        "barredVersion": fleet.barred_version,
        "lastVersion": fleet.last_version,
        "batchSeconds": list(fleet.batch_seconds),
        "held": fleet.held,
        "hook": fleet.hook,
        "startRequested": fleet.start_requested,
        "rollbackRequested": fleet.rollback_requested,
        "holds": [
            {
                "version": hold.version,
                "image": hold.image,
                "by_set": hold.by_set,
                "upgrade_id": hold.upgrade_id,
                "quarantine": hold.quarantine,
                "error": hold.error,
                "held_at": hold.held_at.isoformat(),
            }
            for hold in holds
        ],
        "durations": {
            "provisioning": list(durations.provisioning),
            "healthy": list(durations.healthy),
        },
    }


def _without_secrets(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec without what is sealed in it: nobody but agents has a use for that."""
    provisioning = spec["provisioning"]
    return {
        **spec,
        "provisioning": {
            **provisioning,
            "sealed_custom_data": None,
            "extensions": [
                {**extension, "sealed_protected_settings": None}
                for extension in provisioning["extensions"]
            ],
        },
    }
