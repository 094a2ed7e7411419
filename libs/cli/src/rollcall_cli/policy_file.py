"""A policy in a file, JSON or YAML: `rollingUpgradePolicy` in the API's own words.

Durations are ISO 8601 or seconds. What the file leaves out stays as it is; `null` is the default.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel
from rollcall_contracts.model import MaintenanceWindow, RollingPolicy

from rollcall_cli.client import ClientError
from rollcall_cli.moments import parse_duration

POLICY, WINDOWS = "rollingUpgradePolicy", "maintenanceWindows"
WINDOW = ("startDateTime", "timeZone", "duration", "recurEvery", "expirationDateTime")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}", re.ASCII)
_CLOCK = re.compile(r"(\d{1,3}):([0-5]\d)", re.ASCII)
_RECURRENCE = re.compile(
    r"(?P<interval>\d{1,2})?\s*(?P<unit>day|week)s?(?:\s+(?P<days>[a-z]+(?:\s*,\s*[a-z]+)*))?",
    re.ASCII | re.IGNORECASE,
)
_KINDS = {
    "boolean": ((bool,), "true or false"),
    "integer": ((int,), "a whole number"),
    "number": ((int, float, str), "a duration, such as PT5M or 300"),
    "string": ((str,), "a text"),
    "object": ((dict,), "an object"),
}


class PolicyFileError(ClientError):
    """The file cannot be taken; the message names the file and the key."""


class _Fault(Exception):
    """A key, and what is wrong with it."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key}: {what}" if key else what)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What a file says."""

    values: Mapping[str, Any]  # of the policy, by their names in Python
    windows: tuple[MaintenanceWindow, ...] | None  # none: not said
    path: Path

    def over(self, policy: RollingPolicy) -> RollingPolicy:
        """Return the policy with what the file says. Raises PolicyFileError where it cannot be."""
        given = {name: value for name, value in self.values.items() if value is not None}
        kept = {k: v for k, v in policy.model_dump().items() if k not in self.values}
        try:
            return RollingPolicy.model_validate({**kept, **given})
        except ValidationError as error:
            raise PolicyFileError(f"{self.path}: {_first(error)}") from error


def read_policy_file(path: Path) -> PolicyFile:
    """Return what a file says. Raises PolicyFileError."""
    try:
        document = _load(path)
        whole = any(key in document for key in (POLICY, WINDOWS))
        if whole:
            _refuse_unknown(document, (POLICY, WINDOWS), "")
        policy = document.get(POLICY) if whole else document
        windows = document.get(WINDOWS) if whole else None
        schema = RollingPolicy.model_json_schema()
        return PolicyFile(
            values=_values(_object(policy or {}, POLICY), schema, schema.get("$defs", {}), ""),
            windows=None if windows is None else tuple(_windows(windows)),
            path=path,
        )
    except _Fault as fault:
        raise PolicyFileError(f"{path}: {fault}") from fault


def _load(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise _Fault("", f"the policy file cannot be read: {why}") from error
    try:
        document = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
    except json.JSONDecodeError as error:
        raise _Fault("", f"no JSON at line {error.lineno}: {error.msg}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise _Fault("", f"no YAML{where}: {getattr(error, 'problem', error)}") from error
    if document is None:
        raise _Fault("", "the file is empty")
    return _object(document, "")


def _object(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _Fault(key, "must be an object with a name for each value")
    return value


def _refuse_unknown(document: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    names = list(known)
    for key in document:
        if key not in names:
            near = get_close_matches(key, names, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            raise _Fault(place + key, f"is not known; {hint}")


# --- the policy -----------------------------------------------------------------------------------


def _values(
    document: Mapping[str, Any],
    schema: Mapping[str, Any],
    definitions: Mapping[str, Any],
    place: str,
) -> dict[str, Any]:
    """Return the values of a document by their names in Python, after a look at their kinds."""
    names = {to_camel(name): name for name in schema["properties"]}
    _refuse_unknown(document, names, place)
    return {
        names[key]: _value(value, schema["properties"][names[key]], definitions, place + key)
        for key, value in document.items()
    }


def _value(
    value: Any, property: Mapping[str, Any], definitions: Mapping[str, Any], key: str
) -> Any:
    if value is None:
        return None
    schema = _resolved(property, definitions)
    types, words = _KINDS[schema["type"]]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise _Fault(key, f"must be {words}, but is {value!r}")
    if schema["type"] == "object":
        return _values(_object(value, key), schema, definitions, f"{key}.")
    if schema["type"] == "number" and isinstance(value, str):
        try:
            return parse_duration(value)
        except ValueError as error:
            raise _Fault(key, str(error)) from error
    return value


def _resolved(property: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a property is, beside null."""
    choices = [each for each in property.get("anyOf", ()) if each.get("type") != "null"]
    inner: Mapping[str, Any] = choices[0] if choices else property
    if "$ref" not in inner:
        return inner
    found: Mapping[str, Any] = definitions[inner["$ref"].rpartition("/")[2]]
    return found


def _first(error: ValidationError) -> str:
    """Return what is wrong in the words of the file."""
    first = error.errors()[0]
    key = ".".join(to_camel(str(part)) for part in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    return f"{key}: {what}" if key else what


# --- the windows ----------------------------------------------------------------------------------


def _windows(value: object) -> Iterable[MaintenanceWindow]:
    if not isinstance(value, list):
        raise _Fault(WINDOWS, "must be a list")
    for index, item in enumerate(value):
        yield _window(item, f"{WINDOWS}[{index}].")


def _window(item: object, place: str) -> MaintenanceWindow:
    document = _object(item, place.rstrip("."))
    _refuse_unknown(document, WINDOW, place)
    for key in WINDOW[:3]:
        if document.get(key) is None:
            raise _Fault(place + key, "is required")
    for key, value in document.items():
        if value is not None and not isinstance(value, str):
            raise _Fault(place + key, f"must be a text: write {value!r} in quotes")
    values = {
        "start": _time(document["startDateTime"], f"{place}startDateTime"),
        "time_zone": document["timeZone"],
        "duration": _window_length(document["duration"], f"{place}duration"),
        **_recurrence(document.get("recurEvery") or "Day", f"{place}recurEvery"),
        "expires": _time(document.get("expirationDateTime"), f"{place}expirationDateTime"),
    }
    try:
        return MaintenanceWindow.model_validate(values)
    except ValidationError as error:
        raise _Fault(place.rstrip("."), _first(error)) from error


def _time(text: str | None, key: str) -> datetime | None:
    if text is None:
        return None
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise _Fault(key, "must be a local time such as '2026-05-01 22:00'") from error


def _window_length(text: str, key: str) -> float:
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        return int(clock[1]) * 3_600.0 + int(clock[2]) * 60
    try:
        return parse_duration(text)
    except ValueError as error:
        raise _Fault(key, f"{error}, nor hours and minutes such as 05:00") from error


def _recurrence(text: str, key: str) -> dict[str, Any]:
    match = _RECURRENCE.fullmatch(text.strip())
    names = re.split(r"\s*,\s*", match["days"].lower()) if match and match["days"] else []
    unit = match["unit"].capitalize() if match else ""
    if match is None or (names and unit == "Day") or not all(name in WEEKDAYS for name in names):
        raise _Fault(key, "must be such as Day, 3Days, Week, 2Weeks or 'Week Saturday,Sunday'")
    return {
        "recur_every": unit,
        "interval": int(match["interval"] or 1),
        "weekdays": tuple(sorted({WEEKDAYS.index(name) for name in names})),
    }
