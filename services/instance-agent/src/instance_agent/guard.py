"""The guard of an instance's disks: nothing goes on where one is not what it must be (M06)."""

from rollcall_contracts.model import FailureCode

from instance_agent.domain.data_disks import changed
from instance_agent.domain.record import Disk, Record, data_fault
from instance_agent.driver import Observation
from instance_agent.failures import OperationFailed


def refuse_to_stop(record: Record, target: Disk, seen: Observation) -> None:
    """Fail when the OS disk to go to is not there, or a data disk is not what it was."""
    if target.name not in seen.disks:
        raise OperationFailed(
            FailureCode.DRIVER,
            f"OS disk {target.name} is gone; the instance was not stopped",
            record.instance_id,
        )
    refuse_other_data(record, seen)


def refuse_other_data(record: Record, seen: Observation) -> None:
    """Fail when a data disk is gone, or not the one of the operations before.

    Asked before anything is touched: what is missing would be made, and be empty.
    """
    what = data_fault(record, seen.data_disks)
    if what:
        raise OperationFailed(
            FailureCode.DATA_DISK,
            f"{what}; nothing was changed: put it back, and where another one is meant to take its "
            "place, restart the instance with it before it is upgraded",
            record.instance_id,
        )


def compare(record: Record, seen: Observation) -> None:
    """Fail when a disk is not the one that it was when the instance was stopped.

    Asked before the new OS disk starts, and again when it is done: it may have overwritten one.
    """
    if seen.disk != record.target:
        raise OperationFailed(
            FailureCode.DRIVER,
            f"{seen.disk or 'no OS disk'} is in place, and not {record.target}",
            record.instance_id,
        )
    what = changed(record.data_disks or {}, seen.data_disks)
    if what:
        raise OperationFailed(
            FailureCode.DATA_DISK,
            f"{what}; data disks must outlive a change of the OS disk, so the work on the "
            "instance ends here",
            record.instance_id,
        )
    refuse_other_data(record, seen)
