"""How a running upgrade ends before its time: faults and cancellations."""

from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import LATEST, Failure, FailureCode, StartedBy

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import settled_share, unhealthy_share, upgraded_share
from rollcall_rollout.metric_gate import metric_fault
from rollcall_rollout.restoring import refused_credentials
from rollcall_rollout.state import Member, MemberState, Upgrade

# Faults that say something of the version, and so concern other sets that follow it.
OF_THE_VERSION = (
    FailureCode.UNHEALTHY_UPGRADED,
    FailureCode.METRIC_GATE,
    FailureCode.IMAGE_VERIFICATION,
    FailureCode.IMAGE_UNSAFE,
)


def fault(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Failure | None:
    """Return why no further batch may start, if so."""
    return (
        upgrade.breach
        or upgrade.fetch_error
        or _refused(upgrade)
        or _too_many_failed(fleet, upgrade)
        or _withdrawn(fleet, upgrade)
        or metric_fault(upgrade)
        or _too_long(fleet, upgrade, now)
        or _too_sick(fleet, upgrade, now)
    )


def faulted(fleet: Fleet, upgrade: Upgrade, error: Failure) -> list[e.Event]:
    """Return the end of the upgrade, and the hold on a version that is to blame itself."""
    ended = e.UpgradeFaulted(
        scale_set=fleet.spec.scale_set,
        upgrade_id=upgrade.id,
        error=error,
        reason=error.message,
    )
    version = upgrade.image.version
    known = version in fleet.holds or not fleet.offers(upgrade.image)
    if error.code not in OF_THE_VERSION or upgrade.is_forced or known:
        return [ended]  # what does not heal in a sick set was sick before the version came
    held = e.ImageHeld(
        image=upgrade.image,
        by_set=fleet.spec.scale_set,
        upgrade_id=upgrade.id,
        error=error,
        reason=f"version {version} faulted: other sets keep off it until it is released",
    )
    return [ended, held]


def cancelled(fleet: Fleet, upgrade: Upgrade) -> str | None:
    """Return why the upgrade is to stop after its batch, if somebody wants that (M05, M52)."""
    if fleet.rollback_requested:
        return "a rollback was asked for"
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


# --- the single faults ----------------------------------------------------------------------------


def _refused(upgrade: Upgrade) -> Failure | None:
    """Return the error that names the resource with refused credentials (M40)."""
    return next((m.error for m in _failed(upgrade) if refused_credentials(m)), None)


def _too_many_failed(fleet: Fleet, upgrade: Upgrade) -> Failure | None:
    share = upgraded_share(fleet, upgrade)  # M42
    if not share.exceeded:
        return None
    first = next(iter(_failed(upgrade)), None)
    detail = (
        f" The most impactful error is: {first.error.message} First failed instance ID is: "
        f"{first.id}."
        if first is not None and first.error is not None
        else ""
    )
    return Failure(
        code=FailureCode.UNHEALTHY_UPGRADED,
        message=(
            "Rolling Upgrade failed after exceeding the MaxUnhealthyUpgradedInstancePercent "
            f"value defined in the RollingUpgradePolicy. {share.percent}% of instances are "
            "in an unhealthy state after being upgraded - more than the threshold of "
            f"{share.limit}%.{detail}"
        ),
    )


def _withdrawn(fleet: Fleet, upgrade: Upgrade) -> Failure | None:
    same_line = upgrade.image.stream == fleet.spec.image.stream
    if not same_line or fleet.offers(upgrade.image):
        return None
    return Failure(
        code=FailureCode.IMAGE_WITHDRAWN,
        message=f"Version {upgrade.image.version} was withdrawn from its feed.",
        target=upgrade.image.version,
    )


def _too_long(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Failure | None:
    """Stop what takes too long, while instances remain: one that only bakes has come to all."""
    limit = timeout_at(upgrade)
    if limit is None or now < limit or not (fleet.census.pending or fleet.census.in_flight):
        return None
    return Failure(
        code=FailureCode.UPGRADE_TIMEOUT,
        message=(
            f"The upgrade did not end within the upgradeTimeout of "
            f"{upgrade.policy.upgrade_timeout:g} s."
        ),
    )


def timeout_at(upgrade: Upgrade) -> datetime | None:
    """Return when the upgrade as a whole is given up, if the policy has a limit."""
    if upgrade.policy.upgrade_timeout is None:
        return None
    return upgrade.started_at + timedelta(seconds=upgrade.policy.upgrade_timeout)


def _too_sick(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Failure | None:
    """Stop for an outage of other causes, before a next batch (M15)."""
    if upgrade.is_forced or not fleet.census.pending:
        return None
    if not unhealthy_share(fleet, upgrade.policy).exceeded:
        return None
    share = settled_share(fleet, upgrade, now)
    if not share.exceeded:
        return None
    return Failure(
        code=FailureCode.UNHEALTHY_DURING,
        message=(
            "Rolling Upgrade failed after exceeding the MaxUnhealthyInstancePercent value defined "
            f"in the RollingUpgradePolicy. {share.percent}% of instances are in an unhealthy "
            f"state - more than the threshold of {share.limit}% ({share})."
        ),
    )


def _failed(upgrade: Upgrade) -> list[Member]:
    """Return the members that failed, in order of their ids."""
    return sorted(
        (
            member
            for member in upgrade.members.values()
            if member.error is not None and member.state is not MemberState.SKIPPED
        ),
        key=lambda member: int(member.id),
    )
