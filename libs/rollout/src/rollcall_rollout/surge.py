"""Surge: new instances first, and the old ones deleted when the new are healthy (maxSurge).

The new ones have numbers, disks and addresses of their own; the control plane refuses the policy
for a model with data disks, since nothing carries them over.
"""

from rollcall_contracts import events as e

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.orders import by_host
from rollcall_rollout.placing import place, room_for
from rollcall_rollout.state import Instance, InstancePhase, MemberState, Upgrade


def can_surge(fleet: Fleet, upgrade: Upgrade, count: int) -> bool:
    """Say whether so many new instances have room; else the batch is done in place."""
    return upgrade.policy.max_surge and room_for(fleet, count)


def order_replacements(
    fleet: Fleet, upgrade: Upgrade, chosen: tuple[Instance, ...]
) -> tuple[dict[str, str], list[e.Event]]:
    """Return who takes whose place, and the requests that make them."""
    placed = place(fleet, len(chosen))
    pairs = {old.id: id for old, (_, id) in zip(chosen, placed, strict=True)}
    replaced = {new: old for old, new in pairs.items()}
    return pairs, [
        e.InstancesCreateRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=tuple(
                e.InstanceOrder(instance_id=id, attempt=1, replaces=replaced[id])
                for owner, id in placed
                if owner == host
            ),
            image=upgrade.image,
            provisioning=fleet.spec.provisioning,
            reason=f"surge of batch {upgrade.batch + 1}",
        )
        for host in sorted({host for host, _ in placed})
    ]


def take_places(fleet: Fleet) -> list[e.Event]:
    """Delete the old where the successor is healthy, and successors that came to nothing."""
    members = fleet.upgrade.members if fleet.upgrade is not None else {}
    replaced: list[Instance] = []
    useless: list[Instance] = []
    for successor in fleet.census.surging.values():
        if successor.phase is InstancePhase.DELETING or successor.replaces is None:
            continue
        member = members.get(successor.replaces)
        old = fleet.instances.get(successor.replaces)
        if member is None or member.state is not MemberState.SURGING:
            useless.append(successor)
        elif successor.is_healthy and old is not None:
            replaced.append(old)
    return [
        *_delete(fleet, replaced, "the instance that takes its place is healthy"),
        *_delete(fleet, useless, "it did not become healthy, and takes no one's place"),
    ]


def _delete(fleet: Fleet, instances: list[Instance], reason: str) -> list[e.Event]:
    policy = fleet.upgrade.policy if fleet.upgrade is not None else fleet.spec.policy
    return [
        e.InstancesDeleteRequested(
            scale_set=fleet.spec.scale_set,
            host=host,
            instances=orders,
            drain=policy.drain,
            reason=reason,
        )
        for host, orders in by_host(instances, next_attempt=True)
    ]
