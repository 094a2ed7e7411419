"""Run a fleet to its end in virtual time, without faults: what the rules decide, and when.

This is the plain engine for whoever wants to know how a rollout would go, or would have gone.
Hosts and probers answer as `Answers` says; nothing is lost, doubled or reordered.

    timeline = run(fleet, Answers(instance=lambda id, request: Behaviour(work=90, healthy=20)))
    for entry in timeline.entries:
        print(entry.at, entry.event.type, entry.event.reason)
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from math import inf

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, HookAction, MetricOutcome, Power, PowerAction
from rollcall_rollout import Fleet, InstancePhase, Upgrade, fold, next_wake, settle

from rollcall_simulator.agenda import START, Agenda
from rollcall_simulator.resuming import underway
from rollcall_simulator.stillness import is_still, next_change


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How an instance takes one request; durations are seconds."""

    work: float | None = 60.0  # from the request to its agent's report; None: never
    failure: Failure | None = None  # what the report says instead of success
    healthy: float | None = 10.0  # from the report to an application that is healthy; None: never
    # Counted from when it was healthy: when its application fails, and works again; None: never.
    outages: Sequence[tuple[float, float | None]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """An application that fails, whatever the rules do; it finds no instance at work."""

    instance_id: str
    begin: datetime
    end: datetime | None  # None: it stays so until a new OS disk is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How everything around the rules answers; durations are seconds, None is never."""

    instance: Callable[[str, e.HostRequest], Behaviour] = lambda id, request: Behaviour()
    fetch: Callable[[str], float | Failure] = lambda host: 5.0
    metric: Callable[[e.MetricQueryRequested], MetricOutcome] = lambda asked: MetricOutcome.SUCCESS
    # After how long, and with what: for all instances, or for each.
    hook: Callable[
        [e.LifecycleHookStarted], tuple[float, HookAction | Mapping[str, HookAction]] | None
    ] = lambda asked: (0.0, HookAction.APPROVE)
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
    log: Sequence[Entry]  # with the reports and requests that changed the fleet
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
    outages: Iterable[Outage] = (),
) -> Timeline:
    """Run a fleet until nothing goes on any more, or for as long as `until` says.

    Nothing goes on when no upgrade runs, no agent is at work, and no answer or happening is due.
    The fleet is then given `quiet` to begin something by itself: a version that must age, or a
    hold that ends. `happenings` are events from outside, at their times.

    A fleet may be given in the middle of things: what was asked before the start is answered, in
    the time that is left of it. An instance that is unhealthy stays so, until it boots anew.
    """
    made = _Run(fleet, answers or Answers(), start)
    for time, event in happenings:
        made.agenda.when(made.agenda.at(time), partial(made.receive, event))
    for outage in outages:
        made.plan_outage(outage)
    return made.until(until, quiet)


