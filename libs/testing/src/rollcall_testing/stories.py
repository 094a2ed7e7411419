"""Rollouts told as stories: a world in virtual time, and what happened in it, in plain words."""

import heapq
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import ScaleSetSpec
from rollcall_rollout import InstancePhase, next_wake, waiting

from rollcall_testing.fleets import START, World

WIDTH = 100
MARGIN = 14  # of the column with the times

# How long everything takes, in seconds, unless a story says otherwise.
PACE: dict[type[e.EventBase], float] = {
    e.ImageFetched: 20,
    e.ImageFetchFailed: 20,
    e.InstanceCreated: 90,
    e.InstanceUpgraded: 60,
    e.InstanceRestored: 30,
    e.InstancePowered: 10,
    e.InstanceDeleted: 10,
    e.InstanceFailed: 40,
    e.InstanceHealthy: 15,
    e.InstanceUnhealthy: 15,
    e.MetricQueried: 1,
    e.LifecycleHookAnswered: 600,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened: to whom, in which words, and why."""

    words: str  # `{}` stands for those that it happened to
    who: tuple[str, ...] = ()
    why: str = ""


@dataclass(kw_only=True)
class Story(World):
    """A world that keeps its answers until they are due, and tells what happens.

    `pace` says after how many seconds an answer comes; None is never.
    """

    pace: Callable[[e.Event], float | None] = lambda answer: PACE[type(answer)]
    told: list[tuple[datetime, Line]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._coming: list[tuple[datetime, int, e.Event | None]] = []
        self._count = 0
        self._spec = self.fleet.spec
        self._served: set[str] = set()
        self._most_missed = 0

    # --- time -------------------------------------------------------------------------------------

    def reply(self, answer: e.Event) -> None:
        """Let an answer come when it is due."""
        delay = self.pace(answer)
        if delay is not None:
            self._come(self.now + timedelta(seconds=delay), answer)

    def at(self, *events: e.Event, minutes: float = 0, days: float = 0) -> None:
        """Let these come from outside at a time after the story's beginning."""
        for event in events:
            self._come(START + timedelta(days=days, minutes=minutes), event)

    def ask(self, *, minutes: float = 0, days: float = 0) -> None:
        """Let a person ask, at a time after the beginning, what the set waits for."""
        self._come(START + timedelta(days=days, minutes=minutes), None)

    def _come(self, due: datetime, event: e.Event | None) -> None:
        self._count += 1
        heapq.heappush(self._coming, (due, self._count, event))

    def play(self, *, days: float = 3) -> "Story":
        """Let it happen, until nothing is to come any more or the days have passed."""
        end = START + timedelta(days=days)
        self.tell()
        while self.now < end:
            due = self._coming[0][0] if self._coming else end
            over = self.fleet.upgrade is None and not self._coming
            if over and not any(i.is_busy for i in self.fleet.instances.values()):
                break
            wake = next_wake(self.fleet, self.now)
            self.now = max(min(due, wake, end), self.now + timedelta(milliseconds=1))
            self._tell_due()
        return self

    def _tell_due(self) -> None:
        events, questions = [], 0
        while self._coming and self._coming[0][0] <= self.now:
            event = heapq.heappop(self._coming)[2]
            if event is None:
                questions += 1
            else:
                events.append(event)
        self.tell(*events)
        for _ in range(questions):
            answer = waiting(self.fleet, self.now).message
            self._say(Line(words="A person asks what the set waits for.", why=answer))

    # --- words ------------------------------------------------------------------------------------

    def note(self, accepted: list[e.Event], decided: list[e.Event]) -> None:
        """Tell what changed the state, and then what was decided."""
        for event in (*accepted, *decided):
            if (line := self._line(event)) is not None:
                self._say(line)
        instances = self.fleet.instances.values()
        self._served |= {instance.id for instance in instances if instance.is_healthy}
        missed = [i for i in instances if i.id in self._served and not i.is_healthy]
        leaving = [i for i in missed if i.phase is InstancePhase.DELETING]
        self._most_missed = max(self._most_missed, len(missed) - len(leaving))

    def _say(self, line: Line) -> None:
        """Tell a line, in one with the last when the same happened to others at that moment."""
        if self.told and self.told[-1][0] == self.now:
            last = self.told[-1][1]
            if line.who and (last.words, last.why) == (line.words, line.why):
                self.told.pop()
                line = Line(words=line.words, who=(*last.who, *line.who), why=line.why)
        self.told.append((self.now, line))

    def _line(self, event: e.Event) -> Line | None:
        if isinstance(event, e.ScaleSetChanged):
            before, self._spec = self._spec, event.spec
            changes = ", ".join(_changes(before, event.spec)) or "nothing is changed"
            return Line(words=f"A person writes the model: {changes}.")
        tellers = (_of_people, _of_wishes, _of_reports, _of_requests, _of_upgrade)
        return next((line for teller in tellers if (line := teller(event)) is not None), None)

    def text(self, opening: str) -> str:
        """Return the story with its opening and its end."""
        lines = [*_wrapped(opening, ""), ""]
        last: datetime | None = None
        for at, line in self.told:
            clock = _clock(at) if at != last else ""
            last = at
            lines += _wrapped(line.words.format(_names(line.who)), f"{clock:>{MARGIN - 2}}  ")
            if line.why:
                lines += _wrapped(f"> {line.why}", " " * (MARGIN + 2))
        versions = Counter(str(instance.version) for instance in self.fleet.instances.values())
        runs = ", ".join(f"{count} run {version}" for version, count in sorted(versions.items()))
        health = f"{self.down()} of them not healthy" if self.down() else "all of them healthy"
        end = (
            f"In the end {runs}, {health}. Of those that served, at most {self._most_missed} were "
            "down at once."
            if runs
            else "In the end no instance is there."
        )
        lines += ["", *_wrapped(end, "")]
        return "\n".join(lines) + "\n"


def _clock(at: datetime) -> str:
    passed = int((at - START).total_seconds())
    days, rest = divmod(passed, 86400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}d {clock:>8}" if days else clock


def _wrapped(text: str, start: str) -> list[str]:
    """Return the lines of a paragraph; all but the first are indented as far as `start`."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * (len(start) + 2 if text.startswith("> ") else len(start)),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _names(who: Iterable[str]) -> str:
    names = sorted(dict.fromkeys(who), key=lambda name: (len(name), name))
    return ", ".join(names)


def _ids(event: e.HostRequest) -> tuple[str, ...]:
    return tuple(order.instance_id for order in event.instances)


def _changes(before: ScaleSetSpec, after: ScaleSetSpec) -> Iterator[str]:
    """Yield the fields that differ, and what those are that have a short value."""
    for name in type(after).model_fields:
        value = getattr(after, name)
        if name != "revision" and value != getattr(before, name):
            yield f"{name} = {value}" if isinstance(value, int | float | str) else name


def _set(id: str) -> str:
    return id.rsplit("/", 1)[-1]


def _of_people(event: e.Event) -> Line | None:
    """Tell what people and feeds bring."""
    match event:
        case e.ImagePublished():
            return Line(words=f"Version {event.image.version} is published.")
        case e.ImageWithdrawn():
            return Line(words=f"Version {event.image.version} is withdrawn.")
        case e.ImageHeld():
            what = f"Version {event.image.version} is held in the sets that follow it"
            return Line(words=f"{what}, because of {_set(event.by_set)}.", why=event.reason)
        case e.ImageReleased():
            return Line(words=f"A person releases version {event.image.version}.")
        case e.ScaleSetDeleted():
            return Line(words="A person deletes the set.")
        case e.UpgradeStartRequested():
            how = " with an override" if event.override else ""
            return Line(words=f"A person starts an upgrade by hand{how}.", why=event.reason)
        case e.UpgradeCancelRequested():
            return Line(words="A person cancels the upgrade.")
        case e.UpgradePauseRequested():
            return Line(words="A person pauses the upgrade.")
        case e.UpgradeResumeRequested():
            return Line(words="A person resumes the upgrade.")
        case e.UpgradeRollbackRequested():
            return Line(words="A person asks for a rollback.", why=event.reason)
        case e.UpgradeApproveRequested():
            return Line(words="A person approves {}.", who=_everyone(event.instance_ids))
        case e.LifecycleHookAnswered():
            said = [f"{_everyone((id,))[0]}: {action}" for id, action in event.actions.items()]
            more = [f"more time, until {event.wait_until:%H:%M}"] if event.wait_until else []
            return Line(words=f"The lifecycle hook is answered: {', '.join(said + more)}.")
    return None


def _everyone(ids: tuple[str, ...]) -> tuple[str, ...]:
    return ("all",) if "*" in ids else ids


def _of_reports(event: e.Event) -> Line | None:
    """Tell what hosts, probers and metric gates say."""
    who = (event.instance_id,) if isinstance(event, e.InstanceReport) else ()
    match event:
        case e.ImageFetched():
            return Line(words="The verified image is on {}.", who=(event.host,))
        case e.ImageFetchFailed():
            return Line(
                words="{} could not fetch the image.", who=(event.host,), why=event.error.message
            )
        case e.InstanceCreated():
            return Line(words=f"Made, and running {event.version}: {{}}.", who=who)
        case e.InstanceUpgraded():
            return Line(words=f"Running {event.version}: {{}}.", who=who)
        case e.InstanceRestored():
            return Line(words=f"Running {event.version} again: {{}}.", who=who)
        case e.InstancePowered():
            return Line(words=f"Now {event.power}: {{}}.", who=who)
        case e.InstanceDeleted():
            return Line(words="Gone: {}.", who=who)
        case e.InstanceFailed():
            return Line(
                words=f"Failed ({event.error.code}): {{}}.", who=who, why=event.error.message
            )
        case e.InstancePowerChanged():
            return Line(words=f"Now {event.power} without having been asked to: {{}}.", who=who)
        case e.InstanceHealthy():
            return Line(words="Healthy: {}.", who=who)
        case e.InstanceUnhealthy():
            return Line(words=f"Not healthy ({event.health}): {{}}.", who=who)
        case e.MetricQueried():
            return Line(words=f"The metric gate's answer is {event.outcome}.", why=event.reason)
    return None


def _of_wishes(event: e.Event) -> Line | None:
    """Tell what people ask of single instances."""
    match event:
        case e.ModelDeployRequested():
            what = (
                "has new OS disks made for {}" if event.reimage else "has the model deployed to {}"
            )
            return Line(words=f"A person {what}.", who=_everyone(event.instance_ids))
        case e.PowerChangeRequested():
            return Line(
                words=f"A person asks for {event.change} of {{}}.",
                who=_everyone(event.instance_ids),
            )
        case e.InstanceProtectionChanged():
            kinds = [
                name
                for name in ("scale_in", "scale_set_actions")
                if getattr(event, f"protect_from_{name}")
            ]
            what = "protects {} from " + " and ".join(kinds) if kinds else "protects {} no longer"
            return Line(words=f"A person {what}.", who=(event.instance_id,))
    return None


def _of_requests(event: e.Event) -> Line | None:
    """Tell what is asked of hosts; an upgrade's own requests are told by their batch."""
    match event:
        case e.ImageFetchRequested():
            return Line(words="The image is to be fetched by {}.", who=(event.host,))
        case e.InstancesCreateRequested() if not any(o.replaces for o in event.instances):
            made = f"To be made from {event.image.version}: {{}}."
            return Line(words=made, who=_ids(event), why=event.reason)
        case e.InstancesUpgradeRequested() if event.upgrade_id is None:
            new = f"To get the model and {event.image.version}: {{}}."
            return Line(words=new, who=_ids(event), why=event.reason)
        case e.InstancesRestoreRequested():
            return Line(words="To be put back: {}.", who=_ids(event), why=event.reason)
        case e.InstancesCommitRequested():
            return Line(words="The previous OS disks may go of {}.", who=_ids(event))
        case e.InstancesPowerRequested():
            return Line(words=f"Asked for {event.change}: {{}}.", who=_ids(event))
        case e.InstancesDeleteRequested():
            return Line(words="To be deleted: {}.", who=_ids(event), why=event.reason)
        case e.MetricQueryRequested():
            return Line(words="The metric gate is asked.", why=event.reason)
    return None


def _of_upgrade(event: e.Event) -> Line | None:
    """Tell what was decided about an upgrade."""
    why = event.reason
    match event:
        case e.ScaleSetHeld():
            return Line(words=f"No instance is made ({event.error.code}).", why=event.error.message)
        case e.UpgradeHeld():
            start = (
                f"No upgrade to {event.version} starts" if event.version else "No upgrade starts"
            )
            return Line(words=f"{start} ({event.error.code}).", why=why)
        case e.UpgradeStarted():
            what = "The rollback" if event.rollback_of else "The upgrade"
            return Line(
                words=f"{what} to {event.image.version} starts, by {event.started_by}.", why=why
            )
        case e.LifecycleHookStarted():
            return Line(words="A lifecycle hook asks.", why=why)
        case e.LifecycleHookCompleted():
            return Line(words=f"The lifecycle hook is closed: {event.action}.", why=why)
        case e.InstancesSkipped():
            return Line(words="Left out: {}.", who=event.instance_ids, why=why)
        case e.BatchStarted():
            pairs = (f"{id} by {new}" for id, new in event.replacements.items())
            who = ", ".join(pairs) or _names(event.instance_ids)
            how = "new ones first" if event.replacements else "in place"
            return Line(words=f"Batch {event.batch} starts, {how}: {who}.", why=why)
        case e.BatchHeld():
            return Line(words=f"The next batch waits ({event.code}).", why=why)
        case e.BatchCompleted():
            return Line(words=f"Batch {event.batch} ends: {why}.")
        case e.UpgradeBreached():
            return Line(words=f"A limit is exceeded ({event.error.code}).", why=why)
        case e.UpgradeCompleted():
            return Line(words="The upgrade is Completed.", why=why)
        case e.UpgradeFaulted():
            return Line(words=f"The upgrade is Faulted ({event.error.code}).", why=why)
        case e.UpgradeCancelled():
            return Line(words="The upgrade is Cancelled.", why=why)
    return None
