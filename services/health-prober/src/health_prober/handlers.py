"""From a message to the prober."""

from collections.abc import Awaitable, Callable

from rollcall_contracts.events import Event, ProbeRequested
from rollcall_kit.consume import Reject
from rollcall_kit.service import Context

from health_prober.prober import Prober


def hold_lease(prober: Prober) -> Callable[[Event, Context], Awaitable[None]]:
    """Return the handler of requests: it ends, and so acknowledges, when the lease is over."""

    async def handle(event: Event, context: Context) -> None:
        match event:
            case ProbeRequested():
                await prober.hold(event, report=context.report, now=context.now())
            case _:
                raise Reject(f"the prober handles probe.requested.v1, not {event.type}")

    return handle
