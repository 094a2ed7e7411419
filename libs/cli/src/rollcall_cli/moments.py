"""Times and durations, as people read them and as ISO 8601 writes them."""

import re
from datetime import datetime, timedelta

TENTHS = 9.95  # seconds, below which tenths are shown
_UNITS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_DURATION = re.compile(
    r"P(?:(?P<weeks>\d{1,9})W)?(?:(?P<days>\d{1,9})D)?"
    r"(?:T(?:(?P<hours>\d{1,9})H)?(?:(?P<minutes>\d{1,9})M)?"
    r"(?:(?P<seconds>\d{1,9}(?:\.\d{1,9})?)S)?)?",
    re.ASCII,
)


def parse_duration(text: str) -> float:
    """Return the seconds of an ISO 8601 duration. Raises ValueError, which says what it must be."""
    match = _DURATION.fullmatch(text)
    parts = {} if match is None else {k: v for k, v in match.groupdict().items() if v is not None}
    if not parts or text.endswith("T"):
        raise ValueError(f"{text[:40]!r} is no ISO 8601 duration such as PT30S or P1D")
    return sum(float(number) * _UNITS[unit] for unit, number in parts.items())


def local(moment: datetime, now: datetime) -> str:
    """Return a time on this machine's clock; with its date where that is another one than now."""
    there, here = moment.astimezone(), now.astimezone()
    return f"{there:%H:%M:%S}" if there.date() == here.date() else f"{there:%Y-%m-%d %H:%M:%S}"


def zone(moment: datetime) -> str:
    """Return the name of this machine's time zone at a time."""
    return moment.astimezone().tzname() or "local time"


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def length(span: timedelta | float) -> str:
    """Return a duration in its two largest units: `1 h 5 min`, `45 s`."""
    exact = span.total_seconds() if isinstance(span, timedelta) else span
    seconds = round(exact)
    if exact < TENTHS:
        return f"{max(exact, 0):.1f}".removesuffix(".0") + " s"
    parts = []
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, unit)
        if count:
            parts.append(f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:2])
