"""ISO 8601 durations, as Azure writes them: `PT5M`, `PT1H30M`, `P1D`."""

import re

_UNITS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}
_DURATION = re.compile(
    r"P(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?",
    re.ASCII,
)
_MAX_LENGTH = 40  # nobody writes more; keeps the numbers in reach of a float


def parse_duration(text: str) -> float:
    """Return the seconds of a duration.

    Years and months are no fixed time and are refused. Raises ValueError, which says what is
    expected.
    """
    match = _DURATION.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    parts = {} if match is None else {k: v for k, v in match.groupdict().items() if v is not None}
    if not parts or text.endswith("T"):
        raise ValueError(f"'{text[:_MAX_LENGTH]}' is not an ISO 8601 duration such as PT30S or P1D")
    return sum(float(number) * _UNITS[unit] for unit, number in parts.items())


def format_duration(seconds: float) -> str:
    """Return seconds as a duration; zero is `PT0S`."""
    whole, fraction = int(seconds), seconds - int(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, rest = divmod(rest, 60)
    last = f"{rest + fraction:.6f}".rstrip("0").rstrip(".")
    time = "".join(
        f"{number}{unit}"
        for number, unit in ((str(hours), "H"), (str(minutes), "M"), (last, "S"))
        if number != "0"
    )
    return f"P{days}DT{time}" if days and time else f"P{days}D" if days else f"PT{time or '0S'}"
