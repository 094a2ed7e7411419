"""When an instance that is asked to empty itself is stopped."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instance_agent.domain.drain import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    DrainEnd,
    Draining,
    in_words,
    judge,
    next_pause,
    time_left,
)
from instance_agent.drain import url_of
from instance_agent.driver import Endpoint
from rollcall_contracts.model import Drain

T0 = datetime(2026, 1, 1, tzinfo=UTC)
NEW = Draining(began=T0, until=T0 + timedelta(seconds=60))
EMPTY, NO_HOOK = DrainEnd.EMPTY, DrainEnd.NO_HOOK


def course(statuses: list[int | None]) -> list[DrainEnd | None]:
    """Fold answers up to the end; None is no answer."""
    draining, ends = NEW, []
    for status in statuses:
        draining, end = judge(draining, status)
        ends.append(end)
        if end is not None:
            break
    return ends


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([200], [EMPTY]),
        ([204], [EMPTY]),
        ([299], [EMPTY]),
        ([202, 202, 200], [None, None, EMPTY]),
        # nobody there knows of draining
        ([404], [NO_HOOK]),
        ([401], [NO_HOOK]),
        ([302], [NO_HOOK]),
        ([None], [NO_HOOK]),
        # somebody is there and has trouble
        ([503, 200], [None, EMPTY]),
        ([429, 500, 204], [None, None, EMPTY]),
        # who has answered once is asked on whatever comes
        ([202, 404, None, 302, 202, 200], [None] * 5 + [EMPTY]),
        ([500, None, 200], [None, None, EMPTY]),
    ],
)
def test_answers(statuses: list[int | None], expected: list[DrainEnd | None]) -> None:
    assert course(statuses) == expected


@given(st.none() | st.integers(100, 599), st.booleans())
def test_an_answer_never_makes_a_drain_longer(status: int | None, answered: bool) -> None:
    before = Draining(began=T0, until=NEW.until, answered=answered)
    after, end = judge(before, status)
    assert (after.began, after.until) == (before.began, before.until)
    assert after.answered >= before.answered
    assert (end is EMPTY) == (status is not None and 200 <= status < 300 and status != 202)


@pytest.mark.parametrize(
    ("passed", "left"),
    [(0, 60), (59.5, 0.5), (60, 0), (1e6, 0), (-1e6, 60)],  # the last: a clock set back
)
def test_the_time_left(passed: float, left: float) -> None:
    assert time_left(NEW, T0 + timedelta(seconds=passed)) == pytest.approx(left)


def test_pauses_grow_to_two_seconds() -> None:
    pauses = [FIRST_PAUSE]
    for _ in range(20):
        pauses.append(next_pause(pauses[-1]))
    assert pauses == sorted(pauses)
    assert (pauses[-1], LONGEST_PAUSE) == (2.0, 2.0)
    assert sum(pauses[:8]) < 10  # a quick application is not kept waiting


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (EMPTY, "drained in 2.5 s, asked 3 times"),
        (DrainEnd.DEADLINE, "not drained in 2.5 s, stopped all the same; the last of it: L"),
        (NO_HOOK, "not drained, stopped all the same: L"),
        (DrainEnd.STOPPED, "ended by itself 2.5 s after it was asked to drain"),
    ],
)
def test_words(end: DrainEnd, words: str) -> None:
    assert in_words(end, seconds=2.5, asked=3, last="L") == words


@pytest.mark.parametrize(
    ("address", "mapped", "port", "url"),
    [
        ("10.0.0.4", 20005, None, "http://10.0.0.4:20005/d"),
        ("10.0.0.4", 20005, 8080, "http://10.0.0.4:20005/d"),  # as for a probe
        ("10.0.0.4", 0, 8080, "http://10.0.0.4:8080/d"),
        ("fd00::4", 0, 8080, "http://[fd00::4]:8080/d"),
        ("10.0.0.4", 0, None, None),
        ("", 20005, 8080, None),
    ],
)
def test_where_the_hook_is(address: str, mapped: int, port: int | None, url: str | None) -> None:
    drain = Drain(request_path="/d", port=port)
    assert url_of(drain, Endpoint(address=address, port=mapped)) == url
