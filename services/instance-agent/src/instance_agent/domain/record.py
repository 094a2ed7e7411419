"""What the journal knows of one instance, and every way in which that changes.

An operation is a plan: steps in a fixed order. After each step the record is saved, so that after
kill -9 the same request goes on with the first step that is not known to be done. A step may then
be done a second time; drivers make that harmless.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import assert_never

from rollcall_contracts.events import (
    Event,
    InstanceCreated,
    InstanceFailed,
    InstancePowered,
    InstanceRestored,
    InstanceUpgraded,
)
from rollcall_contracts.model import Failure, FailureCode, Power

from instance_agent.domain.data_disks import DataDisk, missing, replaced
from instance_agent.domain.drain import Draining


class Operation(StrEnum):
    """What can be asked for one instance, apart from commit, which is done in one step."""

    CREATE = "create"
    UPGRADE = "upgrade"
    RESTORE = "restore"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"


class Step(StrEnum):
    """What is known to be done."""

    BEGUN = "begun"  # the request was read; the instance is as it was
    PREPARED = "prepared"  # the new OS disk lies ready beside the old one, which still runs
    DRAINED = "drained"  # the application is empty, or is not waited for
    STOPPED = "stopped"  # the instance does not run
    SWAPPED = "swapped"  # the new OS disk is in place
    STARTED = "started"  # it was started from it
    CUSTOMIZED = "customized"  # the custom-data script has run
    EXTENDED = "extended"  # all extensions have run
    DONE = "done"  # the report is written down, and is given again when asked again


# An instance that was there before is taken over as it is; nothing runs on it again.
_ADOPTION = (Step.STARTED,)

_NEW_DISK = (
    Step.PREPARED,
    Step.STOPPED,
    Step.SWAPPED,
    Step.STARTED,
    Step.CUSTOMIZED,
    Step.EXTENDED,
)

PLANS: Mapping[Operation, tuple[Step, ...]] = {
    Operation.CREATE: _NEW_DISK,
    # Drained last before it stops: it is out of service no longer than it must be.
    Operation.UPGRADE: (Step.PREPARED, Step.DRAINED, *_NEW_DISK[1:]),
    # Scripts ran on this disk already (M43).
    Operation.RESTORE: (Step.STOPPED, Step.SWAPPED, Step.STARTED),
    Operation.START: (Step.STARTED,),
    Operation.STOP: (Step.DRAINED, Step.STOPPED),
    Operation.RESTART: (Step.DRAINED, Step.STOPPED, Step.STARTED),
    Operation.DELETE: (Step.DRAINED, Step.STOPPED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One OS disk of an instance."""

    name: str  # unique within the instance: the id of the operation that made it
    version: str  # of the image it was made from
    generation: int  # of the model whose scripts run on it
    digest: str = ""  # SHA-256 of the image's file


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One instance as the journal knows it."""

    scale_set: str
    instance_id: str
    attempt: int
    operation: Operation
    step: Step = Step.BEGUN
    draining: Draining | None = None  # while the application is being emptied
    data_disks: Mapping[int, DataDisk] | None = None  # as found when it was stopped
    known_data: Mapping[int, DataDisk] = field(default_factory=dict)  # of all operations before
    note: str = ""  # what else the report of the running operation says
    extensions_done: int = 0
    disk: Disk | None = None  # in place
    previous: Disk | None = None  # kept until the new one is confirmed
    target: Disk | None = None  # to be put in place by the running operation
    swaps: int = 0  # how often the OS disk in place changed; counted once per operation
    should_run: bool = False
    adopted: bool = False  # it was not made by us, and nothing was done to it so far
    taken_over: bool = False  # it was not made by us: its data disks are its owner's to change
    power: Power = Power.RUNNING  # as last told to the control plane
    address: str = ""
    port: int = 0
    report: (
        InstanceCreated
        | InstanceUpgraded
        | InstanceRestored
        | InstancePowered
        | InstanceFailed
        | None
    ) = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for one instance."""

    scale_set: str
    instance_id: str
    attempt: int
    operation: Operation
    version: str = ""  # of the image, where a new OS disk is asked for
    digest: str = ""  # SHA-256 of its file
    generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """The order is of an older attempt than one already known: nothing to do, nothing to say."""

    known: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The order was carried out before: the same report is given again."""

    report: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The order cannot be carried out here."""

    failure: Failure


Decision = Record | Stale | Answered | Refused


