"""Which instances are next, and how many at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from rollcall_contracts.model import RollingPolicy

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import at_work, unhealthy_share
from rollcall_rollout.state import Instance, Member, Upgrade

Group = tuple[float, bool, str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChoice:
    """The instances of a batch, and why these and so many; or why there is none."""

    instances: tuple[Instance, ...]
    reason: str
    alone: bool = False  # one healthy instance, beyond the limit


def candidates(fleet: Fleet, upgrade: Upgrade) -> list[tuple[Member, Instance]]:
    """Return the pending members that could go now."""
    return [
        (member, instance)
        for member in fleet.census.pending.values()
        if (instance := fleet.instances.get(member.id)) is not None
        and not instance.is_busy
        and not instance.protect_from_scale_set_actions
        and not instance.is_parked
        and (member.approved or not upgrade.deferred)
    ]


def choose_batch(
    fleet: Fleet, upgrade: Upgrade, pending: Sequence[tuple[Member, Instance]]
) -> BatchChoice:
    """Return the next batch: `max(1, floor(n * percent / 100))` of the pending, in order (M11).

    It shrinks so that the batch, and the unhealthy outside it, stay within the unhealthy limit;
    never below one. With n = 10, 20 % and 20 %: 2; when one instance outside is unhealthy: 1.
    When that leaves no room for a healthy one, those that are unhealthy anyway go first.
    A batch is of one phase, one zone and one update domain, in this order. While others are in
    flight (sliding), it fills what they leave, and never begins another group beside them.
    """
    if not pending:
        return BatchChoice(instances=(), reason="no instance can go now")
    policy, share = upgrade.policy, unhealthy_share(fleet, upgrade.policy)
    full, limit = batch_size(upgrade, share.total)
    working = at_work(fleet, upgrade) if upgrade.open_batches else {}
    groups = {instance.id: _group(fleet, upgrade, m, instance) for m, instance in pending}
    group = min(groups.values())
    where = _where(fleet, upgrade, group)
    if _parts_groups(fleet, upgrade, working, group):
        return BatchChoice(instances=(), reason=f"those in flight come before the next{where}")

    # Those in flight count as unhealthy even in the moment before they go down.
    outside = share.count + sum(instance.is_healthy for instance in working.values())
    ordered = _in_order(i for _, i in pending if groups[i.id] == group)
    if outside >= share.allowed:  # no room for a healthy one: first those that are down anyway
        ordered.sort(key=lambda instance: instance.is_healthy)
    chosen: list[Instance] = []
    alone = False
    for instance in ordered:
        if len(chosen) + len(working) >= full:
            break
        remaining = outside - (not instance.is_healthy)
        fits = len(chosen) + 1 + remaining <= share.allowed
        first = not chosen and not working and (not upgrade.is_forced or remaining == 0)
        if not (fits or first or (upgrade.is_forced and not instance.is_healthy)):
            break
        chosen.append(instance)
        outside = remaining
        alone = instance.is_healthy and not fits
    reason = (
        f"{len(chosen)} of {share.total}{where}: at most {full} ({limit}) at a time, "
        f"{outside} unhealthy outside, {share.allowed} allowed"
        + (f", {len(working)} in flight" if policy.sliding_batches else "")
    )
    return BatchChoice(instances=tuple(chosen), reason=reason, alone=alone)


def batch_size(upgrade: Upgrade, total: int) -> tuple[int, str]:
    """Return how many may go at once, and which field of the policy says so (M11)."""
    size, limit = batch_limit(upgrade.policy, total)
    canary = upgrade.policy.canary_instance_count
    if upgrade.batch == 0 and 0 < canary < size:
        size, limit = canary, f"canaryInstanceCount {canary}"
    return size, limit


def batch_limit(policy: RollingPolicy, total: int) -> tuple[int, str]:
    """Return how many of a set may be taken down at once, and which field of the policy says so."""
    size = max(1, total * policy.max_batch_instance_percent // 100)
    count = policy.max_batch_instance_count
    if count is not None and count < size:
        return count, f"maxBatchInstanceCount {count}"
    return size, f"{policy.max_batch_instance_percent} %"


def _group(fleet: Fleet, upgrade: Upgrade, member: Member, instance: Instance) -> Group:
    """Return what must be finished before the next begins: phase, then zone, then domain (M33)."""
    policy = upgrade.policy
    sick_first = policy.prioritize_unhealthy_instances or upgrade.is_forced
    domains = fleet.spec.update_domains
    return (
        inf if member.phase is None else member.phase,
        sick_first and instance.is_healthy,
        "" if policy.enable_cross_zone_upgrade else instance.zone or "",
        int(instance.id) % domains if domains else 0,
    )


def _parts_groups(fleet: Fleet, upgrade: Upgrade, working: Iterable[str], group: Group) -> bool:
    """Say whether one in flight is of another phase, zone or domain than the group."""
    for id in working:
        member, instance = upgrade.members.get(id), fleet.instances.get(id)
        if member is not None and instance is not None:
            phase, _, zone, domain = _group(fleet, upgrade, member, instance)
            if (phase, zone, domain) != (group[0], group[2], group[3]):
                return True
    return False


def _where(fleet: Fleet, upgrade: Upgrade, group: Group) -> str:
    phase, _, zone, domain = group
    parts = []
    if phase != inf:
        parts.append(f"phase {phase:.0f}")
    if zone:
        parts.append(f"zone {zone}")
    if fleet.spec.update_domains:
        parts.append(f"update domain {domain}")
    return f" in {', '.join(parts)}" if parts else ""


def _in_order(instances: Iterable[Instance]) -> list[Instance]:
    return sorted(instances, key=lambda instance: int(instance.id))
