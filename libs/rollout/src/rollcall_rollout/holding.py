"""What holds the next batch of a running upgrade back, in the order in which it is asked."""

from collections.abc import Callable
from datetime import datetime, timedelta

from rollcall_contracts.model import LifecycleHookType, StartedBy

from rollcall_rollout import hooks, windows
from rollcall_rollout.choosing import BatchChoice, candidates, choose_batch
from rollcall_rollout.copying import replace
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import newcomers, unhealthy_share
from rollcall_rollout.metric_gate import wait_for_metric
from rollcall_rollout.state import Hold, Hook, Instance, Member, Upgrade
from rollcall_rollout.waits import Wait, WaitCode

Candidates = list[tuple[Member, Instance]]


def before_batch(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | BatchChoice:
    """Return what the next batch waits for, or the batch that may start now."""
    rules: tuple[Callable[[Fleet, Upgrade, datetime], Wait | None], ...] = (
        _paused,
        _held_elsewhere,
        _between_batches,
        _booting,
        _outside_windows,
        _awaiting_approval,
    )
    for rule in rules:
        if (wait := rule(fleet, upgrade, now)) is not None:
            return wait
    choice = choose_batch(fleet, upgrade, candidates(fleet, upgrade))
    if not choice.instances:
        return _no_candidate(fleet, upgrade, choice)
    if (wait := _no_room_yet(fleet, upgrade, choice, now)) is not None:
        return wait
    hooked = _asked_of_hook(fleet, upgrade, choice, now)
    if isinstance(hooked, Wait):
        return hooked
    return (
        _no_room_yet(fleet, upgrade, hooked, now) or wait_for_metric(fleet, upgrade, now) or hooked
    )


def before_end(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    """Return what the end waits for, when no instance remains."""
    if upgrade.batch == 0:
        return None
    return _baking(upgrade, now) or wait_for_metric(fleet, upgrade, now)


# --- the single reasons ---------------------------------------------------------------------------


def _paused(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    if not upgrade.pause_requested:
        return None
    return Wait(
        code=WaitCode.PAUSED, message="A person paused the upgrade; it goes on when it is resumed."
    )


def _held_elsewhere(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    if upgrade.is_forced:
        return None
    hold = fleet.hold_on(upgrade.image.version)
    return None if hold is None else held_version(upgrade.image.version, hold)


def held_version(version: str, hold: Hold) -> Wait:
    """Return the wait for a person to clear a version."""
    what = "was rolled back in" if hold.quarantine else "faulted in"
    return Wait(
        code=WaitCode.VERSION_HELD,
        message=(
            f"Version {version} {what} {hold.by_set} ({hold.error.code}: {hold.error.message}) and "
            "is held here until a person releases it; a newer version goes on without that."
        ),
    )


def _between_batches(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    """Wait for the pause, and after the canary batch for its bake time, counted from its end."""
    policy = upgrade.policy
    canary = upgrade.batch == 1 and policy.canary_instance_count > 0
    if canary and upgrade.batch_open:
        return Wait(code=WaitCode.CANARY_BAKING, message="The canary batch is under way.")
    if upgrade.paused_since is None:
        return None
    bake = policy.canary_bake_time if canary else 0
    seconds = max(policy.pause_time_between_batches, bake)
    until = upgrade.paused_since + timedelta(seconds=seconds)
    if now >= until:
        return None
    if bake > policy.pause_time_between_batches:
        code, what = WaitCode.CANARY_BAKING, f"canaryBakeTime of {bake:g} s after the first batch"
    else:
        code, what = WaitCode.PAUSE_BETWEEN_BATCHES, f"pauseTimeBetweenBatches of {seconds:g} s"
    return Wait(
        code=code,
        message=f"The next batch waits for the {what}, until {_clock(until)}.",
        until=until,
    )


def _booting(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    """Wait while new instances boot, or a sliding batch must not take one more: no reason to stop.

    The fault for too many unhealthy ones is decided before; here they are on their way.
    """
    share = unhealthy_share(fleet, upgrade.policy)
    if not share.exceeded or upgrade.is_forced or upgrade.batch_open:
        return None
    until = min(newcomers(fleet, upgrade.policy, now).values(), default=None)
    return Wait(
        code=WaitCode.INSTANCES_BOOTING,
        message=f"New instances are not healthy yet: {share}.",
        until=until,
    )


def _no_room_yet(fleet: Fleet, upgrade: Upgrade, choice: BatchChoice, now: datetime) -> Wait | None:
    """Wait while those that leave no room are on their way back, before one goes beyond the limit.

    One that was restarted or gets a new OS disk is healthy again soon, or has failed by its
    deadline; only then may one go alone.
    """
    coming = newcomers(fleet, upgrade.policy, now) if choice.alone else {}
    if not coming:
        return None
    share = unhealthy_share(fleet, upgrade.policy)
    until = min(coming.values())
    return Wait(
        code=WaitCode.INSTANCES_BOOTING,
        message=(
            f"Those that are down leave no room: {share.count} of {share.total} unhealthy, "
            f"{share.allowed} allowed, and {len(coming)} of them are on their way back until "
            f"{_clock(until)}."
        ),
        until=until,
    )


def _outside_windows(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    if upgrade.started_by is not StartedBy.PLATFORM:
        return None
    return closed_windows(fleet, now)


def closed_windows(fleet: Fleet, now: datetime) -> Wait | None:
    """Return the wait for a maintenance window that is open for as long as a batch takes.

    Without a measured batch, an open window is enough. A window that closes holds the upgrade, and
    does not fault it.
    """
    schedule = fleet.spec.maintenance_windows
    if not schedule:
        return None
    closing = windows.open_until(schedule, now)
    expected = expected_seconds(fleet)
    if closing is not None and now + timedelta(seconds=expected) <= closing:
        return None
    opening = windows.next_opening(schedule, now)
    if opening is None:
        message = "No maintenance window opens any more: add one, or take the old ones out."
    elif expected > windows.longest(schedule):
        message = (
            f"A batch is expected to take {expected:.0f} s, longer than any maintenance window "
            f"({windows.longest(schedule):.0f} s): lengthen the window, or make batches shorter by "
            "another policy or model, with which they are measured anew; a start by hand waits for "
            "no window."
        )
    elif closing is not None:
        message = (
            f"A batch is expected to take {expected:.0f} s, and the maintenance window closes at "
            f"{_clock(closing)}; the next one opens at {_clock(opening)}."
        )
    else:
        message = f"No maintenance window is open; the next one opens at {_clock(opening)}."
    return Wait(code=WaitCode.OUTSIDE_WINDOWS, message=message, until=opening)


def expected_seconds(fleet: Fleet) -> float:
    """Return what a batch is expected to take: longer than four of five of the last ones took.

    One that a silent agent made endless must not close all windows for the next ten.
    """
    measured = sorted(fleet.batch_seconds)
    return measured[len(measured) * 4 // 5] if measured else 0.0


def _awaiting_approval(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    if not upgrade.deferred:
        return None
    waiting = [member for member in fleet.census.pending.values() if not member.approved]
    if len(waiting) < len(fleet.census.pending):
        return None
    return Wait(
        code=WaitCode.APPROVAL,
        message=(
            f"The upgrade is deferred: {len(waiting)} instances wait for their approval "
            "(approveRollingUpgrade)."
        ),
    )


def _no_candidate(fleet: Fleet, upgrade: Upgrade, choice: BatchChoice) -> Wait:
    if upgrade.batch_open:
        return Wait(code=WaitCode.BATCH, message=f"A batch is under way: {choice.reason}.")
    return Wait(
        code=WaitCode.NO_CANDIDATE,
        message=f"{len(fleet.census.pending)} instances remain: {choice.reason}.",
    )


def _asked_of_hook(
    fleet: Fleet, upgrade: Upgrade, choice: BatchChoice, now: datetime
) -> Wait | BatchChoice:
    """Return the part of a batch that the model's hook lets go on, or the wait for its answer."""
    model = hooks.hook_of(fleet, LifecycleHookType.BATCH_STARTING)
    if model is None or upgrade.started_by is not StartedBy.PLATFORM:
        return choice
    hook = fleet.hook
    if hook is not None and not hook.completed:
        return answer_awaited(hook)
    if hook is not None and hook.upgrade_id == upgrade.id:
        approved = [pair for pair in candidates(fleet, upgrade) if pair[0].id in hook.approved]
        chosen = choose_batch(fleet, upgrade, approved)
        if chosen.instances:
            return replace(chosen, reason=f"{chosen.reason}; approved by the lifecycle hook")
    ask = hooks.ask(
        fleet,
        model,
        version=upgrade.image.version,
        instance_ids=(instance.id for instance in choice.instances),
        upgrade_id=upgrade.id,
        now=now,
    )
    return Wait(code=WaitCode.HOOK, message="The lifecycle hook is asked.", asks=(ask,))


def answer_awaited(hook: Hook) -> Wait:
    """Return the wait for the answer to a hook."""
    silent = sum(action is None for action in hook.targets.values())
    what = f"an upgrade to {hook.version}" if hook.upgrade_id is None else f"{silent} instances"
    return Wait(
        code=WaitCode.HOOK,
        message=(
            f"{hook.type} waits for an answer about {what} until {_clock(hook.wait_until)}; then "
            f"its default action is taken: {hook.default_action}."
        ),
        until=hook.wait_until,
    )


def _baking(upgrade: Upgrade, now: datetime) -> Wait | None:
    if upgrade.paused_since is None:
        return None
    until = upgrade.paused_since + timedelta(seconds=upgrade.policy.bake_time)
    if now >= until:
        return None
    return Wait(
        code=WaitCode.BAKING,
        message=(
            f"All instances are done; the bakeTime of {upgrade.policy.bake_time:g} s ends at "
            f"{_clock(until)}."
        ),
        until=until,
    )


def _clock(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}Z"
