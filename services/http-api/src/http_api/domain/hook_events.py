"""Lifecycle hook events: how one stands, and what an answer to it says (azure-aws-gcp.md 1.7)."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rollcall_contracts.model import HookAction

from http_api.domain.documents import Reader
from http_api.domain.resource_ids import SCALE_SETS
from http_api.domain.shape import Leaf, Shape, canonical

WAITING = "Waiting"
_STATES = {HookAction.APPROVE: "Approved", HookAction.REJECT: "Rejected"}
_ACTIONS = {state.lower(): action for action, state in _STATES.items()}
_EVERYBODY = "*"  # the target of a hook that is asked for the set as a whole
_TARGET: Shape = {"resource": {"id": Leaf.ANY}, "actionState": Leaf.ANY}
_EVENT: Shape = {"properties": {"waitUntil": Leaf.ANY, "targetResources": (_TARGET,)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEvent:
    """A hook's question, and its answers so far."""

    id: str
    type: str
    version: str
    upgrade_id: str | None
    created_at: datetime
    wait_until: datetime
    max_wait_until: datetime
    default_action: str
    targets: Mapping[str, str]  # Waiting, Approved or Rejected by instance; `*` is the set
    completed: bool = False

    @property
    def is_active(self) -> bool:
        """Say whether an answer is waited for."""
        return not self.completed and WAITING in self.targets.values()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What somebody said to a hook."""

    actions: Mapping[str, HookAction]  # by instance; `*` is the set
    wait_until: datetime | None = None

    def __bool__(self) -> bool:
        """Say whether it changes anything."""
        return bool(self.actions) or self.wait_until is not None


def hook_from_view(value: Mapping[str, Any]) -> HookEvent:
    """Return the hook in the orchestrator's fleet_view."""
    return HookEvent(
        id=value["id"],
        type=value["type"],
        version=value["version"],
        upgrade_id=value["upgrade_id"],
        created_at=datetime.fromisoformat(value["created_at"]),
        wait_until=datetime.fromisoformat(value["wait_until"]),
        max_wait_until=datetime.fromisoformat(value["max_wait_until"]),
        default_action=value["default_action"],
        targets=value["targets"],
        completed=bool(value.get("completed", False)),
    )


def hook_from_log(
    started: Mapping[str, Any], created_at: datetime, completed: Mapping[str, Any] | None
) -> HookEvent:
    """Return a hook that the orchestrator is done with, from its events in the log."""
    done = completed or {}
    targets = dict.fromkeys(started["instance_ids"] or (_EVERYBODY,), WAITING)
    targets |= dict.fromkeys(done.get("approved", ()), _STATES[HookAction.APPROVE])
    targets |= dict.fromkeys(done.get("rejected", ()), _STATES[HookAction.REJECT])
    return HookEvent(
        id=started["hook_id"],
        type=started["hook_type"],
        version=started["version"],
        upgrade_id=started["upgrade_id"],
        created_at=created_at,
        wait_until=datetime.fromisoformat(started["wait_until"]),
        max_wait_until=datetime.fromisoformat(started["max_wait_until"]),
        default_action=started["default_action"],
        targets=targets,
        completed=True,  # nobody asks any more, also where no answer is on record
    )


def read_answer(body: Mapping[str, Any], hook: HookEvent, *, scale_set: str) -> Answer:
    """Return what a PATCH says to a hook; what it repeats unchanged is no answer.

    Raises ModelError, which names each fault.
    """
    reader = Reader(canonical(body, _EVENT))
    actions: dict[str, HookAction] = {}
    for index, item in enumerate(reader.objects("properties.targetResources")):
        place = f"properties.targetResources[{index}]"
        inner = Reader(item)
        target = _target(inner, hook, scale_set)
        state = inner.text("actionState", WAITING) or WAITING
        if state.lower() not in (WAITING.lower(), *_ACTIONS):
            inner.fault(
                "actionState", f"actionState must be Approved or Rejected, but is '{state[:40]}'"
            )
        reader.take(inner, place)
        if not inner.faults and target is not None and state.lower() in _ACTIONS:
            _note(reader, place, hook, target, _ACTIONS[state.lower()], actions)
    until = _wait_until(reader, hook)
    reader.finish()
    return Answer(actions=actions, wait_until=until)


def _note(
    reader: Reader,
    place: str,
    hook: HookEvent,
    target: str,
    action: HookAction,
    actions: dict[str, HookAction],
) -> None:
    before = hook.targets[target]
    if before == WAITING:
        actions[target] = action
    elif before != _STATES[action]:
        reader.fault(
            f"{place}.actionState",
            f"this target was {before} already, and an answer cannot be taken back",
        )


def _target(reader: Reader, hook: HookEvent, scale_set: str) -> str | None:
    id = reader.text("resource.id")
    if id is None:
        if reader.value("resource.id") is None:
            reader.fault("resource.id", "resource.id must say which target is answered")
        return None
    known = {target_id(scale_set, target).lower(): target for target in hook.targets}
    target = known.get(id.lower().rstrip("/"))
    if target is None:
        reader.fault("resource.id", f"the hook does not ask about {id}")
    return target


def _wait_until(reader: Reader, hook: HookEvent) -> datetime | None:
    path = "properties.waitUntil"
    text = reader.text(path)
    if text is None:
        return None
    until: datetime | None = None
    with suppress(ValueError):
        until = datetime.fromisoformat(text)
    if until is None or until.tzinfo is None:
        reader.fault(path, "waitUntil must be a time with its zone, such as 2026-05-02T22:00:00Z")
        return None
    if until > hook.max_wait_until:
        reader.fault(
            path, f"waitUntil must not be after maxWaitUntil, {hook.max_wait_until.isoformat()}"
        )
    return None if until == hook.wait_until else until


def after(hook: HookEvent, answer: Answer) -> HookEvent:
    """Return the hook as it stands once its answer is taken."""
    given = {target: _STATES[action] for target, action in answer.actions.items()}
    return replace(
        hook,
        wait_until=answer.wait_until or hook.wait_until,
        targets={**hook.targets, **given},
    )


def target_id(scale_set: str, target: str) -> str:
    """Return the resource that a target is: an instance, or the set."""
    return scale_set if target == _EVERYBODY else f"{scale_set}/virtualMachines/{target}"


def hook_event_json(hook: HookEvent, scale_set: str) -> dict[str, Any]:
    """Return a hook event in Azure's shape."""
    return {
        "id": f"{scale_set}/lifecycleHookEvents/{hook.id}",
        "name": hook.id,
        "type": f"{SCALE_SETS}/lifecycleHookEvents",
        "properties": {
            "type": hook.type,
            "waitUntil": hook.wait_until.isoformat(),
            "maxWaitUntil": hook.max_wait_until.isoformat(),
            "timeCreated": hook.created_at.isoformat(),
            "defaultAction": hook.default_action,
            "targetResources": [
                {"resource": {"id": target_id(scale_set, target)}, "actionState": state}
                for target, state in hook.targets.items()
            ],
            "state": "Active" if hook.is_active else "Completed",
            "rollcall": {"version": hook.version, "upgradeId": hook.upgrade_id},
        },
    }
