"""When to ask."""

import pytest
from health_prober.domain.schedule import first_pause, grow, next_pause
from hypothesis import given
from hypothesis import strategies as st

chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0.01, 10_000)


@given(seconds, seconds, chances)
def test_the_first_probe_comes_within_the_interval_and_the_lease(
    interval: float, lease: float, chance: float
) -> None:
    assert 0 <= first_pause(interval=interval, lease=lease, chance=chance) <= min(interval, lease)


@pytest.mark.parametrize(
    ("took", "chance", "expected"),
    [(0.0, 0.5, 10.0), (4.0, 0.5, 6.0), (0.0, 0.0, 9.0), (12.0, 0.5, 0.0)],
)
def test_the_interval_counts_from_start_to_start(
    took: float, chance: float, expected: float
) -> None:
    pause = next_pause(interval=10, took=took, jitter=0.1, chance=chance)
    assert pause == pytest.approx(expected)


@given(seconds, st.floats(1, 2), seconds)
def test_fast_pauses_grow_up_to_the_interval_and_the_ceiling(
    interval: float, growth: float, ceiling: float
) -> None:
    pause = min(0.05, interval, ceiling)
    for _ in range(200):
        longer = grow(pause, growth=growth, interval=interval, ceiling=ceiling)
        assert pause <= longer <= min(interval, ceiling)
        pause = longer


def test_the_default_growth_keeps_the_lag_near_a_twentieth_of_the_boot() -> None:
    elapsed, pause = 0.0, 0.05
    while elapsed < 10:
        elapsed += pause
        pause = grow(pause, growth=1.05, interval=5, ceiling=1)
        if elapsed > 2:
            assert pause / elapsed < 0.08
