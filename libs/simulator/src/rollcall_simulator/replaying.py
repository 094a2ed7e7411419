"""A past upgrade under another policy: the same failures and outages, and other decisions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from statistics import median

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    HookAction,
    MaintenanceWindow,
    MetricOutcome,
    RollingPolicy,
)
from rollcall_rollout import Fleet, evolve, settle, waiting
from rollcall_rollout.state import UpgradeStatus
from rollcall_rollout.waits import WaitCode

from rollcall_simulator.course import Course, read_courses
from rollcall_simulator.engine import Answers, Behaviour, Timeline, run
from rollcall_simulator.pace import FETCH, Pace, pace, upgraded_instance
from rollcall_simulator.recording import Answer, HookAnswer, Record

HORIZON = timedelta(days=400)  # what does not end by then does not end
GATES = (WaitCode.UNHEALTHY, WaitCode.OUTSIDE_WINDOWS)  # what may keep it from starting


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What was, and what would have been."""

    record: Record
    policy: RollingPolicy
    course: Course | None  # None: it would not have started
    hold: Failure | None  # why not
    unreached: Sequence[str]  # instances whose part nobody has seen: assumed to go well
    notes: Sequence[str]

    @property
    def is_same(self) -> bool:
        """Say whether it would have come to the same, batch by batch."""
        return self.course is not None and self.course.shape == self.record.course.shape

    @property
    def succeeds(self) -> bool:
        """Say whether it would have been completed."""
        return self.course is not None and self.course.status is UpgradeStatus.COMPLETED


def replay(
    record: Record,
    policy: RollingPolicy,
    windows: tuple[MaintenanceWindow, ...] | None = None,
) -> Replay:
    """Return how a recorded upgrade would have gone under a policy.

    What people did is done again at its time; outages come at theirs, those of upgraded instances
    as long after their upgrade as they did.
    """
    changes: dict[str, object] = {"policy": policy}
    if windows is not None:
        changes["maintenance_windows"] = windows
    fleet = replace(record.fleet, spec=record.fleet.spec.model_copy(update=changes))
    cast = _Cast(record, policy)
    course, hold = _course(record, cast.run(fleet)), None
    if course is None:
        hold = _hold(record, fleet, cast)
        if hold is None:  # the log and the rules saw things in another order: it did start
            cast = _Cast(record, policy)
            begun = _begun(record, fleet, policy)
            course = _course(record, cast.run(begun), begun)
    unreached = sorted(cast.unreached, key=int)
    return Replay(
        record=record,
        policy=policy,
        course=course,
        hold=hold,
        unreached=unreached,
        notes=_notes(record, policy, course, unreached),
    )


def _course(record: Record, timeline: Timeline, begun: Fleet | None = None) -> Course | None:
    entries = ((entry.at, entry.event) for entry in timeline.entries)
    version = record.started.image.version
    return next((c for c in read_courses(entries, begun) if c.version == version), None)


def _hold(record: Record, fleet: Fleet, cast: "_Cast") -> Failure | None:
    """Return which gate kept the upgrade from starting, if one did."""
    settled, decided = settle(fleet, record.at)
    for event in decided:
        if isinstance(event, e.UpgradeHeld) and event.error.code in GATES:
            return event.error
    wait = waiting(settled, record.at)
    return Failure(code=wait.code, message=wait.message) if wait.code in GATES else None


def _begun(record: Record, fleet: Fleet, policy: RollingPolicy) -> Fleet:
    started = record.started.model_copy(update={"policy": policy})
    return evolve(fleet, [started], record.at)


# --- who answers what -----------------------------------------------------------------------------


