"""The rules of single instances, upgrade or not: deadlines, health, size of the set, deployment."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Health, Power

from rollcall_rollout.orders import by_host
from rollcall_rollout.state import (
    IN_FLIGHT,
    Fleet,
    Instance,
    InstancePhase,
    MemberState,
)

LEASE = timedelta(
    minutes=10
)  # a prober keeps a delivery so long: well below the broker's own limit
RENEWAL = timedelta(seconds=15)  # before a lease ends, the next one is asked for
TARGETS = 200  # of one probe request
RETRY = timedelta(seconds=60)  # between attempts to create or delete an instance


# --- deadlines ------------------------------------------------------------------------------------


def deadline(fleet: Fleet, instance: Instance) -> datetime | None:
    """Return when an instance is given up: its agent silent, or not healthy in time (M13)."""
    policy = fleet.upgrade.policy if fleet.upgrade else fleet.spec.policy
    match instance.phase:
        case InstancePhase.CREATING | InstancePhase.UPGRADING | InstancePhase.RESTORING:
            return instance.since + timedelta(seconds=policy.provisioning_timeout)
        case InstancePhase.READY:
            member = fleet.upgrade.members.get(instance.id) if fleet.upgrade else None
            if member is not None and member.state is MemberState.PROVISIONED:
                return member.since + timedelta(seconds=policy.health_timeout)
    return None


def fail_overdue(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Fail the instances whose time is up."""
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


def _with_deadline(fleet: Fleet) -> Iterator[Instance]:
    waiting = fleet.upgrade.members if fleet.upgrade else {}
    for instance in fleet.instances.values():
        if instance.phase is InstancePhase.READY:
            member = waiting.get(instance.id)
            if member is not None and member.state is MemberState.PROVISIONED:
                yield instance
        elif instance.phase is not InstancePhase.FAILED:
            yield instance


# --- health ---------------------------------------------------------------------------------------


def judge_without_probe(fleet: Fleet) -> list[e.Event]:
    """Without a probe: running, with every extension provisioned, is healthy (M30)."""
    if fleet.spec.probe is not None:
        return []
    verdicts: list[e.Event] = []
    for instance in fleet.instances.values():
        if instance.phase is not InstancePhase.READY or (
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
    if probe is None:
        return []
    due = [
        instance
        for instance in fleet.instances.values()
        if instance.phase is InstancePhase.READY and _probe_due(instance) <= now
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
                    lease=instance.lease + 1,
                    address=instance.address or "",
                    port=instance.port or probe.port,
                    health=instance.health,
                )
                for instance in group[start : start + TARGETS]
            ),
            until=now + LEASE,
            fast=fast,
            reason="health is awaited" if fast else "the lease of probing ends",
        )
        for group, fast in ((awaited, True), (known, False))
        for start in range(0, len(group), TARGETS)
    ]


def _probe_due(instance: Instance) -> datetime:
    return instance.probed_until - RENEWAL if instance.probed_until else instance.since


