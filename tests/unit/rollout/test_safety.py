"""What must hold in every state and every order of answers: properties and random walks."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
)
from rollcall_rollout import (
    Fleet,
    decide,
    evolve,
    next_wake,
    settle,
    waiting,
)
from rollcall_rollout.census import Census
from rollcall_rollout.decide import STEPS
from rollcall_testing.arbitrary import fleets
from rollcall_testing.examples import examples
from rollcall_testing.fleets import START, World, fleet


@given(fleets())
@examples(500)
def test_every_decided_event_changes_the_state_and_decisions_come_to_an_end(before: Fleet) -> None:
    state = before
    for _ in range(STEPS):
        step = decide(state, START)
        if not step:
            return
        for event in step:
            after = evolve(state, [event], START)
            assert after is not state, event
            state = after
    pytest.fail(f"still deciding: {[event.type for event in step]}")


@given(fleets())
@examples(200)
def test_a_settled_set_says_what_it_waits_for(before: Fleet) -> None:
    settled, _ = settle(before, START)
    wait = waiting(settled, START)
    assert wait.message.endswith(".")
    assert wait.until is None or wait.until >= START


@given(fleets(), st.integers(1, 100_000))
@examples(150)
def test_nothing_becomes_due_before_the_next_wake(before: Fleet, later: int) -> None:
    settled, _ = settle(before, START)
    at = START + timedelta(seconds=later)
    if decide(settled, at):
        assert next_wake(settled, START) <= at


@given(fleets())
@examples(150)
def test_a_busy_instance_is_never_asked_for_something_else(before: Fleet) -> None:
    """No instance is in two hands: new work is only asked of one whose agent has answered."""
    state = before
    while step := decide(state, START):
        for event in step:
            if isinstance(event, e.InstancesUpgradeRequested | e.InstancesRestoreRequested):
                assert all(not state.instances[o.instance_id].is_busy for o in event.instances)
            state = evolve(state, [event], START)


# --- random walks through whole rollouts ----------------------------------------------------------


def _counts(world: World) -> None:
    """The carried counts are those that a fresh look gives."""
    carried, fresh = world.fleet.census, replace(world.fleet).census
    for name in Census.__slots__:
        assert getattr(carried, name) == getattr(fresh, name), name


def test_what_changed_since_saving_is_noted() -> None:
    world = World(fleet=fleet(12, versions=("1.0", "1.1")).saved(), seed=3)
    saved = world.fleet
    steps = 0

    def observe(world: World) -> None:
        nonlocal saved, steps
        now, steps = world.fleet, steps + 1
        assert now.unsaved is not None
        changed = {id for id, i in now.instances.items() if saved.instances.get(id) is not i}
        assert changed <= now.unsaved.instances
        if saved.upgrade and now.upgrade and saved.upgrade.id == now.upgrade.id:
            old = saved.upgrade.members
            moved = {id for id, m in now.upgrade.members.items() if old.get(id) is not m}
            assert moved <= now.unsaved.members
        if steps % 3 == 0:
            saved = world.fleet = now.saved()

    world.observe = observe
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]


def _limits(limit: int) -> Callable[[World], None]:
    def observe(world: World) -> None:
        _counts(world)
        assert world.down() <= limit, f"{world.down()} down, {limit} allowed"

    return observe


@given(seed=st.integers(0, 10**9), capacity=st.integers(1, 40), doubled=st.sampled_from([0.0, 0.3]))
@examples(60)
def test_never_more_down_than_the_policy_allows_and_no_instance_swapped_twice(
    seed: int, capacity: int, doubled: float
) -> None:
    world = World(
        fleet=fleet(capacity, versions=("1.0", "1.1")),
        seed=seed,
        doubled=doubled,
        observe=_limits(max(1, capacity * 20 // 100)),
    )
    world.run()
    assert world.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert {i.version for i in world.fleet.instances.values()} == {"1.1"}
    assert set(world.swaps.values()) == {1}
    assert len(world.swaps) == capacity


@given(seed=st.integers(0, 10**9), capacity=st.integers(5, 40), share=st.integers(0, 100))
@examples(60)
def test_a_partly_sick_version_keeps_the_limit_and_touches_no_healthy_instance_again(
    seed: int, capacity: int, share: int
) -> None:
    sick = {str(i) for i in range(capacity) if (i * 37 + seed) % 100 < share}
    world = World(
        fleet=fleet(capacity, versions=("1.0", "1.1")),
        seed=seed,
        doubled=0.2,
        sick=lambda id, version: version == "1.1" and id in sick,
        observe=_limits(max(1, capacity * 20 // 100)),
    )
    world.run()
    assert world.fleet.upgrade is None
    assert world.down() == 0
    for id, instance in world.fleet.instances.items():
        assert instance.version == "1.0" if id in sick else instance.version in ("1.0", "1.1")
        assert world.swaps.get((id, 2), 0) <= 1


@given(seed=st.integers(0, 10**9))
@examples(40)
def test_failing_agents_never_leave_an_upgrade_without_an_end(seed: int) -> None:
    calls = 0

    def fails(id: str, request: e.HostRequest) -> Failure | None:
        nonlocal calls
        calls += 1
        if (calls * 31 + seed) % 7 == 0 and not isinstance(request, e.InstancesCreateRequested):
            return Failure(code=FailureCode.START, message="init exited with 1", target=id)
        return None

    world = World(fleet=fleet(20, versions=("1.0", "1.1")), seed=seed, fails=fails, doubled=0.2)
    world.run()
    assert world.fleet.upgrade is None
    assert not any(i.is_busy for i in world.fleet.instances.values())


@given(seed=st.integers(0, 10**9))
@examples(30)
def test_the_order_of_answers_does_not_change_the_outcome(seed: int) -> None:
    worlds = [
        World(fleet=fleet(12, versions=("1.0", "1.1")), seed=s, doubled=0.5, observe=_counts)
        for s in (seed, seed + 1)
    ]
    for world in worlds:
        world.run()
    ends = [
        {
            id: replace(i, since=START, probed_until=None, lease=0)
            for id, i in w.fleet.instances.items()
        }
        for w in worlds
    ]
    assert ends[0] == ends[1]
