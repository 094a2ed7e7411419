"""Requests are made per host: one message carries all of a host's instances."""

from collections import defaultdict
from collections.abc import Iterable

from rollcall_contracts.events import InstanceOrder

from rollcall_rollout.state import Instance


def by_host(
    instances: Iterable[Instance], *, next_attempt: bool
) -> list[tuple[str, tuple[InstanceOrder, ...]]]:
    """Return each host with the orders for its instances, in order of the hosts' names.

    `next_attempt` is for requests that an agent answers: earlier attempts' reports count no more.
    """
    orders: dict[str, list[InstanceOrder]] = defaultdict(list)
    for instance in instances:
        attempt = instance.attempt + 1 if next_attempt else instance.attempt
        orders[instance.host].append(InstanceOrder(instance_id=instance.id, attempt=attempt))
    return [(host, tuple(orders[host])) for host in sorted(orders)]
