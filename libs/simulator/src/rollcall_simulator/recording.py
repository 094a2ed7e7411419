"""A past upgrade as the event log has it: the fleet that it found, and what everybody then did.

The log has every report that changed the set, and every decision, so folding it gives the very
state in which the rules decided.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    Health,
    HookAction,
    Image,
    LifecycleHookType,
    MetricOutcome,
    Power,
)
from rollcall_rollout import Fleet, fold
from rollcall_rollout.state import Hold

from rollcall_simulator.course import Course, read_courses
from rollcall_simulator.engine import Outage
from rollcall_simulator.resuming import underway

REQUESTS = (
    e.InstancesCreateRequested,
    e.InstancesUpgradeRequested,
    e.InstancesRestoreRequested,
    e.InstancesPowerRequested,
    e.InstancesDeleteRequested,
)
# What people did meanwhile, which is repeated at its time.
PEOPLE = (
    e.ScaleSetChanged,
    e.ScaleSetDeleted,
    e.UpgradeCancelRequested,
    e.UpgradePauseRequested,
    e.UpgradeResumeRequested,
    e.UpgradeRollbackRequested,
    e.UpgradeApproveRequested,
    e.InstanceProtectionChanged,
    e.ModelDeployRequested,
    e.PowerChangeRequested,
)
ENDS = (e.UpgradeCompleted, e.UpgradeFaulted, e.UpgradeCancelled)
Kind = type[e.HostRequest]


class RecordError(ValueError):
    """The log does not tell of the upgrade what a replay needs; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One entry of the event log."""

    time: datetime
    event: e.Event


@dataclass(slots=True, kw_only=True)
class Answer:
    """How an instance took one request; seconds, and none for what did not happen."""

    asked: datetime
    reported: datetime | None = None
    failure: Failure | None = None
    healthy: datetime | None = None  # the first time
    falls: list[tuple[datetime, datetime | None]] = field(default_factory=list)  # after that

    @property
    def work(self) -> float | None:
        """Return the time until the report."""
        return None if self.reported is None else (self.reported - self.asked).total_seconds()

    @property
    def boot(self) -> float | None:
        """Return the time from the report until the application was healthy."""
        if self.reported is None or self.healthy is None:
            return None
        return (self.healthy - self.reported).total_seconds()

    @property
    def outages(self) -> tuple[tuple[float, float | None], ...]:
        """Return when it fell and rose again, counted from when it was healthy."""
        first = self.healthy
        if first is None:
            return ()
        return tuple(
            (
                (begin - first).total_seconds(),
                None if end is None else (end - first).total_seconds(),
            )
            for begin, end in self.falls
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HookAnswer:
    """What came of a lifecycle hook; nobody answered when there are no actions."""

    type: LifecycleHookType
    after: float  # seconds
    actions: Mapping[str, HookAction]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One upgrade as it was."""

    fleet: Fleet  # just before it started
    started: e.UpgradeStarted
    at: datetime  # its start
    until: datetime  # the start of the next upgrade, or when the log was read
    course: Course
    answers: Mapping[tuple[Kind, str], Answer]  # by request and instance; surges by the replaced
    fetches: Mapping[str, float | Failure]  # by host
    metrics: Sequence[MetricOutcome]
    hooks: Sequence[HookAnswer]
    outages: Sequence[Outage]  # of instances that the upgrade had not touched, or not in hand
    happenings: Sequence[tuple[datetime, e.Event]]


def read_record(
    entries: Iterable[LogEntry], images: Iterable[LogEntry], upgrade_id: str, now: datetime
) -> Record:
    """Return an upgrade from its set's log, from the beginning, and the log of the images.

    Both tell of all that was until `now`.
    Raises RecordError when the upgrade is not in it, or has not ended.
    """
    before, during, until = _split(entries, upgrade_id)
    if not during:
        raise RecordError(f"the event log has no upgrade {upgrade_id}")
    first = during[0]
    started = first.event
    if not isinstance(started, e.UpgradeStarted):
        raise RecordError(f"the event log does not tell of the start of the upgrade {upgrade_id}")
    courses = read_courses((entry.time, entry.event) for entry in during)
    course = courses[0]
    if course.end is None:
        raise RecordError(
            f"the upgrade {upgrade_id} has not ended: `rollcall plan` tells how it goes on"
        )
    known = list(images)
    fleet = _surroundings(_fold(before), known, started, first.time)
    listener = _Listener(fleet, first.time)
    for entry in during:
        listener.hear(entry.time, entry.event)
    return Record(
        fleet=fleet,
        started=started,
        at=first.time,
        until=until or now,
        course=course,
        answers=listener.answers,
        fetches=listener.fetches,
        metrics=listener.metrics,
        hooks=listener.hooks,
        outages=listener.outages(),
        happenings=_happenings(during, known, course, first.time),
    )


