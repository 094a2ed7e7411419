"""The brake on logins."""

import pytest
from http_api.domain import throttling
from http_api.domain.throttling import KNOWN, UNKNOWN, Allowance, Brake, Tries, place_of, wait
from hypothesis import given
from hypothesis import strategies as st

HERE, THERE = "192.0.2.1", "198.51.100.7"


@pytest.mark.parametrize(
    ("allowance", "count", "since", "expected"),
    [
        (KNOWN, 0, 0, 0),
        (KNOWN, 4, 0, 0),
        (KNOWN, 5, 0, 1),
        (KNOWN, 5, 0.25, 0.75),
        (KNOWN, 5, 1, 0),
        (KNOWN, 6, 0, 2),
        (KNOWN, 7, 0, 4),
        (KNOWN, 7, 3, 1),
        (KNOWN, 10, 0, 32),
        (KNOWN, 11, 0, 60),
        (KNOWN, 1000, 0, 60),
        (KNOWN, 1000, 60, 0),
        (KNOWN, 10**9, 59, 1),
        (KNOWN, 1000, 900, 0),
        (UNKNOWN, 19, 0, 0),
        (UNKNOWN, 20, 0, 1),
        (UNKNOWN, 26, 4, 56),
    ],
)
def test_how_long_to_wait(allowance: Allowance, count: int, since: float, expected: float) -> None:
    assert wait(allowance, Tries(count=count, last=100), 100 + since) == pytest.approx(expected)


def test_each_try_counts_as_wrong_until_it_was_right() -> None:
    brake = Brake()
    assert [brake.begin("a", HERE, 0) for _ in range(6)] == [0, 0, 0, 0, 0, 1]
    brake.succeed("a", HERE)
    assert [brake.begin("a", HERE, 0) for _ in range(6)] == [0, 0, 0, 0, 0, 1]


def test_what_is_refused_does_not_prolong_the_wait() -> None:
    brake = Brake()
    for _ in range(5):
        brake.begin("a", HERE, 0)
    assert [brake.begin("a", HERE, second / 10) for second in range(10)][-1] == pytest.approx(0.1)
    assert brake.begin("a", HERE, 1) == 0
    assert brake.begin("a", HERE, 1) == 2


def test_wrong_tries_are_forgotten() -> None:
    brake = Brake()
    for second in range(5):
        brake.begin("a", HERE, second)
    later = 4 + throttling.FORGOTTEN
    assert [brake.begin("a", HERE, later) for _ in range(6)] == [0, 0, 0, 0, 0, 1]


@given(
    tries=st.lists(
        st.tuples(st.sampled_from(["a", "b", ""]), st.floats(0, 5)), min_size=30, max_size=200
    )
)
def test_nobody_is_kept_out_by_another_address_or_another_account(
    tries: list[tuple[str, float]],
) -> None:
    brake = Brake()
    now = 0.0
    for account, step in tries:
        now += step
        brake.begin(account, THERE, now)
    assert brake.begin("a", HERE, now) == 0
    assert brake.begin("c", THERE, now) == 0


def test_there_is_an_end_to_what_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "MOST", 3)
    brake = Brake()
    for _ in range(6):
        brake.begin("a", HERE, 0)
    for number in range(3):
        brake.begin("a", f"203.0.113.{number}", 1)
    assert brake.begin("a", HERE, 1) == 0


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (HERE, HERE),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", HERE),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_what_an_address_counts_as(address: str, expected: str) -> None:
    assert place_of(address) == expected
