"""The rules of a set's size: create what is missing, delete what is too much, deploy the model."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Image

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.orders import by_host
from rollcall_rollout.placing import hosts_with_room, place
from rollcall_rollout.state import IN_FLIGHT, Instance, InstancePhase

RETRY = timedelta(seconds=60)  # between attempts to create or delete an instance


def resize(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Create what is missing and delete what is too much."""
    if fleet.deleted:
        return _delete(fleet, list(fleet.instances.values()), now, "the scale set was deleted")
    stuck = [i for i in fleet.census.working.values() if i.phase is InstancePhase.DELETING]
    staying = count_staying(fleet)
    surplus = staying - fleet.spec.capacity
    if surplus > 0:
        reason = f"{staying} instances > capacity {fleet.spec.capacity}"
        stuck = [*stuck, *_least_useful(fleet)[:surplus]]
        return _delete(fleet, stuck, now, reason)
    return [
        *_delete(fleet, stuck, now, "deletion is asked for again"),
        *_create(fleet, staying, now),
    ]


def count_staying(fleet: Fleet) -> int:
    """Return how many instances count towards the capacity: neither leaving nor only of a surge."""
    census = fleet.census
    leaving = {i.id for i in census.working.values() if i.phase is InstancePhase.DELETING}
    leaving |= {id for id in fleet.spec.leaving if id in fleet.instances}
    return len(fleet.instances) - len(leaving | census.surging.keys())


def dismiss(fleet: Fleet) -> list[e.Event]:
    """Delete the very instances that a person deleted, whatever else goes on with them."""
    named = [fleet.instances[id] for id in fleet.spec.leaving if id in fleet.instances]
    there = (i for i in named if i.phase is not InstancePhase.DELETING)
    return [
        e.InstancesDeleteRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            drain=fleet.spec.policy.drain,
            reason="a person deleted them",
        )
        for host, orders in by_host(there, next_attempt=True)
    ]


def _least_useful(fleet: Fleet) -> list[Instance]:
    """Return who may go: unhealthy ones first, then those powered off, then the newest.

    None that a batch has in flight, and none that is protected (azure-aws-gcp.md 1.8).
    """
    members = fleet.upgrade.members if fleet.upgrade else {}
    free = (
        instance
        for instance in fleet.instances.values()
        if instance.phase is not InstancePhase.DELETING
        and instance.replaces is None
        and not instance.protect_from_scale_in
        and not instance.protect_from_scale_set_actions
        and instance.id not in fleet.spec.leaving
        and (instance.id not in members or members[instance.id].state not in IN_FLIGHT)
    )
    return sorted(free, key=lambda i: (i.is_healthy, i.is_parked, -int(i.id)))


def _delete(
    fleet: Fleet, instances: Sequence[Instance], now: datetime, reason: str
) -> list[e.Event]:
    due = [
        instance
        for instance in instances
        if instance.phase is not InstancePhase.DELETING or now >= deletion_retry(fleet, instance)
    ]
    return [
        e.InstancesDeleteRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            drain=None if fleet.deleted else fleet.spec.policy.drain,
            reason=reason,
        )
        for host, orders in by_host(due, next_attempt=True)
    ]


def deletion_retry(fleet: Fleet, instance: Instance) -> datetime:
    """Return when a deletion is asked for again: not while the instance may still be draining."""
    drains = [
        policy.drain.deadline
        for policy in (fleet.spec.policy, fleet.upgrade.policy if fleet.upgrade else None)
        if policy is not None and policy.drain is not None
    ]
    return instance.since + RETRY + timedelta(seconds=max(drains, default=0))


def _create(fleet: Fleet, staying: int, now: datetime) -> list[e.Event]:
    image = fleet.image_of_new(now)
    missing = fleet.spec.capacity - staying
    held = _hold(fleet, missing, image)
    if image is None:
        return held
    retried = [i for i in fleet.census.working.values() if _creation_due(i, now)]
    wanted = [(i.host, i.id, i.attempt + 1) for i in retried]
    if missing > 0:
        wanted += [(host, id, 1) for host, id in place(fleet, missing)]
    return [
        *held,
        *_requests(fleet, image, wanted, staying),
    ]


def _requests(
    fleet: Fleet, image: Image, wanted: list[tuple[str, str, int]], staying: int
) -> list[e.Event]:
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
            reason=f"{staying} instances < capacity {fleet.spec.capacity}"
            if any(attempt == 1 for _, _, attempt in wanted)
            else "creation is tried again",
        )
        for host in sorted({host for host, _, _ in wanted})
    ]


def _hold(fleet: Fleet, missing: int, image: Image | None) -> list[e.Event]:
    """Say once why instances are missing and none is made."""
    error = why_missing(fleet, image) if missing > 0 else None
    if error is None:
        return []
    if fleet.held is not None and (fleet.held[0] or fleet.held[1].code == error.code):
        return []  # said already, or what holds an upgrade is more important
    return [
        e.ScaleSetHeld(
            scale_set=fleet.spec.scale_set,
            error=error,
            reason=f"{missing} instances are missing",
        )
    ]


def why_missing(fleet: Fleet, image: Image | None) -> Failure | None:
    """Return why no instance can be made now, if so."""
    if image is None:
        wanted = fleet.spec.image
        return Failure(
            code="ImageNotFound",
            message=(
                f"No version of {wanted.publisher}/{wanted.offer}/{wanted.sku} matches "
                f"'{wanted.version}': publish one in a feed, or correct the image reference."
            ),
        )
    if hosts_with_room(fleet):
        return None
    message = "No host has room for another instance: add a host."
    if not fleet.hosts:
        message = "No agent has reported lately: start one."
    return Failure(code="NoHostAvailable", message=message)


def creation_retry(instance: Instance) -> datetime | None:
    """Return when a failed creation is tried again; refused credentials wait for a deployment."""
    if instance.phase is not InstancePhase.FAILED or instance.version is not None:
        return None
    if instance.replaces is not None:
        return None  # of a surge: it goes instead
    if instance.error is not None and instance.error.code == FailureCode.CREDENTIALS:
        return None
    return instance.since + RETRY


def _creation_due(instance: Instance, now: datetime) -> bool:
    if instance.phase is InstancePhase.FAILED and instance.version is None and instance.deploy:
        return True
    retry = creation_retry(instance)
    return retry is not None and now >= retry


def deploy(fleet: Fleet) -> list[e.Event]:
    """Bring the instances that a person named to the model, failed ones too (M41).

    While an upgrade runs it waits: two hands on one instance is what must never be. No instance
    comes to a version that is held: where all are, only those that run the latest get it anew.
    """
    image, hold = fleet.image_to_deploy, fleet.hold_on_deployment
    if image is None or fleet.upgrade is not None:
        return []
    named = [
        instance
        for instance in fleet.census.deploying.values()
        if not instance.is_busy
        and instance.version is not None
        and not instance.is_parked
        and (hold is None or instance.version == image.version)
    ]
    return [
        e.InstancesUpgradeRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            image=image,
            provisioning=fleet.spec.provisioning,
            drain=fleet.spec.policy.drain,
            reason="deployment of the model was asked for",
        )
        for host, orders in by_host(named, next_attempt=True)
    ]