def commit(fleet: Fleet) -> list[e.Event]:
    """Let the previous OS disks of healthy instances go, once their batch has ended."""
    upgrade = fleet.upgrade
    open_batch = upgrade.batch if upgrade is not None and upgrade.batch_open else None
    members = upgrade.members if upgrade is not None else {}
    healthy = [
        instance
        for instance in fleet.instances.values()
        if instance.uncommitted
        and instance.is_healthy
        and not (
            open_batch is not None
            and (member := members.get(instance.id)) is not None
            and member.batch == open_batch
        )
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


# --- the size of the set --------------------------------------------------------------------------


def resize(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Create what is missing and delete what is too much."""
    if fleet.deleted:
        return _delete(fleet, list(fleet.instances.values()), now, "the scale set was deleted")
    staying = [i for i in fleet.instances.values() if i.phase is not InstancePhase.DELETING]
    stuck = [i for i in fleet.instances.values() if i.phase is InstancePhase.DELETING]
    surplus = len(staying) - fleet.spec.capacity
    if surplus > 0:
        reason = f"{len(staying)} instances > capacity {fleet.spec.capacity}"
        stuck = [*stuck, *_least_useful(fleet, staying)[:surplus]]
        return _delete(fleet, stuck, now, reason)
    return [*_delete(fleet, stuck, now, "deletion is asked for again"), *_create(fleet, now)]


def _least_useful(fleet: Fleet, instances: Sequence[Instance]) -> list[Instance]:
    """Return who may go, unhealthy ones first, then the newest; none that a batch has in flight."""
    members = fleet.upgrade.members if fleet.upgrade else {}
    free = (
        instance
        for instance in instances
        if instance.id not in members or members[instance.id].state not in IN_FLIGHT
    )
    return sorted(free, key=lambda instance: (instance.is_healthy, -int(instance.id)))


def _delete(
    fleet: Fleet, instances: Sequence[Instance], now: datetime, reason: str
) -> list[e.Event]:
    due = [
        instance
        for instance in instances
        if instance.phase is not InstancePhase.DELETING or now >= instance.since + RETRY
    ]
    return [
        e.InstancesDeleteRequested(
            scale_set=fleet.spec.scale_set, host=host, instances=orders, reason=reason
        )
        for host, orders in by_host(due, next_attempt=True)
    ]


def _create(fleet: Fleet, now: datetime) -> list[e.Event]:
    image = fleet.wanted_image
    if image is None:
        return []
    retried = [i for i in fleet.instances.values() if _creation_due(i, now)]
    wanted = [(i.host, i.id, i.attempt + 1) for i in retried]
    staying = [i for i in fleet.instances.values() if i.phase is not InstancePhase.DELETING]
    missing = fleet.spec.capacity - len(staying)
    if missing > 0 and fleet.hosts:
        load = Counter({host: 0 for host in fleet.hosts})
        load.update(i.host for i in staying if i.host in load)
        for number in range(fleet.next_id, fleet.next_id + missing):
            host = min(load, key=lambda name: (load[name], name))
            load[host] += 1
            wanted.append((host, str(number), 1))
    hosts = sorted({host for host, _, _ in wanted})
    return [
        e.InstancesCreateRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=tuple(
                e.InstanceOrder(instance_id=id, attempt=attempt)
                for owner, id, attempt in wanted
                if owner == host
            ),
            image=image,
            provisioning=fleet.spec.provisioning,
            reason=f"{len(staying)} instances < capacity {fleet.spec.capacity}"
            if missing > 0
            else "creation is tried again",
        )
        for host in hosts
    ]


def creation_retry(instance: Instance) -> datetime | None:
    """Return when a failed creation is tried again; refused credentials wait for a deployment."""
    if instance.phase is not InstancePhase.FAILED or instance.version is not None:
        return None
    if instance.error is not None and instance.error.code == FailureCode.CREDENTIALS:
        return None
    return instance.since + RETRY


def _creation_due(instance: Instance, now: datetime) -> bool:
    if instance.phase is InstancePhase.FAILED and instance.version is None and instance.deploy:
        return True
    retry = creation_retry(instance)
    return retry is not None and now >= retry


# --- deployment of the model ----------------------------------------------------------------------


def deploy(fleet: Fleet) -> list[e.Event]:
    """Bring the instances that a person named to the model, failed ones too (M41).

    While an upgrade runs it waits: two hands on one instance is what must never be.
    """
    image = fleet.wanted_image
    if image is None or fleet.upgrade is not None:
        return []
    named = [
        instance
        for instance in fleet.instances.values()
        if instance.deploy and not instance.is_busy and instance.version is not None
    ]
    return [
        e.InstancesUpgradeRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            image=image,
            provisioning=fleet.spec.provisioning,
            reason="deployment of the model was asked for",
        )
        for host, orders in by_host(named, next_attempt=True)
    ]
