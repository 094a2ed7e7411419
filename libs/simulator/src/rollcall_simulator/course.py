"""The course of upgrades in a list of events: their batches, and what they waited for.

The same reading serves the event log of what was, and the timeline of what would be.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from rollcall_contracts import events as e
from rollcall_contracts.model import Failure
from rollcall_rollout import Fleet
from rollcall_rollout.state import UpgradeStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch; what is not known yet is none."""

    number: int
    instance_ids: tuple[str, ...]
    replacements: Mapping[str, str] = field(default_factory=dict)  # by instance, when it surged
    begin: datetime
    end: datetime | None = None
    succeeded: int | None = None
    failed: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Time in which nothing was started, and why."""

    code: str
    message: str
    begin: datetime
    end: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How one upgrade goes, or went."""

    upgrade_id: str
    version: str
    instance_ids: tuple[str, ...]
    begin: datetime
    reason: str
    batches: tuple[Batch, ...] = ()
    pauses: tuple[Pause, ...] = ()  # those before its start, too
    skipped: tuple[str, ...] = ()
    end: datetime | None = None
    status: UpgradeStatus = UpgradeStatus.ROLLING_FORWARD
    error: Failure | None = None
    end_reason: str = ""

    @property
    def shape(self) -> tuple[object, ...]:
        """Return what two courses have in common when they came to the same."""
        batches = tuple(
            (b.number, tuple(sorted(b.instance_ids, key=int)), b.succeeded, b.failed)
            for b in self.batches
        )
        return (self.version, self.status, self.error and self.error.code, batches)


@dataclass(slots=True)
class _Reader:
    courses: list[Course] = field(default_factory=list)
    current: Course | None = None
    pauses: list[Pause] = field(default_factory=list)
    is_open: bool = False  # the last pause has not ended

    def read(self, at: datetime, event: e.Event) -> None:
        match event:
            case e.UpgradeHeld():
                self._pause(at, event.error.code, event.reason)
            case e.BatchHeld():
                self._pause(at, event.code, event.reason)
            case e.LifecycleHookStarted():
                self._pause(at, event.hook_type, event.reason)
            case e.LifecycleHookCompleted():
                self._go_on(at)
            case e.UpgradeStarted():
                self._go_on(at)
                self.current = Course(
                    upgrade_id=event.upgrade_id,
                    version=event.image.version,
                    instance_ids=event.instance_ids,
                    begin=at,
                    reason=event.reason,
                )
            case e.UpgradeEvent() if self.current is not None:
                if event.upgrade_id == self.current.upgrade_id:
                    self._of_upgrade(self.current, at, event)

    def _of_upgrade(self, course: Course, at: datetime, event: e.UpgradeEvent) -> None:
        match event:
            case e.BatchStarted():
                self._go_on(at)
                batch = Batch(
                    number=event.batch,
                    instance_ids=event.instance_ids,
                    replacements=event.replacements,
                    begin=at,
                    reason=event.reason,
                )
                self.current = replace(course, batches=(*course.batches, batch))
            case e.BatchCompleted():
                self.current = replace(
                    course,
                    batches=tuple(
                        replace(batch, end=at, succeeded=event.succeeded, failed=event.failed)
                        if batch.number == event.batch
                        else batch
                        for batch in course.batches
                    ),
                )
            case e.InstancesSkipped():
                self.current = replace(course, skipped=(*course.skipped, *event.instance_ids))
            case e.UpgradeCompleted():
                self._end(course, at, UpgradeStatus.COMPLETED, event.reason)
            case e.UpgradeFaulted():
                self._end(course, at, UpgradeStatus.FAULTED, event.reason, event.error)
            case e.UpgradeCancelled():
                self._end(course, at, UpgradeStatus.CANCELLED, event.reason)

    def _pause(self, at: datetime, code: str, message: str) -> None:
        self._go_on(at)
        self.pauses.append(Pause(code=code, message=message, begin=at))
        self.is_open = True

    def _go_on(self, at: datetime) -> None:
        if self.is_open:
            self.pauses[-1] = replace(self.pauses[-1], end=at)
            self.is_open = False

    def _end(
        self,
        course: Course,
        at: datetime,
        status: UpgradeStatus,
        reason: str,
        error: Failure | None = None,
    ) -> None:
        self._go_on(at)
        ended = replace(
            course,
            end=at,
            status=status,
            error=error,
            end_reason=reason,
            pauses=tuple(self.pauses),
        )
        self.courses.append(ended)
        self.current, self.pauses = None, []

    def done(self) -> list[Course]:
        if self.current is not None:
            self.courses.append(replace(self.current, pauses=tuple(self.pauses)))
        return self.courses


def read_courses(
    entries: Iterable[tuple[datetime, e.Event]], fleet: Fleet | None = None
) -> Sequence[Course]:
    """Return the upgrades in events, in the order in which they ended; one that runs is last.

    `fleet` is what the events find; the batches of its upgrade that are open belong to its course.
    """
    reader = _Reader(current=None if fleet is None else _running(fleet))
    for at, event in entries:
        reader.read(at, event)
    return reader.done()


def _running(fleet: Fleet) -> Course | None:
    upgrade = fleet.upgrade
    if upgrade is None:
        return None
    batches = tuple(
        Batch(
            number=number,
            instance_ids=batch.instance_ids,
            begin=batch.started_at,
            reason=next(
                (upgrade.members[id].reason for id in batch.instance_ids if id in upgrade.members),
                "",
            ),
        )
        for number, batch in sorted(upgrade.open_batches.items())
    )
    return Course(
        upgrade_id=upgrade.id,
        version=upgrade.image.version,
        instance_ids=tuple(sorted(upgrade.members, key=int)),
        begin=upgrade.started_at,
        reason=upgrade.reason,
        batches=batches,
    )
