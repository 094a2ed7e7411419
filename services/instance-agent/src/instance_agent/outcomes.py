"""What the control plane is told of orders that leave no record behind, or never had one."""

import structlog
from rollcall_contracts.events import InstanceDeleted, InstanceFailed
from rollcall_contracts.model import Failure

from instance_agent.domain.record import Order, Record
from instance_agent.failures import OperationFailed
from instance_agent.space import failure_of

log = structlog.get_logger()


def deleted(order: Order, note: str = "") -> InstanceDeleted:
    """Return the report of a deletion."""
    return InstanceDeleted(
        scale_set=order.scale_set,
        instance_id=order.instance_id,
        attempt=order.attempt,
        reason=note,
    )


def failure_in(error: Exception, order: Order) -> Failure:
    """Return what an operation ended with; what nobody thought of is in the log as a whole."""
    if not isinstance(error, OperationFailed):
        log.exception("operation_crashed", instance=order.instance_id, exc_info=error)
    return failure_of(error, order.instance_id)


def refused(order: Order, failure: Failure, known: Record | None) -> InstanceFailed:
    """Return the report of what was not begun."""
    return InstanceFailed(
        scale_set=order.scale_set,
        instance_id=order.instance_id,
        attempt=order.attempt,
        error=failure,
        version=known.disk.version if known and known.disk else None,
    )
