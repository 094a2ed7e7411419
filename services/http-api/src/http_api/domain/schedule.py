"""When upgrades may go on: lifecycle hooks, which ask somebody, and maintenance windows."""

import re
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from rollcall_contracts.model import LifecycleHook, LifecycleHookType, MaintenanceWindow

from http_api.domain.documents import Reader
from http_api.domain.durations import parse_duration
from http_api.domain.fields import fields_of, read_fields
from http_api.domain.policy import UPGRADE_POLICY
from http_api.domain.shape import MAINTENANCE_WINDOW

HOOKS = "properties.lifecycleHooksProfile.lifecycleHooks"
WINDOWS = f"{UPGRADE_POLICY}.maintenanceWindows"

_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}", re.ASCII)
_CLOCK = re.compile(r"(\d{1,3}):([0-5]\d)", re.ASCII)
_RECURRENCE = re.compile(
    r"(?P<interval>\d{1,2})?\s*(?P<unit>day|week)s?(?:\s+(?P<days>[a-z]+(?:\s*,\s*[a-z]+)*))?",
    re.ASCII | re.IGNORECASE,
)
_LIMITS = {
    "time_zone": ("timeZone", ""),
    "duration": ("duration", "duration must be from one minute to seven days"),
    "interval": ("recurEvery", "recurEvery must be at most every 35 days or weeks"),
}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def read_hooks(reader: Reader) -> tuple[LifecycleHook, ...]:
    """Return the lifecycle hooks (azure-aws-gcp.md 1.7); of each type there is one at most."""
    found: dict[LifecycleHookType, LifecycleHook] = {}
    for index, item in enumerate(reader.objects(HOOKS)):
        place = f"{HOOKS}[{index}]"
        inner = Reader(item)
        values = read_fields(inner, "", fields_of(LifecycleHook))
        reader.take(inner, place)
        if inner.faults:
            continue
        hook = LifecycleHook.model_validate(values)
        if hook.type in found:
            reader.fault(f"{place}.type", f"two lifecycle hooks are of the type {hook.type}")
        found[hook.type] = hook
    return tuple(found.values())


def read_windows(reader: Reader) -> tuple[MaintenanceWindow, ...]:
    """Return the maintenance windows, in the words of Microsoft.Maintenance (1.11)."""
    found: list[MaintenanceWindow] = []
    for index, item in enumerate(reader.objects(WINDOWS)):
        inner = Reader(item)
        window = _read_window(inner)
        reader.take(inner, f"{WINDOWS}[{index}]")
        if window is not None:
            found.append(window)
    return tuple(found)


def _read_window(reader: Reader) -> MaintenanceWindow | None:
    for name in reader.document:
        if name not in MAINTENANCE_WINDOW:
            known = ", ".join(MAINTENANCE_WINDOW)
            reader.fault(name, f"a maintenance window has no {name}; it may have {known}")
    for name in ("startDateTime", "timeZone", "duration"):
        if reader.value(name) is None:
            reader.fault(name, f"a maintenance window needs a {name}")
    values = {
        "start": _time(reader, "startDateTime"),
        "time_zone": reader.text("timeZone"),
        "duration": _duration(reader),
        **_recurrence(reader),
        "expires": _time(reader, "expirationDateTime"),
    }
    start, expires = values["start"], values["expires"]
    if start is not None and expires is not None and expires <= start:
        reader.fault("expirationDateTime", "expirationDateTime must be after startDateTime")
    if reader.faults:
        return None
    try:
        return MaintenanceWindow.model_validate(values)
    except ValidationError as error:
        for each in error.errors():
            name, limits = _LIMITS[str(each["loc"][0])]
            reader.fault(name, limits or each["msg"].removeprefix("Value error, "))
        return None


def _time(reader: Reader, name: str) -> datetime | None:
    text = reader.text(name)
    if text is None:
        return None
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text)
    except ValueError:
        reader.fault(name, f"{name} must be a local time such as '2026-05-01 22:00'")
        return None


def _duration(reader: Reader) -> float | None:
    text = reader.text("duration")
    if text is None:
        return None
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        return int(clock[1]) * 3_600.0 + int(clock[2]) * 60
    try:
        return parse_duration(text)
    except ValueError as error:
        reader.fault("duration", f"duration: {error}, nor hours and minutes such as 05:00")
        return None


def _recurrence(reader: Reader) -> dict[str, Any]:
    """Return what `recurEvery` says: Day, 3Days, Week, 2Weeks, or Week Saturday,Sunday."""
    text = reader.text("recurEvery", "Day") or "Day"
    match = _RECURRENCE.fullmatch(text.strip())
    names = re.split(r"\s*,\s*", match["days"].lower()) if match and match["days"] else []
    unit = match["unit"].capitalize() if match else ""
    if match is None or (names and unit == "Day") or not all(name in _WEEKDAYS for name in names):
        reader.fault(
            "recurEvery",
            f"recurEvery must be such as Day, 3Days, Week, 2Weeks or 'Week Saturday,Sunday', but "
            f"is '{text[:100]}'",
        )
        return {}
    return {
        "recur_every": unit,
        "interval": int(match["interval"] or 1),
        "weekdays": tuple(sorted({_WEEKDAYS.index(name) for name in names})),
    }