def _split(
    entries: Iterable[LogEntry], upgrade_id: str
) -> tuple[list[LogEntry], list[LogEntry], datetime | None]:
    """Return what was before an upgrade's start, what came then, and when the next one started."""
    before: list[LogEntry] = []
    during: list[LogEntry] = []
    for entry in entries:
        started = isinstance(entry.event, e.UpgradeStarted)
        if during:
            if started:
                return before, during, entry.time
            during.append(entry)
        elif isinstance(entry.event, e.UpgradeStarted) and entry.event.upgrade_id == upgrade_id:
            during.append(entry)
        else:
            before.append(entry)
    return before, during, None


# --- the fleet before -----------------------------------------------------------------------------


def _fold(entries: Iterable[LogEntry]) -> Fleet:
    """Return the fleet after these entries; those of one time were one transaction."""
    fleet: Fleet | None = None
    for time, group in groupby(entries, key=lambda entry: entry.time):
        events = [entry.event for entry in group]
        if fleet is None or (fleet.deleted and not fleet.instances):
            made = next((event for event in events if isinstance(event, e.ScaleSetChanged)), None)
            if made is None:
                continue
            fleet = Fleet(spec=made.spec, next_id=fleet.next_id if fleet is not None else 0)
        fleet = fold(fleet, events, time)[0].amended(ended=())
    if fleet is None:
        raise RecordError("the event log does not begin with the model of the scale set")
    return fleet


def _surroundings(
    fleet: Fleet, images: Iterable[LogEntry], started: e.UpgradeStarted, at: datetime
) -> Fleet:
    """Return the fleet with the versions, the holds and the hosts that there were."""
    line = fleet.spec.image.stream
    versions: dict[str, Image] = {}
    holds: dict[str, Hold] = {}
    for entry in images:
        event = entry.event
        if entry.time > at:
            break
        match event:
            case e.ImagePublished() if event.image.stream == line:
                versions[event.image.version] = event.image
            case e.ImageWithdrawn() if event.image.stream == line:
                versions.pop(event.image.version, None)
            case e.ImageHeld() if event.image.stream == line:
                if event.upgrade_id != started.upgrade_id:
                    _hold(holds, event)
            case e.ImageReleased() if event.image.stream == line:
                holds.pop(event.image.version, None)
    versions.setdefault(started.image.version, started.image)
    hosts = tuple(sorted({instance.host for instance in fleet.instances.values()}))
    return fleet.amended(images=tuple(versions.values()), holds=holds, hosts=hosts)


def _hold(holds: dict[str, Hold], event: e.ImageHeld) -> None:
    known = holds.get(event.image.version)
    if known is None or (event.quarantine and not known.quarantine):
        holds[event.image.version] = Hold(
            by_set=event.by_set,
            upgrade_id=event.upgrade_id,
            error=event.error,
            quarantine=event.quarantine,
        )


# --- what happened meanwhile ----------------------------------------------------------------------


def _happenings(
    during: Iterable[LogEntry], images: Iterable[LogEntry], course: Course, at: datetime
) -> Sequence[tuple[datetime, e.Event]]:
    """Return what people did, and what became of the images, until the upgrade ended."""
    end = course.end or at
    found: list[tuple[datetime, e.Event]] = [
        (entry.time, entry.event)
        for entry in during
        if isinstance(entry.event, PEOPLE) and entry.time <= end
    ]
    for entry in images:
        event = entry.event
        if not at < entry.time <= end:
            continue
        own = isinstance(event, e.ImageHeld) and event.upgrade_id == course.upgrade_id
        if isinstance(event, e.ImageWithdrawn | e.ImageHeld | e.ImageReleased) and not own:
            found.append((entry.time, event))
    return found


