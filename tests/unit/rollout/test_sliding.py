"""Sliding batches: no barrier between them, and the cap all the same."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    FailureCode,
    Health,
    HookAction,
    MetricOutcome,
    Power,
    RollingPolicy,
)
from rollcall_rollout import MemberState, WaitCode
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.examples import examples
from rollcall_testing.fleets import (
    BEFORE_BATCH,
    GATE,
    SET,
    World,
    broken,
    fleet,
    healthy,
    powered,
)

BOTH = ("1.0", "1.1")


def world(capacity: int = 10, instances: Any = None, **policy: Any) -> World:
    """Return a world with sliding batches."""
    rolling = RollingPolicy(sliding_batches=True, **policy)
    built = {} if instances is None else {"instances": instances}
    return World(fleet=fleet(capacity, versions=BOTH, policy=rolling, **built))


def in_flight(told: World) -> list[str]:
    """Return the instances that batches are at work on."""
    return sorted(told.fleet.census.in_flight)


def finish(told: World, id: str) -> None:
    """Let one instance's agent and prober answer, until it is healthy or failed."""
    while id in told.fleet.census.in_flight:
        index = next(
            i for i, answer in enumerate(told.waiting) if getattr(answer, "instance_id", "") == id
        )
        told.tell(told.waiting.pop(index))


def begun(told: World) -> World:
    """Let all answer until the first batch runs."""
    told.until("batch.started")
    return told


def test_the_next_one_starts_as_soon_as_one_is_healthy() -> None:
    told = begun(world())
    assert in_flight(told) == ["0", "1"]
    finish(told, "1")
    assert in_flight(told) == ["0", "2"]
    finish(told, "2")
    assert in_flight(told) == ["0", "3"]
    finish(told, "0")
    assert in_flight(told) == ["3", "4"]
    assert told.batches() == ["0 1", "2", "3", "4"]


def test_a_batch_ends_when_all_of_its_own_are_done() -> None:
    told = begun(world())
    finish(told, "1")
    finish(told, "2")
    assert [done.batch for done in told.all(e.BatchCompleted)] == [2]
    finish(told, "0")
    assert [done.batch for done in told.all(e.BatchCompleted)] == [2, 1]


def observed_cap(told: World) -> None:
    """Fail when more are in flight than a batch has, or more are down than the limit allows."""
    size = len(told.fleet.instances)
    cap = max(1, size * 20 // 100)
    assert len(told.fleet.census.in_flight) <= cap
    assert told.down() <= cap


@given(seed=st.integers(0, 10**9), capacity=st.integers(1, 30), doubled=st.sampled_from([0.0, 0.3]))
@examples(40)
def test_never_more_than_a_batch_in_flight(seed: int, capacity: int, doubled: float) -> None:
    told = world(capacity)
    told = World(fleet=told.fleet, seed=seed, doubled=doubled, observe=observed_cap)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert set(told.versions_now().values()) == {"1.1"}
    assert set(told.swaps.values()) == {1}


@given(seed=st.integers(0, 10**9), share=st.integers(0, 100))
@examples(40)
def test_a_partly_sick_version_slides_within_the_cap_and_is_put_back(seed: int, share: int) -> None:
    sick = {str(i) for i in range(20) if (i * 37 + seed) % 100 < share}
    told = World(
        fleet=world(20).fleet,
        seed=seed,
        sick=lambda id, version: version == "1.1" and id in sick,
        observe=observed_cap,
    )
    told.run()
    assert told.fleet.upgrade is None
    assert told.down() == 0
    assert all(told.versions_now()[id] == "1.0" for id in sick)


@pytest.mark.parametrize(("policy", "flying"), [({}, 2), ({"max_batch_instance_count": 1}, 1)])
def test_the_count_caps_what_is_in_flight_and_not_only_one_batch(
    policy: dict[str, Any], flying: int
) -> None:
    told = begun(world(**policy))
    for _ in range(3):
        assert len(in_flight(told)) == flying
        finish(told, in_flight(told)[0])


def test_an_ill_one_outside_takes_a_place_in_the_limit() -> None:
    told = begun(world())
    told.tell(powered("9", Power.STOPPED))
    finish(told, "0")
    assert in_flight(told) == ["1", "9"]  # no room for a healthy one: the ill one goes itself
    told.tell(powered("8", Power.STOPPED))
    finish(told, "1")
    assert in_flight(told) == ["8", "9"]
    told.tell(powered("7", Power.STOPPED), powered("6", Power.STOPPED))
    finish(told, "9")
    assert in_flight(told) == ["8"]  # 6, 7 and 8 are down: three, and two are allowed


def test_one_that_boots_from_its_previous_disk_is_still_in_flight() -> None:
    """Four may be down, but a batch is of two."""
    told = begun(
        world(
            max_unhealthy_upgraded_instance_percent=100,
            max_unhealthy_instance_percent=40,
        )
    )
    told.sick = lambda id, version: version == "1.1" and id == "0"
    finish(told, "1")
    own = [answer for answer in told.waiting if getattr(answer, "instance_id", "") == "0"]
    others = [answer for answer in told.waiting if answer not in own]
    told.waiting = []
    told.tell(*own)
    told.answer()
    told.later(300)
    told.answer(e.InstanceHealthy)
    assert told.upgrade.members["0"].state is MemberState.RESTORED
    assert not told.fleet.instances["0"].is_healthy
    assert told.batches() == ["0 1", "2"]  # no third beside it while it boots
    told.waiting = others
    finish(told, "2")
    assert [done.batch for done in told.all(e.BatchCompleted)] == [
        2
    ]  # it waits for none but its own


# --- groups ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "policy"),
    [
        ([{"zone": z} for z in "aabb"], {}),
        ([{"phase_order": p} for p in (0, 0, 1, 1)], {}),
        ([{"phase_order": 0}, {"phase_order": 0}, {}, {}], {}),
    ],
)
def test_zones_and_phases_are_not_mixed_in_flight(
    fields: list[dict[str, Any]], policy: dict[str, Any]
) -> None:
    instances = {str(i): healthy(str(i), **values) for i, values in enumerate(fields)}
    wide = {"max_batch_instance_percent": 75, "max_unhealthy_instance_percent": 75}
    told = begun(world(4, instances, **wide, **policy))
    assert in_flight(told) == ["0", "1"]  # three would be allowed
    finish(told, "0")
    assert in_flight(told) == ["1"]
    finish(told, "1")
    assert in_flight(told) == ["2", "3"]


