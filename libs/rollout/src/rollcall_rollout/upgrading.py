"""The rules of a running upgrade: from batch to batch, and how it ends."""

from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode

from rollcall_rollout import surge
from rollcall_rollout.choosing import BatchChoice
from rollcall_rollout.faulting import cancelled, fault, faulted
from rollcall_rollout.fetching import fetch, fetch_overdue, unfetched
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.holding import before_batch, before_end
from rollcall_rollout.orders import by_host
from rollcall_rollout.restoring import recovery_end, restorable
from rollcall_rollout.state import IN_FLIGHT, MemberState, Upgrade
from rollcall_rollout.waits import Wait

BREACHES = (FailureCode.UNHEALTHY_UPGRADED, FailureCode.UNHEALTHY_DURING)


def advance(fleet: Fleet, upgrade: Upgrade, now: datetime) -> list[e.Event]:
    """Decide the next step of a running upgrade: end its batch, end it, or start a batch."""
    completed = _complete_batches(fleet, upgrade, now)
    if completed:
        return completed
    if upgrade.open_batches and not upgrade.policy.sliding_batches:
        return []
    ending = _ending(fleet, upgrade, now)
    if ending is not None:
        return ending
    left_out = _leave_out(fleet, upgrade)
    if left_out:
        return left_out
    fetches = fetch(fleet, upgrade)
    if fetches:
        return fetches
    if silent := unfetched(fleet, upgrade):
        return fetch_overdue(fleet, upgrade, silent, now)
    next_batch = before_batch(fleet, upgrade, now)
    if isinstance(next_batch, Wait):
        return _wait(fleet, upgrade, next_batch)
    return _start_batch(fleet, upgrade, next_batch)


