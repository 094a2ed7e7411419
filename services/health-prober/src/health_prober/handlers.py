"""From a message to the prober, or to a metric gate's server."""

from collections.abc import Awaitable, Callable

import structlog
from rollcall_contracts.events import Event, MetricQueried, MetricQueryRequested, ProbeRequested
from rollcall_kit.consume import Reject
from rollcall_kit.service import Context

from health_prober.metric import ask_metric
from health_prober.prober import Prober

log = structlog.get_logger()


def hold_lease(prober: Prober) -> Callable[[Event, Context], Awaitable[None]]:
    """Return the handler of requests: it ends, and so acknowledges, when the lease is over."""

    async def handle(event: Event, context: Context) -> None:
        match event:
            case ProbeRequested():
                await prober.hold(event, report=context.report, now=context.now())
            case _:
                raise Reject(f"the prober handles probe.requested.v1, not {event.type}")

    return handle


async def ask_gate(event: Event, context: Context) -> None:
    """Ask a metric gate's question once; whatever comes of it is reported."""
    match event:
        case MetricQueryRequested():
            answer = await ask_metric(event.gate)
            log.info(
                "metric_queried",
                scale_set=event.scale_set,
                upgrade=event.upgrade_id,
                check=event.check,
                outcome=answer.outcome.value,
                why=answer.reason,
            )
            await context.report(
                MetricQueried(
                    scale_set=event.scale_set,
                    upgrade_id=event.upgrade_id,
                    check=event.check,
                    outcome=answer.outcome,
                    value=answer.value,
                    reason=answer.reason,
                )
            )
        case _:
            raise Reject(f"metric gates are asked by metric.query_requested.v1, not {event.type}")
