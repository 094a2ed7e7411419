"""What is under way in a fleet that a run begins with: asked of somebody, and not answered yet."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import Image, PowerAction
from rollcall_rollout import Fleet, Instance, InstancePhase, MemberState
from rollcall_rollout.gates import newcomers
from rollcall_rollout.state import Hook

Request = (
    e.InstancesCreateRequested
    | e.InstancesUpgradeRequested
    | e.InstancesRestoreRequested
    | e.InstancesPowerRequested
    | e.InstancesDeleteRequested
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Underway:
    """A question and when it was asked, or a request and when it was met: the instance boots."""

    at: datetime
    event: e.Event
    booted: bool = False  # the report is there, and the application is not healthy yet


def underway(fleet: Fleet, now: datetime) -> Iterator[Underway]:
    """Yield what somebody still has to answer."""
    for instance in fleet.instances.values():
        yield from _of_instance(fleet, instance, now)
    upgrade, scale_set = fleet.upgrade, fleet.spec.scale_set
    if fleet.hook is not None and not fleet.hook.completed:
        yield Underway(at=fleet.hook.created_at, event=_asked_by(fleet.hook, scale_set))
    if upgrade is None:
        return
    for host, fetched in upgrade.fetches.items():
        if not fetched:
            fetch = e.ImageFetchRequested(
                scale_set=scale_set, host=host, upgrade_id=upgrade.id, image=upgrade.image
            )
            yield Underway(at=upgrade.started_at, event=fetch)
    gate, check = upgrade.policy.metric_gate, upgrade.check
    if gate is not None and check is not None and check.outcome is None:
        query = e.MetricQueryRequested(
            scale_set=scale_set, upgrade_id=upgrade.id, check=check.number, gate=gate
        )
        yield Underway(at=check.asked_at, event=query)


def _of_instance(fleet: Fleet, instance: Instance, now: datetime) -> Iterator[Underway]:
    request = _request(fleet, instance, now)
    if request is not None:
        booted = instance.phase is InstancePhase.READY
        yield Underway(at=instance.since, event=request, booted=booted)


def _request(fleet: Fleet, instance: Instance, now: datetime) -> Request | None:
    """Return the request that an instance is at work on, or boots after."""
    upgrade = fleet.upgrade
    member = upgrade.members.get(instance.id) if upgrade is not None else None
    order = e.InstanceOrder(
        instance_id=instance.id, attempt=instance.attempt, replaces=instance.replaces
    )
    said: dict[str, object] = {
        "scale_set": fleet.spec.scale_set,
        "host": instance.host,
        "instances": (order,),
    }
    state = member.state if member is not None else None
    boots = instance.phase is InstancePhase.READY and not instance.is_healthy
    if instance.phase is InstancePhase.DELETING:
        return e.InstancesDeleteRequested.model_validate(said)
    if instance.phase is InstancePhase.POWERING:
        off = instance.is_parked
        change = PowerAction.POWER_OFF if off else PowerAction.RESTART
        return e.InstancesPowerRequested.model_validate({**said, "change": change})
    if boots and instance.is_parked:
        return None  # it stays so until a person starts it
    if instance.phase is InstancePhase.RESTORING or (boots and state is MemberState.RESTORED):
        return e.InstancesRestoreRequested.model_validate(said)
    if instance.phase is InstancePhase.UPGRADING or (boots and state is MemberState.PROVISIONED):
        part = upgrade is not None and state in (MemberState.UPGRADING, MemberState.PROVISIONED)
        image = upgrade.image if upgrade is not None and part else fleet.wanted_image
        mine = {"upgrade_id": upgrade.id} if upgrade is not None and part else {}
        return _with_image(e.InstancesUpgradeRequested, fleet, image, {**said, **mine})
    new = boots and (instance.replaces is not None or _is_new(fleet, instance, now))
    if instance.phase is InstancePhase.CREATING or new:
        replaces = instance.replaces is not None and upgrade is not None
        image = upgrade.image if replaces and upgrade is not None else fleet.image_of_new(now)
        return _with_image(e.InstancesCreateRequested, fleet, image, said)
    return None


def _is_new(fleet: Fleet, instance: Instance, now: datetime) -> bool:
    policy = fleet.upgrade.policy if fleet.upgrade is not None else fleet.spec.policy
    return instance.id in newcomers(fleet, policy, now)


def _with_image(
    cls: type[e.InstancesUpgradeRequested] | type[e.InstancesCreateRequested],
    fleet: Fleet,
    image: Image | None,
    said: dict[str, object],
) -> Request | None:
    """Return a request for an image; None where that is no longer known: nobody answers then."""
    if image is None:
        return None
    return cls.model_validate({**said, "image": image, "provisioning": fleet.spec.provisioning})


def _asked_by(hook: Hook, scale_set: str) -> e.LifecycleHookStarted:
    targets = tuple(target for target in hook.targets if target != "*")
    return e.LifecycleHookStarted(
        scale_set=scale_set,
        hook_id=hook.id,
        hook_type=hook.type,
        upgrade_id=hook.upgrade_id,
        version=hook.version,
        instance_ids=targets,
        wait_until=hook.wait_until,
        max_wait_until=hook.max_wait_until,
        default_action=hook.default_action,
    )
