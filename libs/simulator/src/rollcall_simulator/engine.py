"""Run a fleet to its end in virtual time, without faults: what the rules decide, and when.

This is the plain engine for whoever wants to know how a rollout would go, or would have gone.
Hosts and probers answer as `Answers` says; nothing is lost, doubled or reordered.

    timeline = run(fleet, Answers(instance=lambda id, request: Behaviour(work=90, healthy=20)))
    for entry in timeline.entries:
        print(entry.at, entry.event.type, entry.event.reason)
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, HookAction, MetricOutcome
from rollcall_rollout import Fleet, Upgrade, fold, next_wake, settle

from rollcall_simulator.agenda import START, Agenda


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an instance takes one request; durations are seconds."""

    work: float = 60.0  # from the request to its agent's report
    failure: Failure | None = None  # what the report says instead of success
    healthy: float | None = 10.0  # from the report to an application that is healthy; None: never


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How everything around the rules answers; durations are seconds, None is never."""

    instance: Callable[[str, e.HostRequest], Behaviour] = lambda id, request: Behaviour()
    fetch: Callable[[str], float | Failure] = lambda host: 5.0
    metric: Callable[[e.MetricQueryRequested], MetricOutcome] = lambda asked: MetricOutcome.SUCCESS
    hook: Callable[[e.LifecycleHookStarted], tuple[float, HookAction] | None] = lambda asked: (
        0.0,
        HookAction.APPROVE,
    )
    approval: float | None = 0.0  # of a deferred upgrade, after its start


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One decided event, and when it was decided."""

    at: datetime
    event: e.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What was decided, in order, and what the fleet is at the end."""

    entries: Sequence[Entry]
    fleet: Fleet
    ended: Sequence[Upgrade]
    at: datetime  # the end
    is_over: bool  # False: something still goes on, and `until` was reached


def run(
    fleet: Fleet,
    answers: Answers | None = None,
    *,
    start: datetime = START,
    until: timedelta = timedelta(days=60),
    quiet: timedelta = timedelta(0),
    happenings: Iterable[tuple[datetime, e.Event]] = (),
) -> Timeline:
    """Run a fleet until nothing goes on any more, or for as long as `until` says.

    Nothing goes on when no upgrade runs, no agent is at work, and no answer or happening is due.
    The fleet is then given `quiet` to begin something by itself: a version that must age, or a
    hold that ends. `happenings` are events from outside, at their times.
    """
    return _Run(fleet, answers or Answers(), start, happenings).until(until, quiet)


@dataclass(slots=True)
class _Run:
    fleet: Fleet
    answers: Answers
    start: datetime
    happenings: Iterable[tuple[datetime, e.Event]]
    entries: list[Entry] = field(default_factory=list)
    ended: list[Upgrade] = field(default_factory=list)
    agenda: Agenda = field(init=False)
    inbox: list[e.Event] = field(default_factory=list)
    healthy_at: dict[str, float | None] = field(default_factory=dict)  # by instance

    def until(self, limit: timedelta, quiet: timedelta) -> Timeline:
        self.agenda = Agenda(self.start)
        end = limit.total_seconds()
        for time, event in self.happenings:
            self.agenda.when(self.agenda.at(time), partial(self.inbox.append, event))
        busy_until = 0.0
        self._decide()
        while self.agenda.seconds < end:
            wake = self.agenda.at(next_wake(self.fleet, self.agenda.now))
            due = self.agenda.next()
            if due is None and not self._goes_on():
                if self.agenda.seconds >= busy_until + quiet.total_seconds():
                    return self._timeline(is_over=True)
            else:
                busy_until = self.agenda.seconds
            if due is None or wake < due:
                # A wake that is not in the future would stop the clock.
                self.agenda.seconds = min(max(wake, self.agenda.seconds + 0.001), end)
            else:
                self.agenda.step()
                while self.agenda.next() == self.agenda.seconds:
                    self.agenda.step()
            self._decide()
        return self._timeline(is_over=not self._goes_on())

    def _goes_on(self) -> bool:
        return self.fleet.upgrade is not None or any(
            instance.is_busy for instance in self.fleet.instances.values()
        )

    def _timeline(self, *, is_over: bool) -> Timeline:
        return Timeline(
            entries=self.entries,
            fleet=self.fleet,
            ended=self.ended,
            at=self.agenda.now,
            is_over=is_over,
        )

    def _decide(self) -> None:
        now = self.agenda.now
        events, self.inbox = self.inbox, []
        folded, _ = fold(self.fleet, events, now)
        self.fleet, decided = settle(folded, now)
        self.ended += self.fleet.ended
        self.fleet = self.fleet.amended(ended=())
        for event in decided:
            self.entries.append(Entry(at=now, event=event))
            self._answer(event)

    def _say(self, delay: float, event: e.Event) -> None:
        self.agenda.after(delay, lambda: self.inbox.append(event))

    def _answer(self, event: e.Event) -> None:
        answers = self.answers
        match event:
            case e.InstancesCommitRequested():
                pass
            case e.HostRequest():
                for order in event.instances:
                    self._work(event, order)
            case e.ImageFetchRequested():
                self._fetch(event)
            case e.ProbeRequested():
                for target in event.targets:
                    self._probe(event, target)
            case e.MetricQueryRequested():
                outcome = answers.metric(event)
                queried = e.MetricQueried(
                    scale_set=event.scale_set,
                    upgrade_id=event.upgrade_id,
                    check=event.check,
                    outcome=outcome,
                )
                self._say(0.1, queried)
            case e.LifecycleHookStarted():
                if (answer := answers.hook(event)) is not None:
                    answered = e.LifecycleHookAnswered(
                        scale_set=event.scale_set, hook_id=event.hook_id, actions={"*": answer[1]}
                    )
                    self._say(answer[0], answered)
            case e.UpgradeStarted() if event.deferred and answers.approval is not None:
                approval = e.UpgradeApproveRequested(scale_set=event.scale_set, instance_ids=("*",))
                self._say(answers.approval, approval)

    def _fetch(self, event: e.ImageFetchRequested) -> None:
        said = {
            "scale_set": event.scale_set,
            "host": event.host,
            "upgrade_id": event.upgrade_id,
        }
        took = self.answers.fetch(event.host)
        if isinstance(took, Failure):
            self._say(1.0, e.ImageFetchFailed(**said, error=took))
        else:
            self._say(took, e.ImageFetched(**said))

    def _work(self, event: e.HostRequest, order: e.InstanceOrder) -> None:
        id = order.instance_id
        behaviour = self.answers.instance(id, event)
        said = {"scale_set": event.scale_set, "instance_id": id, "attempt": order.attempt}
        report = self._report(event, id, said)
        if behaviour.failure is not None:
            report = e.InstanceFailed(**said, error=behaviour.failure)
        self._say(behaviour.work, report)
        self.healthy_at[id] = (
            None
            if behaviour.healthy is None
            else self.agenda.seconds + behaviour.work + behaviour.healthy
        )

    def _report(self, event: e.HostRequest, id: str, said: dict[str, object]) -> e.Event:
        if isinstance(event, e.InstancesDeleteRequested):
            return e.InstanceDeleted.model_validate(said)
        place = {"address": "127.0.0.1", "port": 80}
        if isinstance(event, e.InstancesRestoreRequested):
            before = self._version_before(id)
            generation = self.fleet.instances[id].generation
            values = {**said, **place, "version": before, "generation": generation}
            return e.InstanceRestored.model_validate(values)
        if not isinstance(event, e.InstancesCreateRequested | e.InstancesUpgradeRequested):
            raise TypeError(f"the engine has no answer to {type(event).__name__}")
        generation = event.provisioning.generation
        values = {**said, **place, "version": event.image.version, "generation": generation}
        if isinstance(event, e.InstancesCreateRequested):
            return e.InstanceCreated.model_validate(values)
        return e.InstanceUpgraded.model_validate(values)

    def _version_before(self, id: str) -> str:
        """Return the version of the OS disk that a restore puts back."""
        upgrade, instance = self.fleet.upgrade, self.fleet.instances[id]
        member = upgrade.members.get(id) if upgrade is not None else None
        before = member.from_version if member is not None else None
        return before or instance.version or ""

    def _probe(self, event: e.ProbeRequested, target: e.ProbeTarget) -> None:
        healthy = self.healthy_at.get(target.instance_id, 0.0)
        said = {
            "scale_set": event.scale_set,
            "instance_id": target.instance_id,
            "attempt": target.attempt,
            "lease": target.lease,
        }
        if healthy is None:
            self._say(event.probe.interval, e.InstanceUnhealthy.model_validate(said))
        else:
            delay = max(0.1, healthy - self.agenda.seconds)
            self._say(delay, e.InstanceHealthy.model_validate(said))
