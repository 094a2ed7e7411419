"""What each event of an upgrade does to the state."""

from collections.abc import Mapping
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode

from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.state import (
    UNTOUCHED,
    Member,
    MemberState,
    OpenBatch,
    Upgrade,
    UpgradeStatus,
)

MEASURED = 10  # batches whose durations are kept
NOTHING_ASKED: Mapping[str, object] = {
    "start_requested": False,
    "start_override": False,
    "start_reimage": False,
    "start_reason": "",
    "rollback_requested": False,
}


def apply_upgrade_event(draft: Draft, event: e.UpgradeEvent, now: datetime) -> None:
    """Fold an event into the draft; one of another upgrade does nothing."""
    upgrade = draft.upgrade
    if isinstance(event, e.UpgradeStarted):
        _start_upgrade(draft, event, now)
    elif upgrade is not None and upgrade.id == event.upgrade_id:
        _go_on(draft, upgrade, event, now)


def _go_on(draft: Draft, upgrade: Upgrade, event: e.UpgradeEvent, now: datetime) -> None:
    match event:
        case e.BatchStarted():
            _start_batch(draft, upgrade, event, now)
        case e.BatchCompleted():
            _complete_batch(draft, upgrade, event, now)
        case e.BatchHeld():
            if upgrade.held != event.code:
                draft.put_upgrade(held=event.code)
        case e.InstancesSkipped():
            _skip(draft, event, now)
        case e.UpgradeBreached():
            if upgrade.breach is None:
                draft.put_upgrade(breach=event.error)
        case e.UpgradeCompleted():
            _end(draft, upgrade, UpgradeStatus.COMPLETED, event.reason, now)
        case e.UpgradeFaulted():
            _end(draft, upgrade, UpgradeStatus.FAULTED, event.reason, now, error=event.error)
            if (
                event.error.code != FailureCode.CREDENTIALS
            ):  # there the deployment is the cure (M41)
                _drop_deployments(draft)
        case e.UpgradeCancelled():
            _end(draft, upgrade, UpgradeStatus.CANCELLED, event.reason, now)


def _start_upgrade(draft: Draft, event: e.UpgradeStarted, now: datetime) -> None:
    members = {}
    for id in event.instance_ids:
        instance = draft.instance(id)
        members[id] = Member(
            id=id,
            state=MemberState.PENDING,
            since=now,
            from_version=instance.version if instance else None,
            phase=event.phases.get(id),
        )
    draft.start_upgrade(
        Upgrade(
            id=event.upgrade_id,
            image=event.image,
            policy=event.policy,
            started_by=event.started_by,
            restore_failed=event.restore_failed,
            started_at=now,
            reason=event.reason,
            members=members,
            deferred=event.deferred,
            override=event.override,
            rollback_of=event.rollback_of,
            reimage=event.reimage,
        )
    )
    draft.put(held=None, hook=None, **NOTHING_ASKED)


def _start_batch(draft: Draft, upgrade: Upgrade, event: e.BatchStarted, now: datetime) -> None:
    batch = OpenBatch(started_at=now, instance_ids=event.instance_ids)
    draft.put_upgrade(
        batch=event.batch,
        open_batches={**upgrade.open_batches, event.batch: batch},
        paused_since=None,
        held=None,
    )
    draft.put(hook=None)
    for id in event.instance_ids:
        if (member := draft.member(id)) is not None:
            draft.put_member(
                replace(
                    member,
                    batch=event.batch,
                    reason=event.reason,
                    replacement=event.replacements.get(id),
                )
            )


def _skip(draft: Draft, event: e.InstancesSkipped, now: datetime) -> None:
    for id in event.instance_ids:
        member = draft.member(id)
        if member is not None and member.state is MemberState.PENDING:
            skipped = replace(member, state=MemberState.SKIPPED, since=now, reason=event.reason)
            draft.put_member(skipped)


def _complete_batch(draft: Draft, upgrade: Upgrade, event: e.BatchCompleted, now: datetime) -> None:
    batch = upgrade.open_batches.get(event.batch)
    if batch is None:
        return
    others = {n: b for n, b in upgrade.open_batches.items() if n != event.batch}
    draft.put_upgrade(open_batches=others, paused_since=now)
    took = (now - batch.started_at).total_seconds()
    draft.put(batch_seconds=(*draft.get("batch_seconds"), took)[-MEASURED:])


def _end(
    draft: Draft,
    upgrade: Upgrade,
    status: UpgradeStatus,
    reason: str,
    now: datetime,
    error: Failure | None = None,
) -> None:
    """End the upgrade; a version that did not succeed everywhere is not tried again by itself."""
    members = [m for m in (draft.member(id) for id in upgrade.members) if m is not None]
    draft.end_upgrade(status=status, ended_at=now, reason=reason, error=error)
    draft.put(hook=None)
    if upgrade.rollback_of is not None:
        _end_rollback(draft, upgrade, upgrade.rollback_of)
        return
    touched = [member for member in members if member.state not in UNTOUCHED]
    if touched:
        # New OS disks of the same version leave no other to go back to.
        target = upgrade.image.version
        changed = any(member.from_version != target for member in touched)
        draft.put(
            last_version=target if changed else None,
            last_image=upgrade.image if changed else None,
        )
    else:
        draft.put(rollback_requested=False)  # its cancellation was all that there was to undo
    if status is not UpgradeStatus.COMPLETED or any(_did_not_succeed(m) for m in members):
        draft.put(barred_version=upgrade.image.version)


def _end_rollback(draft: Draft, upgrade: Upgrade, bad: str) -> None:
    """Let a person ask again for those that stay on the bad version; each remembers where it goes.

    What was brought back is not rolled back again. The version before is never barred: whatever
    failed on the way back, the bad one is the worse.
    """
    left = [instance for instance in draft.instances() if instance.version == bad]
    for instance in left:
        if instance.previous_version is None:  # made from the bad version
            draft.put_instance(replace(instance, previous_version=upgrade.image.version))
    if not left:
        draft.put(last_version=None, last_image=None)


def _did_not_succeed(member: Member) -> bool:
    """Say whether it failed, or was rejected; one that is only protected may be tried later."""
    if member.state is MemberState.SKIPPED:
        return member.error is not None
    return member.state is not MemberState.SUCCEEDED


def _drop_deployments(draft: Draft) -> None:
    """Drop what was asked for during an upgrade that faulted.

    It would bring all that were named to the very version that has just failed, at once and past
    every gate. Whoever knows of the fault may ask again.
    """
    for instance in draft.instances():
        if instance.deploy and instance.version is not None:
            draft.put_instance(replace(instance, deploy=False))
