"""New OS disks because a person asks for them, also where the version is the same.

A few at a time, under the caps of an upgrade: never more are down than the policy allows. What is
unhealthy anyway goes first. It waits for a running upgrade: two hands on one instance is what must
never be.
"""

from collections.abc import Iterable
from datetime import datetime

from rollcall_contracts import events as e

from rollcall_rollout.choosing import batch_limit
from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import unhealthy_share
from rollcall_rollout.orders import by_host
from rollcall_rollout.state import Instance, InstancePhase


def mark(draft: Draft, event: e.ModelDeployRequested) -> None:
    """Note who is to get a new OS disk; a request that comes again marks nobody again."""
    for id in event.instance_ids:
        instance = draft.instance(id)
        if instance is None or instance.phase is InstancePhase.DELETING:
            continue
        if event.number > instance.reimage_number:
            draft.put_instance(replace(instance, reimage=True, reimage_number=event.number))


def forget(draft: Draft) -> None:
    """Give up the reimages that have not begun, as a person who cancels wants."""
    for instance in draft.instances():
        if instance.reimage:
            draft.put_instance(replace(instance, reimage=False))


def reimage(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Replace the OS disks of the next instances that a person named, as far as the caps allow.

    By the version that a new instance would be made from.
    """
    if fleet.upgrade is not None or not fleet.census.reimaging:
        return []
    image = fleet.image_of_new(now)
    if image is None:
        return []
    return [
        e.InstancesUpgradeRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            image=image,
            provisioning=fleet.spec.provisioning,
            drain=fleet.spec.policy.drain,
            reason="a new OS disk was asked for",
        )
        for host, orders in by_host(choose(fleet), next_attempt=True)
    ]


def candidates(fleet: Fleet) -> list[Instance]:
    """Return the instances whose turn may come, unhealthy ones first."""
    free = (
        instance
        for instance in fleet.census.reimaging.values()
        if not instance.is_busy
        and instance.version is not None
        and instance.replaces is None
        and not instance.is_parked
    )
    return sorted(free, key=lambda instance: (instance.is_healthy, int(instance.id)))


def choose(fleet: Fleet) -> list[Instance]:
    """Return who goes now: of one zone and update domain, and never more than a batch may have.

    One healthy instance may go alone where nothing is unhealthy (M11).
    """
    waiting = candidates(fleet)
    if not waiting:
        return []
    policy, share = fleet.spec.policy, unhealthy_share(fleet, fleet.spec.policy)
    full, _ = batch_limit(policy, share.total)
    working = at_work(fleet)
    group = _group(fleet, working[0] if working else waiting[0])
    chosen: list[Instance] = []
    outside = share.count
    for instance in waiting:
        if _group(fleet, instance) != group:
            continue
        if len(chosen) + len(working) >= full:
            break
        remaining = outside - (not instance.is_healthy)
        fits = len(chosen) + 1 + remaining <= share.allowed
        alone = not chosen and remaining == 0
        if instance.is_healthy and not fits and not alone:
            break
        chosen.append(instance)
        outside = remaining
    return chosen


def at_work(fleet: Fleet) -> list[Instance]:
    """Return the instances that were taken down for a person, and are not healthy yet."""
    census = fleet.census
    swapped = (i for i in census.working.values() if i.phase is InstancePhase.UPGRADING)
    return _in_order([*swapped, *census.booting.values()])


def _in_order(instances: Iterable[Instance]) -> list[Instance]:
    return sorted(instances, key=lambda instance: int(instance.id))


def _group(fleet: Fleet, instance: Instance) -> tuple[str, int]:
    """Return what is not mixed: zone, then update domain (M33)."""
    domains = fleet.spec.update_domains
    zone = "" if fleet.spec.policy.enable_cross_zone_upgrade else instance.zone or ""
    return zone, int(instance.id) % domains if domains else 0
