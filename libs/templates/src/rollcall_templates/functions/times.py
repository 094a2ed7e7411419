"""Functions on dates. What time it is, is no function of arguments: see `surroundings`."""

import re
from datetime import UTC, datetime, timedelta

from rollcall_templates.functions.arguments import Arguments, Function
from rollcall_templates.values import FunctionError

_DURATION = re.compile(
    r"(?P<sign>-?)P(?:(?P<years>\d{1,4})Y)?(?:(?P<months>\d{1,5})M)?(?:(?P<weeks>\d{1,5})W)?"
    r"(?:(?P<days>\d{1,6})D)?(?:T(?:(?P<hours>\d{1,7})H)?(?:(?P<minutes>\d{1,8})M)?"
    r"(?:(?P<seconds>\d{1,9})S)?)?",
    re.ASCII,
)
# The words of .NET's custom formats, longest first.
_WORDS = {
    "yyyy": "%Y",
    "MMMM": "%B",
    "dddd": "%A",
    "MMM": "%b",
    "ddd": "%a",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "hh": "%I",
    "mm": "%M",
    "ss": "%S",
    "tt": "%p",
}
_SPARSE = {"M": "%m", "d": "%d", "H": "%H", "h": "%I", "m": "%M", "s": "%S"}
_STANDARD = {
    "u": "yyyy-MM-dd HH:mm:ss'Z'",
    "s": "yyyy-MM-dd'T'HH:mm:ss",
    "d": "MM/dd/yyyy",
    "T": "HH:mm:ss",
    "t": "HH:mm",
    "R": "ddd, dd MMM yyyy HH:mm:ss 'GMT'",
    "r": "ddd, dd MMM yyyy HH:mm:ss 'GMT'",
    "o": "yyyy-MM-dd'T'HH:mm:ss.fffffff'Z'",
    "O": "yyyy-MM-dd'T'HH:mm:ss.fffffff'Z'",
}
_PIECE = re.compile(
    "'[^']*'|" + "|".join((*_WORDS, "f{1,7}", *_SPARSE)) + r"|\\.|.", re.DOTALL | re.ASCII
)
ISO = "yyyyMMddTHHmmssZ"  # of utcNow, by default


def in_form(moment: datetime, form: str) -> str:
    """Return a time in a format of .NET, its usual words. Raises FunctionError."""
    if len(form) == 1:
        if form not in _STANDARD:
            raise FunctionError(f"its format '{form}' is not one of {', '.join(_STANDARD)}")
        form = _STANDARD[form]
    return "".join(_piece(moment, each) for each in _PIECE.findall(form))


def _piece(moment: datetime, piece: str) -> str:
    if piece[0] == "'":
        return piece[1:-1] if len(piece) > 1 else piece
    if piece in _WORDS:
        return moment.strftime(_WORDS[piece]).rjust(len(piece) if piece == "yyyy" else 0, "0")
    if piece in _SPARSE:
        return moment.strftime(_SPARSE[piece]).lstrip("0") or "0"
    if piece[0] == "f":
        return f"{moment.microsecond:06d}0"[: len(piece)]
    return piece[1:] if piece[0] == "\\" else piece


def moment_of(text: str) -> datetime:
    """Return the time that a text in ISO 8601 names; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise FunctionError("its argument 1 must be a time such as 2020-04-07T14:53:14Z") from None


def date_time_add(arguments: Arguments) -> str:
    """Return a time that is a duration (ISO 8601) later than another."""
    moment = moment_of(arguments.text(0))
    match = _DURATION.fullmatch(arguments.text(1))
    if match is None or not any(match[name] for name in match.groupdict() if name != "sign"):
        raise FunctionError("its argument 2 must be an ISO 8601 duration such as P3D or -PT1H")
    part = {name: int(text or 0) for name, text in match.groupdict().items() if name != "sign"}
    # As .NET reads it: a year has 365 days, and a month 30.
    length = timedelta(
        days=part["years"] * 365 + part["months"] * 30 + part["weeks"] * 7 + part["days"],
        hours=part["hours"],
        minutes=part["minutes"],
        seconds=part["seconds"],
    )
    form = arguments.text(2) if len(arguments) > 2 else "M/d/yyyy h:mm:ss tt"
    try:
        return in_form(moment - length if match["sign"] else moment + length, form)
    except OverflowError:
        raise FunctionError("the result is no time that exists here") from None


def to_epoch(arguments: Arguments) -> int:
    """Return the seconds since 1970 of a time."""
    return int(moment_of(arguments.text(0)).timestamp())


def from_epoch(arguments: Arguments) -> str:
    """Return the time so many seconds after 1970."""
    try:
        moment = datetime.fromtimestamp(arguments.whole(0), UTC)
    except (ValueError, OverflowError, OSError):
        raise FunctionError("its argument 1 is no time that exists here") from None
    return in_form(moment, "yyyy-MM-ddTHH:mm:ssZ")


TABLE = (
    Function("dateTimeAdd", 2, 3, date_time_add),
    Function("dateTimeToEpoch", 1, 1, to_epoch),
    Function("dateTimeFromEpoch", 1, 1, from_epoch),
)
