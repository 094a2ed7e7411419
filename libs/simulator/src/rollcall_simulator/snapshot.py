"""A fleet as the server tells of it (`GET {set}/state`), rebuilt so that rules can be asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from rollcall_contracts.model import Failure, Health, HookAction, Image, ScaleSetSpec
from rollcall_rollout import Fleet, Instance, InstancePhase, Member, Upgrade
from rollcall_rollout.state import Hold, Hook, MetricCheck

HOST_SILENT = timedelta(seconds=30)  # as long as the orchestrator waits for a sign of life
PROBED = timedelta(days=3650)  # nobody has to renew a lease of probing in virtual time

_ANSWERS = {"Approved": HookAction.APPROVE, "Rejected": HookAction.REJECT}  # else: none yet

_instance = TypeAdapter(Instance)
_upgrade = TypeAdapter(Upgrade)
_member = TypeAdapter(Member)
_hook = TypeAdapter(Hook)
_hold = TypeAdapter(Hold)
_check = TypeAdapter(MetricCheck)
_failure = TypeAdapter(Failure)
_images = TypeAdapter(tuple[Image, ...])
_time = TypeAdapter(datetime)
_seconds = TypeAdapter(tuple[float, ...])


class SnapshotError(ValueError):
    """What the server said is no state of a scale set; the message names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A fleet at a moment, and how long its instances took in the last upgrades."""

    at: datetime  # by the server's clock
    fleet: Fleet
    provisioning: Sequence[float]  # seconds, one for each instance
    healthy: Sequence[float]  # the same


def read_snapshot(state: Mapping[str, Any], hosts: Iterable[Mapping[str, Any]] = ()) -> Snapshot:
    """Return what a state document says, with the hosts of `GET /rollcall/hosts`.

    Raises SnapshotError for what is missing or of another shape: the server may be of another age.
    """
    try:
        return _read(state, hosts)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SnapshotError(f"{error.title} {place}: {first['msg']}") from error
    except KeyError as error:
        raise SnapshotError(f"the state has no {error}") from error


def _read(state: Mapping[str, Any], hosts: Iterable[Mapping[str, Any]]) -> Snapshot:
    at = _time.validate_python(state["time"])
    held, hook = state["held"], state["hook"]
    alive = [host for host in hosts if at - _time.validate_python(host["seenTime"]) < HOST_SILENT]
    rows = [_instance.validate_python(row) for row in state["instances"]]
    instances = {instance.id: _probed(instance, at) for instance in rows}
    fleet = Fleet(
        spec=ScaleSetSpec.model_validate(state["spec"]),
        instances=instances,
        upgrade=_read_upgrade(state["upgrade"]),
        images=_images.validate_python(state["images"]),
        hosts=tuple(host["host"] for host in alive) or tuple(sorted({i.host for i in rows})),
        room={
            host["host"]: max(0, host["capacity"] - host["instances"])
            for host in alive
            if host["capacity"] is not None
        },
        next_id=max((int(id) for id in instances), default=-1) + 1,
        barred_version=state["barredVersion"],
        held=None if held is None else (held["version"], _failure.validate_python(held)),
        start_requested=state["startRequested"],
        rollback_requested=state["rollbackRequested"],
        hook=None if hook is None else _read_hook(hook),
        last_version=state["lastVersion"],
        batch_seconds=_seconds.validate_python(state["batchSeconds"]),
        holds={row["version"]: _hold.validate_python(row) for row in state["holds"]},
    )
    durations = state["durations"]
    return Snapshot(
        at=at,
        fleet=fleet,
        provisioning=_seconds.validate_python(durations["provisioning"]),
        healthy=_seconds.validate_python(durations["healthy"]),
    )


def _probed(instance: Instance, at: datetime) -> Instance:
    """Return an instance under a lease of probing, where its health is known.

    The server does not tell of leases; those whose health is awaited are probed anew.
    """
    known = instance.phase is InstancePhase.READY and instance.health is not Health.UNKNOWN
    return replace(instance, probed_until=at + PROBED if known else None)


def _read_upgrade(row: Mapping[str, Any] | None) -> Upgrade | None:
    if row is None:
        return None
    members = {str(member["id"]): _member.validate_python(member) for member in row["members"]}
    check = row.get("metric_check")
    return _upgrade.validate_python(
        {
            **row,
            "members": members,
            "restore_failed": row["puts_back"],
            "check": None if check is None else _check.validate_python(check),
        }
    )


def _read_hook(row: Mapping[str, Any]) -> Hook:
    targets = {id: _ANSWERS.get(state) for id, state in row["targets"].items()}
    return _hook.validate_python({**row, "targets": targets})
