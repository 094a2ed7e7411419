"""Maintenance windows: when they open and close, over clock changes too, and what they hold."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Drain, MaintenanceWindow, Provisioning, RollingPolicy
from rollcall_rollout import Fleet, WaitCode, next_wake, waiting, windows
from rollcall_rollout.holding import closed_windows
from rollcall_testing.fleets import SET, START, World, fleet, spec

HOUR = 3600.0


def window(start: str, zone: str = "UTC", **fields: Any) -> MaintenanceWindow:
    """Return a window of an hour that begins at a local time."""
    values = {"start": start, "time_zone": zone, "duration": HOUR, **fields}
    return MaintenanceWindow.model_validate(values)


def utc(text: str) -> datetime:
    """Return a time such as `03-29 01:30`, of 2026."""
    return datetime.strptime(f"2026-{text}", "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


def openings(schedule: MaintenanceWindow, after: str, count: int) -> list[str]:
    """Return the next beginnings after a time."""
    found: list[str] = []
    now = utc(after)
    for _ in range(count):
        opening = windows.next_opening([schedule], now)
        if opening is None:
            return found
        found.append(f"{opening:%m-%d %H:%M}")
        now = opening
    return found


@pytest.mark.parametrize(
    ("start", "zone", "after", "expected"),
    [
        # 02:30 does not exist on 29 March in Berlin: as much later as the clocks leap.
        (
            "2026-03-01T02:30",
            "Europe/Berlin",
            "03-27 12:00",
            ["03-28 01:30", "03-29 01:30", "03-30 00:30"],
        ),
        # 02:30 comes twice on 25 October: the first of both.
        (
            "2026-03-01T02:30",
            "Europe/Berlin",
            "10-23 12:00",
            ["10-24 00:30", "10-25 00:30", "10-26 01:30"],
        ),
        # A window in the evening keeps its place on the clock over either change.
        ("2026-03-01T22:00", "Europe/Berlin", "03-28 12:00", ["03-28 21:00", "03-29 20:00"]),
        ("2026-03-01T22:00", "Europe/Berlin", "10-24 12:00", ["10-24 20:00", "10-25 21:00"]),
        (
            "2026-03-01T02:30",
            "America/New_York",
            "03-06 12:00",
            ["03-07 07:30", "03-08 07:30", "03-09 06:30"],
        ),
        (
            "2026-03-01T01:30",
            "America/New_York",
            "10-30 12:00",
            ["10-31 05:30", "11-01 05:30", "11-02 06:30"],
        ),
        # On Lord Howe Island the clocks change by half an hour.
        (
            "2026-03-01T02:10",
            "Australia/Lord_Howe",
            "10-02 00:00",
            ["10-02 15:40", "10-03 15:40", "10-04 15:10"],
        ),
        (
            "2026-03-01T01:45",
            "Australia/Lord_Howe",
            "04-03 00:00",
            ["04-03 14:45", "04-04 14:45", "04-05 15:15"],
        ),
    ],
)
def test_a_window_keeps_its_local_time_when_the_clocks_change(
    start: str, zone: str, after: str, expected: list[str]
) -> None:
    assert openings(window(start, zone), after, len(expected)) == expected


@pytest.mark.parametrize(
    ("day", "closes"),
    [
        ("03-28 22:00", "03-29 03:00"),
        ("10-24 21:00", "10-25 02:00"),
        ("06-10 21:00", "06-11 02:00"),
    ],
)
def test_the_duration_is_time_that_really_passes(day: str, closes: str) -> None:
    night = window("2026-03-01T23:00", "Europe/Berlin", duration=5 * HOUR)
    assert windows.open_until([night], utc(day)) == utc(closes)


@pytest.mark.parametrize(
    ("fields", "after", "expected"),
    [
        # 1 January 2026 is a Thursday; without weekdays, the day of the start counts.
        ({"recur_every": "Week"}, "01-01 12:00", ["01-08 04:00", "01-15 04:00"]),
        (
            {"recur_every": "Week", "weekdays": (5, 6)},
            "01-01 00:00",
            ["01-03 04:00", "01-04 04:00", "01-10 04:00"],
        ),
        # The first week is the one of the start, from its Monday.
        (
            {"recur_every": "Week", "interval": 2, "weekdays": (0, 3)},
            "01-01 00:00",
            ["01-01 04:00", "01-12 04:00", "01-15 04:00", "01-26 04:00"],
        ),
        ({"interval": 3}, "01-01 04:00", ["01-04 04:00", "01-07 04:00"]),
        ({"interval": 35}, "01-01 04:00", ["02-05 04:00", "03-12 04:00"]),
        ({"recur_every": "Week", "interval": 35}, "01-01 04:00", ["09-03 04:00"]),
        # Expired: none begins at that time, or later.
        ({"expires": "2026-01-03T04:00"}, "01-01 04:00", ["01-02 04:00"]),
        ({"expires": "2026-01-03T04:01"}, "01-01 04:00", ["01-02 04:00", "01-03 04:00"]),
    ],
)
def test_a_window_recurs_as_it_says(
    fields: dict[str, Any], after: str, expected: list[str]
) -> None:
    schedule = window("2026-01-01T04:00", **fields)
    found = openings(schedule, after, len(expected) + ("expires" in fields))
    assert found == expected


def test_no_window_opens_before_its_start() -> None:
    assert openings(window("2026-05-05T04:00"), "01-01 00:00", 1) == ["05-05 04:00"]
    assert windows.open_until([window("2026-05-05T04:00")], utc("05-04 04:30")) is None


@pytest.mark.parametrize(
    ("now", "closes"),
    [
        ("01-04 21:59", None),
        ("01-04 22:00", "01-05 03:00"),  # from its first moment
        ("01-05 02:59", "01-05 03:00"),  # over midnight
        ("01-05 03:00", None),  # and not in its last
    ],
)
def test_a_window_over_midnight_is_open_until_it_closes(now: str, closes: str | None) -> None:
    night = window("2026-01-01T22:00", duration=5 * HOUR)
    assert windows.open_until([night], utc(now)) == (utc(closes) if closes else None)


def test_a_window_of_a_week_is_open_on_its_last_day() -> None:
    week = window("2026-01-01T04:00", recur_every="Week", interval=2, duration=7 * 24 * HOUR)
    assert windows.open_until([week], utc("01-08 03:59")) == utc("01-08 04:00")
    assert windows.open_until([week], utc("01-08 04:00")) is None


def test_of_several_windows_the_first_opens_and_the_last_closes() -> None:
    both = [window("2026-01-01T04:00"), window("2026-01-01T04:30", duration=2 * HOUR)]
    assert windows.open_until(both, utc("01-02 04:45")) == utc("01-02 06:30")
    assert windows.next_opening(both, utc("01-02 04:10")) == utc("01-02 04:30")
    assert windows.longest(both) == 2 * HOUR


# --- what a window holds --------------------------------------------------------------------------

NIGHT = window("2026-01-01T02:00", duration=4 * HOUR)  # START is midnight


def waits(batch_seconds: tuple[float, ...], at: str, *schedule: MaintenanceWindow) -> str | None:
    """Return why a set with such measured batches waits at a time, or None."""
    closed = closed_windows(
        fleet(maintenance_windows=schedule, batch_seconds=batch_seconds), utc(at)
    )
    return None if closed is None else closed.message


@pytest.mark.parametrize(
    ("batch_seconds", "at", "expected"),
    [
        ((), "01-02 05:59", None),  # nothing was measured: an open window is enough
        ((), "01-02 06:00", "No maintenance window is open; the next one opens at 2026-01-03 02:0"),
        ((3600.0,), "01-02 05:00", None),  # it ends with the window
        (
            (3601.0,),
            "01-02 05:00",
            "A batch is expected to take 3601 s, and the maintenance window ",
        ),
        # What four of five took, not the longest: one silent agent closes no window.
        ((60.0,) * 5 + (2400.0,), "01-02 05:50", None),
        ((60.0,) * 4 + (2400.0,), "01-02 05:50", "A batch is expected to take 2400 s, and the m"),
        ((14401.0,), "01-02 03:00", "A batch is expected to take 14401 s, longer than any maint"),
    ],
)
def test_a_batch_starts_only_when_it_can_be_expected_to_end_in_the_window(
    batch_seconds: tuple[float, ...], at: str, expected: str | None
) -> None:
    said = waits(batch_seconds, at, NIGHT)
    assert (said is None) == (expected is None)
    assert (said or "").startswith(expected or "")


def test_a_set_whose_windows_have_all_expired_says_so() -> None:
    old = window("2026-01-01T02:00", expires="2026-01-02T00:00")
    assert waits((), "01-05 00:00", old) == (
        "No maintenance window opens any more: add one, or take the old ones out."
    )
    assert waits((), "01-05 00:00") is None


def test_an_automatic_upgrade_waits_for_its_window_and_starts_when_it_opens() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1"), maintenance_windows=(NIGHT,)))
    (held,) = world.tell()
    assert isinstance(held, e.UpgradeHeld)
    assert held.error.code == WaitCode.OUTSIDE_WINDOWS
    assert world.tell() == []  # said once
    world.now = START + timedelta(hours=2, seconds=-30)
    assert world.tell() == []
    assert next_wake(world.fleet, world.now) == START + timedelta(hours=2)
    world.later(30)
    assert world.types("upgrade.") == ["upgrade.held", "upgrade.started"]


def test_a_window_that_closes_holds_the_upgrade_and_does_not_fault_it() -> None:
    """Azure faults here, with the same code; ours goes on in the next window."""
    policy = RollingPolicy(pause_time_between_batches=1.5 * HOUR)
    world = World(fleet=fleet(versions=("1.0", "1.1"), maintenance_windows=(NIGHT,), policy=policy))
    world.tell()
    world.later(2 * HOUR)
    world.run(until=timedelta(days=3))
    started = [f"{at:%d %H:%M}" for at in world.times(e.BatchStarted)]
    assert started == ["01 02:00", "01 03:30", "01 05:00", "02 02:00", "02 03:30"]
    held = [
        event.until for event in world.all(e.BatchHeld) if event.code == WaitCode.OUTSIDE_WINDOWS
    ]
    assert held == [utc("01-02 02:00")]
    assert world.types("upgrade.") == ["upgrade.held", "upgrade.started", "upgrade.completed"]


def test_a_person_does_not_wait_for_a_window() -> None:
    world = World(fleet=fleet(versions=("1.0", "1.1"), maintenance_windows=(NIGHT,)))
    world.tell(e.UpgradeStartRequested(scale_set=SET))
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert world.now < START + timedelta(hours=1)


def test_an_upgrade_in_a_closed_window_explains_itself() -> None:
    closed: Fleet = fleet(versions=("1.0", "1.1"), maintenance_windows=(NIGHT,))
    wait = waiting(closed, START)
    assert wait.until == START + timedelta(hours=2)
    assert (
        wait.message == "No maintenance window is open; the next one opens at 2026-01-01 02:00:00Z."
    )


TOO_LONG = (
    "A batch is expected to take 14401 s, longer than any maintenance window (14400 s): lengthen "
    "the window, or make batches shorter by another policy or model, with which they are measured "
    "anew; a start by hand waits for no window."
)


@pytest.mark.parametrize(
    ("change", "forgotten"),
    [
        ({"policy": RollingPolicy(max_batch_instance_count=1)}, True),
        ({"policy": RollingPolicy(drain=Drain(request_path="/drain", deadline=5))}, True),
        ({"provisioning": Provisioning(generation=2)}, True),
        ({"capacity": 11}, False),
        ({"minimum_image_age": 5.0}, False),
    ],
)
def test_what_batches_took_is_forgotten_with_the_policy_or_model_by_which_they_took_it(
    change: dict[str, Any], forgotten: bool
) -> None:
    schedule: dict[str, Any] = {"maintenance_windows": (NIGHT,)}
    world = World(fleet=fleet(versions=("1.0", "1.1"), batch_seconds=(14401.0,), **schedule))
    world.now = utc("01-02 03:00")
    (held,) = world.tell()
    assert held.reason == TOO_LONG
    world.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(**{"revision": 1, **schedule, **change})))
    assert world.fleet.batch_seconds == (() if forgotten else (14401.0,))
    assert (world.types("upgrade.started") == ["upgrade.started"]) is forgotten
