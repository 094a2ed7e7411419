"""Lifecycle hooks: a person or a program is asked before an upgrade, or a batch, starts.

Azure's, of api-version 2025-11-01 (azure-aws-gcp.md 1.7): when nobody answers until `wait_until`,
the default action is taken. Whoever answers may ask for more time, up to `max_wait_until`.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, HookAction, LifecycleHook, LifecycleHookType

from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import Hook, Member, MemberState

SET = "*"  # the target of a hook that is asked for the set as a whole
REJECTED = "LifecycleHookRejected"
LONGEST = 1.5  # times the wait duration: as long as it can be extended


def hook_of(fleet: Fleet, type: LifecycleHookType) -> LifecycleHook | None:
    """Return the model's hook of a type, if it has one."""
    return next((hook for hook in fleet.spec.lifecycle_hooks if hook.type is type), None)


def ask(
    fleet: Fleet,
    hook: LifecycleHook,
    *,
    version: str,
    instance_ids: Iterable[str] = (),
    upgrade_id: str | None = None,
    now: datetime,
) -> e.LifecycleHookStarted:
    """Return the event that asks."""
    wait = timedelta(seconds=hook.wait_duration)
    ids = tuple(instance_ids)
    identity = (
        f"{fleet.spec.scale_set.lower()}|{hook.type}|{version}|{upgrade_id}|{now.isoformat()}"
    )
    return e.LifecycleHookStarted(
        scale_set=fleet.spec.scale_set,
        hook_id=str(uuid5(NAMESPACE_URL, identity)),
        hook_type=hook.type,
        upgrade_id=upgrade_id,
        version=version,
        instance_ids=ids,
        wait_until=now + wait,
        max_wait_until=now + LONGEST * wait,
        default_action=hook.default_action,
        reason=(
            f"{hook.type} asks before "
            + (f"{len(ids)} instances go to {version}" if ids else f"an upgrade to {version}")
            + f"; {hook.default_action} after {hook.wait_duration:g} s"
        ),
    )


def complete(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Close a hook that was answered for all of its targets, or whose time is up."""
    hook = fleet.hook
    if hook is None or hook.completed:
        return []
    silent = [target for target, action in hook.targets.items() if action is None]
    if silent and now < hook.wait_until:
        return []
    actions = {target: action or hook.default_action for target, action in hook.targets.items()}
    approved = tuple(t for t, action in actions.items() if action is HookAction.APPROVE)
    rejected = tuple(t for t in actions if t not in approved)
    if silent:
        how = f"no answer by {hook.wait_until:%Y-%m-%d %H:%M:%S}Z: {hook.default_action}"
    else:
        how = f"answered: {len(approved)} approved, {len(rejected)} rejected"
    return [
        e.LifecycleHookCompleted(
            scale_set=fleet.spec.scale_set,
            hook_id=hook.id,
            approved=approved,
            rejected=rejected,
            action=HookAction.APPROVE if approved else HookAction.REJECT,
            reason=how,
        )
    ]


def apply_hook(
    draft: Draft,
    event: e.LifecycleHookStarted | e.LifecycleHookAnswered | e.LifecycleHookCompleted,
    now: datetime,
) -> None:
    """Fold what happened to a hook into the draft; answers to another one do nothing."""
    if isinstance(event, e.LifecycleHookStarted):
        draft.put(hook=_opened(event, now))
        return
    hook: Hook | None = draft.get("hook")
    if hook is None or hook.id != event.hook_id or hook.completed:
        return
    if isinstance(event, e.LifecycleHookAnswered):
        draft.put(hook=_answered(hook, event))
        return
    outcome = {
        **dict.fromkeys(event.approved, HookAction.APPROVE),
        **dict.fromkeys(event.rejected, HookAction.REJECT),
    }
    draft.put(hook=replace(hook, targets={**hook.targets, **outcome}, completed=True))
    for id in event.rejected:
        member = draft.member(id)
        if member is not None and member.state is MemberState.PENDING:
            draft.put_member(_rejected(member, event.reason, now))


def _opened(event: e.LifecycleHookStarted, now: datetime) -> Hook:
    return Hook(
        id=event.hook_id,
        type=event.hook_type,
        version=event.version,
        created_at=now,
        wait_until=event.wait_until,
        max_wait_until=event.max_wait_until,
        default_action=event.default_action,
        targets=dict.fromkeys(event.instance_ids or (SET,)),
        upgrade_id=event.upgrade_id,
    )


def _answered(hook: Hook, event: e.LifecycleHookAnswered) -> Hook:
    everyone = event.actions.get(SET)
    targets = {
        target: event.actions.get(target, everyone) or action
        for target, action in hook.targets.items()
    }
    until = hook.wait_until if event.wait_until is None else event.wait_until
    return replace(hook, targets=targets, wait_until=min(until, hook.max_wait_until))


def _rejected(member: Member, reason: str, now: datetime) -> Member:
    why = f"rejected by the lifecycle hook: {reason}"
    error = Failure(code=REJECTED, message=why, target=member.id)
    return replace(member, state=MemberState.SKIPPED, since=now, error=error, reason=why)
