"""When to ask: spread over the interval, or fast while a batch waits."""


def first_pause(*, interval: float, lease: float, chance: float) -> float:
    """Return the seconds before a lease's first probe; `chance` is in [0, 1).

    Leases come for whole sets at once: their probes are spread over the interval. A lease that is
    shorter than two intervals still gets its first verdict in its first half.
    """
    return chance * min(interval, lease / 2)


def next_pause(*, interval: float, took: float, jitter: float, chance: float) -> float:
    """Return the seconds from a probe's end to the next one's start.

    `took` is how long the probe lasted: the interval counts from start to start. `jitter` is the
    share of the interval by which `chance` in [0, 1) moves it, so that no two stay in step.
    """
    return max(0.0, interval * (1 + jitter * (2 * chance - 1)) - took)


def grow(pause: float, *, growth: float, interval: float, ceiling: float) -> float:
    """Return the next of the fast pauses; never longer than the probe's own interval."""
    return min(pause * growth, interval, ceiling)
