"""How long instances took in the last upgrades, for whoever plans the next one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

# What begins and ends the two times of an instance.
MEASURED = (
    "batch.started.v1",
    "instance.created.v1",
    "instance.upgraded.v1",
    "instance.healthy.v1",
    "instance.failed.v1",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Seconds, one number for each instance that came so far, in the order of the log."""

    provisioning: tuple[float, ...]  # from the start of its batch until its new OS disk has booted
    healthy: tuple[float, ...]  # from then until its application was healthy


def measure(entries: Iterable[tuple[str, datetime, Mapping[str, Any]]]) -> Durations:
    """Return the durations in entries of the log: type, time and body, in their order."""
    begun: dict[str, datetime] = {}
    booted: dict[str, datetime] = {}
    provisioning: list[float] = []
    healthy: list[float] = []
    for type, time, body in entries:
        if type == "batch.started.v1":
            replacements = body.get("replacements") or {}
            begun |= {replacements.get(id, id): time for id in body["instance_ids"]}
            continue
        id = body["instance_id"]
        if type == "instance.healthy.v1" and id in booted:
            healthy.append((time - booted.pop(id)).total_seconds())
        elif type in ("instance.created.v1", "instance.upgraded.v1") and id in begun:
            provisioning.append((time - begun.pop(id)).total_seconds())
            booted[id] = time
        elif type == "instance.failed.v1":
            begun.pop(id, None)
            booted.pop(id, None)
    return Durations(provisioning=tuple(provisioning), healthy=tuple(healthy))
