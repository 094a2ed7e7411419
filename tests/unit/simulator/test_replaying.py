"""A replay under the upgrade's own policy gives what was; under another one, what would have been.

The recorded log is one that the rules wrote themselves, in virtual time, from an empty set on.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    HookAction,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    MetricGate,
    MetricOutcome,
    RollingPolicy,
)
from rollcall_rollout import Fleet
from rollcall_simulator.engine import Answers, Behaviour, Outage, Timeline, run
from rollcall_simulator.recording import LogEntry, Record, RecordError, read_record
from rollcall_simulator.replaying import Replay, replay
from rollcall_testing.examples import examples
from rollcall_testing.fleets import SET, START, image, spec

PUBLISHED = START + timedelta(hours=1)
HOSTS = ("host-1", "host-2")
GATE = MetricGate(server="http://prometheus:9090", query="errors", success_condition="< 1")


def at(seconds: float) -> datetime:
    """Return a time after the version was published."""
    return PUBLISHED + timedelta(seconds=seconds)


def history(
    answers: Answers,
    capacity: int = 10,
    *,
    outages: Sequence[Outage] = (),
    happenings: Sequence[tuple[datetime, e.Event]] = (),
    **fields: Any,
) -> Timeline:
    """Make a set at 1.0, publish 1.1 an hour later, and let what follows happen."""
    model = spec(capacity, **fields)
    begun = Fleet(spec=model, hosts=HOSTS, images=(image("1.0"),))
    published = (PUBLISHED, e.ImagePublished(image=image("1.1")))
    return run(begun, answers, start=START, happenings=[published, *happenings], outages=outages)


def record_of(timeline: Timeline) -> Record:
    """Return the recorded upgrade, as it is read from the two logs."""
    (ended,) = timeline.ended
    model = e.ScaleSetChanged(scale_set=SET, spec=timeline.fleet.spec)
    entries = [LogEntry(time=START, event=model)]
    entries += [LogEntry(time=entry.at, event=entry.event) for entry in timeline.log]
    images = [LogEntry(time=START, event=e.ImagePublished(image=image("1.0")))]
    images += [x for x in entries if isinstance(x.event, e.ImagePublished | e.ImageHeld)]
    in_set = [x for x in entries if not isinstance(x.event, e.ImagePublished | e.ImageHeld)]
    return read_record(in_set, images, ended.id, timeline.at)


def again(timeline: Timeline, **changes: Any) -> Replay:
    """Replay the recorded upgrade under its own policy, with changes."""
    record = record_of(timeline)
    policy = RollingPolicy.model_validate({**record.started.policy.model_dump(), **changes})
    return replay(record, policy)


def behave(
    sick: Sequence[str] = (),
    *,
    failure: Failure | None = None,
    late: Sequence[tuple[float, float | None]] = (),
) -> Callable[[str, e.HostRequest], Behaviour]:
    """Return instances that all differ; these ones are not equal to the new version."""

    def answer(id: str, request: e.HostRequest) -> Behaviour:
        work, healthy = 20 + 3 * int(id), 2 + int(id) % 4
        if id in sick and isinstance(request, e.InstancesUpgradeRequested):
            if failure is not None:
                return Behaviour(work=work, failure=failure)
            return Behaviour(work=work, healthy=healthy if late else None, outages=late)
        return Behaviour(work=work, healthy=healthy)

    return answer


def test_a_good_upgrade_is_the_same_again_to_the_moment() -> None:
    timeline = history(Answers(instance=behave()))
    outcome = again(timeline)
    assert outcome.is_same
    assert outcome.succeeds
    assert not outcome.unreached
    assert not outcome.notes
    assert outcome.course is not None
    for was, would in zip(outcome.record.course.batches, outcome.course.batches, strict=True):
        assert abs(was.begin - would.begin) < timedelta(seconds=1)
    assert outcome.course.upgrade_id == outcome.record.course.upgrade_id


def test_a_faulted_upgrade_faults_again_and_a_lax_policy_takes_it_through() -> None:
    timeline = history(Answers(instance=behave(["2"])))
    outcome = again(timeline)
    assert outcome.is_same
    assert outcome.course is not None
    assert outcome.course.error is not None
    assert outcome.course.error.code == FailureCode.UNHEALTHY_UPGRADED
    lax = again(timeline, max_unhealthy_upgraded_instance_percent=50)
    assert lax.succeeds
    assert not lax.is_same
    assert lax.unreached == [str(id) for id in range(4, 10)]
    assert "not reached" in lax.notes[0]


def test_smaller_batches_would_have_stopped_earlier() -> None:
    timeline = history(Answers(instance=behave(["1"], failure=_failure())), capacity=20)
    assert again(timeline).is_same
    canary = again(timeline, canary_instance_count=2)
    assert canary.course is not None
    assert [len(batch.instance_ids) for batch in canary.course.batches] == [2]
    assert canary.course.error is not None
    assert "the script exited" in canary.course.error.message
    assert record_of(timeline).course.status.value == "Faulted"
    assert len(record_of(timeline).course.batches[0].instance_ids) == 4


def _failure() -> Failure:
    return Failure(code=FailureCode.EXTENSION, message="the script exited with 3")


def test_a_longer_health_timeout_does_not_pretend_to_know() -> None:
    outcome = again(history(Answers(instance=behave(["0"]))), health_timeout=900)
    assert not outcome.succeeds
    assert any("not known" in note for note in outcome.notes)
    slow = Answers(
        instance=lambda id, request: Behaviour(
            healthy=400 if isinstance(request, e.InstancesUpgradeRequested) else 5
        )
    )
    recorded = history(slow, policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=0))
    assert again(recorded).is_same


def test_what_fails_long_after_its_upgrade_would_be_caught_by_a_bake_time() -> None:
    timeline = history(Answers(instance=behave(["0", "1"], late=[(400, None)])))
    recorded = record_of(timeline).course
    assert recorded.status.value == "Completed"
    assert again(timeline).is_same
    baked = again(timeline, canary_instance_count=1, canary_bake_time=600)
    assert baked.course is not None
    assert baked.course.status.value == "Faulted"
    assert [batch.instance_ids for batch in baked.course.batches] == [("0",)]


def test_outages_of_others_come_at_their_time() -> None:
    three = [Outage(instance_id=id, begin=at(40), end=at(4000)) for id in ("7", "8", "9")]
    timeline = history(Answers(instance=behave()), outages=three)
    assert record_of(timeline).course.error is not None
    assert again(timeline).is_same
    assert again(timeline, max_unhealthy_instance_percent=50).succeeds


def test_a_stricter_gate_would_not_have_let_it_start() -> None:
    one = [Outage(instance_id="9", begin=at(-60), end=None)]
    timeline = history(Answers(instance=behave()), outages=one)
    assert again(timeline).is_same
    strict = again(timeline, max_unhealthy_instance_percent=5, max_batch_instance_percent=5)
    assert strict.course is None
    assert strict.hold is not None
    assert strict.hold.code == FailureCode.UNHEALTHY_BEFORE


def test_other_windows_move_it() -> None:
    record = record_of(history(Answers(instance=behave())))
    night = MaintenanceWindow(
        start=datetime.fromisoformat("2026-01-01T20:00"), time_zone="UTC", duration=3600
    )
    outcome = replay(record, record.started.policy, (night,))
    assert outcome.course is not None
    assert outcome.course.begin == START + timedelta(hours=20)
    assert outcome.succeeds


def test_what_people_did_is_done_again() -> None:
    paused: list[tuple[datetime, e.Event]] = [
        (at(30), e.UpgradePauseRequested(scale_set=SET)),
        (at(600), e.UpgradeResumeRequested(scale_set=SET)),
        (at(700), e.UpgradeCancelRequested(scale_set=SET)),
    ]
    timeline = history(Answers(instance=behave()), happenings=paused)
    assert record_of(timeline).course.status.value == "Cancelled"
    outcome = again(timeline)
    assert outcome.is_same
    quicker = again(timeline, max_batch_instance_percent=50, max_unhealthy_instance_percent=50)
    assert quicker.succeeds  # its two batches were through before anybody cancelled


def test_a_start_by_hand_is_one_again() -> None:
    by_hand = [(at(60), e.UpgradeStartRequested(scale_set=SET, reason="now"))]
    timeline = history(
        Answers(instance=behave(["3"])), happenings=by_hand, automatic_os_upgrade=False
    )
    outcome = again(timeline)
    assert outcome.is_same
    assert outcome.record.started.started_by.value == "User"


def test_hooks_and_gates_answer_as_they_did() -> None:
    hooks = (
        LifecycleHook(type=LifecycleHookType.SCHEDULING, wait_duration=600),
        LifecycleHook(type=LifecycleHookType.BATCH_STARTING, wait_duration=600),
    )

    def hook(asked: e.LifecycleHookStarted) -> tuple[float, dict[str, HookAction]] | None:
        if "6" in asked.instance_ids:
            return None  # nobody was there: its default action is to reject
        no = {"3": HookAction.REJECT}
        ids = asked.instance_ids or ("*",)
        return 7.0, {id: no.get(id, HookAction.APPROVE) for id in ids}

    answers = Answers(
        instance=behave(),
        hook=hook,
        metric=lambda asked: (
            MetricOutcome.INCONCLUSIVE if asked.check == 2 else MetricOutcome.SUCCESS
        ),
    )
    timeline = history(answers, lifecycle_hooks=hooks, policy=RollingPolicy(metric_gate=GATE))
    outcome = again(timeline)
    assert outcome.is_same
    assert outcome.course is not None
    assert outcome.record.course.end == outcome.course.end
    versions = {i.version for i in timeline.fleet.instances.values()}
    assert versions == {"1.0", "1.1"}


def test_a_surge_is_replayed_in_place_and_the_other_way_round() -> None:
    surged = history(Answers(instance=behave()), policy=RollingPolicy(max_surge=True))
    assert again(surged).is_same
    in_place = again(surged, max_surge=False)
    assert in_place.succeeds
    assert not in_place.unreached
    recorded = history(Answers(instance=behave()))
    assert again(recorded, max_surge=True).succeeds


@examples(60)
@given(
    sick=st.sets(st.integers(0, 11), max_size=4),
    outages=st.lists(
        st.tuples(st.integers(0, 11), st.integers(-100, 400), st.integers(1, 500)), max_size=4
    ),
    policy=st.fixed_dictionaries(
        {
            "max_batch_instance_percent": st.sampled_from([5, 20, 30]),
            "max_unhealthy_instance_percent": st.sampled_from([30, 50]),
            "max_unhealthy_upgraded_instance_percent": st.sampled_from([0, 20, 60]),
            "pause_time_between_batches": st.sampled_from([0, 100, 5000]),
            "prioritize_unhealthy_instances": st.booleans(),
            "rollback_failed_instances_on_policy_breach": st.booleans(),
            "canary_instance_count": st.sampled_from([0, 1]),
            "bake_time": st.sampled_from([0, 250]),
        }
    ),
    sliding=st.booleans(),
    probed=st.booleans(),
)
def test_any_record_comes_to_the_same_under_its_own_policy(
    sick: set[int],
    outages: list[tuple[int, int, int]],
    policy: dict[str, Any],
    sliding: bool,
    probed: bool,
) -> None:
    failure = None if probed else _failure()
    fields: dict[str, Any] = {} if probed else {"probe": None}
    timeline = history(
        Answers(instance=behave([str(id) for id in sick], failure=failure)),
        12,
        outages=[
            Outage(instance_id=str(id), begin=at(begin), end=at(begin + length))
            for id, begin, length in outages
        ],
        policy=RollingPolicy.model_validate({**policy, "sliding_batches": sliding}),
        zones=("1", "2"),
        **fields,
    )
    if len(timeline.ended) != 1:
        return  # held by outages that never end in the record, or started twice
    outcome = again(timeline)
    assert outcome.course is not None
    assert outcome.course.shape == outcome.record.course.shape


def test_what_the_log_does_not_tell_is_said() -> None:
    timeline = history(Answers(instance=behave()))
    entries = [LogEntry(time=entry.at, event=entry.event) for entry in timeline.log]
    (ended,) = timeline.ended
    with pytest.raises(RecordError, match="no upgrade nobody"):
        read_record(entries, [], "nobody", timeline.at)
    with pytest.raises(RecordError, match="begin with the model"):
        read_record([x for x in entries if x.time >= PUBLISHED], [], ended.id, timeline.at)
    cut = [x for x in entries if not isinstance(x.event, e.UpgradeCompleted)]
    model = LogEntry(time=START, event=e.ScaleSetChanged(scale_set=SET, spec=timeline.fleet.spec))
    with pytest.raises(RecordError, match="rollcall plan"):
        read_record([model, *cut], [], ended.id, timeline.at)
