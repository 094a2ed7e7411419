"""When an upgrade starts, and why it is held."""

from datetime import datetime
from uuid import NAMESPACE_URL, uuid5

from rollcall_contracts import events as e
from rollcall_contracts.model import LATEST, Failure, Image, StartedBy
from rollcall_contracts.versions import version_key

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import unhealthy_share
from rollcall_rollout.state import Instance

BEFORE = "MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade"


def start(fleet: Fleet, now: datetime) -> list[e.Event]:
    """Start an upgrade to the latest version when one is due (M01) or was asked for (M52)."""
    target = fleet.latest
    if target is None or fleet.spec.image.version != LATEST:
        return _refuse_manual_start(fleet)
    lower = any(version_key(version) < target.order for version in fleet.census.versions)
    behind = _behind(fleet, target) if lower else []
    if fleet.start_requested:
        if not behind:
            return _refuse_manual_start(fleet)
    elif not behind or not _starts_by_itself(fleet, target):
        return []

    share = unhealthy_share(fleet, fleet.spec.policy)
    if share.exceeded:
        return _hold(fleet, target, share_text=str(share), percent=share.percent)
    by = StartedBy.USER if fleet.start_requested else StartedBy.PLATFORM
    identity = f"{fleet.spec.scale_set.lower()}|{target.version}|{now.isoformat()}"
    return [
        e.UpgradeStarted(
            scale_set=fleet.spec.scale_set,
            upgrade_id=str(uuid5(NAMESPACE_URL, identity)),
            image=target,
            policy=fleet.spec.policy,
            started_by=by,
            restore_failed=by is StartedBy.PLATFORM and not fleet.spec.disable_automatic_rollback,
            instance_ids=tuple(instance.id for instance in behind),
            reason=(
                f"{len(behind)} of {len(fleet.instances)} instances are below version "
                f"{target.version}; {share}"
            ),
        )
    ]


def _behind(fleet: Fleet, target: Image) -> list[Instance]:
    """Return the instances below the target, in order of their ids."""
    return sorted(
        (
            instance
            for instance in fleet.instances.values()
            if instance.version is not None
            and not instance.is_busy
            and not instance.deploy
            and version_key(instance.version) < target.order
        ),
        key=lambda instance: int(instance.id),
    )


def _starts_by_itself(fleet: Fleet, target: Image) -> bool:
    if not fleet.spec.automatic_os_upgrade:
        return False
    barred = fleet.barred_version
    return barred is None or target.order > version_key(barred)


def _refuse_manual_start(fleet: Fleet) -> list[e.Event]:
    if not fleet.start_requested:
        return []
    if fleet.spec.image.version != LATEST:
        why = "the model pins a version: set imageReference.version to 'latest'"
    elif fleet.latest is None:
        why = "no version is published for the set's image reference"
    else:
        why = f"every instance is at the latest version, {fleet.latest.version}"
    return [
        e.UpgradeHeld(
            scale_set=fleet.spec.scale_set,
            version=fleet.latest.version if fleet.latest else "",
            error=Failure(code="OperationNotAllowed", message=why),
            reason=why,
        )
    ]


def _hold(fleet: Fleet, target: Image, *, share_text: str, percent: int) -> list[e.Event]:
    limit = fleet.spec.policy.max_unhealthy_instance_percent
    if (
        fleet.held is not None
        and (fleet.held[0], fleet.held[1].code) == (target.version, BEFORE)
        and not fleet.start_requested
    ):
        return []
    message = (
        "Rolling Upgrade failed due to exceeding the MaxUnhealthyInstancePercent value before any "
        f"batch started: {percent}% of instances are in an unhealthy state - more than the "
        f"threshold of {limit}%."
    )
    return [
        e.UpgradeHeld(
            scale_set=fleet.spec.scale_set,
            version=target.version,
            error=Failure(code=BEFORE, message=message),
            reason=share_text,
        )
    ]