def begin(record: Record | None, order: Order, found: Disk | None = None) -> Decision:
    """Say what an order means for an instance: a record to work on, or why there is none.

    `found` is the OS disk that is in place, as the driver sees it: that of an instance that nobody
    asked for yet is taken over, that of a known one is believed when another operation begins.
    Deleting what is not there is decided by the caller, who has no record to work on.
    """
    if record is None:
        if order.operation is not Operation.CREATE:
            return Refused(failure=_unknown(order))
        record = Record(
            scale_set=order.scale_set,
            instance_id=order.instance_id,
            attempt=order.attempt,
            operation=order.operation,
        )
        if found is not None:
            ours = replace(record, disk=found, target=found, should_run=True)
            return replace(ours, adopted=True, taken_over=True)
        return replace(record, target=_new_disk(order))
    if replaces(order, record):
        return _next_operation(believe(record, found), order)
    if order.attempt < record.attempt:
        return Stale(known=record.attempt)
    return record if record.report is None else Answered(report=record.report)


def replaces(new: Order, known: Order | Record) -> bool:
    """Say whether an order is another operation than what is known, and not an older one."""
    return new.attempt > known.attempt or (
        new.attempt == known.attempt and new.operation is not known.operation
    )


def believe(record: Record, found: Disk | None) -> Record:
    """Return the record with the OS disk that is in place, whatever was written down of it.

    An agent may have ended, or a newer request taken over, when a disk was swapped and that not yet
    written down. A disk that no operation of ours made counts as nothing: a swap will refuse it.
    """
    in_place = record.disk.name if record.disk else ""
    if found is None or found.name == in_place:
        return record
    if record.target is not None and found.name == record.target.name:
        return _swapped(record)
    if record.previous is not None and found.name == record.previous.name:
        return replace(record, disk=record.previous, previous=None, swaps=record.swaps + 1)
    if not found.version:
        return record
    # Of an operation that the journal has lost: there is still the way back to what it knows.
    previous = record.previous or record.disk
    return replace(record, disk=found, previous=previous, swaps=record.swaps + 1)


def _next_operation(record: Record, order: Order) -> Record | Refused:
    begun = replace(
        record,
        attempt=order.attempt,
        operation=order.operation,
        step=Step.BEGUN,
        draining=None,
        data_disks=None,
        known_data={**(record.data_disks or {}), **record.known_data},  # new ones only
        note="",
        extensions_done=0,
        adopted=False,
        report=None,
    )
    match order.operation:
        case Operation.CREATE | Operation.UPGRADE:
            return replace(begun, target=_new_disk(order))
        case Operation.RESTORE:
            return _restore(record, begun)
        case Operation.START | Operation.STOP | Operation.RESTART:
            if record.disk is None:
                return Refused(failure=_no_disk(order))
            if order.operation is Operation.STOP:
                # From now on nobody starts it but a person: no reboot of the host, no agent.
                return replace(begun, target=None, should_run=False)
            return replace(begun, target=record.disk, should_run=True)
        case Operation.DELETE:
            return replace(begun, target=None, should_run=False)
        case _:
            assert_never(order.operation)


def _restore(record: Record, begun: Record) -> Record | Refused:
    if record.previous is not None:
        return replace(begun, target=record.previous)
    never_swapped = record.operation is Operation.UPGRADE and record.disk != record.target
    # What was put back, or what power was changed of: no OS disk waits to be put back.
    powered = (Operation.START, Operation.STOP, Operation.RESTART)
    restored = record.operation is Operation.RESTORE or record.operation in powered
    if record.disk is not None and (never_swapped or restored):
        return replace(begun, target=record.disk)  # the previous OS disk is still, or again, there
    return Refused(
        failure=Failure(
            code=FailureCode.DRIVER,
            message="there is no previous OS disk to put back: it was confirmed, or never existed",
            target=record.instance_id,
        )
    )


def remaining(record: Record) -> tuple[Step, ...]:
    """Return the steps still to do, in their order."""
    plan = _ADOPTION if record.adopted else PLANS[record.operation]
    if record.step is Step.DONE:
        return ()
    return plan if record.step is Step.BEGUN else plan[plan.index(record.step) + 1 :]


def advance(record: Record, step: Step) -> Record:
    """Return the record after `step` was done."""
    record = replace(record, step=step)
    match step:
        case Step.DRAINED:
            return replace(record, draining=None)
        case Step.SWAPPED:
            return _swapped(record)
        case Step.STARTED:
            return replace(record, power=Power.RUNNING)
        case Step.STOPPED if record.operation is Operation.STOP:
            return replace(record, power=Power.STOPPED)
        case _:
            return record


