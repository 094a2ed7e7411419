"""From single results to verdicts: the threshold `numberOfProbes`, and what is worth a report."""

from dataclasses import dataclass, replace

from rollcall_contracts.model import Health

from health_prober.domain.custom_metrics import NO_WISH, Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is held of one instance under one lease."""

    health: Health | None  # the verdict that stands; None when nobody knows one yet
    reported: bool = False  # under this lease
    candidate: Health | None = None  # another health that was seen, not often enough yet
    streak: int = 0  # how often in a row
    wish: Wish = NO_WISH  # as the application said it last
    told: Wish = NO_WISH  # as it was in the last report


def opening(known: Health, wish: Wish = NO_WISH) -> Standing:
    """Return the standing at a lease's start, from what the request says is known."""
    return Standing(health=None if known is Health.UNKNOWN else known, wish=wish, told=wish)


def judge(
    standing: Standing, result: Health, threshold: int, wish: Wish | None = None
) -> tuple[Standing, Health | None]:
    """Return the standing after one more result, and the verdict to report, if there is one.

    `threshold` equal results in a row change the verdict (Azure's numberOfProbes, M31); one that
    agrees with it confirms it. A lease's first verdict is reported always, later ones when they
    differ, and again when the application's `wish` did. A wish that comes with a result which is
    not believed yet waits for the next verdict; `None` leaves the last one as it is.

    >>> first, verdict = judge(opening(Health.HEALTHY), Health.UNHEALTHY, 2)
    >>> verdict is None  # one dropped probe changes nothing
    True
    >>> judge(first, Health.UNHEALTHY, 2)[1]
    <Health.UNHEALTHY: 'Unhealthy'>
    """
    if wish is not None:
        standing = replace(standing, wish=wish)
    if result is not standing.health:
        streak = standing.streak + 1 if result is standing.candidate else 1
        if streak < threshold:
            return replace(standing, candidate=result, streak=streak), None
        return _reported(standing, result), result
    known = standing.reported and standing.wish == standing.told
    return _reported(standing, result), None if known else result


def _reported(standing: Standing, health: Health) -> Standing:
    return Standing(health=health, reported=True, wish=standing.wish, told=standing.wish)
