"""The numbers that the rules compare: how many are unhealthy, and how many may be."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rollcall_contracts.model import RollingPolicy

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import Instance, InstancePhase, MemberState, Upgrade


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, against a limit in percent."""

    count: int
    total: int
    limit: int  # percent

    @property
    def exceeded(self) -> bool:
        """Say whether the share is above the limit; exactly at the limit is within (M16)."""
        return self.count * 100 > self.limit * self.total

    @property
    def percent(self) -> int:
        """Return the share as a whole percent, rounded."""
        return round(100 * self.count / self.total) if self.total else 0

    def __str__(self) -> str:
        sign = ">" if self.exceeded else "<="
        return f"{self.count} of {self.total} unhealthy ({self.percent} %) {sign} {self.limit} %"


def unhealthy_share(fleet: Fleet, policy: RollingPolicy) -> Share:
    """Count the whole set's unhealthy instances, whatever made them so (M10, M15).

    Those that a change of size brings or takes away are no part of the set yet, or any more.
    """
    elsewhere = sum(is_elsewhere(instance) for instance in fleet.census.working.values())
    return Share(
        count=fleet.census.unhealthy - elsewhere,
        total=len(fleet.instances) - elsewhere,
        limit=policy.max_unhealthy_instance_percent,
    )


def is_elsewhere(instance: Instance) -> bool:
    """Say whether an instance is on its way in or out of the set.

    A creation that failed and is tried again is not: it counts as unhealthy throughout.
    """
    return instance.phase is InstancePhase.DELETING or (
        instance.phase is InstancePhase.CREATING and instance.attempt == 1
    )


def newcomers(fleet: Fleet, policy: RollingPolicy, now: datetime) -> dict[str, datetime]:
    """Return the new instances that boot for the first time, and until when they may.

    They have as long as an upgraded one (M13), and are not held against an upgrade meanwhile.
    """
    patience = timedelta(seconds=policy.health_timeout)
    return {
        instance.id: instance.since + patience
        for instance in fleet.instances.values()
        if instance.phase is InstancePhase.READY
        and instance.attempt == 1
        and not instance.is_healthy
        and now < instance.since + patience
    }


def settled_share(fleet: Fleet, policy: RollingPolicy, now: datetime) -> Share:
    """Count as `unhealthy_share` does, without the newcomers."""
    share, fresh = unhealthy_share(fleet, policy), len(newcomers(fleet, policy, now))
    return replace(share, count=share.count - fresh, total=share.total - fresh)


def upgraded_share(fleet: Fleet, upgrade: Upgrade) -> Share:
    """Count the failed and the unhealthy among the instances upgraded so far (M42).

    One that was put back counts as failed, and one that was healthy and no longer is counts too.
    """
    upgraded = [m for m in upgrade.members.values() if m.state is not MemberState.PENDING]
    bad = sum(
        member.state is not MemberState.SUCCEEDED
        or (instance := fleet.instances.get(member.id)) is None
        or not instance.is_healthy
        for member in upgraded
    )
    return Share(
        count=bad,
        total=len(upgraded),
        limit=upgrade.policy.max_unhealthy_upgraded_instance_percent,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchChoice:
    """The instances of a batch, and why so many."""

    instances: tuple[Instance, ...]
    reason: str


def choose_batch(
    pending: Sequence[Instance], everyone: Iterable[Instance], policy: RollingPolicy
) -> BatchChoice:
    """Return the next batch: `max(1, floor(n * percent / 100))` of the pending, in order (M11).

    It shrinks so that the batch, and the unhealthy outside it, stay within the unhealthy limit;
    never below one. With n = 10, 20 % and 20 %: 2; when one instance outside is unhealthy: 1.
    Without `enable_cross_zone_upgrade` a batch is of one zone; zones follow one another.
    """
    fleet = tuple(instance for instance in everyone if not is_elsewhere(instance))
    total = len(fleet)
    full = max(1, total * policy.max_batch_instance_percent // 100)
    allowed = total * policy.max_unhealthy_instance_percent // 100
    unhealthy = sum(not instance.is_healthy for instance in fleet)

    zones = sorted({instance.zone or "" for instance in pending})
    where = ""
    if (
        len({instance.zone or "" for instance in fleet}) > 1
        and not policy.enable_cross_zone_upgrade
    ):
        pending = [instance for instance in pending if (instance.zone or "") == zones[0]]
        where = f" in zone {zones[0]}"

    chosen: list[Instance] = []
    outside = unhealthy
    for candidate in pending[:full]:
        remaining = outside - (not candidate.is_healthy)
        if chosen and len(chosen) + 1 + remaining > allowed:
            break
        chosen.append(candidate)
        outside = remaining
    reason = (
        f"{len(chosen)} of {total}{where}: at most {full} "
        f"({policy.max_batch_instance_percent} %) at a time, {outside} unhealthy outside, "
        f"{allowed} allowed"
    )
    return BatchChoice(instances=tuple(chosen), reason=reason)
