"""The numbers that the rules compare: how many are unhealthy, and how many may be."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollcall_contracts.model import RollingPolicy

from rollcall_rollout.copying import replace
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import IN_FLIGHT, UNTOUCHED, Instance, InstancePhase, Upgrade
from rollcall_rollout.state import MemberState as State


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """So many of so many, against a limit in percent; `floor` of them are always within it."""

    count: int
    total: int
    limit: int  # percent
    floor: int = 0

    @property
    def exceeded(self) -> bool:
        """Say whether the share is above the limit; exactly at the limit is within (M16)."""
        return self.count > self.floor and self.count * 100 > self.limit * self.total

    @property
    def allowed(self) -> int:
        """Return how many are within the limit."""
        return max(self.total * self.limit // 100, self.floor)

    @property
    def percent(self) -> int:
        """Return the share as a whole percent, rounded."""
        return round(100 * self.count / self.total) if self.total else 0

    def __str__(self) -> str:
        sign = ">" if self.exceeded else "<="
        floor = f", {self.floor} always" if self.floor else ""
        return (
            f"{self.count} of {self.total} unhealthy ({self.percent} %) {sign} "
            f"{self.limit} %{floor}"
        )


def unhealthy_share(fleet: Fleet, policy: RollingPolicy) -> Share:
    """Count the whole set's unhealthy instances, whatever made them so (M10, M15).

    Those that a change of size brings or takes away are no part of the set yet, or any more.
    """
    elsewhere = _elsewhere(fleet)
    return Share(
        count=fleet.census.unhealthy - sum(not instance.is_healthy for instance in elsewhere),
        total=len(fleet.instances) - len(elsewhere),
        limit=policy.max_unhealthy_instance_percent,
        floor=policy.max_unhealthy_instance_count,
    )


def _elsewhere(fleet: Fleet) -> list[Instance]:
    census = fleet.census
    ready = (i for i in census.surging.values() if i.id not in census.working)
    parked = (i for i in census.parked.values() if i.id not in census.surging)
    return [*(i for i in census.working.values() if is_elsewhere(i)), *ready, *parked]


def is_elsewhere(instance: Instance) -> bool:
    """Say whether an instance is on its way in or out of the set, or powered off by a person.

    A creation that failed and is tried again is not: it counts as unhealthy throughout.
    """
    return (
        instance.phase is InstancePhase.DELETING
        or instance.replaces is not None
        or instance.is_parked
        or (instance.phase is InstancePhase.CREATING and instance.attempt == 1)
    )


def newcomers(fleet: Fleet, policy: RollingPolicy, now: datetime) -> dict[str, datetime]:
    """Return the instances that boot because a person wants them, and until when they may.

    New ones, and those that are started, restarted or given a new OS disk. They have as long as an
    upgraded one (M13), and are not held against an upgrade meanwhile.
    """
    patience = timedelta(seconds=policy.health_timeout)
    draining = policy.drain.deadline if policy.drain is not None else 0
    working = timedelta(seconds=policy.provisioning_timeout + draining)
    found = {
        instance.id: instance.since + patience
        for instance in fleet.instances.values()
        if instance.phase is InstancePhase.READY
        and (instance.attempt == 1 or instance.booting)
        and instance.replaces is None
        and not instance.is_parked
        and not instance.is_healthy
        and now < instance.since + patience
    }
    for instance in fleet.census.working.values():
        reimaged = instance.phase is InstancePhase.UPGRADING and instance.booting
        comes_back = reimaged or instance.phase is InstancePhase.POWERING
        if comes_back and not is_elsewhere(instance) and now < instance.since + working:
            found[instance.id] = instance.since + working
    return found


def at_work(fleet: Fleet, upgrade: Upgrade) -> dict[str, Instance]:
    """Return the instances that are down because of the upgrade, or may be at any moment.

    Those in flight, and those put back that boot from their previous OS disk. While a surge makes
    an instance, the one whose place it takes still serves.
    """
    census = fleet.census
    ids = [m.id for m in census.in_flight.values() if m.state is not State.SURGING]
    ids += [m.id for m in census.restored.values() if m.batch in upgrade.open_batches]
    found = {id: fleet.instances[id] for id in ids if id in fleet.instances}
    return {
        id: instance
        for id, instance in found.items()
        if id in census.in_flight or is_failing(instance)
    }


def is_failing(instance: Instance) -> bool:
    """Say whether an instance is unhealthy, and not because a person took it down."""
    by_a_person = instance.is_parked or instance.booting or instance.phase is InstancePhase.POWERING
    return not instance.is_healthy and not by_a_person


def settled_share(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Share:
    """Count as `unhealthy_share` does, without the newcomers and those at work (M15)."""
    share = unhealthy_share(fleet, upgrade.policy)
    apart: Mapping[str, object] = newcomers(fleet, upgrade.policy, now)
    if upgrade.open_batches:
        working = {id: i for id, i in at_work(fleet, upgrade).items() if not i.is_healthy}
        apart = {**apart, **working}
    fresh = len(apart)
    return replace(share, count=share.count - fresh, total=share.total - fresh)


def upgraded_share(fleet: Fleet, upgrade: Upgrade) -> Share:
    """Count the failed and the unhealthy among the instances upgraded so far (M42).

    One that is put back counts as failed, and one that was healthy and no longer is counts too.
    """
    upgraded = [
        m
        for m in upgrade.members.values()
        if m.state is State.RESTORING or m.state not in UNTOUCHED | IN_FLIGHT
    ]
    bad = sum(
        member.state is not State.SUCCEEDED
        or (instance := fleet.instances.get(member.replacement or member.id)) is None
        or is_failing(instance)
        for member in upgraded
    )
    return Share(
        count=bad,
        total=len(upgraded),
        limit=upgrade.policy.max_unhealthy_upgraded_instance_percent,
        floor=upgrade.policy.max_unhealthy_upgraded_instance_count,
    )
