"""The rules of single instances, upgrade or not: deadlines, health, the previous OS disk."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Health, Power, Probe

from rollcall_rollout.census import is_probed, probe_due
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.orders import by_host
from rollcall_rollout.state import Instance, InstancePhase, MemberState

LEASE = timedelta(minutes=10)
LONGEST_LEASE = timedelta(minutes=25)  # a prober keeps the delivery; brokers take it after 30
RENEWAL = timedelta(seconds=15)  # before a lease ends, the next one is asked for
TARGETS = 200  # of one probe request


# --- deadlines ------------------------------------------------------------------------------------


def deadline(fleet: Fleet, instance: Instance) -> datetime | None:
    """Return when an instance is given up: its agent silent, or not healthy in time (M13)."""
    policy = fleet.upgrade.policy if fleet.upgrade else fleet.spec.policy
    match instance.phase:
        case InstancePhase.UPGRADING | InstancePhase.POWERING:
            drain = policy.drain.deadline if policy.drain is not None else 0
            return instance.since + timedelta(seconds=policy.provisioning_timeout + drain)
        case InstancePhase.CREATING | InstancePhase.RESTORING:
            return instance.since + timedelta(seconds=policy.provisioning_timeout)
        case InstancePhase.READY:
            id = instance.replaces or instance.id
            member = fleet.upgrade.members.get(id) if fleet.upgrade else None
            patience = timedelta(seconds=policy.health_timeout)
            if member is not None and member.state is MemberState.PROVISIONED:
                return member.since + patience
            if member is not None and member.state is MemberState.SURGING:
                return instance.since + patience if instance.replaces else None
            if instance.booting and not instance.is_parked:
                return instance.since + patience
    return None


def fail_overdue(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Fail the instances whose time is up."""
    first = earliest_deadline(fleet)
    if first is None or now < first:
        return []
    failures: list[e.Event] = []
    for instance in _with_deadline(fleet):
        limit = deadline(fleet, instance)
        if limit is None or now < limit:
            continue
        waited = (now - instance.since).total_seconds()
        if instance.phase is InstancePhase.READY:
            code = FailureCode.HEALTH_TIMEOUT
            message = f"Instance found to be unhealthy or unreachable for {waited:.0f} s."
        else:
            code = FailureCode.PROVISIONING_TIMEOUT
            message = (
                f"The agent of host {instance.host} did not report within {waited:.0f} s "
                f"({instance.phase.value})."
            )
        failures.append(
            e.InstanceFailed(
                scale_set=fleet.spec.scale_set,
                instance_id=instance.id,
                attempt=instance.attempt,
                error=Failure(code=code, message=message, target=instance.id),
                reason=f"{waited:.0f} s >= {(limit - instance.since).total_seconds():.0f} s",
            )
        )
    return failures


def earliest_deadline(fleet: Fleet, shortest: timedelta = timedelta.max) -> datetime | None:
    """Return a time before which no deadline ends, nor anything `shortest` after its beginning."""
    census = fleet.census
    begun = [i.since for i in census.working.values()]
    begun += [m.since for m in census.awaited.values()]
    begun += [i.since for i in (*census.surging.values(), *census.booting.values())]
    if not begun:
        return None
    policy = fleet.upgrade.policy if fleet.upgrade else fleet.spec.policy
    limit = timedelta(seconds=min(policy.provisioning_timeout, policy.health_timeout))
    return min(begun) + min(limit, shortest)


def _with_deadline(fleet: Fleet) -> Iterator[Instance]:
    yield from fleet.census.working.values()
    awaited = fleet.census.awaited
    yield from (i for i in fleet.census.booting.values() if i.id not in awaited)
    for instance in fleet.census.surging.values():
        if instance.booting:
            continue
        if instance.phase is InstancePhase.READY and not instance.is_healthy:
            yield instance
    for member in fleet.census.awaited.values():
        found = fleet.instances.get(member.id)
        if found is not None and found.phase is InstancePhase.READY:
            yield found


# --- health ---------------------------------------------------------------------------------------


def judge_without_probe(fleet: Fleet) -> list[e.Event]:
    """Without a probe: running, with every extension provisioned, is healthy (M30)."""
    if fleet.spec.probe is not None:
        return []
    verdicts: list[e.Event] = []
    for instance in fleet.instances.values():
        if not is_probed(instance) or (
            instance.error is not None and instance.error.code == FailureCode.HEALTH_TIMEOUT
        ):
            continue
        running = instance.power is Power.RUNNING
        if running == (instance.health is Health.HEALTHY) and instance.health is not Health.UNKNOWN:
            continue
        verdict = e.InstanceHealthy if running else e.InstanceUnhealthy
        verdicts.append(
            verdict(
                scale_set=fleet.spec.scale_set,
                instance_id=instance.id,
                attempt=instance.attempt,
                lease=instance.lease,
                reason=f"no probe; power state is {instance.power.value}, extensions succeeded",
            )
        )
    return verdicts


def request_probes(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Have every provisioned instance probed, for a lease at a time (M31)."""
    probe = fleet.spec.probe
    census = fleet.census
    if probe is None or census.next_probe is None or census.next_probe - RENEWAL > now:
        return []
    due = [
        instance
        for instance in fleet.instances.values()
        if is_probed(instance) and probe_due(instance) - RENEWAL <= now
    ]
    awaited = [i for i in due if i.health is Health.UNKNOWN]
    known = [i for i in due if i.health is not Health.UNKNOWN]
    return [
        e.ProbeRequested(
            scale_set=fleet.spec.scale_set,
            probe=probe,
            targets=tuple(
                e.ProbeTarget(
                    instance_id=instance.id,
                    attempt=instance.attempt,
                    lease=_next_lease(instance, now),
                    address=instance.address or "",
                    port=instance.port or probe.port,
                    health=instance.health,
                    phase_ordering_number=instance.phase_order,
                    skip_upgrade=instance.skip_upgrade,
                )
                for instance in group[start : start + TARGETS]
            ),
            until=now + lease_length(probe),
            fast=fast,
            reason="health is awaited" if fast else "the lease of probing ends",
        )
        for group, fast in ((awaited, True), (known, False))
        for start in range(0, len(group), TARGETS)
    ]


def lease_length(probe: Probe) -> timedelta:
    """Return how long a prober is asked for: long enough for the probe to change its mind."""
    needed = timedelta(seconds=probe.interval * (probe.number_of_probes + 1))
    return min(max(LEASE, needed), LONGEST_LEASE)


def _next_lease(instance: Instance, now: datetime) -> int:
    """Return a number above all earlier ones, also of an instance of a deleted set's name."""
    return max(instance.lease + 1, int(now.timestamp()))


def commit(fleet: Fleet) -> list[e.Event]:
    """Let the previous OS disks of healthy instances go, once their batch has ended."""
    upgrade = fleet.upgrade
    open_batches = upgrade.open_batches if upgrade is not None else {}
    members = upgrade.members if upgrade is not None else {}
    healthy = [
        instance
        for instance in fleet.census.uncommitted.values()
        if instance.is_healthy
        and not ((member := members.get(instance.id)) is not None and member.batch in open_batches)
    ]
    return [
        e.InstancesCommitRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            reason="healthy: the previous OS disk is no longer needed",
        )
        for host, orders in by_host(healthy, next_attempt=False)
    ]
