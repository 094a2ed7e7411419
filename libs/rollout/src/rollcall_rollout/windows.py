"""Maintenance windows: when one is open, and when the next one opens.

A window begins at a local time, so it keeps its place on the clock when the clocks change; its
duration is time that really passes. A beginning that the clocks leap over is as much later as they
leap; one that they show twice is the first of both.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from rollcall_contracts.model import MaintenanceWindow

DAY = timedelta(days=1)
LONGEST = 8  # days that one window can reach: its duration, and a day for the zones' difference


def open_until(windows: Sequence[MaintenanceWindow], now: datetime) -> datetime | None:
    """Return when the window that is open closes, the last of several; None when none is open."""
    closing = [
        begin + timedelta(seconds=window.duration)
        for window in windows
        for begin in _beginnings(window, now - LONGEST * DAY, LONGEST + 1)
        if begin <= now < begin + timedelta(seconds=window.duration)
    ]
    return max(closing, default=None)


def next_opening(windows: Sequence[MaintenanceWindow], now: datetime) -> datetime | None:
    """Return when the next window opens after `now`; None when there is no more."""
    first = [
        next((begin for begin in _beginnings(window, now, _cycle(window)) if begin > now), None)
        for window in windows
    ]
    return min((begin for begin in first if begin is not None), default=None)


def longest(windows: Sequence[MaintenanceWindow]) -> float:
    """Return the duration of the longest window, in seconds."""
    return max(window.duration for window in windows)


def _cycle(window: MaintenanceWindow) -> int:
    """Return the days within which the next beginning must be."""
    return window.interval * (7 if window.recur_every == "Week" else 1) + 8


def _beginnings(window: MaintenanceWindow, after: datetime, days: int) -> Iterator[datetime]:
    """Yield the beginnings on the local days from the one before `after`, for so many days."""
    zone = ZoneInfo(window.time_zone)
    first = max(after.astimezone(zone).date() - DAY, window.start.date())
    for number in range(days + 2):
        day = first + number * DAY
        local = datetime.combine(day, window.start.time())
        if window.expires is not None and local >= window.expires:
            return
        if _recurs(window, day):
            yield local.replace(tzinfo=zone).astimezone(UTC)


def _recurs(window: MaintenanceWindow, day: date) -> bool:
    start = window.start.date()
    if window.recur_every == "Day":
        return (day - start).days % window.interval == 0
    if day.weekday() not in (window.weekdays or (start.weekday(),)):
        return False
    weeks = (_monday(day) - _monday(start)).days // 7
    return weeks % window.interval == 0


def _monday(day: date) -> date:
    return day - day.weekday() * DAY
