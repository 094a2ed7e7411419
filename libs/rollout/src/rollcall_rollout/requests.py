"""What a request to an agent or a prober does to the state: the asking itself is part of it."""

from datetime import datetime
from typing import Any

from rollcall_contracts import events as e
from rollcall_contracts.model import Health, PowerAction, PowerWish

from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.powering import note_request
from rollcall_rollout.state import Instance, InstancePhase, Member, MemberState, MetricCheck

Request = e.HostRequest | e.ImageFetchRequested | e.ProbeRequested | e.MetricQueryRequested


def apply_request(draft: Draft, event: Request, now: datetime) -> None:
    """Note in the draft what was asked, and under which attempt or lease."""
    match event:
        case e.ImageFetchRequested():
            if draft.upgrade is not None:
                draft.put_upgrade(fetches={**draft.upgrade.fetches, event.host: False})
        case e.MetricQueryRequested():
            if draft.upgrade is not None and draft.upgrade.id == event.upgrade_id:
                draft.put_upgrade(check=MetricCheck(number=event.check, asked_at=now))
        case e.ProbeRequested():
            for target in event.targets:
                if (instance := draft.instance(target.instance_id)) is not None:
                    draft.put_instance(
                        replace(instance, lease=target.lease, probed_until=event.until)
                    )
        case e.InstancesCreateRequested():
            for order in event.instances:
                _request_creation(draft, order, event, now)
        case e.HostRequest():
            for order in event.instances:
                if (instance := draft.instance(order.instance_id)) is not None:
                    _request_change(draft, instance, order, event, now)


def _request_creation(
    draft: Draft, order: e.InstanceOrder, event: e.InstancesCreateRequested, now: datetime
) -> None:
    zones = draft.get("spec").zones
    number = int(order.instance_id)
    known = draft.instance(order.instance_id)
    zone = zones[number % len(zones)] if zones else None
    old = draft.instance(order.replaces) if order.replaces is not None else None
    if old is not None:
        zone = old.zone
    draft.put_instance(
        Instance(
            id=order.instance_id,
            host=event.host,
            attempt=order.attempt,
            phase=InstancePhase.CREATING,
            since=now,
            created_at=known.created_at if known else now,
            zone=zone,
            replaces=order.replaces,
            previous_version=_way_back(draft, old, event.image.version),
            # What a person protected stays protected, also when its creation is tried again.
            protect_from_scale_in=known is not None and known.protect_from_scale_in,
            protect_from_scale_set_actions=(
                known is not None and known.protect_from_scale_set_actions
            ),
            **_wishes(known),
        )
    )
    replaced = draft.member(order.replaces) if order.replaces is not None else None
    if replaced is not None:
        draft.put_member(replace(replaced, state=MemberState.SURGING, since=now))
    if known is None and (held := draft.get("held")) is not None and not held[0]:
        draft.put(held=None)  # what was missing is there
    draft.put(next_id=max(draft.get("next_id"), number + 1))
    room = draft.get("room")
    if known is None and event.host in room:
        draft.put(room={**room, event.host: max(0, room[event.host] - 1)})


def _way_back(draft: Draft, old: Instance | None, version: str) -> str | None:
    """Return the version that a rollback would bring the successor of an instance back to."""
    upgrade = draft.upgrade
    if old is None or (upgrade is not None and upgrade.rollback_of is not None):
        return None  # never in a loop
    return old.previous_version if version == old.version else old.version


def _wishes(known: Instance | None) -> dict[str, Any]:
    """Return what a person wants of power, to be seen to when the instance is there."""
    if known is None:
        return {}
    off = known.wish is not PowerWish.RUNNING
    return {
        "wish": known.wish,
        "power_number": known.power_number,
        "power_due": PowerAction.POWER_OFF if off else None,
        "reimage_number": known.reimage_number,
    }


def _request_change(
    draft: Draft,
    instance: Instance,
    order: e.InstanceOrder,
    event: e.HostRequest,
    now: datetime,
) -> None:
    member = draft.member(instance.id)
    match event:
        case e.InstancesUpgradeRequested():
            draft.put_instance(
                _taken_down(
                    instance,
                    order,
                    now,
                    phase=InstancePhase.UPGRADING,
                    uncommitted=True,
                    reimage=False,
                    booting=event.upgrade_id is None,
                )
            )
            if member is not None and event.upgrade_id is not None:
                draft.put_member(replace(member, state=MemberState.UPGRADING, since=now))
        case e.InstancesRestoreRequested():
            draft.put_instance(_taken_down(instance, order, now, phase=InstancePhase.RESTORING))
            if member is not None:
                draft.put_member(replace(member, state=MemberState.RESTORING, since=now))
        case e.InstancesCommitRequested():
            draft.put_instance(replace(instance, uncommitted=False))
        case e.InstancesPowerRequested():
            note_request(draft, instance, order.attempt, event.change, now)
        case e.InstancesDeleteRequested():
            draft.put_instance(_taken_down(instance, order, now, phase=InstancePhase.DELETING))
            _leave(draft, instance, now)


def _taken_down(
    instance: Instance, order: e.InstanceOrder, now: datetime, **changes: Any
) -> Instance:
    """Return an instance that its agent was asked to take down; all at once, as copies cost."""
    down = {"attempt": order.attempt, "since": now, "error": None}
    down |= {"health": Health.UNKNOWN, "probed_until": None, "deploy": False, "booting": False}
    return replace(instance, **{**down, **changes})


def _leave(draft: Draft, instance: Instance, now: datetime) -> None:
    """Note in the upgrade that an instance goes; one whose place is taken has succeeded.

    What a person protected stays protected, by whichever instance has the place.
    """
    if instance.replaces is not None:
        _lose_successor(draft, instance, draft.member(instance.replaces), now)
    member = draft.member(instance.id)
    if member is None:
        return
    successor = draft.instance(member.replacement) if member.replacement else None
    if member.state is MemberState.SURGING and successor is not None and successor.is_healthy:
        draft.put_member(replace(member, state=MemberState.SUCCEEDED, since=now))
        draft.put_instance(
            replace(
                successor,
                replaces=None,
                protect_from_scale_in=(
                    successor.protect_from_scale_in or instance.protect_from_scale_in
                ),
                protect_from_scale_set_actions=(
                    successor.protect_from_scale_set_actions
                    or instance.protect_from_scale_set_actions
                ),
            )
        )
    else:
        draft.drop_member(instance.id)


def _lose_successor(
    draft: Draft, successor: Instance, member: Member | None, now: datetime
) -> None:
    """Leave an instance out whose successor is deleted: that says nothing of the version."""
    if member is not None and member.state is MemberState.SURGING:
        reason = f"instance {successor.id}, which was to take its place, is deleted"
        draft.put_member(replace(member, state=MemberState.SKIPPED, since=now, reason=reason))