@dataclass(slots=True)
class _Run:
    fleet: Fleet
    answers: Answers
    start: datetime
    entries: list[Entry] = field(default_factory=list)
    log: list[Entry] = field(default_factory=list)
    ended: list[Upgrade] = field(default_factory=list)
    agenda: Agenda = field(init=False)
    inbox: list[e.Event] = field(default_factory=list)
    healthy_at: dict[str, float | None] = field(default_factory=dict)  # by instance
    fallen: set[str] = field(default_factory=set)  # by an outage

    def __post_init__(self) -> None:
        self.agenda = Agenda(self.start)

    def until(self, limit: timedelta, quiet: timedelta) -> Timeline:
        end = limit.total_seconds()
        busy_until = 0.0
        self._take_up()
        self._decide()
        while self.agenda.seconds < end:
            wake, due = self._next_wake(), self.agenda.next()
            if due is None and not self._goes_on():
                over = busy_until + quiet.total_seconds()
                if self.agenda.seconds >= over or wake == inf:
                    return self._timeline(is_over=True)
                wake = min(wake, over)
            else:
                busy_until = self.agenda.seconds
            if due is None and wake == inf:
                break  # nobody will ever move it
            if due is None or wake < due:
                # A wake that is not in the future would stop the clock.
                self.agenda.seconds = min(max(wake, self.agenda.seconds + 0.001), end)
            else:
                self.agenda.step()
                while self.agenda.next() == self.agenda.seconds:
                    self.agenda.step()
            self._decide()
        return self._timeline(is_over=not self._goes_on())

    def _next_wake(self) -> float:
        """Return when the rules must be asked again; a still fleet leaps over its waiting."""
        now = self.agenda.now
        if not is_still(self.fleet, now):
            return self.agenda.at(next_wake(self.fleet, now))
        change = next_change(self.fleet, now)
        return inf if change is None else self.agenda.at(change)

    def _take_up(self) -> None:
        """Let what was asked before the start be answered."""
        for item in underway(self.fleet, self.agenda.now):
            asked = self.agenda.at(item.at)
            if item.booted and isinstance(item.event, e.HostRequest):
                self._boot_on(item.event, asked)
            else:
                self._answer(item.event, asked)
        for id, instance in self.fleet.instances.items():
            if instance.phase is InstancePhase.READY and not instance.is_healthy:
                self.healthy_at.setdefault(id, None)
        upgrade, approval = self.fleet.upgrade, self.answers.approval
        if upgrade is not None and upgrade.deferred and approval is not None:
            self._approve(approval, self.agenda.at(upgrade.started_at))

    def _boot_on(self, event: e.HostRequest, booted: float) -> None:
        id = event.instances[0].instance_id
        behaviour = self.answers.instance(id, event)
        if behaviour.healthy is not None and behaviour.failure is None:
            self.healthy_at[id] = max(booted + behaviour.healthy, 0.0)
            # Whoever probes it already tells by himself.
            self.agenda.when(booted + behaviour.healthy, partial(self._tell_health, id, True))

    def _goes_on(self) -> bool:
        return self.fleet.upgrade is not None or any(
            instance.is_busy for instance in self.fleet.instances.values()
        )

    def _timeline(self, *, is_over: bool) -> Timeline:
        return Timeline(
            entries=self.entries,
            log=self.log,
            fleet=self.fleet,
            ended=self.ended,
            at=self.agenda.now,
            is_over=is_over,
        )

    def _decide(self) -> None:
        now = self.agenda.now
        events, self.inbox = self.inbox, []
        folded, accepted = fold(self.fleet, events, now)
        self.log += [Entry(at=now, event=event) for event in accepted]
        self.fleet, decided = settle(folded, now)
        self.ended += self.fleet.ended
        self.fleet = self.fleet.amended(ended=())
        for event in decided:
            entry = Entry(at=now, event=event)
            self.entries.append(entry)
            self.log.append(entry)
            self._answer(event, self.agenda.seconds)

    def receive(self, event: e.Event) -> None:
        """Let an event arrive; what is decided next takes it into account."""
        self.inbox.append(event)

    def _say(self, delay: float, event: e.Event, asked: float | None = None) -> None:
        since = self.agenda.seconds if asked is None else asked
        self.agenda.when(since + delay, partial(self.receive, event))

    def _answer(self, event: e.Event, asked: float) -> None:
        answers = self.answers
        match event:
            case e.InstancesCommitRequested():
                pass
            case e.HostRequest():
                for order in event.instances:
                    self._work(event, order, asked)
            case e.ImageFetchRequested():
                self._fetch(event, asked)
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
                self._say(0.1, queried, asked)
            case e.LifecycleHookStarted():
                if (answer := answers.hook(event)) is not None:
                    self._answer_hook(event, answer, asked)
            case e.UpgradeStarted() if event.deferred and answers.approval is not None:
                self._approve(answers.approval, asked)

    def _answer_hook(
        self,
        event: e.LifecycleHookStarted,
        answer: tuple[float, HookAction | Mapping[str, HookAction]],
        asked: float,
    ) -> None:
        delay, said = answer
        actions = {"*": said} if isinstance(said, HookAction) else said
        answered = e.LifecycleHookAnswered(
            scale_set=event.scale_set, hook_id=event.hook_id, actions=actions
        )
        self._say(delay, answered, asked)

    def _approve(self, delay: float, asked: float) -> None:
        approval = e.UpgradeApproveRequested(
            scale_set=self.fleet.spec.scale_set, instance_ids=("*",)
        )
        self._say(delay, approval, asked)

    def _fetch(self, event: e.ImageFetchRequested, asked: float) -> None:
        said = {
            "scale_set": event.scale_set,
            "host": event.host,
            "upgrade_id": event.upgrade_id,
        }
        took = self.answers.fetch(event.host)
        if isinstance(took, Failure):
            self._say(1.0, e.ImageFetchFailed(**said, error=took), asked)
        else:
            self._say(took, e.ImageFetched(**said), asked)

    def _work(self, event: e.HostRequest, order: e.InstanceOrder, asked: float) -> None:
        id = order.instance_id
        behaviour = self.answers.instance(id, event)
        self.fallen.discard(id)
        self.healthy_at[id] = None
        if behaviour.work is None:
            return
        said = {"scale_set": event.scale_set, "instance_id": id, "attempt": order.attempt}
        report = self._report(event, id, said)
        if behaviour.failure is not None:
            report = e.InstanceFailed(**said, error=behaviour.failure)
        self._say(behaviour.work, report, asked)
        stops = isinstance(event, e.InstancesPowerRequested) and (
            event.change is PowerAction.POWER_OFF
        )
        if behaviour.healthy is None or stops:
            return
        healthy = max(asked + behaviour.work, self.agenda.seconds) + behaviour.healthy
        self.healthy_at[id] = healthy
        for begin, end in behaviour.outages:
            self._plan_fall(id, healthy + begin, None if end is None else healthy + end, order)

    def _report(self, event: e.HostRequest, id: str, said: dict[str, object]) -> e.Event:
        if isinstance(event, e.InstancesDeleteRequested):
            return e.InstanceDeleted.model_validate(said)
        place = {"address": "127.0.0.1", "port": 80}
        if isinstance(event, e.InstancesPowerRequested):
            off = event.change is PowerAction.POWER_OFF
            power = Power.STOPPED if off else Power.RUNNING
            return e.InstancePowered.model_validate({**said, **place, "power": power})
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

    # --- health -----------------------------------------------------------------------------------

    def _probe(self, event: e.ProbeRequested, target: e.ProbeTarget) -> None:
        healthy = self.healthy_at.get(target.instance_id, 0.0)
        delay = event.probe.interval if healthy is None else max(0.1, healthy - self.agenda.seconds)
        self.agenda.after(delay, partial(self._look, target))

    def _look(self, target: e.ProbeTarget) -> None:
        """Report what a probe sees now, under the lease that it was asked for."""
        healthy = self.healthy_at.get(target.instance_id, 0.0)
        sound = healthy is not None and healthy <= self.agenda.seconds
        cls = e.InstanceHealthy if sound else e.InstanceUnhealthy
        self.inbox.append(
            cls(
                scale_set=self.fleet.spec.scale_set,
                instance_id=target.instance_id,
                attempt=target.attempt,
                lease=target.lease,
            )
        )

    def plan_outage(self, outage: Outage) -> None:
        """Let an application fail, and work again."""
        end = None if outage.end is None else self.agenda.at(outage.end)
        self._plan_fall(outage.instance_id, self.agenda.at(outage.begin), end)

    def _plan_fall(
        self, id: str, begin: float, end: float | None, order: e.InstanceOrder | None = None
    ) -> None:
        self.agenda.when(begin, partial(self._fall, id, order))
        if end is not None:
            self.agenda.when(end, partial(self._rise, id))

    def _fall(self, id: str, order: e.InstanceOrder | None) -> None:
        instance = self.fleet.instances.get(id)
        if instance is None or instance.phase is not InstancePhase.READY:
            return
        if order is not None and instance.attempt != order.attempt:
            return  # it boots from another OS disk by now
        self.fallen.add(id)
        self.healthy_at[id] = None
        self._tell_health(id, False)

    def _rise(self, id: str) -> None:
        if id in self.fallen:
            self.fallen.discard(id)
            self.healthy_at[id] = self.agenda.seconds
            self._tell_health(id, True)

    def _tell_health(self, id: str, healthy: bool) -> None:
        """Report a change of health under the newest lease; without a probe it shows as power."""
        instance = self.fleet.instances.get(id)
        if instance is None or instance.phase is not InstancePhase.READY:
            return
        said = {
            "scale_set": self.fleet.spec.scale_set,
            "instance_id": id,
            "attempt": instance.attempt,
        }
        if self.fleet.spec.probe is None or instance.power is Power.STOPPED:
            power = Power.RUNNING if healthy else Power.STOPPED
            self.inbox.append(e.InstancePowerChanged(**said, power=power))
        if self.fleet.spec.probe is not None:
            cls = e.InstanceHealthy if healthy else e.InstanceUnhealthy
            self.inbox.append(cls(**said, lease=instance.lease))