def abandon(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    """End the upgrade of a set that was deleted: every upgrade has an end in the log."""
    return [
        e.UpgradeCancelled(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            reason="the scale set was deleted",
        )
    ]


def awaited(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    """Return what a running upgrade waits for between its batches, or before its end."""
    if upgrade.open_batches and not upgrade.policy.sliding_batches:
        return None
    if not fleet.census.pending:
        return None if upgrade.open_batches else before_end(fleet, upgrade, now)
    if unfetched(fleet, upgrade):
        return None
    found = before_batch(fleet, upgrade, now)
    return found if isinstance(found, Wait) else None


# --- ends -----------------------------------------------------------------------------------------


def _complete_batches(fleet: Fleet, upgrade: Upgrade, now: datetime) -> list[e.Event]:
    if not upgrade.open_batches:
        return []
    in_flight = {member.batch for member in fleet.census.in_flight.values()}
    return [
        _completed(fleet, upgrade, number)
        for number in sorted(upgrade.open_batches)
        if number not in in_flight and _is_settled(fleet, upgrade, number, now)
    ]


def _is_settled(fleet: Fleet, upgrade: Upgrade, number: int, now: datetime) -> bool:
    recovery = recovery_end(fleet, upgrade, number)
    if recovery is not None and now < recovery:
        return False
    members = (upgrade.members.get(id) for id in upgrade.open_batches[number].instance_ids)
    return not any(
        m.state in IN_FLIGHT or m.state is MemberState.PENDING for m in members if m is not None
    )


def _completed(fleet: Fleet, upgrade: Upgrade, number: int) -> e.BatchCompleted:
    members = [upgrade.members.get(id) for id in upgrade.open_batches[number].instance_ids]
    there = [member for member in members if member is not None]
    succeeded = sum(member.state is MemberState.SUCCEEDED for member in there)
    return e.BatchCompleted(
        scale_set=fleet.spec.scale_set,
        upgrade_id=upgrade.id,
        batch=number,
        succeeded=succeeded,
        failed=len(there) - succeeded,
        reason=f"{succeeded} healthy, {len(there) - succeeded} not",
    )


def _ending(fleet: Fleet, upgrade: Upgrade, now: datetime) -> list[e.Event] | None:
    """Return the steps that end the upgrade, or None while it goes on.

    While sliding batches are under way nothing is ended, and nothing more started: then what is
    wrong is looked at again when they are done.
    """
    error = fault(fleet, upgrade, now)
    why = cancelled(fleet, upgrade) if error is None else None
    if error is not None or why is not None:
        if upgrade.open_batches or fleet.census.in_flight:
            return []
        if error is not None:
            return _breached(fleet, upgrade, error) or faulted(fleet, upgrade, error)
        return [
            e.UpgradeCancelled(
                scale_set=fleet.spec.scale_set, upgrade_id=upgrade.id, reason=why or ""
            )
        ]
    if fleet.census.pending:
        return None
    if upgrade.open_batches:
        return []
    wait = before_end(fleet, upgrade, now)
    return _completion(fleet, upgrade) if wait is None else _wait(fleet, upgrade, wait)


def _breached(fleet: Fleet, upgrade: Upgrade, error: Failure) -> list[e.Event]:
    """Have failed instances put back before the fault, when the policy asks for it."""
    asked = upgrade.policy.rollback_failed_instances_on_policy_breach
    if not asked or upgrade.breach is not None or error.code not in BREACHES:
        return []
    if not restorable(fleet):
        return []
    return [
        e.UpgradeBreached(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            error=error,
            reason=f"{error.message} Failed instances are put back first.",
        )
    ]


def _completion(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    states = [member.state for member in upgrade.members.values()]
    skipped = states.count(MemberState.SKIPPED)
    return [
        e.UpgradeCompleted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            reason=(
                f"no instance remains; {states.count(MemberState.SUCCEEDED)} of {len(states)} "
                f"succeeded{f', {skipped} left out' if skipped else ''}"
            ),
        )
    ]


# --- the next batch -------------------------------------------------------------------------------


def _wait(fleet: Fleet, upgrade: Upgrade, wait: Wait) -> list[e.Event]:
    """Ask what has to be asked, or say once what is waited for."""
    if wait.asks:
        return list(wait.asks)
    if upgrade.open_batches or upgrade.held == wait.code:
        return []
    return [
        e.BatchHeld(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            code=wait.code,
            until=wait.until,
            reason=wait.message,
        )
    ]


def _leave_out(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    """Leave out what was protected or powered off since the start, and what need not go any more.

    The latter by a late success of an operation before: it would only be swapped for the same.
    """
    pending = [fleet.instances[id] for id in fleet.census.pending if id in fleet.instances]
    bad, target = upgrade.rollback_of, upgrade.image.version
    protected = [i.id for i in pending if i.protect_from_scale_set_actions]
    arrived = [
        i.id
        for i in pending
        if (i.version == target if bad is None else i.version != bad)
        and not upgrade.reimage
        and not i.is_busy
        and not i.protect_from_scale_set_actions
    ]
    parked = [
        i.id
        for i in pending
        if i.is_parked and i.id not in arrived and not i.protect_from_scale_set_actions
    ]
    return [
        e.InstancesSkipped(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            instance_ids=tuple(sorted(ids, key=int)),
            reason=why,
        )
        for ids, why in (
            (protected, "protectFromScaleSetActions"),
            (arrived, f"runs version {target} already" if bad is None else f"left version {bad}"),
            (parked, "powered off by a person"),
        )
        if ids
    ]


def _start_batch(fleet: Fleet, upgrade: Upgrade, choice: BatchChoice) -> list[e.Event]:
    number, reason = upgrade.batch + 1, choice.reason
    replacements: dict[str, str] = {}
    if surge.can_surge(fleet, upgrade, len(choice.instances)):
        replacements, requests = surge.order_replacements(fleet, upgrade, choice.instances)
    else:
        if upgrade.policy.max_surge:
            reason += "; no room for a surge: in place"
        requests = _upgrade_requests(fleet, upgrade, choice)
    return [
        e.BatchStarted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            batch=number,
            instance_ids=tuple(instance.id for instance in choice.instances),
            replacements=replacements,
            reason=reason,
        ),
        *requests,
    ]


def _upgrade_requests(fleet: Fleet, upgrade: Upgrade, choice: BatchChoice) -> list[e.Event]:
    return [
        e.InstancesUpgradeRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            upgrade_id=upgrade.id,
            instances=orders,
            image=upgrade.image,
            provisioning=fleet.spec.provisioning,
            drain=upgrade.policy.drain,
            reason=f"batch {upgrade.batch + 1}",
        )
        for host, orders in by_host(choice.instances, next_attempt=True)
    ]