def _swapped(record: Record) -> Record:
    upgrades = record.operation is Operation.UPGRADE
    if record.disk == record.target:
        return replace(record, previous=record.previous if upgrades else None, should_run=True)
    # A disk that was never confirmed does not become the one to go back to: the last confirmed
    # one stays it (a second upgrade after a failed one, M41).
    previous = record.previous or record.disk
    return replace(
        record,
        disk=record.target,
        previous=previous if upgrades else None,
        swaps=record.swaps + 1,
        should_run=True,
    )


def commit(record: Record, attempt: int) -> Record | Stale:
    """Return the record without its previous disk: health is confirmed (M06)."""
    if attempt < record.attempt:
        return Stale(known=record.attempt)
    return replace(record, attempt=attempt, previous=None)


def succeed(record: Record) -> Record:
    """Return the record with the report of a complete operation."""
    record = replace(record, known_data=_known_data(record))
    if record.disk is None:
        raise ValueError(f"{record.instance_id}: an operation cannot end without an OS disk")
    match record.operation:
        case Operation.CREATE:
            cls: type[InstanceCreated | InstanceUpgraded | InstanceRestored] = InstanceCreated
        case Operation.UPGRADE:
            cls = InstanceUpgraded
        case Operation.RESTORE:
            cls = InstanceRestored
        case Operation.START | Operation.STOP | Operation.RESTART:
            return replace(record, step=Step.DONE, report=_powered(record))
        case Operation.DELETE:
            raise ValueError(f"{record.instance_id}: a deleted instance has no record")
        case _:
            assert_never(record.operation)
    report = cls(
        scale_set=record.scale_set,
        instance_id=record.instance_id,
        attempt=record.attempt,
        reason=record.note,
        version=record.disk.version,
        generation=record.disk.generation,
        address=record.address,
        port=record.port,
    )
    return replace(record, step=Step.DONE, report=report)


def _known_data(record: Record) -> Mapping[int, DataDisk]:
    """Return the data disks that the operations to come go by.

    A restart is how an owner says that another disk is meant; a restore, which the control plane
    asks for by itself, says nothing of the kind.
    """
    found = record.data_disks or {}
    if record.operation in (Operation.CREATE, Operation.UPGRADE, Operation.RESTART):
        return {**record.known_data, **found}
    return {**found, **record.known_data}


def _powered(record: Record) -> InstancePowered:
    return InstancePowered(
        scale_set=record.scale_set,
        instance_id=record.instance_id,
        attempt=record.attempt,
        reason=record.note,
        power=record.power,
        address=record.address,
        port=record.port,
    )


def fail(record: Record, failure: Failure) -> Record:
    """Return the record with the report of an operation that did not succeed."""
    report = InstanceFailed(
        scale_set=record.scale_set,
        instance_id=record.instance_id,
        attempt=record.attempt,
        reason=record.note,
        error=failure,
        version=record.disk.version if record.disk else None,
    )
    return replace(record, step=Step.DONE, report=report)


def data_fault(record: Record, now: Mapping[int, DataDisk]) -> str:
    """Say what speaks against going on with the data disks that there are now, or "".

    A new OS disk is for the data disks that the instance had. Where it goes back to one, or only
    starts, they need but be there, so that an owner who has moved one has a way to say so.
    """
    if record.taken_over or record.operation in (Operation.STOP, Operation.DELETE):
        return ""
    if record.operation in (Operation.CREATE, Operation.UPGRADE) and record.step is not Step.DONE:
        return replaced(record.known_data, now)
    return missing(record.known_data, now)


def kept_disks(record: Record) -> frozenset[str]:
    """Return the names of the OS disks that must not be dropped once the operation is over."""
    return frozenset(disk.name for disk in (record.disk, record.previous) if disk is not None)


def _new_disk(order: Order) -> Disk:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", order.version)[:80]
    return Disk(
        name=f"{order.attempt:06d}-{name}",
        version=order.version,
        generation=order.generation,
        digest=order.digest,
    )


def _no_disk(order: Order) -> Failure:
    return Failure(
        code=FailureCode.DRIVER,
        message="the instance has no OS disk: its creation did not succeed",
        target=order.instance_id,
    )


def _unknown(order: Order) -> Failure:
    return Failure(
        code=FailureCode.DRIVER,
        message=(
            f"this host holds no instance {order.instance_id}: its agent's state folder was lost "
            "or the instance was made on another host; delete it and let a new one be made"
        ),
        target=order.instance_id,
    )
