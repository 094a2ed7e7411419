"""From requests to the host's work, and from its outcome to reports."""

import asyncio
from typing import assert_never

import structlog
from rollcall_contracts.events import (
    AgentSeen,
    Event,
    HostRequest,
    ImageFetched,
    ImageFetchFailed,
    ImageFetchRequested,
    InstanceOrder,
    InstancesCommitRequested,
    InstancesCreateRequested,
    InstancesDeleteRequested,
    InstancesPowerRequested,
    InstancesRestoreRequested,
    InstancesUpgradeRequested,
)
from rollcall_contracts.model import PowerAction
from rollcall_kit.consume import Reject
from rollcall_kit.service import Context

from instance_agent.domain.record import Operation, Order
from instance_agent.failures import OperationFailed
from instance_agent.host import Host, Job
from instance_agent.space import failure_of

log = structlog.get_logger()

Request = (
    InstancesCreateRequested
    | InstancesUpgradeRequested
    | InstancesRestoreRequested
    | InstancesCommitRequested
    | InstancesPowerRequested
    | InstancesDeleteRequested
)

POWER = {
    PowerAction.START: Operation.START,
    PowerAction.POWER_OFF: Operation.STOP,
    PowerAction.RESTART: Operation.RESTART,
}


async def handle(event: Event, context: Context, *, host: Host) -> None:
    """Carry a request out; returns when every report of it is with the broker."""
    match event:
        case ImageFetchRequested():
            await context.report(await fetch(event, host))
        case (
            InstancesCreateRequested()
            | InstancesUpgradeRequested()
            | InstancesRestoreRequested()
            | InstancesCommitRequested()
            | InstancesPowerRequested()
            | InstancesDeleteRequested()
        ):
            # One that cannot be carried out leaves the others alone; all of them come again.
            ends = await asyncio.gather(
                *(_carry_out(event, order, context, host) for order in event.instances),
                return_exceptions=True,
            )
            errors = [end for end in ends if end is not None]
            if errors:
                raise BaseExceptionGroup(f"{len(errors)} of {len(ends)} orders", errors)
        case _:
            raise Reject(f"an agent does not take {event.type}")


async def _carry_out(request: Request, order: InstanceOrder, context: Context, host: Host) -> None:
    match request:
        case InstancesCommitRequested():
            await host.commit(_order(request, order, Operation.UPGRADE))
        case InstancesCreateRequested():
            job = Job(
                order=_order(request, order, Operation.CREATE),
                image=request.image,
                provisioning=request.provisioning,
            )
            await host.carry_out(job, context.report)
        case InstancesUpgradeRequested():
            job = Job(
                order=_order(request, order, Operation.UPGRADE),
                image=request.image,
                provisioning=request.provisioning,
                drain=request.drain,
            )
            await host.carry_out(job, context.report)
        case InstancesRestoreRequested():
            job = Job(order=_order(request, order, Operation.RESTORE))
            await host.carry_out(job, context.report)
        case InstancesPowerRequested():
            operation = POWER[request.change]
            job = Job(order=_order(request, order, operation), drain=request.drain)
            await host.carry_out(job, context.report)
        case InstancesDeleteRequested():
            job = Job(order=_order(request, order, Operation.DELETE), drain=request.drain)
            await host.carry_out(job, context.report)
        case _:
            assert_never(request)


def _order(request: HostRequest, order: InstanceOrder, operation: Operation) -> Order:
    version, digest, generation = "", "", 0
    if isinstance(request, InstancesCreateRequested | InstancesUpgradeRequested):
        version, digest = request.image.version, request.image.sha256
        generation = request.provisioning.generation
    return Order(
        scale_set=request.scale_set,
        instance_id=order.instance_id,
        attempt=order.attempt,
        operation=operation,
        version=version,
        digest=digest,
        generation=generation,
    )


async def fetch(event: ImageFetchRequested, host: Host) -> ImageFetched | ImageFetchFailed:
    """Put an image into the cache ahead of the first batch."""
    try:
        await host.images.fetch(event.image)
    except Exception as error:
        if not isinstance(error, OperationFailed):
            log.exception("fetch_crashed", version=event.image.version)
        return ImageFetchFailed(
            scale_set=event.scale_set,
            host=event.host,
            upgrade_id=event.upgrade_id,
            error=failure_of(error),
        )
    return ImageFetched(scale_set=event.scale_set, host=event.host, upgrade_id=event.upgrade_id)


async def heartbeat(context: Context, *, seen: AgentSeen, interval: float) -> None:
    """Say at the start and every `interval` seconds that this host takes requests."""
    while True:
        await context.report(seen)
        await asyncio.sleep(interval)


async def watch_power(context: Context, *, host: Host, interval: float) -> None:
    """Put right what does not run, then keep watch."""
    await host.power.recover(context.report)
    try:
        while True:
            await asyncio.sleep(interval)
            await host.power.look_again(context.report)
    finally:
        await host.power.close()
