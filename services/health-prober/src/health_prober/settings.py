"""What the prober is told from outside (`ROLLCALL_PROBE_…`)."""

from typing import Annotated

from pydantic import Field
from rollcall_kit.settings import Settings


class HealthProberSettings(Settings):
    """The prober's settings; durations are seconds."""

    probe_concurrency: Annotated[int, Field(ge=1)] = 200  # probes under way at once, in each lane
    probe_prefetch: Annotated[int, Field(ge=1)] = 2000  # leases that this process holds at most
    probe_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1  # share of the interval
    probe_fast_interval: Annotated[float, Field(gt=0)] = 0.05  # first pause while a batch waits
    # Each pause is so much longer than the last. The last pause before an application answers is
    # time that the whole batch waits for nothing: at 1.05 it is about 5 % of the boot.
    probe_fast_growth: Annotated[float, Field(ge=1)] = 1.05
    probe_fast_ceiling: Annotated[float, Field(gt=0)] = 1.0  # the pauses grow no further
