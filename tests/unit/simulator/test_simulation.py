"""Simulations are pure functions of seed and options, and the real rules keep every promise."""

from collections import Counter

import pytest
from rollcall_contracts import events as e
from rollcall_simulator import story
from rollcall_simulator.faults import TWIN, Fault
from rollcall_simulator.scenario import Mood, Options, draw
from rollcall_simulator.simulation import simulate
from rollcall_simulator.summary import Summary

SMALL = Options(instances=5)  # so that hundreds take seconds


@pytest.fixture(scope="module")
def summary() -> Summary:
    """Return what 200 scenarios came to."""
    summary = Summary()
    for seed in range(40_000, 40_200):
        summary.add(simulate(seed, SMALL))
    return summary


def _log(seed: int, options: Options | None = None) -> list[str]:
    lines: list[str] = []

    def tell(seconds: float, what: str | e.Event) -> None:
        lines.append(story.line(seconds, what))

    lines.append(str(simulate(seed, options, tell=tell)))
    return lines


@pytest.mark.parametrize("seed", [3, 8, 17])
def test_the_same_seed_is_the_same_rollout(seed: int) -> None:
    first = _log(seed)
    assert len(first) > 2
    assert first == _log(seed)


def test_other_seeds_are_other_rollouts() -> None:
    assert len({tuple(_log(seed)) for seed in range(6)}) == 6


def test_the_rules_keep_every_promise(summary: Summary) -> None:
    assert summary.scenarios == 200
    assert not summary.broken, {p: o[0].violation for p, o in summary.broken.items()}


def test_many_scenarios_complete_and_many_do_not(summary: Summary) -> None:
    assert summary.rollouts >= 200
    assert 80 <= summary.endings["Completed"] <= 220
    assert sum(n for name, n in summary.endings.items() if name.startswith("Faulted")) >= 20
    assert summary.endings["Cancelled"] >= 5
    assert len(summary.struck) >= 35
    assert 0 < summary.peak.down <= summary.peak.allowed
    assert any("Completed" in line for line in summary.lines())


def test_every_kind_of_fault_and_every_field_of_the_policy_is_drawn() -> None:
    scenarios = [draw(seed) for seed in range(600)]
    drawn = {fault for s in scenarios for fault in s.chances}
    drawn |= {h.fault for s in scenarios for h in s.happenings}
    assert drawn == set(Fault)
    changed = Counter(
        name for s in scenarios for name in s.spec.policy.model_dump(exclude_defaults=True)
    )
    assert changed.keys() == type(scenarios[0].spec.policy).model_fields.keys()
    assert {s.mood for s in scenarios} == set(Mood)
    assert max(s.spec.capacity for s in scenarios) >= 100


def test_options_narrow_a_scenario() -> None:
    seed = next(s for s in range(100) if draw(s).mood is Mood.BRUTAL and draw(s).happenings)
    whole, kinds = draw(seed), {h.fault for h in draw(seed).happenings}
    gone = min(kinds)
    without = draw(seed, Options(without=frozenset({gone})))
    assert {h.fault for h in without.happenings} == kinds - {gone}
    assert not draw(seed, Options(only=frozenset())).happenings
    assert not draw(seed, Options(only=frozenset())).chances
    assert draw(seed, Options(instances=2)).spec.capacity == min(2, whole.spec.capacity)
    assert len(draw(seed, Options(happenings=1)).happenings) == 1


def test_leaving_a_fault_out_that_did_not_strike_changes_nothing() -> None:
    seed = 8
    struck = frozenset(simulate(seed).struck)
    assert _log(seed, Options(without=frozenset(Fault) - struck)) == _log(seed)


def test_twins_only_have_messages_that_come_twice_or_in_another_order() -> None:
    twins = [draw(seed) for seed in range(200) if draw(seed).mood is Mood.TWIN]
    assert len(twins) >= 10
    assert all(set(twin.chances) == TWIN for twin in twins)
    # What people ask for comes twice, too: one request, so that no order of two can matter.
    requests = {Fault.PAUSE, Fault.REIMAGE, Fault.POWER, Fault.START}
    asked = [[happening.fault for happening in twin.happenings] for twin in twins]
    assert all(len(each) <= 1 and requests.issuperset(each) for each in asked)
    assert any(asked)
