"""How long instances take: measured in the last upgrades, or assumed where there were none."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, RollingPolicy

from rollcall_simulator.engine import Behaviour

PROVISIONING, HEALTHY = 60.0, 10.0  # seconds, where nothing was measured
FETCH = 5.0  # seconds for a host to fetch and verify the image: not measured
DELETION = 10.0  # seconds, at most: nothing new has to boot
ENOUGH = 10  # samples from which one in ten at each end is left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Seconds: the median, and what one in ten stays below and above."""

    median: float
    low: float
    high: float
    samples: int  # 0: assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an instance takes until its new OS disk has booted, and from then until healthy."""

    provisioning: Estimate
    healthy: Estimate

    @property
    def fastest(self) -> "Pace":
        """Return the same with each instance as fast as the fast ones."""
        return Pace(
            provisioning=_always(self.provisioning, self.provisioning.low),
            healthy=_always(self.healthy, self.healthy.low),
        )

    @property
    def slowest(self) -> "Pace":
        """Return the same with each instance as slow as the slow ones."""
        return Pace(
            provisioning=_always(self.provisioning, self.provisioning.high),
            healthy=_always(self.healthy, self.healthy.high),
        )

    def behaviour(self, request: e.HostRequest) -> Behaviour:
        """Return how an instance takes a request, when all goes well."""
        work = self.provisioning.median
        if isinstance(request, e.InstancesDeleteRequested | e.InstancesPowerRequested):
            work = min(work, DELETION)
        return Behaviour(work=work, healthy=self.healthy.median)

    def failure(self, request: e.HostRequest, *, probed: bool) -> Behaviour:
        """Return how an instance takes a request to which its application is not equal."""
        work = self.provisioning.median
        if probed:
            return Behaviour(work=work, healthy=None)
        error = Failure(code=FailureCode.START, message="assumed to fail")
        return Behaviour(work=work, failure=error)


def pace(
    provisioning: Sequence[float], healthy: Sequence[float], policy: RollingPolicy | None = None
) -> Pace:
    """Return the pace in what was measured, in seconds.

    What is assumed instead is well within the time limits of the policy.
    """
    limits = policy or RollingPolicy()
    return Pace(
        provisioning=_estimate(provisioning, min(PROVISIONING, limits.provisioning_timeout / 2)),
        healthy=_estimate(healthy, min(HEALTHY, limits.health_timeout / 2)),
    )


def _estimate(samples: Sequence[float], assumed: float) -> Estimate:
    if not samples:
        return Estimate(median=assumed, low=assumed, high=assumed, samples=0)
    low, high = min(samples), max(samples)
    if len(samples) >= ENOUGH:
        tenths = quantiles(samples, n=10, method="inclusive")
        low, high = tenths[0], tenths[-1]
    return Estimate(median=median(samples), low=low, high=high, samples=len(samples))


def _always(estimate: Estimate, seconds: float) -> Estimate:
    return Estimate(median=seconds, low=seconds, high=seconds, samples=estimate.samples)


def upgraded_instance(id: str, request: e.HostRequest) -> str | None:
    """Return whose upgrade a request is: for a surge, of the instance that is replaced."""
    match request:
        case e.InstancesUpgradeRequested(upgrade_id=str()):
            return id
        case e.InstancesCreateRequested():
            return next((o.replaces for o in request.instances if o.instance_id == id), None)
    return None
