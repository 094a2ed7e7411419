"""The metric gate: a question to a Prometheus server before each batch and before the end."""

from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    GateAnswer,
    MetricGate,
    MetricOutcome,
)

from rollcall_rollout.fleet import Fleet
from rollcall_rollout.state import MetricCheck, Upgrade
from rollcall_rollout.waits import Wait, WaitCode

LOST = timedelta(seconds=60)  # beyond the timeout: then the question is asked again


def wait_for_metric(fleet: Fleet, upgrade: Upgrade, now: datetime) -> Wait | None:
    """Return the wait for the gate's answer; None when it lets the upgrade go on.

    An answer counts for the gate's interval, and never for longer than until the next batch ends.
    """
    gate, check = upgrade.policy.metric_gate, upgrade.check
    if gate is None:
        return None
    if check is None or _is_old(gate, check, upgrade, now):
        number = check.number + 1 if check is not None else 1
        ask = e.MetricQueryRequested(
            scale_set=fleet.spec.scale_set,
            upgrade_id=upgrade.id,
            check=number,
            gate=gate,
            reason=f"question {number}: {gate.query} must be {gate.success_condition}",
        )
        return Wait(code=WaitCode.METRIC_GATE, message="The metric gate is asked.", asks=(ask,))
    if check.outcome is None:
        return Wait(
            code=WaitCode.METRIC_GATE,
            message=(
                f"The metric gate was asked at {check.asked_at:%Y-%m-%d %H:%M:%S}Z whether "
                f"{gate.query} is {gate.success_condition}, and has not answered yet."
            ),
            until=_lost_at(gate, check),
        )
    if answer_to(gate, check.outcome) is GateAnswer.WAIT:
        return Wait(
            code=WaitCode.METRIC_GATE,
            message=(
                f"The metric gate's last answer was {check.outcome} ({check.reason}); it is asked "
                f"again every {gate.interval:g} s."
            ),
            until=_expires_at(gate, check),
        )
    return None


def metric_fault(upgrade: Upgrade) -> Failure | None:
    """Return why the gate's answer ends the upgrade, if it does."""
    gate, check = upgrade.policy.metric_gate, upgrade.check
    if gate is None or check is None or check.outcome is None:
        return None
    if answer_to(gate, check.outcome) is not GateAnswer.FAULT:
        return None
    return Failure(
        code=FailureCode.METRIC_GATE,
        message=(
            f"The metric gate answered {check.outcome}: {check.reason}. The query was "
            f"{gate.query}, and must be {gate.success_condition}."
        ),
        target=gate.server,
    )


def answer_to(gate: MetricGate, outcome: MetricOutcome) -> GateAnswer:
    """Return what an outcome means; what an unreachable server means is the policy's to say."""
    match outcome:
        case MetricOutcome.SUCCESS:
            return GateAnswer.PROCEED
        case MetricOutcome.FAILURE:
            return GateAnswer.FAULT
        case MetricOutcome.INCONCLUSIVE:
            return gate.on_inconclusive
        case MetricOutcome.UNREACHABLE:
            return gate.on_unreachable


def _is_old(gate: MetricGate, check: MetricCheck, upgrade: Upgrade, now: datetime) -> bool:
    if check.outcome is None:
        return now >= _lost_at(gate, check)
    ended = upgrade.paused_since
    # While batches slide, one ends every moment: there the interval alone counts.
    before_last_batch = ended is not None and check.asked_at < ended and not upgrade.batch_open
    return before_last_batch or now >= _expires_at(gate, check)


def _expires_at(gate: MetricGate, check: MetricCheck) -> datetime:
    return check.asked_at + timedelta(seconds=gate.interval)


def _lost_at(gate: MetricGate, check: MetricCheck) -> datetime:
    return check.asked_at + timedelta(seconds=gate.timeout) + LOST