def test_unhealthy_first_needs_no_barrier_between_ill_and_healthy_ones() -> None:
    instances = {
        str(i): healthy(str(i), health=Health.UNHEALTHY if i in (6, 7) else Health.HEALTHY)
        for i in range(10)
    }
    told = begun(
        world(
            10,
            instances,
            prioritize_unhealthy_instances=True,
            max_unhealthy_instance_percent=40,
        )
    )
    assert in_flight(told) == ["6", "7"]
    finish(told, "6")
    assert in_flight(told) == ["0", "7"]


# --- gates ----------------------------------------------------------------------------------------


def test_the_canary_goes_first_and_alone_and_bakes() -> None:
    told = begun(world(canary_instance_count=1, canary_bake_time=900))
    assert in_flight(told) == ["0"]
    assert told.later(60) == []
    finish(told, "0")
    assert in_flight(told) == []
    assert told.later(899) == []
    told.later(1)
    assert in_flight(told) == ["1", "2"]


def test_a_failure_above_the_limit_starts_no_other_and_lets_those_in_flight_end() -> None:
    told = begun(world())
    attempt = told.fleet.instances["0"].attempt
    failed = e.InstanceFailed(scale_set=SET, instance_id="0", attempt=attempt, error=broken("0"))
    told.tell(failed)
    finish(told, "1")
    assert in_flight(told) == ["0"]  # it is put back, and counts as failed already
    told.run()
    assert told.batches() == ["0 1"]
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert told.versions_now() == {**dict.fromkeys("023456789", "1.0"), "1": "1.1"}


@pytest.mark.parametrize(
    "ask", [e.UpgradePauseRequested(scale_set=SET), e.UpgradeCancelRequested(scale_set=SET)]
)
def test_a_person_stops_it_and_those_in_flight_end(ask: e.Event) -> None:
    told = begun(world())
    told.tell(ask)
    finish(told, "0")
    assert in_flight(told) == ["1"]
    finish(told, "1")
    assert in_flight(told) == []
    assert told.batches() == ["0 1"]


def test_the_pause_between_batches_counts_from_the_last_one_that_ended() -> None:
    told = begun(world(pause_time_between_batches=60, max_batch_instance_count=1))
    finish(told, "0")
    assert told.later(59) == []
    told.later(1)
    assert in_flight(told) == ["1"]


def test_the_metric_gate_is_asked_in_its_interval_and_not_at_every_step() -> None:
    told = world(metric_gate=GATE)
    told.metric = lambda question: MetricOutcome.SUCCESS
    begun(told)
    while len(told.batches()) < 4:
        told.now += timedelta(seconds=1)
        told.tell(told.waiting.pop(0))
    assert len(told.all(e.MetricQueryRequested)) == 1
    told.later(60)
    told.run()
    assert len(told.all(e.MetricQueryRequested)) >= 3  # after the interval, and before the end


def test_a_metric_gate_that_fails_lets_those_in_flight_end_and_starts_no_other() -> None:
    told = world(metric_gate=GATE)
    begun(told)
    told.metric = lambda question: MetricOutcome.FAILURE
    told.later(60)
    finish(told, "0")
    told.run()
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert told.last(e.UpgradeFaulted).error.code == FailureCode.METRIC_GATE
    assert told.batches() == ["0 1"]
    assert told.down() == 0


def test_a_hook_is_asked_for_each_that_is_to_start_while_others_run() -> None:
    rolling = RollingPolicy(sliding_batches=True)
    told = World(fleet=fleet(versions=BOTH, policy=rolling, lifecycle_hooks=(BEFORE_BATCH,)))
    told.hook = lambda question: {"*": HookAction.APPROVE}
    begun(told)
    finish(told, "0")
    assert told.last(e.LifecycleHookStarted).instance_ids == ("2",)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_an_outage_meanwhile_stops_it_after_those_in_flight() -> None:
    told = begun(world(max_unhealthy_upgraded_instance_percent=100))
    told.now += timedelta(seconds=600)
    told.tell(*(powered(id, Power.STOPPED) for id in "789"))
    told.run()
    assert told.batches() == ["0 1"]
    assert told.last(e.UpgradeFaulted).error.code == FailureCode.UNHEALTHY_DURING


def test_what_is_waited_for_between_is_not_said_as_a_hold_while_others_run() -> None:
    told = begun(world())
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    finish(told, "0")
    assert told.all(e.BatchHeld) == []
    finish(told, "1")
    assert [held.code for held in told.all(e.BatchHeld)] == [WaitCode.PAUSED]


def test_the_reason_says_how_many_are_in_flight() -> None:
    told = begun(world())
    finish(told, "0")
    assert told.last(e.BatchStarted).reason == (
        "1 of 10: at most 2 (20 %) at a time, 1 unhealthy outside, 2 allowed, 1 in flight"
    )
