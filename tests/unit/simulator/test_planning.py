"""A plan says what the rules would do, when, and how much it takes to stop them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts.model import (
    Failure,
    Health,
    HookAction,
    ImageReference,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    RollingPolicy,
)
from rollcall_rollout import Fleet
from rollcall_rollout.state import Hold
from rollcall_rollout.waits import WaitCode
from rollcall_simulator.engine import Answers, Behaviour, run
from rollcall_simulator.pace import Estimate, pace
from rollcall_simulator.planning import ANALYSED, Plan, Wish, plan
from rollcall_simulator.snapshot import Snapshot
from rollcall_testing.fleets import START, fleet, healthy, image

PACE = pace((30, 40, 50), (5, 10, 15))
NEXT = Wish(version="2.0")
HELD = Hold(by_set="/sets/other", upgrade_id="u", error=Failure(code="F", message="it failed"))
PINNED = ImageReference(publisher="Contoso", offer="Web", sku="stable", version="1.0")


def plan_of(value: Fleet, wish: Wish = NEXT, at: datetime = START) -> Plan:
    snapshot = Snapshot(at=at, fleet=value, provisioning=(), healthy=())
    return plan(snapshot, PACE, wish)


def with_sick(value: Fleet, *ids: str) -> Fleet:
    sick = {id: healthy(id, health=Health.UNHEALTHY) for id in ids}
    return replace(value, instances={**value.instances, **sick})


def codes(planned: Plan) -> set[str]:
    return {risk.code for risk in planned.risks}


def test_batches_have_their_times_and_the_end_has_a_range() -> None:
    planned = plan_of(fleet(10))
    (course,) = planned.courses
    assert [batch.instance_ids for batch in course.batches] == [
        ("0", "1"), ("2", "3"), ("4", "5"), ("6", "7"), ("8", "9"),
    ]  # fmt: skip  # one line says it
    assert all(
        batch.end is not None and batch.end - batch.begin == timedelta(seconds=50)
        for batch in course.batches
    )
    assert planned.end == START + timedelta(seconds=5 + 5 * 50)
    assert planned.fastest[0].end == START + timedelta(seconds=5 + 5 * 35)
    assert planned.slowest[0].end == START + timedelta(seconds=5 + 5 * 65)
    assert planned.succeeds
    assert "2.0 is not published" in planned.notes[0]


def test_an_estimate_is_the_median_and_leaves_out_a_tenth_at_each_end() -> None:
    assert pace((), ()).provisioning == Estimate(median=60, low=60, high=60, samples=0)
    few = pace((1, 100, 7), ()).provisioning
    assert (few.median, few.low, few.high, few.samples) == (7, 1, 100, 3)
    many = pace([float(n) for n in range(101)], ()).provisioning
    assert (many.median, many.low, many.high) == (50, 10, 90)


@pytest.mark.parametrize(
    ("capacity", "policy", "expected"),
    [
        (10, {}, [1, 1, 2, 2, None]),
        (20, {}, [1, 2, 3, 4, None]),
        (10, {"max_unhealthy_upgraded_instance_percent": 0}, [1, 1, 1, 1, 1]),
        (10, {"max_unhealthy_upgraded_instance_percent": 100}, [None] * 5),
        (10, {"max_unhealthy_upgraded_instance_count": 1}, [2, 2, 2, 2, None]),
        (10, {"canary_instance_count": 1}, [1, 1, 2, 2, 2, None]),
    ],
)
def test_how_many_failures_stop_it_is_tried(
    capacity: int, policy: Mapping[str, Any], expected: list[int | None]
) -> None:
    planned = plan_of(fleet(capacity, policy=RollingPolicy.model_validate(policy)))
    assert [tolerance.failures for tolerance in planned.tolerances] == expected


@pytest.mark.parametrize("capacity", [1, 3, 7, 30])
@pytest.mark.parametrize("probed", [True, False], ids=("probe", "power"))
def test_one_failure_less_never_stops_it(capacity: int, probed: bool) -> None:
    fields: dict[str, Any] = {} if probed else {"probe": None}
    planned = plan_of(
        fleet(capacity, policy=RollingPolicy(max_batch_instance_percent=10), **fields)
    )
    for tolerance, batch in zip(planned.tolerances, planned.courses[0].batches, strict=False):
        for count in range(1, tolerance.size + 1):
            stops = _stops(planned, batch.instance_ids[:count], probed=probed)
            assert stops == (tolerance.failures is not None and count >= tolerance.failures)


def _stops(planned: Plan, sick: tuple[str, ...], *, probed: bool) -> bool:
    error = None if probed else Failure(code="x", message="y")

    def behave(id: str, request: Any) -> Behaviour:
        upgrade = request.type == "instances.upgrade_requested.v1"
        if id in sick and upgrade:
            return Behaviour(work=40, failure=error, healthy=10 if error else None)
        return Behaviour(work=40, healthy=10)

    timeline = run(planned.fleet, Answers(instance=behave), start=START)
    return timeline.ended[0].status.value == "Faulted"


def test_many_batches_are_not_all_tried() -> None:
    planned = plan_of(fleet(30, policy=RollingPolicy(max_batch_instance_count=1)))
    assert len(planned.courses[0].batches) == 30
    assert len(planned.tolerances) == ANALYSED
    assert any(str(ANALYSED) in note for note in planned.notes)


def test_nothing_to_do_is_success() -> None:
    planned = plan_of(fleet(5), Wish())
    assert not planned.courses
    assert planned.wait is not None
    assert planned.wait.code is WaitCode.NOTHING
    assert planned.succeeds


def test_pauses_and_windows_are_in_the_plan() -> None:
    window = MaintenanceWindow(
        start=datetime.fromisoformat("2026-01-01T22:00"), time_zone="UTC", duration=3600
    )
    policy = RollingPolicy(pause_time_between_batches=1200)
    planned = plan_of(fleet(10, policy=policy, maintenance_windows=(window,)))
    (course,) = planned.courses
    assert course.begin == START + timedelta(hours=22)
    assert course.batches[3].begin == START + timedelta(hours=46)  # the next night
    assert {pause.code for pause in course.pauses} == {
        "RollingUpgradeBatchStartTimeNotWithinScheduledWindows",
        "PauseBetweenBatches",
    }
    assert all(pause.end is not None for pause in course.pauses)


def test_a_window_that_is_too_short_is_a_risk_and_no_end() -> None:
    window = MaintenanceWindow(
        start=datetime.fromisoformat("2026-01-01T00:00"), time_zone="UTC", duration=60
    )
    planned = plan_of(fleet(10, maintenance_windows=(window,), batch_seconds=(90.0,)), at=START)
    assert not planned.courses
    assert planned.wait is not None
    assert "longer than any maintenance window" in planned.wait.message
    assert "WindowTooShort" in codes(planned)
    assert not planned.succeeds


def test_a_set_that_is_switched_off_is_planned_as_a_start_by_hand() -> None:
    planned = plan_of(fleet(10, automatic_os_upgrade=False))
    assert planned.by_hand is WaitCode.SWITCHED_OFF
    assert len(planned.courses[0].batches) == 5
    barred = plan_of(fleet(10, versions=("1.0", "1.1"), barred_version="1.1"), Wish())
    assert barred.by_hand is WaitCode.VERSION_BARRED
    pinned = fleet(10)
    line = pinned.spec.image.model_copy(update={"version": "1.0"})
    pinned = replace(pinned, spec=pinned.spec.model_copy(update={"image": line}))
    refused = plan_of(pinned)
    assert not refused.courses
    assert refused.wait is not None
    assert "pins a version" in refused.wait.message


def test_a_held_version_starts_nowhere() -> None:
    hold = Hold(by_set="/other", upgrade_id="u", error=Failure(code="C", message="m"))
    planned = plan_of(fleet(10, versions=("1.0", "1.1"), holds={"1.1": hold}), Wish())
    assert not planned.courses
    assert planned.wait is not None
    assert planned.wait.code is WaitCode.VERSION_HELD
    assert "VersionHeld" in codes(planned)
    assert not planned.succeeds


def test_sick_instances_are_counted() -> None:
    later = START + timedelta(hours=1)  # they do not boot for the first time
    two = plan_of(with_sick(fleet(10), "3", "9"), at=later)
    assert two.courses[0].batches[0].instance_ids == ("3", "9")  # no room for a healthy one
    assert any("2 unhealthy now (3, 9)" in risk.message for risk in two.risks)
    assert any("1 more" in risk.message for risk in two.risks)
    three = plan_of(with_sick(fleet(10), "3", "8", "9"), at=later)
    assert not three.courses
    assert three.wait is not None
    assert three.wait.code is WaitCode.UNHEALTHY


def test_another_policy_is_planned_for_and_an_older_version_too() -> None:
    policy = RollingPolicy(max_batch_instance_percent=50, max_unhealthy_instance_percent=50)
    planned = plan_of(fleet(10), Wish(version="2.0", policy=policy))
    assert [len(batch.instance_ids) for batch in planned.courses[0].batches] == [5, 5]
    between = plan_of(fleet(4, versions=("1.0", "1.1", "1.2")), Wish(version="1.1"))
    assert [course.version for course in between.courses] == ["1.1"]
    assert not any("not published" in note for note in between.notes)
    back = plan_of(fleet(4, versions=("0.9", "1.0")), Wish(version="0.9"))
    assert not back.courses


def test_the_rest_of_a_running_upgrade_and_what_comes_after_it() -> None:
    begun = fleet(10, versions=("1.0", "1.1"))
    half = run(begun, start=START, until=timedelta(seconds=100)).fleet
    planned = plan_of(half, Wish(version="1.2"), START + timedelta(seconds=100))
    first, second = planned.courses
    assert (first.version, second.version) == ("1.1", "1.2")
    assert [batch.number for batch in first.batches] == [2, 3, 4, 5]
    assert first.batches[0].begin == START + timedelta(seconds=75)
    assert [tolerance.failures for tolerance in planned.tolerances] == [1, 2, 2, None]
    faster = RollingPolicy(max_batch_instance_percent=40, max_unhealthy_instance_percent=40)
    wished = plan_of(half, Wish(policy=faster), START + timedelta(seconds=100))
    assert [len(batch.instance_ids) for batch in wished.courses[0].batches] == [2, 4, 2]
    assert any("keeps the policy that it started" in note for note in wished.notes)


def test_who_is_asked_is_named() -> None:
    hook = LifecycleHook(
        type=LifecycleHookType.BATCH_STARTING,
        wait_duration=600,
        default_action=HookAction.REJECT,
    )
    planned = plan_of(fleet(4, lifecycle_hooks=(hook,), os_rolling_upgrade_deferral=True))
    assert {"LifecycleHook", "ApprovalAwaited"} <= codes(planned)
    assert planned.succeeds
    assert any("600 s" in risk.message and "rejected" in risk.message for risk in planned.risks)


def test_protected_instances_are_named() -> None:
    value = fleet(5)
    protected = healthy("4", protect_from_scale_set_actions=True)
    planned = plan_of(replace(value, instances={**value.instances, "4": protected}))
    assert planned.courses[0].skipped == ("4",)
    assert "InstancesSkipped" in codes(planned)


def test_a_limit_that_comes_near_is_named() -> None:
    slow = pace((2000,), (280,))
    snapshot = Snapshot(at=START, fleet=fleet(2), provisioning=(), healthy=())
    planned = plan(snapshot, slow, NEXT)
    near = [risk.message for risk in planned.risks if risk.code == "NearTimeout"]
    assert len(near) == 2
    assert "healthTimeout is 300 s" in near[0]


def test_nothing_of_the_wish_is_left_in_the_snapshot() -> None:
    value = fleet(4, versions=("1.0", "1.1"))
    snapshot = Snapshot(at=START, fleet=value, provisioning=(), healthy=())
    plan(snapshot, PACE, Wish(version="1.0", policy=RollingPolicy(bake_time=5)))
    assert snapshot.fleet.images == (image("1.0"), image("1.1"))
    assert snapshot.fleet.spec.policy == RollingPolicy()


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (with_sick(fleet(10, automatic_os_upgrade=False), *"012345"), WaitCode.UNHEALTHY),
        (fleet(4, automatic_os_upgrade=False, holds={"2.0": HELD}), WaitCode.VERSION_HELD),
        (fleet(4, barred_version="2.0", holds={"2.0": HELD}), WaitCode.VERSION_HELD),
        (with_sick(fleet(10, barred_version="2.0"), *"012345"), WaitCode.UNHEALTHY),
        (fleet(4, image=PINNED), WaitCode.PINNED),
    ],
)
def test_what_refuses_a_start_by_hand_too_is_no_success(value: Fleet, code: WaitCode) -> None:
    planned = plan_of(value)
    assert (planned.courses, planned.by_hand) == ([], None)
    assert planned.wait is not None
    assert (planned.wait.code, planned.succeeds) == (code, False)
