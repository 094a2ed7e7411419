"""Lifecycle hooks and maintenance windows in a scale set's model."""

from datetime import datetime
from typing import Any

import pytest
from http_api.domain.documents import Reader
from http_api.domain.schedule import HOOKS, WINDOWS, read_hooks, read_windows
from http_api.domain.shape import SCALE_SET, canonical
from rollcall_contracts.model import (
    HookAction,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
)

WINDOW = {
    "startDateTime": "2026-05-02 22:00",
    "timeZone": "Europe/Berlin",
    "duration": "05:30",
    "recurEvery": "Week Saturday,Sunday",
}


def reader(*, hooks: Any = None, windows: Any = None) -> Reader:
    body = {
        "properties": {
            "lifecycleHooksProfile": {"lifecycleHooks": hooks},
            "upgradePolicy": {"maintenanceWindows": windows},
        }
    }
    return Reader(canonical(body, SCALE_SET))


def test_hooks() -> None:
    read = reader(
        hooks=[
            {"type": "UpgradeAutoOSScheduling", "waitDuration": "PT8H", "defaultAction": "Approve"},
            {"Type": "upgradeautoosrollingbatchstarting", "waitDuration": 60},
        ]
    )
    assert read_hooks(read) == (
        LifecycleHook(
            type=LifecycleHookType.SCHEDULING,
            wait_duration=8 * 3600,
            default_action=HookAction.APPROVE,
        ),
        LifecycleHook(type=LifecycleHookType.BATCH_STARTING, wait_duration=60),
    )
    assert read.faults == []
    assert read_hooks(reader()) == ()


@pytest.mark.parametrize(
    ("hook", "name"),
    [
        ({"waitDuration": "PT1H"}, "type"),
        ({"type": "Other", "waitDuration": "PT1H"}, "type"),
        ({"type": "UpgradeAutoOSScheduling"}, "waitDuration"),
        ({"type": "UpgradeAutoOSScheduling", "waitDuration": "PT0S"}, "waitDuration"),
        ({"type": "UpgradeAutoOSScheduling", "waitDuration": "P31D"}, "waitDuration"),
        (
            {"type": "UpgradeAutoOSScheduling", "waitDuration": "PT1H", "defaultAction": "Wait"},
            "defaultAction",
        ),
    ],
)
def test_a_faulty_hook_is_named(hook: dict[str, Any], name: str) -> None:
    read = reader(hooks=[hook])
    read_hooks(read)
    assert [fault.target for fault in read.faults] == [f"{HOOKS}[0].{name}"]


def test_two_hooks_of_a_type_are_refused() -> None:
    hook = {"type": "UpgradeAutoOSScheduling", "waitDuration": "PT1H"}
    read = reader(hooks=[hook, hook])
    read_hooks(read)
    assert [fault.target for fault in read.faults] == [f"{HOOKS}[1].type"]


def test_a_window() -> None:
    read = reader(windows=[{**WINDOW, "expirationDateTime": "2027-01-01 00:00"}])
    assert read_windows(read) == (
        MaintenanceWindow(
            start=datetime.fromisoformat("2026-05-02T22:00"),
            time_zone="Europe/Berlin",
            duration=5.5 * 3600,
            recur_every="Week",
            weekdays=(5, 6),
            expires=datetime.fromisoformat("2027-01-01T00:00"),
        ),
    )
    assert read.faults == []
    assert read_windows(reader()) == ()


@pytest.mark.parametrize(
    ("text", "every", "interval", "weekdays"),
    [
        ("Day", "Day", 1, ()),
        ("3Days", "Day", 3, ()),
        ("1day", "Day", 1, ()),
        ("Week", "Week", 1, ()),
        ("2Weeks", "Week", 2, ()),
        ("week sunday, saturday", "Week", 1, (5, 6)),
        ("3Weeks Monday", "Week", 3, (0,)),
    ],
)
def test_recurrence(text: str, every: str, interval: int, weekdays: tuple[int, ...]) -> None:
    (window,) = read_windows(reader(windows=[{**WINDOW, "recurEvery": text}]))
    assert (window.recur_every, window.interval, window.weekdays) == (every, interval, weekdays)


def test_a_window_recurs_each_day_unless_it_says_otherwise() -> None:
    daily = {name: value for name, value in WINDOW.items() if name != "recurEvery"}
    (window,) = read_windows(reader(windows=[daily]))
    assert (window.recur_every, window.interval) == ("Day", 1)


@pytest.mark.parametrize(
    ("value", "seconds"), [("05:00", 18_000), ("PT5H", 18_000), (3600, 3600), ("100:00", 360_000)]
)
def test_duration(value: object, seconds: float) -> None:
    (window,) = read_windows(reader(windows=[{**WINDOW, "duration": value}]))
    assert window.duration == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("startDateTime", None),
        ("startDateTime", "2026-05-02"),
        ("startDateTime", "2026-05-02T22:00"),
        ("startDateTime", "2026-05-02 22:00:00"),
        ("startDateTime", "2026-02-30 22:00"),
        ("startDateTime", 5),
        ("timeZone", None),
        ("timeZone", "Europe/Atlantis"),
        ("timeZone", "W. Europe Standard Time"),
        ("timeZone", "../etc/passwd"),
        ("duration", None),
        ("duration", "5h"),
        ("duration", "05:60"),
        ("duration", "00:00"),
        ("duration", "169:00"),
        ("recurEvery", "Month"),
        ("recurEvery", "Day Monday"),
        ("recurEvery", "Week Someday"),
        ("recurEvery", "0Days"),
        ("recurEvery", "36Days"),
        ("expirationDateTime", "2026-05-02 22:00"),
        ("expirationDateTime", "never"),
        ("durration", "05:00"),
    ],
)
def test_a_faulty_window_is_named(name: str, value: object) -> None:
    read = reader(windows=[{**WINDOW, name: value}])
    assert read_windows(read) == ()
    assert {fault.target for fault in read.faults} == {f"{WINDOWS}[0].{name}"}


def test_a_windows_name_of_a_time_zone_is_answered_with_an_example() -> None:
    read = reader(windows=[{**WINDOW, "timeZone": "Pacific Standard Time"}])
    read_windows(read)
    (fault,) = read.faults
    assert "'Pacific Standard Time'" in fault.message
    assert "IANA" in fault.message
