"""The metric gate: what each answer does, and when the question is asked again."""

from datetime import timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import FailureCode, GateAnswer, MetricOutcome, RollingPolicy
from rollcall_rollout import WaitCode, next_wake
from rollcall_rollout.metric_gate import answer_to
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import GATE, SET, START, World, fleet, image, measured

BOTH = ("1.0", "1.1")
OUT = MetricOutcome


def world(capacity: int = 3, gate: Any = GATE, **policy: Any) -> World:
    """Return a world whose gate nobody answers."""
    rolling = RollingPolicy(metric_gate=gate, **policy)
    told = World(fleet=fleet(capacity, versions=BOTH, policy=rolling))
    told.metric = lambda asked: None
    return told


def asked(told: World) -> list[int]:
    """Return the numbers of the questions."""
    return [question.check for question in told.all(e.MetricQueryRequested)]


def answer(told: World, outcome: MetricOutcome) -> list[e.Event]:
    """Answer the last question."""
    return told.tell(measured(told.last(e.MetricQueryRequested), outcome))


# --- what an answer means -------------------------------------------------------------------------


@pytest.mark.parametrize("on", list(GateAnswer))
@pytest.mark.parametrize("outcome", list(OUT))
def test_each_outcome_means_what_the_policy_says_of_it(
    outcome: MetricOutcome, on: GateAnswer
) -> None:
    inconclusive = GATE.model_copy(update={"on_inconclusive": on})
    unreachable = GATE.model_copy(update={"on_unreachable": on})
    wait, go, fault = GateAnswer.WAIT, GateAnswer.PROCEED, GateAnswer.FAULT
    meant = (answer_to(inconclusive, outcome), answer_to(unreachable, outcome))
    assert (
        meant
        == {
            OUT.SUCCESS: (go, go),
            OUT.FAILURE: (fault, fault),
            OUT.INCONCLUSIVE: (on, wait),
            OUT.UNREACHABLE: (wait, on),
        }[outcome]
    )


CASES = [
    (OUT.SUCCESS, GateAnswer.WAIT, "goes on"),
    (OUT.SUCCESS, GateAnswer.FAULT, "goes on"),
    (OUT.FAILURE, GateAnswer.WAIT, "faults"),
    (OUT.FAILURE, GateAnswer.PROCEED, "faults"),
    *((out, GateAnswer.WAIT, "waits") for out in (OUT.INCONCLUSIVE, OUT.UNREACHABLE)),
    *((out, GateAnswer.PROCEED, "goes on") for out in (OUT.INCONCLUSIVE, OUT.UNREACHABLE)),
    *((out, GateAnswer.FAULT, "faults") for out in (OUT.INCONCLUSIVE, OUT.UNREACHABLE)),
]


@pytest.mark.parametrize(("outcome", "on", "does"), CASES)
@pytest.mark.parametrize("when", ["before the first batch", "before the end"])
def test_an_answer_lets_an_upgrade_go_on_or_wait_or_fault(
    when: str, outcome: MetricOutcome, on: GateAnswer, does: str
) -> None:
    told = world(gate=GATE.model_copy(update={"on_inconclusive": on, "on_unreachable": on}))
    told.tell()
    told.answer()
    if when == "before the end":
        for _ in range(3):
            answer(told, OUT.SUCCESS)
            told.later(1)
            told.answer()
    done = len(told.batches())
    assert done == (3 if when == "before the end" else 0)
    before = len(asked(told))
    answer(told, outcome)
    if does == "faults":
        fault = told.last(e.UpgradeFaulted).error
        assert (fault.code, fault.target) == (FailureCode.METRIC_GATE, GATE.server)
        assert told.all(e.ImageHeld)[0].image == image("1.1")  # other sets keep off it
    elif does == "waits":
        assert len(told.batches()) == done
        assert told.fleet.upgrade is not None
        assert told.later(GATE.interval - 1) == []
        told.later(1)
        assert len(asked(told)) == before + 1
    elif when == "before the end":
        assert told.upgrade.status is UpgradeStatus.COMPLETED
    else:
        assert len(told.batches()) == 1


# --- when it is asked -----------------------------------------------------------------------------


def test_the_gate_is_asked_before_each_batch_and_before_the_end() -> None:
    told = world(3)
    told.metric = lambda question: OUT.SUCCESS
    told.run()
    assert told.types("metric.query_requested", "batch.started", "upgrade.completed") == [
        *["metric.query_requested", "batch.started"] * 3,
        "metric.query_requested",
        "upgrade.completed",
    ]
    assert asked(told) == [1, 2, 3, 4]


