"""What a set waits for and why, in one sentence: asked of the same functions that decide."""

from datetime import datetime
from heapq import nsmallest

from rollcall_contracts.model import LATEST, Health
from rollcall_contracts.versions import version_key

from rollcall_rollout import reimaging
from rollcall_rollout.copying import replace
from rollcall_rollout.fetching import fetch_deadline, unfetched
from rollcall_rollout.fleet import Fleet
from rollcall_rollout.gates import unhealthy_share
from rollcall_rollout.holding import answer_awaited, held_version
from rollcall_rollout.sizing import count_staying, why_missing
from rollcall_rollout.starting import before_start, due
from rollcall_rollout.state import InstancePhase, Member, MemberState, Upgrade
from rollcall_rollout.upgrading import awaited
from rollcall_rollout.upkeep import deadline
from rollcall_rollout.waits import Wait, WaitCode

NAMED = 5  # instances that a sentence names


def waiting(fleet: Fleet, now: datetime) -> Wait:
    """Return what the set waits for now; of a settled state, in which nothing is left to decide."""
    wait = _wait(fleet, now)
    if wait.until is not None and wait.until <= now:
        return replace(wait, until=None)  # its time is over, and something else is not
    return wait


def _wait(fleet: Fleet, now: datetime) -> Wait:
    if fleet.deleted:
        return Wait(
            code=WaitCode.DELETING,
            message=f"The scale set was deleted; {len(fleet.instances)} instances are still there.",
        )
    if fleet.upgrade is not None:
        return _of_upgrade(fleet, fleet.upgrade, now)
    hold = _of_start(fleet, now)
    other = _of_size(fleet, now) or _of_deployment(fleet)
    if hold is not None and other is not None:  # the one does not hide the other
        return replace(hold, message=f"{hold.message} Besides: {other.message}")
    return hold or other or _of_versions(fleet)