class _Cast:
    """Everybody around the rules, who does again what is on record."""

    def __init__(self, record: Record, policy: RollingPolicy) -> None:
        self._record = record
        self._pace = _pace(record, policy)
        self._hooks: Counter[str] = Counter()
        self.unreached: set[str] = set()

    def run(self, fleet: Fleet) -> Timeline:
        """Run the fleet from the moment at which the upgrade started."""
        record = self._record
        return run(
            fleet,
            Answers(
                instance=self._instance,
                fetch=self._fetch,
                metric=self._metric,
                hook=self._hook,
                approval=None,  # that is among what people did
            ),
            start=record.at,
            until=HORIZON,
            quiet=HORIZON,
            happenings=record.happenings,
            outages=record.outages,
        )

    def _instance(self, id: str, request: e.HostRequest) -> Behaviour:
        member = upgraded_instance(id, request)
        answer = self._answer(member or id, request)
        if answer is None:
            if member is not None:
                self.unreached.add(member)
            return self._pace.behaviour(request)
        return Behaviour(
            work=answer.work,
            failure=answer.failure,
            healthy=answer.boot,
            outages=answer.outages,
        )

    def _answer(self, id: str, request: e.HostRequest) -> Answer | None:
        """Return what is on record; for a surge where there was none, what its upgrade did."""
        answers = self._record.answers
        found = answers.get((type(request), id))
        if found is not None or upgraded_instance(id, request) is None:
            return found
        others = (e.InstancesUpgradeRequested, e.InstancesCreateRequested)
        return next((answers[(cls, id)] for cls in others if (cls, id) in answers), None)

    def _fetch(self, host: str) -> float | Failure:
        fetches = self._record.fetches
        known = [took for took in fetches.values() if isinstance(took, float)]
        return fetches.get(host, median(known) if known else FETCH)

    def _metric(self, asked: e.MetricQueryRequested) -> MetricOutcome:
        outcomes = self._record.metrics
        if not outcomes:
            return MetricOutcome.SUCCESS
        return outcomes[min(asked.check, len(outcomes)) - 1]

    def _hook(self, asked: e.LifecycleHookStarted) -> tuple[float, dict[str, HookAction]] | None:
        recorded = [hook for hook in self._record.hooks if hook.type is asked.hook_type]
        number = self._hooks[asked.hook_type]
        self._hooks[asked.hook_type] += 1
        hook = recorded[number] if number < len(recorded) else None
        if hook is not None and not hook.actions:
            return None  # nobody answered
        said = _said(recorded)
        targets = asked.instance_ids or ("*",)
        return (
            hook.after if hook is not None else 0.0,
            {target: said.get(target, HookAction.APPROVE) for target in targets},
        )


def _said(hooks: Sequence[HookAnswer]) -> dict[str, HookAction]:
    """Return what was said of each instance: batches of other instances ask of them elsewhere."""
    return {target: action for hook in hooks for target, action in hook.actions.items()}


def _pace(record: Record, policy: RollingPolicy) -> Pace:
    """Return how long those instances took that came so far."""
    upgrades = [
        answer
        for (kind, id), answer in record.answers.items()
        if id in record.started.instance_ids
        and kind in (e.InstancesUpgradeRequested, e.InstancesCreateRequested)
    ]
    return pace(
        [answer.work for answer in upgrades if answer.work is not None],
        [answer.boot for answer in upgrades if answer.boot is not None],
        policy,
    )


# --- notes ----------------------------------------------------------------------------------------


def _notes(
    record: Record, policy: RollingPolicy, course: Course | None, unreached: Sequence[str]
) -> Sequence[str]:
    """Return what nobody can know."""
    notes = []
    if unreached:
        notes.append(
            f"{len(unreached)} instances were not reached in the record ({', '.join(unreached)}): "
            "they are assumed to be as fast as the others, and to succeed."
        )
    before = record.started.policy
    silent = sum(answer.healthy is None and answer.failure is None for answer in _upgrades(record))
    if silent and policy.health_timeout > before.health_timeout:
        notes.append(
            f"{silent} instances were not healthy within the recorded healthTimeout of "
            f"{before.health_timeout:g} s: whether {policy.health_timeout:g} s would have been "
            "enough is not known, and assumed not to be."
        )
    if policy.metric_gate is not None and not record.metrics:
        notes.append("No metric gate was asked then: it is assumed to say yes.")
    end = course.end if course is not None else None
    if end is not None and end > record.until:
        notes.append(
            f"What was after {record.until:%Y-%m-%d %H:%M:%S}Z is not part of the record: "
            "instances are assumed to stay as they were."
        )
    return notes


def _upgrades(record: Record) -> Sequence[Answer]:
    return [
        answer
        for (kind, _), answer in record.answers.items()
        if kind is e.InstancesUpgradeRequested
    ]
