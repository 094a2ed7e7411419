"""The rules of a running upgrade: from batch to batch, and how it ends."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import LATEST, Failure, FailureCode, StartedBy

from rollcall_rollout.fetching import fetch, fetch_overdue, unfetched
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import (
    choose_batch,
    newcomers,
    settled_share,
    unhealthy_share,
    upgraded_share,
)
from rollcall_rollout.orders import by_host
from rollcall_rollout.state import IN_FLIGHT, InstancePhase, Member, MemberState, Upgrade

DURING = "MaxUnhealthyInstancePercentExceededInRollingUpgrade"
UPGRADED = "MaxUnhealthyUpgradedInstancePercentExceededInRollingUpgrade"


def advance(fleet: Fleet, upgrade: Upgrade, now: datetime) -> list[e.Event]:
    """Decide the next step of a running upgrade: end its batch, end it, or start a batch."""
    if upgrade.batch_open:
        return _complete_batch(fleet, upgrade, now)
    ending = _ending(fleet, upgrade, now)
    if ending is not None:
        return [ending]
    fetches = fetch(fleet, upgrade)
    if fetches:
        return fetches
    if silent := unfetched(fleet, upgrade):
        return fetch_overdue(fleet, upgrade, silent, now)
    resume = pause_end(upgrade)
    if resume is not None and now < resume:
        return []
    if unhealthy_share(fleet, upgrade.policy).exceeded:
        return []  # new instances boot: waited for, and no reason to stop
    return _start_batch(fleet, upgrade)


def _complete_batch(fleet: Fleet, upgrade: Upgrade, now: datetime) -> list[e.Event]:
    if fleet.census.in_flight:
        return []
    recovery = recovery_end(fleet, upgrade)
    if recovery is not None and now < recovery:
        return []
    batch = [m for m in upgrade.members.values() if m.batch == upgrade.batch]
    if any(m.state in IN_FLIGHT or m.state is MemberState.PENDING for m in batch):
        return []
    succeeded = sum(m.state is MemberState.SUCCEEDED for m in batch)
    failed = len(batch) - succeeded
    return [
        e.BatchCompleted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            batch=upgrade.batch,
            succeeded=succeeded,
            failed=failed,
            reason=f"{succeeded} healthy, {failed} not",
        )
    ]


def abandon(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    """End the upgrade of a set that was deleted: every upgrade has an end in the log."""
    return [
        e.UpgradeCancelled(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            reason="the scale set was deleted",
        )
    ]


def recovery_end(fleet: Fleet, upgrade: Upgrade) -> datetime | None:
    """Return until when restored instances of the open batch are waited for, if any is not healthy.

    One that boots from its previous OS disk is down because of us: the next batch must not add to
    it. It has as long as an upgraded one (M13).
    """
    booting = [
        member.since
        for member in fleet.census.restored.values()
        if member.batch == upgrade.batch
        and (instance := fleet.instances.get(member.id)) is not None
        and not instance.is_healthy
    ]
    if not booting or not upgrade.batch_open:
        return None
    return max(booting) + timedelta(seconds=upgrade.policy.health_timeout)


def _ending(fleet: Fleet, upgrade: Upgrade, now: datetime) -> e.Event | None:
    """Return how the upgrade ends, between batches, or None while it goes on."""
    fault = _fault(fleet, upgrade)
    if fault is not None:
        return e.UpgradeFaulted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            error=fault,
            reason=fault.message,
        )
    cancelled = _cancelled(fleet, upgrade)
    if cancelled is not None:
        return e.UpgradeCancelled(
            scale_set=fleet.spec.scale_set, upgrade_id=upgrade.id, reason=cancelled
        )
    if all(m.state is not MemberState.PENDING for m in upgrade.members.values()):
        done = sum(m.state is MemberState.SUCCEEDED for m in upgrade.members.values())
        return e.UpgradeCompleted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            reason=f"no instance remains; {done} of {len(upgrade.members)} succeeded",
        )
    share = unhealthy_share(fleet, upgrade.policy)
    if share.exceeded and (share := settled_share(fleet, upgrade.policy, now)).exceeded:  # M15
        message = (
            "Rolling Upgrade failed after exceeding the MaxUnhealthyInstancePercent value defined "
            f"in the RollingUpgradePolicy. {share.percent}% of instances are in an unhealthy "
            f"state - more than the threshold of {share.limit}%."
        )
        return e.UpgradeFaulted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            error=Failure(code=DURING, message=message),
            reason=str(share),
        )
    return None


def _fault(fleet: Fleet, upgrade: Upgrade) -> Failure | None:
    if upgrade.fetch_error is not None:
        return upgrade.fetch_error
    failed = [m for m in _in_order(upgrade) if m.error is not None]
    refused = next((m.error for m in failed if _is_credentials(m)), None)
    if refused is not None:
        return refused  # M40: the error names the resource
    share = upgraded_share(fleet, upgrade)
    if share.exceeded:
        first = failed[0] if failed else None
        detail = (
            f" The most impactful error is: {first.error.message} "
            f"First failed instance ID is: {first.id}."
            if first is not None and first.error is not None
            else ""
        )
        return Failure(
            code=UPGRADED,
            message=(
                "Rolling Upgrade failed after exceeding the MaxUnhealthyUpgradedInstancePercent "
                f"value defined in the RollingUpgradePolicy. {share.percent}% of instances are "
                "in an unhealthy state after being upgraded - more than the threshold of "
                f"{share.limit}%."
                f"{detail}"
            ),
        )
    same_line = upgrade.image.stream == fleet.spec.image.stream
    if same_line and not fleet.offers(upgrade.image):
        return Failure(
            code=FailureCode.IMAGE_WITHDRAWN,
            message=f"Version {upgrade.image.version} was withdrawn from its feed.",
            target=upgrade.image.version,
        )
    return None


def _cancelled(fleet: Fleet, upgrade: Upgrade) -> str | None:
    if upgrade.cancel_requested:
        return "cancelled by a user, after the current batch"
    if upgrade.image.stream != fleet.spec.image.stream:
        return "the model follows another image now"
    if upgrade.started_by is StartedBy.USER:
        return None
    if not fleet.spec.automatic_os_upgrade:
        return "automatic OS upgrade was switched off (M05)"
    if fleet.spec.image.version != LATEST:
        return f"the model pins version {fleet.spec.image.version} now"
    return None


def pause_end(upgrade: Upgrade) -> datetime | None:
    """Return when the pause after the last batch is over, if there is one."""
    if upgrade.paused_since is None:
        return None
    return upgrade.paused_since + timedelta(seconds=upgrade.policy.pause_time_between_batches)


def newcomers_end(fleet: Fleet, upgrade: Upgrade, now: datetime) -> datetime | None:
    """Return when the next new instance that the upgrade waits for has had its time."""
    if upgrade.batch_open or not unhealthy_share(fleet, upgrade.policy).exceeded:
        return None
    return min(newcomers(fleet, upgrade.policy, now).values(), default=None)


def _start_batch(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    pending = [
        instance
        for member in _in_order(upgrade)
        if member.state is MemberState.PENDING
        and (instance := fleet.instances.get(member.id)) is not None
        and not instance.is_busy
    ]
    if not pending:
        return []
    choice = choose_batch(pending, fleet.instances.values(), upgrade.policy)
    return [
        e.BatchStarted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            batch=upgrade.batch + 1,
            instance_ids=tuple(instance.id for instance in choice.instances),
            reason=choice.reason,
        ),
        *(
            e.InstancesUpgradeRequested(
                scale_set=fleet.spec.scale_set,
                host=host,
                upgrade_id=upgrade.id,
                instances=orders,
                image=upgrade.image,
                provisioning=fleet.spec.provisioning,
                reason=f"batch {upgrade.batch + 1}",
            )
            for host, orders in by_host(choice.instances, next_attempt=True)
        ),
    ]


# --- failing well ---------------------------------------------------------------------------------


def restore(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    """Put the previous OS disk back where an instance failed (M43); never where one is healthy.

    Instances that failed for their credentials are left as they are (M40): a restored OS disk would
    need the same credentials.
    """
    if not upgrade.restore_failed:
        return []
    failed = [
        instance
        for member in _by_id(fleet.census.failed.values())
        if not _is_credentials(member)
        and (instance := fleet.instances.get(member.id)) is not None
        and instance.uncommitted
        and instance.phase in (InstancePhase.READY, InstancePhase.FAILED)
    ]
    return [
        e.InstancesRestoreRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            upgrade_id=upgrade.id,
            instances=orders,
            reason="not healthy on the new OS disk: the previous one is put back",
        )
        for host, orders in by_host(failed, next_attempt=True)
    ]


def _in_order(upgrade: Upgrade) -> list[Member]:
    return _by_id(upgrade.members.values())


def _by_id(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda member: int(member.id))


def _is_credentials(member: Member) -> bool:
    return member.error is not None and member.error.code == FailureCode.CREDENTIALS