def _of_upgrade(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait:
    if upgrade.open_batches:
        return _of_batch(fleet, upgrade)
    silent = unfetched(fleet, upgrade)
    if silent:
        return Wait(
            code=WaitCode.IMAGE_FETCH,
            message=(
                f"Version {upgrade.image.version} is fetched and verified by "
                f"{_names(silent)} before any instance is touched."
            ),
            until=fetch_deadline(upgrade),
        )
    if fleet.census.in_flight:
        return Wait(
            code=WaitCode.RESTORING,
            message=f"{len(fleet.census.in_flight)} instances get their previous OS disks back.",
        )
    wait = awaited(fleet, upgrade, now)
    if wait is not None:
        return wait
    return Wait(
        code=WaitCode.NO_CANDIDATE,
        message=f"{len(fleet.census.pending)} instances remain, and none can go now.",
    )


def _of_batch(fleet: Fleet, upgrade: Upgrade) -> Wait:
    """Say who is not done yet, and until when they are waited for."""
    flying = fleet.census.in_flight
    named = nsmallest(NAMED, flying.values(), key=lambda member: int(member.id))
    numbers = ", ".join(str(number) for number in sorted(upgrade.open_batches))
    size = sum(len(batch.instance_ids) for batch in upgrade.open_batches.values())
    who = "; ".join(_doing(fleet, member) for member in named)
    more = f"; and {len(flying) - NAMED} more" if len(flying) > NAMED else ""
    rest = len(fleet.census.pending)
    if not flying:
        who = "instances that boot from the OS disks that were put back"
    return Wait(
        code=WaitCode.BATCH,
        message=(
            f"Batch {numbers} to {upgrade.image.version}: {size - len(flying)} of {size} are done. "
            f"Waiting for {who}{more}. {rest} instances remain after that."
        ),
        until=_last_deadline(fleet),
    )


def _last_deadline(fleet: Fleet) -> datetime | None:
    """Return until when the one that began last is waited for."""
    last = max(fleet.census.in_flight.values(), key=lambda m: m.since, default=None)
    instance = fleet.instances.get(last.replacement or last.id) if last is not None else None
    return deadline(fleet, instance) if instance is not None else None


_DOING = {
    MemberState.UPGRADING: "its OS disk is replaced",
    MemberState.SURGING: "its successor is made",
    MemberState.PROVISIONED: "not healthy yet",
    MemberState.RESTORING: "its previous OS disk is put back",
}


def _doing(fleet: Fleet, member: Member) -> str:
    instance = fleet.instances.get(member.replacement or member.id)
    where = f" on {instance.host}" if instance is not None else ""
    health = ""
    if member.state is MemberState.PROVISIONED and instance is not None:
        health = f" ({instance.health if instance.health is not Health.UNKNOWN else 'no answer'})"
    return f"instance {member.id}{where}: {_DOING[member.state]}{health}"


def _of_size(fleet: Fleet, now: datetime) -> Wait | None:
    missing = fleet.spec.capacity - count_staying(fleet)
    busy = [i.id for i in fleet.instances.values() if i.is_busy]
    if missing == 0 and not busy:
        return None
    if missing > 0:
        why = why_missing(fleet, fleet.image_of_new(now))
        return Wait(
            code=WaitCode.INSTANCES_MISSING,
            message=(
                f"{missing} of {fleet.spec.capacity} instances are missing. "
                f"{why.message if why is not None else ''}"
            ).rstrip(),
        )
    if missing < 0:
        return Wait(
            code=WaitCode.DELETING,
            message=(
                f"{-missing} instances are more than the capacity of {fleet.spec.capacity}, and "
                "protected from scale-in: take the protection from those that may go."
            ),
        )
    deleting = [i.id for i in fleet.instances.values() if i.phase is InstancePhase.DELETING]
    what = "Instances are made, changed or deleted"
    return Wait(
        code=WaitCode.DELETING if len(deleting) == len(busy) else WaitCode.DEPLOYING,
        message=f"{what}: {_names(sorted(busy, key=int))}.",
    )


def _of_deployment(fleet: Fleet) -> Wait | None:
    census = fleet.census
    marked = (i for i in census.deploying.values() if not i.is_parked)
    named = sorted((i.id for i in marked), key=int)
    if named:
        image, hold = fleet.image_to_deploy, fleet.hold_on_deployment
        held = f" {held_version(image.version, hold).message}" if image and hold else ""
        return Wait(
            code=WaitCode.DEPLOYING,
            message=f"The model is to be deployed to {_names(named)}.{held}",
        )
    awaited = [instance.id for instance in reimaging.candidates(fleet)]
    if not awaited:
        return None
    share = unhealthy_share(fleet, fleet.spec.policy)
    why = f"Not healthy after that are {_names(sorted(census.booting, key=int))}; " * bool(
        census.booting
    )
    return Wait(
        code=WaitCode.DEPLOYING,
        message=(
            f"New OS disks, as a person asked, are still to come for {_names(awaited)}. {why}"
            f"{share}. POST rollingUpgrades/cancel gives the rest up."
        ),
    )


def _of_start(fleet: Fleet, now: datetime) -> Wait | None:
    """Say what holds an upgrade back that would start by itself."""
    target = due(fleet, now)
    wait = before_start(fleet, target, now) if target is not None else None
    return answer_awaited(fleet.hook) if wait is not None and wait.asks and fleet.hook else wait


def _of_versions(fleet: Fleet) -> Wait:
    """Say why no upgrade is due."""
    latest = fleet.latest
    if latest is None:
        return Wait(
            code=WaitCode.NOTHING,
            message="No version is published for the set's image reference.",
        )
    if fleet.spec.image.version != LATEST:
        return _of_pinned(fleet)
    there = [i for i in fleet.instances.values() if i.version is not None]
    behind = [i for i in there if version_key(i.version or "") < latest.order]
    if not behind:
        above = sum(i.version != latest.version for i in there)
        stays = (
            f" {above} instances run a higher one, which was withdrawn or does not count as the "
            "latest; they stay on it until there is one above it, or a person asks for a rollback."
        )
        return Wait(
            code=WaitCode.NOTHING,
            message=f"Nothing: the set follows version {latest.version}.{stays if above else ''}",
        )
    if not fleet.spec.automatic_os_upgrade:
        return Wait(
            code=WaitCode.SWITCHED_OFF,
            message=(
                f"{len(behind)} instances are not at version {latest.version}, and automatic OS "
                "upgrade is switched off: switch it on, or start an upgrade by hand."
            ),
        )
    hold = fleet.hold_on(latest.version)
    if hold is not None:
        return held_version(latest.version, hold)
    if all(instance.is_excluded for instance in behind):
        return Wait(
            code=WaitCode.EXCLUDED,
            message=(
                f"{len(behind)} instances are not at version {latest.version}; all of them are "
                "protected, powered off, or ask to be skipped."
            ),
        )
    return Wait(
        code=WaitCode.VERSION_BARRED,
        message=(
            f"Version {fleet.barred_version} did not succeed in this set and is not tried again by "
            "itself: a newer version, any model update, or a start by hand does."
        ),
    )


def _of_pinned(fleet: Fleet) -> Wait:
    """Say whether all are at the version that the model names: nothing brings them there alone."""
    pinned = fleet.spec.image.version
    elsewhere = [
        i.id for i in fleet.instances.values() if i.version is not None and i.version != pinned
    ]
    if not elsewhere:
        return Wait(code=WaitCode.NOTHING, message=f"Nothing: the set follows version {pinned}.")
    return Wait(
        code=WaitCode.PINNED,
        message=(
            f"{len(elsewhere)} instances are not at version {pinned}, which the model names: "
            f"{_names(sorted(elsewhere, key=int))}. Only sets that follow 'latest' are upgraded "
            "by themselves; POST manualupgrade brings those that it names to the model."
        ),
    )


def _names(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
