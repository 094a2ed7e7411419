"""Compose the prober: a queue of leases, and one of metric gates' questions; no database."""

from rollcall_contracts.events import MetricQueryRequested, ProbeRequested, event_type
from rollcall_kit.broker import QueueSpec
from rollcall_kit.consume import TaskConsumer
from rollcall_kit.service import Service

from health_prober.handlers import ask_gate, hold_lease
from health_prober.prober import Prober
from health_prober.settings import HealthProberSettings

QUESTIONS = 100  # of metric gates, under way at once


def build(settings: HealthProberSettings) -> Service:
    """Return the service."""
    prober = Prober(settings)
    return Service(
        name="health-prober",
        consumers=[
            TaskConsumer(
                queue=QueueSpec(
                    name="health-prober",
                    bindings=(event_type(ProbeRequested),),
                    prefetch=settings.probe_prefetch,
                ),
                handle=hold_lease(prober),
            ),
            TaskConsumer(
                queue=QueueSpec(
                    name="health-prober.metrics",
                    bindings=(event_type(MetricQueryRequested),),
                    prefetch=QUESTIONS,
                ),
                handle=ask_gate,
            ),
        ],
        background=[prober.run],
    )
