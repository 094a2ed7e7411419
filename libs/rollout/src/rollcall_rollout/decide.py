"""What should happen next: the rules in the order in which they are asked.

A list of decided events is a step; `settle` folds each step and asks again until nothing is left to
decide. Each decided event changes the state, so that the asking ends.
"""

from datetime import datetime, timedelta

from rollcall_contracts.events import Event

from rollcall_rollout import fetching, sizing, starting, upgrading, upkeep
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
        or (upgrading.restore(fleet, upgrade) if upgrade else [])
        or upkeep.judge_without_probe(fleet)
        or upkeep.request_probes(fleet, now)
        or upkeep.commit(fleet)
        or (upgrading.advance(fleet, upgrade, now) if upgrade else [])
        or sizing.deploy(fleet)
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
    """Return when `decide` must be asked again even if nothing is reported until then."""
    times = [now + ROUTINE]
    if len(fleet.instances) < fleet.spec.capacity:
        times.append(now + HOSTS_AWAITED)  # for an image, or for an agent to answer
    times += _instance_times(fleet, now)
    census = fleet.census
    if fleet.spec.probe is not None and census.next_probe is not None:
        times.append(census.next_probe - upkeep.RENEWAL)
    upgrade = fleet.upgrade
    if upgrade is not None:
        if fetching.unfetched(fleet, upgrade):
            times.append(fetching.fetch_deadline(upgrade))
        if (resume := upgrading.pause_end(upgrade)) is not None:
            times.append(resume)
        if (recovery := upgrading.recovery_end(fleet, upgrade)) is not None:
            times.append(recovery)
        if (booted := upgrading.newcomers_end(fleet, upgrade, now)) is not None:
            times.append(booted)
    return max(now, min(times))


def _instance_times(fleet: Fleet, now: datetime) -> list[datetime]:
    """Return when single instances need a decision."""
    first = upkeep.earliest_deadline(fleet, sizing.RETRY)
    if first is None:
        return []
    if first > now:
        return [first]  # early enough, and cheaper than a look at each
    times: list[datetime | None] = []
    awaited = (fleet.instances.get(member.id) for member in fleet.census.awaited.values())
    for instance in (*fleet.census.working.values(), *awaited):
        if instance is None:
            continue
        times += [upkeep.deadline(fleet, instance), sizing.creation_retry(instance)]
        if instance.phase is InstancePhase.DELETING:
            times.append(instance.since + sizing.RETRY)
    return [time for time in times if time is not None]
