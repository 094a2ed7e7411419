"""Compose the prober: one queue of leases, no database."""

from rollcall_contracts.events import ProbeRequested, event_type
from rollcall_kit.broker import QueueSpec
from rollcall_kit.consume import TaskConsumer
from rollcall_kit.service import Service

from health_prober.handlers import hold_lease
from health_prober.prober import Prober
from health_prober.settings import HealthProberSettings


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
            )
        ],
        background=[prober.run],
    )
