"""Power as people want it: instances that are started, stopped and restarted by hand.

What a person stopped stays stopped, over restarts of everything, until a person starts it. It is
left out of upgrades meanwhile, and follows by an upgrade of its own once it runs again.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, get_args

from rollcall_contracts import events as e
from rollcall_contracts.model import FailureCode, Health, Power, PowerAction, PowerWish

from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.orders import by_host
from rollcall_rollout.state import IN_FLIGHT, Instance, InstancePhase

Asked = Literal[PowerAction.START, PowerAction.RESTART, PowerAction.POWER_OFF]
ASKED: tuple[Asked, ...] = get_args(Asked)

WISHES: Mapping[PowerAction, PowerWish] = {
    PowerAction.START: PowerWish.RUNNING,
    PowerAction.RESTART: PowerWish.RUNNING,
    PowerAction.REDEPLOY: PowerWish.RUNNING,
    PowerAction.POWER_OFF: PowerWish.STOPPED,
    PowerAction.DEALLOCATE: PowerWish.DEALLOCATED,
}


def note_wish(draft: Draft, event: e.PowerChangeRequested) -> None:
    """Note what a person wants of instances' power; what is older than a wish known is late."""
    for id in event.instance_ids:
        instance = draft.instance(id)
        if instance is None or instance.phase is InstancePhase.DELETING:
            continue
        if event.number > instance.power_number:
            draft.put_instance(
                replace(
                    instance,
                    power_number=event.number,
                    wish=WISHES[event.change],
                    power_due=_due(instance, event.change),
                )
            )


def _due(instance: Instance, action: PowerAction) -> PowerAction | None:
    """Return what the agent is to be asked for that, if anything."""
    match action:
        case PowerAction.RESTART | PowerAction.REDEPLOY:
            return PowerAction.RESTART
        case PowerAction.POWER_OFF | PowerAction.DEALLOCATE:
            off = instance.phase is InstancePhase.READY and instance.power is Power.STOPPED
            return None if instance.is_parked and off else PowerAction.POWER_OFF
    runs = instance.phase is InstancePhase.READY and instance.power is Power.RUNNING
    if instance.power_due is PowerAction.RESTART:
        return PowerAction.RESTART
    if (runs and not instance.is_parked) or instance.version is None:
        return None
    return PowerAction.START


def change_power(fleet: Fleet) -> list[e.Event]:
    """Ask the agents for what people want of power, as soon as nobody else has a hand on it."""
    due = [i for i in fleet.census.power_due.values() if may_change(fleet, i)]
    return [
        e.InstancesPowerRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            change=action,
            drain=None if action is PowerAction.START else fleet.spec.policy.drain,
            reason=f"{action.value} was asked for",
        )
        for action in ASKED
        for host, orders in by_host((i for i in due if i.power_due is action), next_attempt=True)
    ]


def may_change(fleet: Fleet, instance: Instance) -> bool:
    """Say whether power may be changed now: not while an agent or a batch has it in hand."""
    member = fleet.upgrade.members.get(instance.id) if fleet.upgrade is not None else None
    return (
        not instance.is_busy
        and instance.version is not None
        and instance.replaces is None
        and (member is None or member.state not in IN_FLIGHT)
    )


def note_request(
    draft: Draft, instance: Instance, attempt: int, action: PowerAction, now: datetime
) -> None:
    """Note that an agent was asked to change the power of an instance."""
    draft.put_instance(
        replace(
            instance,
            attempt=attempt,
            phase=InstancePhase.POWERING,
            since=now,
            health=Health.UNKNOWN,
            probed_until=None,
            power_due=None,
            booting=action is not PowerAction.POWER_OFF,
            # What failed before has failed still: a start does not run its extensions.
            error=instance.error if has_failed(instance) else None,
        )
    )


def note_power(draft: Draft, instance: Instance, event: e.InstancePowered, now: datetime) -> None:
    """Note that an instance was started, stopped or restarted, in time or not."""
    if instance.phase not in (InstancePhase.POWERING, InstancePhase.FAILED):
        return
    failed = has_failed(instance)
    draft.put_instance(
        replace(
            instance,
            phase=InstancePhase.FAILED if failed else InstancePhase.READY,
            since=now,
            power=event.power,
            health=Health.UNKNOWN,
            probed_until=None,
            address=event.address,
            port=event.port,
            error=instance.error if failed else None,
        )
    )


def has_failed(instance: Instance) -> bool:
    """Say whether something else than a change of power failed in the instance."""
    passing = (FailureCode.POWER, FailureCode.HEALTH_TIMEOUT)
    return instance.error is not None and instance.error.code not in passing