def test_it_is_asked_after_all_other_gates() -> None:
    """An answer is of the moment: nothing else is waited for after it."""
    told = world(3, pause_time_between_batches=600)
    told.tell()
    told.answer()
    answer(told, OUT.SUCCESS)
    told.answer()
    assert asked(told) == [1]
    told.later(600)
    assert asked(told) == [1, 2]


def test_an_answer_that_is_lost_is_asked_for_again() -> None:
    told = world(3)
    told.tell()
    told.answer()
    lost = timedelta(seconds=GATE.timeout + 60)
    assert next_wake(told.fleet, told.now + timedelta(seconds=30)) == START + lost
    assert told.later(69) == []
    told.later(1)
    assert asked(told) == [1, 2]
    answer(told, OUT.SUCCESS)
    assert told.batches() == ["0"]


def test_a_late_answer_to_an_older_question_does_nothing() -> None:
    told = world(3)
    told.tell()
    told.answer()
    first = told.last(e.MetricQueryRequested)
    told.later(70)
    before = told.fleet
    told.tell(measured(first, OUT.FAILURE))
    assert told.fleet is before


@pytest.mark.parametrize("second", [OUT.FAILURE, OUT.UNREACHABLE])
def test_an_answer_that_comes_twice_counts_once(second: MetricOutcome) -> None:
    told = world(3)
    told.tell()
    told.answer()
    answer(told, OUT.INCONCLUSIVE)
    before = told.fleet
    answer(told, second)
    assert told.fleet is before


def test_an_answer_of_another_upgrade_does_nothing() -> None:
    told = world(3)
    told.tell()
    told.answer()
    question = told.last(e.MetricQueryRequested).model_copy(update={"upgrade_id": "another"})
    before = told.fleet
    told.tell(measured(question, OUT.SUCCESS))
    assert told.fleet is before


def test_an_answer_from_before_the_last_batch_ended_is_too_old() -> None:
    """What the batch made of the metrics is what the gate is for."""
    told = world(3, gate=GATE.model_copy(update={"interval": 3600}))
    told.tell()
    told.answer()
    answer(told, OUT.SUCCESS)
    told.later(5)
    told.answer()
    assert asked(told) == [1, 2]
    assert told.batches() == ["0"]


@pytest.mark.parametrize(("later", "questions"), [(59, [1]), (60, [1, 2])])
def test_an_answer_counts_for_the_interval_and_no_longer(later: int, questions: list[int]) -> None:
    """Another gate may hold the batch meanwhile: here, a person's pause."""
    told = world(3)
    told.tell()
    told.answer()
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    answer(told, OUT.SUCCESS)
    told.later(later)
    told.tell(e.UpgradeResumeRequested(scale_set=SET))
    assert asked(told) == questions
    assert bool(told.batches()) is (questions == [1])


def test_a_gate_that_fails_faults_at_once_even_while_another_gate_waits() -> None:
    told = world(3)
    told.tell()
    told.answer()
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    answer(told, OUT.FAILURE)
    assert told.upgrade.status is UpgradeStatus.FAULTED


def test_the_fault_says_the_numbers_the_query_and_the_condition() -> None:
    told = world(3)
    told.tell()
    told.answer()
    answer(told, OUT.FAILURE)
    assert told.last(e.UpgradeFaulted).error.message == (
        "The metric gate answered Failure: 0.5 <= 0.01 is not so. The query was "
        "sum(rate(errors[5m])), and must be <= 0.01."
    )


def test_a_gate_that_fails_while_all_bake_is_heard_at_the_end() -> None:
    told = world(2, bake_time=600)
    told.metric = lambda question: OUT.SUCCESS if question.check < 3 else OUT.FAILURE
    told.run()
    assert asked(told) == [1, 2, 3]
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert told.now >= START + timedelta(seconds=600)


def test_a_set_without_an_instance_to_upgrade_asks_nothing() -> None:
    told = World(fleet=fleet(3, policy=RollingPolicy(metric_gate=GATE)))
    told.run()
    assert asked(told) == []


def test_a_start_by_hand_asks_the_gate_too() -> None:
    told = world(3)
    told.fleet = fleet(
        3, versions=BOTH, automatic_os_upgrade=False, policy=RollingPolicy(metric_gate=GATE)
    )
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.answer()
    assert asked(told) == [1]
    assert told.batches() == []


def test_a_wait_for_the_gate_is_said_once() -> None:
    told = world(3)
    told.metric = lambda question: OUT.SUCCESS if question.check == 5 else OUT.INCONCLUSIVE
    told.tell()
    while not told.batches():
        told.answer()
        told.later(30)
    held = told.all(e.BatchHeld)
    assert [hold.code for hold in held] == [WaitCode.METRIC_GATE]
    assert asked(told) == [1, 2, 3, 4, 5]
