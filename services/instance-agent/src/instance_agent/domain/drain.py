"""When an instance that is asked to empty itself is stopped."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

FIRST_PAUSE = 0.1  # seconds between the first two questions
LONGEST_PAUSE = 2.0


class DrainEnd(StrEnum):
    """Why an instance is not waited for any longer."""

    EMPTY = "empty"  # it said so
    DEADLINE = "deadline"  # its time is up
    NO_HOOK = "no_hook"  # nobody there knows of draining
    STOPPED = "stopped"  # it ended by itself meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """A drain under way, as the journal keeps it over the agent's death."""

    began: datetime  # the first question
    until: datetime
    answered: bool = False  # it has said once that it needs time, or that it is there


def judge(draining: Draining, status: int | None) -> tuple[Draining, DrainEnd | None]:
    """Return the drain after an answer, and its end where there is one; None is no answer.

    - 2xx but 202: empty. 202: not yet, ask again;
    - 5xx and 429: whoever answers is there and has trouble, ask again;
    - anything else: an application without the hook, unless it gave one of the answers before.
    """
    if status is not None and 200 <= status < 300 and status != 202:
        return draining, DrainEnd.EMPTY
    if status is not None and (status in (202, 429) or status >= 500):
        return replace(draining, answered=True), None
    return draining, None if draining.answered else DrainEnd.NO_HOOK


def time_left(draining: Draining, now: datetime) -> float:
    """Return the seconds until the deadline, at least 0; a clock set back does not add to them."""
    whole = (draining.until - draining.began).total_seconds()
    return min(max((draining.until - now).total_seconds(), 0.0), whole)


def next_pause(pause: float) -> float:
    """Return the seconds before the next question but one."""
    return min(pause * 1.5, LONGEST_PAUSE)


def in_words(end: DrainEnd, *, seconds: float, asked: int, last: str) -> str:
    """Return what a drain came to, for the report: `last` is the last answer."""
    times = "once" if asked == 1 else f"{asked} times"
    match end:
        case DrainEnd.EMPTY:
            return f"drained in {seconds:.1f} s, asked {times}"
        case DrainEnd.STOPPED:
            return f"ended by itself {seconds:.1f} s after it was asked to drain"
        case DrainEnd.DEADLINE:
            return f"not drained in {seconds:.1f} s, stopped all the same; the last of it: {last}"
        case DrainEnd.NO_HOOK:
            return f"not drained, stopped all the same: {last}"
