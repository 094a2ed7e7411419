"""Time in which nothing happens: a run leaps over it, instead of looking each minute."""

from datetime import datetime

from rollcall_rollout import Fleet, waiting
from rollcall_rollout.faulting import timeout_at
from rollcall_rollout.fetching import unfetched
from rollcall_rollout.placing import hosts_with_room
from rollcall_rollout.sizing import count_staying, creation_retry


def is_still(fleet: Fleet, now: datetime) -> bool:
    """Say whether nobody is at work: no batch, no agent, no host that fetches, no missing instance.

    Leases of probing end and are renewed meanwhile; that changes no health.
    """
    census, upgrade = fleet.census, fleet.upgrade
    if census.surging or census.in_flight or census.deploying:
        return False
    if any(i.is_busy or creation_retry(i) is not None for i in census.working.values()):
        return False
    if _can_grow(fleet, now):
        return False
    return upgrade is None or not (upgrade.open_batches or unfetched(fleet, upgrade))


def _can_grow(fleet: Fleet, now: datetime) -> bool:
    """Say whether instances are missing that can be made: there is a host, and an image."""
    missing = count_staying(fleet) < fleet.spec.capacity
    return missing and bool(hosts_with_room(fleet)) and fleet.image_of_new(now) is not None


def next_change(fleet: Fleet, now: datetime) -> datetime | None:
    """Return when a still fleet may go on by itself; None when only somebody else can move it."""
    times = [waiting(fleet, now).until]
    if fleet.hook is not None and not fleet.hook.completed:
        times.append(fleet.hook.wait_until)
    if fleet.upgrade is not None:
        times.append(timeout_at(fleet.upgrade))
    return min((time for time in times if time is not None and time > now), default=None)
