"""What should happen next: the rules in the order in which they are asked.

A list of decided events is a step; `settle` folds each step and asks again until nothing is left to
decide. Each decided event changes the state, so that the asking ends.
"""

from datetime import datetime, timedelta

from rollcall_contracts.events import Event

from rollcall_rollout import (
    faulting,
    fetching,
    hooks,
    powering,
    reimaging,
    restoring,
    rolling_back,
    sizing,
    starting,
    surge,
    upgrading,
    upkeep,
)
from rollcall_rollout.evolve import evolve
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import InstancePhase

STEPS = 50  # far above what any state needs; reaching it is a livelock, a defect
ROUTINE = timedelta(seconds=60)  # asked again at least so often
HOSTS_AWAITED = timedelta(seconds=1)


class LivelockError(RuntimeError):
    """Decisions did not come to an end: a rule decides what evolve ignores."""


def decide(fleet: Fleet, now: datetime) -> list[Event]:
    """Return the next step for a scale set, empty when it is waiting for a report or a time."""
    upgrade = fleet.upgrade
    if fleet.deleted:
        return (upgrading.abandon(fleet, upgrade) if upgrade else []) or sizing.resize(fleet, now)
    return (
        upkeep.fail_overdue(fleet, now)
        or sizing.dismiss(fleet)
        or (restoring.restore(fleet, upgrade) if upgrade else [])
        or upkeep.judge_without_probe(fleet)
        or upkeep.request_probes(fleet, now)
        or upkeep.commit(fleet)
        or hooks.complete(fleet, now)
        or surge.take_places(fleet)
        or powering.change_power(fleet)
        or (upgrading.advance(fleet, upgrade, now) if upgrade else [])
        or sizing.deploy(fleet)
        or reimaging.reimage(fleet, now)
        or (rolling_back.roll_back(fleet, now) if not upgrade else [])
        or (starting.start(fleet, now) if not upgrade else [])
        or sizing.resize(fleet, now)
    )


def settle(fleet: Fleet, now: datetime) -> tuple[Fleet, list[Event]]:
    """Decide and evolve until nothing is left to decide; return the state and all decided events.

    Raises LivelockError when that does not come to an end.
    """
    decided: list[Event] = []
    for _ in range(STEPS):
        step = decide(fleet, now)
        if not step:
            return fleet, decided
        fleet = evolve(fleet, step, now)
        decided += step
    raise LivelockError(f"{fleet.spec.scale_set}: {[event.type for event in decided[-3:]]}")


def next_wake(fleet: Fleet, now: datetime) -> datetime:
    """Return when a settled set must be asked again even if nothing is reported until then.

    What was due before now has been decided, or cannot be: waking for it would only spin.
    """
    times = [now + ROUTINE]
    if len(fleet.instances) < fleet.spec.capacity:
        times.append(now + HOSTS_AWAITED)  # for an image, or for an agent to answer
    times += _instance_times(fleet, now)
    census = fleet.census
    if fleet.spec.probe is not None and census.next_probe is not None:
        times.append(census.next_probe - upkeep.RENEWAL)
    times += _upgrade_times(fleet, now)
    return min(time for time in times if time > now)


def _upgrade_times(fleet: Fleet, now: datetime) -> list[datetime]:
    """Return when what an upgrade waits for comes to its end."""
    upgrade = fleet.upgrade
    times: list[datetime | None] = []
    if fleet.hook is not None and not fleet.hook.completed:
        times.append(fleet.hook.wait_until)
    if upgrade is None:
        target = starting.due(fleet, now)
        wait = starting.before_start(fleet, target, now) if target is not None else None
        times.append(wait.until if wait is not None else None)
    else:
        if fetching.unfetched(fleet, upgrade):
            times.append(fetching.fetch_deadline(upgrade))
        times += [restoring.recovery_end(fleet, upgrade, n) for n in upgrade.open_batches]
        times.append(faulting.timeout_at(upgrade))
        wait = upgrading.awaited(fleet, upgrade, now)
        times.append(wait.until if wait is not None else None)
    return [time for time in times if time is not None]


def _instance_times(fleet: Fleet, now: datetime) -> list[datetime]:
    """Return when single instances need a decision."""
    first = upkeep.earliest_deadline(fleet, sizing.RETRY)
    if first is None:
        return []
    if first > now:
        return [first]  # early enough, and cheaper than a look at each
    times: list[datetime | None] = []
    census = fleet.census
    awaited = (fleet.instances.get(member.id) for member in census.awaited.values())
    watched = (*census.working.values(), *census.surging.values(), *census.booting.values())
    for instance in (*watched, *awaited):
        if instance is None:
            continue
        times += [upkeep.deadline(fleet, instance), sizing.creation_retry(instance)]
        if instance.phase is InstancePhase.DELETING:
            times.append(sizing.deletion_retry(fleet, instance))
    return [time for time in times if time is not None]