class _Listener:
    """Puts together who answered what, and when."""

    def __init__(self, fleet: Fleet, at: datetime) -> None:
        self.answers: dict[tuple[Kind, str], Answer] = {}
        self.fetches: dict[str, float | Failure] = {}
        self.metrics: list[MetricOutcome] = []
        self.hooks: list[HookAnswer] = []
        self._current: dict[str, tuple[int, Answer]] = {}  # by instance, with its attempt
        self._fetched_from: dict[str, datetime] = {}
        self._hooks: dict[str, tuple[datetime, LifecycleHookType]] = {}
        self._answered: set[str] = set()  # hooks
        self._down: dict[str, set[str]] = {}  # by instance: of its health and its power
        self._outages: dict[str, list[tuple[datetime, datetime | None]]] = {}
        for item in underway(fleet, at):
            if isinstance(item.event, REQUESTS):
                (order,) = item.event.instances
                self._asked(item.at, item.event, order)
                self._current[order.instance_id][1].reported = item.at if item.booted else None
        for instance in fleet.instances.values():
            if instance.is_busy or instance.is_healthy or instance.id in self._current:
                continue
            causes = {"power"} if instance.power is Power.STOPPED else set()
            if instance.health is not Health.HEALTHY:
                causes.add("health")
            self._down[instance.id] = causes

    def hear(self, time: datetime, event: e.Event) -> None:
        """Take the next entry."""
        match event:
            case e.HostRequest() if isinstance(event, REQUESTS):
                for order in event.instances:
                    self._asked(time, event, order)
            case e.InstanceReport():
                self._reported(time, event)
            case e.ImageFetchRequested():
                self._fetched_from[event.host] = time
            case e.ImageFetched() if event.host in self._fetched_from:
                since = self._fetched_from[event.host]
                self.fetches[event.host] = (time - since).total_seconds()
            case e.ImageFetchFailed():
                self.fetches[event.host] = event.error
            case e.MetricQueried():
                self.metrics.append(event.outcome)
            case e.LifecycleHookStarted():
                self._hooks[event.hook_id] = (time, event.hook_type)
            case e.LifecycleHookAnswered():
                self._answered.add(event.hook_id)
            case e.LifecycleHookCompleted() if event.hook_id in self._hooks:
                self._hook_done(time, event)

    def _hook_done(self, time: datetime, event: e.LifecycleHookCompleted) -> None:
        actions: dict[str, HookAction] = {}
        if event.hook_id in self._answered:
            actions = dict.fromkeys(event.approved, HookAction.APPROVE)
            actions |= dict.fromkeys(event.rejected, HookAction.REJECT)
        asked, type = self._hooks.pop(event.hook_id)
        after = (time - asked).total_seconds()
        self.hooks.append(HookAnswer(type=type, after=after, actions=actions))

    def _asked(self, time: datetime, event: e.HostRequest, order: e.InstanceOrder) -> None:
        id = order.instance_id
        answer = Answer(asked=time)
        self._current[id] = (order.attempt, answer)
        self._down.pop(id, None)
        key = (type(event), order.replaces or id)
        # A deployment of the model is another request; the upgrade's own is what counts.
        if not (isinstance(event, e.InstancesUpgradeRequested) and event.upgrade_id is None):
            self.answers.setdefault(key, answer)

    def _reported(self, time: datetime, event: e.InstanceReport) -> None:
        attempt, answer = self._current.get(event.instance_id, (None, None))
        if attempt != event.attempt:
            answer = None
        match event:
            case e.InstanceFailed():
                # Time limits are decisions, which a replay takes anew.
                if answer is not None and answer.reported is None and _is_of_agent(event):
                    answer.reported, answer.failure = time, event.error
            case e.InstanceHealthy():
                if answer is not None and answer.healthy is None:
                    answer.healthy = time
                else:
                    self._rises(time, event.instance_id, "health", answer)
            case e.InstanceUnhealthy():
                self._falls(time, event.instance_id, "health", answer)
            case e.InstancePowerChanged():
                change = self._rises if event.power is Power.RUNNING else self._falls
                change(time, event.instance_id, "power", answer)
            case _ if answer is not None and answer.reported is None:
                answer.reported = time

    def _falls(self, time: datetime, id: str, cause: str, answer: Answer | None) -> None:
        if answer is not None and answer.healthy is None:
            return  # it boots: not healthy yet is no outage
        causes = self._down.setdefault(id, set())
        if not causes:
            self._spans(id, answer).append((time, None))
        causes.add(cause)

    def _rises(self, time: datetime, id: str, cause: str, answer: Answer | None) -> None:
        causes = self._down.get(id, set())
        if cause not in causes:
            return
        causes.discard(cause)
        if causes:
            return
        spans = self._spans(id, answer)
        begin = spans.pop()[0] if spans and spans[-1][1] is None else time
        spans.append((begin, time))

    def _spans(self, id: str, answer: Answer | None) -> list[tuple[datetime, datetime | None]]:
        return answer.falls if answer is not None else self._outages.setdefault(id, [])

    def outages(self) -> Sequence[Outage]:
        """Return the outages that had nothing to do with the upgrade."""
        return [
            Outage(instance_id=id, begin=begin, end=end)
            for id, spans in self._outages.items()
            for begin, end in spans
        ]


def _is_of_agent(event: e.InstanceFailed) -> bool:
    limits = (FailureCode.HEALTH_TIMEOUT, FailureCode.PROVISIONING_TIMEOUT)
    return event.error.code not in limits
