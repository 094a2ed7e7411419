"""Failing well: the previous OS disk comes back where an instance failed (M43)."""

from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import FailureCode

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import is_failing
from rollcall_rollout.orders import by_host
from rollcall_rollout.state import Instance, InstancePhase, Member, Upgrade


def restore(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    """Put the previous OS disk back where an instance failed; never where one is healthy.

    In upgrades by the platform (unless switched off), and, when the policy asks for it, in all that
    breached a limit (rollbackFailedInstancesOnPolicyBreach).
    """
    if not upgrade.restore_failed and upgrade.breach is None:
        return []
    return [
        e.InstancesRestoreRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            upgrade_id=upgrade.id,
            instances=orders,
            reason="not healthy on the new OS disk: the previous one is put back",
        )
        for host, orders in by_host(restorable(fleet), next_attempt=True)
    ]


def restorable(fleet: Fleet) -> list[Instance]:
    """Return the failed instances whose previous OS disk is there.

    Those that failed for their credentials are left as they are (M40): a restored OS disk would
    need the same credentials. One whose successor failed runs on its own OS disk; a previous one
    that it still has is of before the upgrade.
    """
    failed = sorted(fleet.census.failed.values(), key=lambda member: int(member.id))
    return [
        instance
        for member in failed
        if not refused_credentials(member)
        and member.replacement is None
        and (instance := fleet.instances.get(member.id)) is not None
        and instance.uncommitted
        and not instance.is_parked
        and instance.phase in (InstancePhase.READY, InstancePhase.FAILED)
    ]


def refused_credentials(member: Member) -> bool:
    """Say whether somebody refused the credentials in the model (M40)."""
    return member.error is not None and member.error.code == FailureCode.CREDENTIALS


def recovery_end(fleet: Fleet, upgrade: Upgrade, batch: int) -> datetime | None:
    """Return until when a batch's restored instances are waited for, if any is not healthy.

    One that boots from its previous OS disk is down because of us: the next batch must not add to
    it. It has as long as an upgraded one (M13).
    """
    booting = [
        member.since
        for member in fleet.census.restored.values()
        if member.batch == batch
        and (instance := fleet.instances.get(member.id)) is not None
        and is_failing(instance)
    ]
    if not booting:
        return None
    return max(booting) + timedelta(seconds=upgrade.policy.health_timeout)
