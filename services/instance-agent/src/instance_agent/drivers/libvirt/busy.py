"""What must be over before a domain's OS disk may be replaced."""

from typing import Any

from rollcall_contracts.model import FailureCode

from instance_agent.domain.libvirt.domains import DomainXml
from instance_agent.drivers.libvirt.connection import bindings
from instance_agent.failures import OperationFailed


def refuse_busy(domain: Any) -> None:
    """Raise OperationFailed, saying what to do, where a domain is tied to its present OS disk."""
    name = domain.name()
    snapshots = [each.getName() for each in domain.listAllSnapshots()]
    if snapshots:
        raise _refused(
            f"the domain {name} has snapshots ({', '.join(snapshots)}), which belong to its "
            f"present OS disk: delete them (virsh snapshot-delete {name} {snapshots[0]})"
        )
    checkpoints = [each.getName() for each in domain.listAllCheckpoints()]
    if checkpoints:
        raise _refused(
            f"the domain {name} has checkpoints ({', '.join(checkpoints)}), which belong to its "
            f"present OS disk: delete them (virsh checkpoint-delete {name} {checkpoints[0]})"
        )
    refuse_saved(domain)
    if domain.isActive():
        _refuse_jobs(domain, name)


def refuse_saved(domain: Any) -> None:
    """Raise OperationFailed where a domain would go on from a memory image of its own."""
    if domain.hasManagedSaveImage():
        name = domain.name()
        raise _refused(
            f"the domain {name} has a managed save image, the memory of a system that ran from its "
            f"present OS disk: let it go on and shut it down (virsh start {name}; virsh shutdown "
            f"{name}), or drop the image (virsh managedsave-remove {name})"
        )


def _refuse_jobs(domain: Any, name: str) -> None:
    libvirt = bindings()
    for disk in DomainXml(domain.XMLDesc()).disks():
        if disk.source is not None and domain.blockJobInfo(disk.target):
            raise _refused(
                f"a block job is at work on disk {disk.target} of the domain {name}: wait for its "
                f"end, or end it (virsh blockjob {name} {disk.target} --abort)"
            )
    if domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
        raise _refused(
            f"a job (save, dump, backup or migration) is at work on the domain {name}: wait for "
            f"its end, or end it (virsh domjobabort {name})"
        )


def _refused(message: str) -> OperationFailed:
    return OperationFailed(FailureCode.DRIVER, f"{message}; nothing was changed")
