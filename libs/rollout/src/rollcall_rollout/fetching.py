"""The image comes to every host before any instance is touched (M06)."""

from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import Upgrade


def fetch(fleet: Fleet, upgrade: Upgrade) -> list[e.Event]:
    """Ask the hosts of those whose turn is to come for the image, ahead of the first batch."""
    hosts = _hosts(fleet)
    return [
        e.ImageFetchRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            upgrade_id=upgrade.id,
            image=upgrade.image,
            reason="fetched and verified before any instance is touched",
        )
        for host in sorted(hosts - upgrade.fetches.keys())
    ]


def _hosts(fleet: Fleet) -> set[str]:
    pending = fleet.census.pending
    return {fleet.instances[id].host for id in pending if id in fleet.instances}


def unfetched(fleet: Fleet, upgrade: Upgrade) -> list[str]:
    """Return the hosts that were asked for the image and do not hold it, while some wait there.

    One whose instances were all deleted, protected or powered off is not waited for: it may be gone
    for good.
    """
    if all(upgrade.fetches.values()):
        return []
    return sorted(host for host in _hosts(fleet) if not upgrade.fetches.get(host, True))


def fetch_overdue(
    fleet: Fleet, upgrade: Upgrade, silent: list[str], now: datetime
) -> list[e.Event]:
    """Fault the upgrade once its silent hosts have had their time.

    One that is to help, by an override or a rollback, goes on without their instances while others
    are left: a host that has died must not keep a set on a bad version.
    """
    if now < fetch_deadline(upgrade):
        return []
    waiting = [fleet.instances[id] for id in fleet.census.pending if id in fleet.instances]
    if upgrade.is_forced and any(instance.host not in silent for instance in waiting):
        return [
            e.InstancesSkipped(
                scale_set=fleet.spec.scale_set,
                upgrade_id=upgrade.id,
                instance_ids=tuple(sorted((i.id for i in waiting if i.host == host), key=int)),
                reason=_overdue(upgrade, [host]),
            )
            for host in silent
        ]
    message = _overdue(upgrade, silent)
    error = Failure(code=FailureCode.IMAGE_UNAVAILABLE, message=message, target=silent[0])
    return [
        e.UpgradeFaulted(
            scale_set=fleet.spec.scale_set, upgrade_id=upgrade.id, error=error, reason=message
        )
    ]


def _overdue(upgrade: Upgrade, silent: list[str]) -> str:
    return (
        f"The image was not fetched within {upgrade.policy.provisioning_timeout:g} s by "
        f"{', '.join(silent)}: is the agent running?"
    )


def fetch_deadline(upgrade: Upgrade) -> datetime:
    """Return when a host that has not fetched the image is given up."""
    return upgrade.started_at + timedelta(seconds=upgrade.policy.provisioning_timeout)
