"""What a report of an agent or a prober does to the state; another attempt's reports do nothing."""

from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Health, Power

from rollcall_rollout.copying import replace
from rollcall_rollout.draft import Draft
from rollcall_rollout.powering import note_power
from rollcall_rollout.state import Instance, InstancePhase, MemberState


def apply_report(draft: Draft, event: e.InstanceReport, now: datetime) -> None:
    """Fold one report into the draft."""
    instance = draft.instance(event.instance_id)
    if instance is None or instance.attempt != event.attempt:
        return  # of another attempt: what it says is no longer so
    match event:
        case e.InstanceCreated() | e.InstanceUpgraded() | e.InstanceRestored():
            _provisioned(draft, instance, event, now)
        case e.InstancePowered():
            note_power(draft, instance, event, now)
        case e.InstanceDeleted():
            if instance.phase is InstancePhase.DELETING:
                draft.drop_instance(instance.id)
        case e.InstanceFailed():
            _failed(draft, instance, event, now)
        case e.InstancePowerChanged():
            _power(draft, instance, event.power, now)
        case e.InstanceHealthy():
            _health(draft, instance, Health.HEALTHY, event, now)
        case e.InstanceUnhealthy():
            _health(draft, instance, event.health, event, now)


_DONE = {
    e.InstanceCreated: InstancePhase.CREATING,
    e.InstanceUpgraded: InstancePhase.UPGRADING,
    e.InstanceRestored: InstancePhase.RESTORING,
}
# Of others, also of those whose turn is still to come, it was no operation of the upgrade.
_GONE_ON = {
    MemberState.UPGRADING: MemberState.PROVISIONED,
    MemberState.RESTORING: MemberState.RESTORED,
}


def _provisioned(
    draft: Draft,
    instance: Instance,
    event: e.InstanceCreated | e.InstanceUpgraded | e.InstanceRestored,
    now: datetime,
) -> None:
    # FAILED too: a success that comes after the time limit is true of the instance all the same,
    # but its part in the upgrade stays failed.
    if instance.phase not in (_DONE[type(event)], InstancePhase.FAILED):
        return
    draft.put_instance(
        replace(
            instance,
            phase=InstancePhase.READY,
            since=now,
            version=event.version,
            generation=event.generation,
            address=event.address,
            port=event.port,
            power=Power.RUNNING,
            health=Health.UNKNOWN,
            probed_until=None,
            uncommitted=instance.uncommitted and not isinstance(event, e.InstanceRestored),
            error=None,
            previous_version=_previous(draft, instance, event),
        )
    )
    member = draft.member(instance.id)
    if member is not None and member.state in _GONE_ON:
        # What the agent says of the boot that it gave up: nobody else saw why it failed.
        state = _GONE_ON[member.state]
        words = (member.reason, event.reason if state is MemberState.RESTORED else "")
        reason = "; ".join(filter(None, words))
        draft.put_member(replace(member, state=state, since=now, reason=reason))


def _previous(
    draft: Draft,
    instance: Instance,
    event: e.InstanceCreated | e.InstanceUpgraded | e.InstanceRestored,
) -> str | None:
    """Return the version that a rollback would bring the instance back to."""
    upgrade = draft.upgrade
    if isinstance(event, e.InstanceCreated):
        return instance.previous_version  # of a surge: what ran in its place
    if isinstance(event, e.InstanceRestored):
        return None
    if upgrade is not None and upgrade.rollback_of is not None:
        return None  # never in a loop
    return instance.previous_version if event.version == instance.version else instance.version


def _left_behind(draft: Draft, instance: Instance, event: e.InstanceFailed) -> str | None:
    """Return the version before, when the new OS disk is in place though it does not work."""
    upgrade = draft.upgrade
    changed = event.version is not None and event.version != instance.version
    if instance.phase is InstancePhase.UPGRADING and changed:
        back = upgrade is not None and upgrade.rollback_of is not None
        return None if back else instance.version  # never in a loop
    return instance.previous_version


def _failed(draft: Draft, instance: Instance, event: e.InstanceFailed, now: datetime) -> None:
    member = draft.member(instance.id)
    if event.error.code == FailureCode.HEALTH_TIMEOUT:
        # The instance itself works as far as its agent knows: only its application does not answer.
        draft.put_instance(
            replace(instance, error=event.error, health=Health.UNHEALTHY, booting=False)
        )
    elif instance.phase is InstancePhase.DELETING:
        draft.put_instance(replace(instance, error=event.error))
    elif instance.phase is InstancePhase.POWERING:
        error = instance.error or event.error.model_copy(update={"code": FailureCode.POWER})
        draft.put_instance(
            replace(instance, phase=InstancePhase.FAILED, since=now, error=error, booting=False)
        )
    elif instance.is_busy:
        draft.put_instance(
            replace(
                instance,
                phase=InstancePhase.FAILED,
                since=now,
                error=event.error,
                booting=False,
                version=event.version or instance.version,
                previous_version=_left_behind(draft, instance, event),
            )
        )
    else:
        return
    if instance.replaces is not None:
        member = draft.member(instance.replaces)
    if member is None:
        return
    match member.state:
        case MemberState.UPGRADING | MemberState.PROVISIONED | MemberState.SURGING:
            state = MemberState.FAILED
        case MemberState.RESTORING:
            state = MemberState.RESTORE_FAILED
        case _:
            return
    reason = event.reason or event.error.message
    draft.put_member(replace(member, state=state, since=now, error=event.error, reason=reason))


def _power(draft: Draft, instance: Instance, power: Power, now: datetime) -> None:
    if instance.power is power:
        return
    error = error_but_no_timeout(instance) if power is Power.RUNNING else instance.error
    draft.put_instance(replace(instance, power=power, error=error))
    _succeed_if_healthy(draft, instance.id, now)


def _health(
    draft: Draft, instance: Instance, health: Health, event: e.HealthReport, now: datetime
) -> None:
    if instance.phase is not InstancePhase.READY or event.lease != instance.lease:
        return
    error = error_but_no_timeout(instance) if health is Health.HEALTHY else instance.error
    after = replace(
        instance,
        health=health,
        error=error if instance.health is not health else instance.error,
        booting=instance.booting and health is not Health.HEALTHY,
        phase_order=event.phase_ordering_number,
        skip_upgrade=event.skip_upgrade,
    )
    if after != instance:
        draft.put_instance(after)
    _succeed_if_healthy(draft, instance.id, now)


def _succeed_if_healthy(draft: Draft, id: str, now: datetime) -> None:
    """Note a success, whichever report made the instance healthy.

    The prober may be told of an application that is back before the agent has told of its process.
    """
    instance, member = draft.instance(id), draft.member(id)
    if (
        instance is not None
        and member is not None
        and member.state is MemberState.PROVISIONED
        and instance.is_healthy
    ):
        draft.put_member(replace(member, state=MemberState.SUCCEEDED, since=now))


def error_but_no_timeout(instance: Instance) -> Failure | None:
    """Return the error, unless it says that the application did not answer: now it may."""
    error = instance.error
    return None if error is not None and error.code == FailureCode.HEALTH_TIMEOUT else error
