"""Thresholds, and what is worth a report."""

import itertools

import pytest
from health_prober.domain.custom_metrics import NO_WISH, Wish
from health_prober.domain.verdict import Standing, judge, opening
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.model import Health

H, U, I, X = Health.HEALTHY, Health.UNHEALTHY, Health.INITIALIZING, Health.UNKNOWN  # noqa: E741 (a table of states)


def reports(known: Health, results: list[Health], threshold: int) -> list[Health | None]:
    """Fold results; return what was reported after each."""
    standing, told = opening(known), []
    for result in results:
        standing, verdict = judge(standing, result, threshold)
        told.append(verdict)
    return told


@pytest.mark.parametrize(
    ("known", "threshold", "results", "expected"),
    [
        # nobody knows yet: as many equal results as the threshold says
        (X, 1, [H], [H]),
        (X, 1, [U], [U]),
        (X, 2, [H, H], [None, H]),
        (X, 2, [H, U, H, H], [None, None, None, H]),
        (X, 3, [X, X, X], [None, None, X]),
        # known: one agreeing result confirms it at once, another health needs the threshold
        (H, 3, [H], [H]),
        (U, 3, [U, U], [U, None]),
        (H, 2, [U, U], [None, U]),
        (H, 2, [U, H], [None, H]),
        (I, 2, [I, H, H], [I, None, H]),
        # changes only, after the first
        (H, 1, [H, H, U, U, H], [H, None, U, None, H]),
        # an interrupted streak starts again
        (H, 3, [H, U, U, H, U, U, U], [H, None, None, None, None, None, U]),
        (H, 2, [H, U, I, U, I, I], [H, None, None, None, None, I]),
    ],
)
def test_table(
    known: Health, threshold: int, results: list[Health], expected: list[Health | None]
) -> None:
    assert reports(known, results, threshold) == expected


healths = st.sampled_from(list(Health))


@given(healths, st.lists(healths, max_size=60), st.integers(1, 24))
def test_no_two_reports_in_a_row_are_equal(
    known: Health, results: list[Health], threshold: int
) -> None:
    told = [verdict for verdict in reports(known, results, threshold) if verdict is not None]
    assert all(first is not second for first, second in itertools.pairwise(told))


@given(healths, st.lists(healths, max_size=60), st.integers(1, 24))
def test_a_report_that_changes_the_verdict_ends_a_full_streak(
    known: Health, results: list[Health], threshold: int
) -> None:
    standing = opening(known)
    for at, result in enumerate(results):
        before = standing.health
        standing, verdict = judge(standing, result, threshold)
        if verdict is not None and verdict is not before:
            assert results[at + 1 - threshold : at + 1] == [verdict] * threshold


@given(healths, healths, st.lists(healths, max_size=30), st.integers(1, 24))
def test_a_threshold_of_equal_results_always_settles(
    known: Health, last: Health, results: list[Health], threshold: int
) -> None:
    standing = opening(known)
    for result in [*results, *[last] * threshold]:
        standing, _ = judge(standing, result, threshold)
    assert standing.health is last
    assert standing.reported


def test_the_streak_is_not_kept_after_a_verdict() -> None:
    standing, _ = judge(Standing(health=Health.HEALTHY), Health.UNHEALTHY, 1)
    assert (standing.candidate, standing.streak) == (None, 0)


FIRST, SKIP = Wish(phase_ordering_number=0), Wish(skip_upgrade=True)


def wishes(
    results: list[tuple[Health, Wish | None]], threshold: int
) -> list[tuple[Health, Wish] | None]:
    """Fold results with wishes; return what was reported after each."""
    standing, told = opening(X), []
    for result, wish in results:
        standing, verdict = judge(standing, result, threshold, wish)
        told.append(None if verdict is None else (verdict, standing.told))
    return told


@pytest.mark.parametrize(
    ("threshold", "results", "expected"),
    [
        # the first report has it; a change of it is told once
        (1, [(H, FIRST), (H, FIRST)], [(H, FIRST), None]),
        (1, [(H, FIRST), (H, SKIP), (H, SKIP)], [(H, FIRST), (H, SKIP), None]),
        (1, [(H, NO_WISH), (H, SKIP), (H, NO_WISH)], [(H, NO_WISH), (H, SKIP), (H, NO_WISH)]),
        # a change of health and of the wish together is one report
        (1, [(H, FIRST), (U, SKIP), (U, SKIP)], [(H, FIRST), (U, SKIP), None]),
        # an instance that cannot be asked has not changed its mind
        (1, [(H, SKIP), (U, None), (H, SKIP)], [(H, SKIP), (U, SKIP), (H, SKIP)]),
        # before the first verdict nothing is told
        (2, [(H, FIRST), (H, SKIP)], [None, (H, SKIP)]),
        # what came with a result that is not believed yet waits for one that is
        (2, [(H, FIRST), (H, FIRST), (U, SKIP), (H, None)], [None, (H, FIRST), None, (H, SKIP)]),
        (2, [(H, FIRST), (H, FIRST), (U, SKIP), (U, SKIP)], [None, (H, FIRST), None, (U, SKIP)]),
        (2, [(H, FIRST), (H, FIRST), (U, SKIP), (H, FIRST)], [None, (H, FIRST), None, None]),
    ],
)
def test_wishes(
    threshold: int,
    results: list[tuple[Health, Wish | None]],
    expected: list[tuple[Health, Wish] | None],
) -> None:
    assert wishes(results, threshold) == expected


@given(
    st.lists(st.tuples(healths, st.sampled_from([None, NO_WISH, FIRST, SKIP])), max_size=60),
    st.integers(1, 5),
)
def test_every_report_says_something_new(
    results: list[tuple[Health, Wish | None]], threshold: int
) -> None:
    told = [report for report in wishes(results, threshold) if report is not None]
    assert all(first != second for first, second in itertools.pairwise(told))
