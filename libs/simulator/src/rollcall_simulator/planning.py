"""What an upgrade would do, when, and what would stop it: the rules themselves, in virtual time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    LATEST,
    Image,
    MaintenanceWindow,
    RollingPolicy,
)
from rollcall_rollout import Fleet, settle, waiting
from rollcall_rollout.gates import upgraded_share
from rollcall_rollout.state import UpgradeStatus
from rollcall_rollout.waits import Wait, WaitCode

from rollcall_simulator.course import Batch, Course, read_courses
from rollcall_simulator.engine import Answers, Behaviour, Timeline, run
from rollcall_simulator.pace import FETCH, Pace, upgraded_instance
from rollcall_simulator.risks import Risk, risks
from rollcall_simulator.snapshot import Snapshot

HORIZON = timedelta(days=400)  # what does not end by then does not end
ANALYSED = 20  # batches that are made to fail
# What keeps a set from starting by itself, and not from being started by a person.
BY_HAND = (WaitCode.SWITCHED_OFF, WaitCode.VERSION_BARRED, WaitCode.HOOK_REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is planned instead of what is: a version as the latest, another policy."""

    version: str | None = None
    policy: RollingPolicy | None = None
    windows: tuple[MaintenanceWindow, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How many instances of a batch must fail for the upgrade to fault, while all others succeed.

    None: it goes on whatever becomes of this batch alone.
    """

    batch: int
    size: int
    failures: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would happen from a moment on."""

    scale_set: str
    at: datetime
    fleet: Fleet  # as it is planned from, with the wishes in it
    pace: Pace
    courses: Sequence[Course]  # the upgrades, one after another
    fastest: Sequence[Course]
    slowest: Sequence[Course]
    tolerances: Sequence[Tolerance]  # of the first upgrade's batches
    wait: Wait | None  # what keeps any upgrade from starting
    by_hand: WaitCode | None  # it does not start by itself; planned is a start by a person now
    risks: Sequence[Risk]
    notes: Sequence[str]

    @property
    def end(self) -> datetime | None:
        """Return when all of it is over; None where it does not end."""
        return self.courses[-1].end if self.courses else None

    @property
    def succeeds(self) -> bool:
        """Say whether there is nothing to do, or all of it ends well."""
        if not self.courses:
            return self.wait is None or self.wait.code is WaitCode.NOTHING
        return all(course.status is UpgradeStatus.COMPLETED for course in self.courses)


def plan(snapshot: Snapshot, pace: Pace, wish: Wish | None = None) -> Plan:
    """Return what the rules would decide from the snapshot's moment on, if all goes well.

    People and programs that are asked (lifecycle hooks, approvals) say yes at once, and metric
    gates say success.
    """
    wish = wish or Wish()
    fleet = _wished(snapshot.fleet, wish, snapshot.at)
    trial = _Trial(fleet, snapshot.at, pace)
    timeline = trial.run()
    courses = trial.courses(timeline)
    wait: Wait | None = None
    by_hand: WaitCode | None = None
    if not courses:
        wait = waiting(settle(fleet, snapshot.at)[0], snapshot.at)
        pinned = wish.version is not None and fleet.spec.image.version != LATEST
        if wait.code in BY_HAND or pinned:
            trial = replace(trial, asked=True)
            timeline = trial.run()
            courses = trial.courses(timeline)
            if courses:
                by_hand, wait = wait.code, None
            else:
                wait = _refusal(timeline, WaitCode.PINNED if pinned else wait.code) or wait
    first = courses[0] if courses else None
    return Plan(
        scale_set=fleet.spec.scale_set,
        at=snapshot.at,
        fleet=fleet,
        pace=pace,
        courses=courses,
        fastest=trial.courses(trial.run(pace.fastest)) if courses else (),
        slowest=trial.courses(trial.run(pace.slowest)) if courses else (),
        tolerances=_tolerances(trial, first) if first is not None else (),
        wait=wait,
        by_hand=by_hand,
        risks=risks(fleet, courses, pace, snapshot.at),
        notes=_notes(snapshot, fleet, wish, courses),
    )


# --- what is planned ------------------------------------------------------------------------------


def _wished(fleet: Fleet, wish: Wish, now: datetime) -> Fleet:
    changes: dict[str, object] = {}
    if wish.policy is not None:
        changes["policy"] = wish.policy
    if wish.windows is not None:
        changes["maintenance_windows"] = wish.windows
    upgrade = fleet.upgrade
    if upgrade is not None and wish.policy is not None:
        upgrade = replace(upgrade, policy=wish.policy)
    wished = replace(fleet, spec=fleet.spec.model_copy(update=changes), upgrade=upgrade)
    return wished if wish.version is None else _with_latest(wished, wish.version, now)


def _with_latest(fleet: Fleet, version: str, now: datetime) -> Fleet:
    """Return the fleet with a version as the latest: the published one, or one assumed now."""
    line = fleet.spec.image
    assumed = Image(
        publisher=line.publisher,
        offer=line.offer,
        sku=line.sku,
        version=version,
        url="",  # nobody fetches it
        sha256="0" * 64,
        size=0,
        published_at=now,
    )
    image = next((i for i in fleet.images if i.version == version), assumed)
    others = (
        i.model_copy(update={"exclude_from_latest": i.exclude_from_latest or i.order > image.order})
        for i in fleet.images
        if i.version != version
    )
    latest = image.model_copy(update={"exclude_from_latest": False})
    return fleet.amended(images=(*others, latest))


# --- the run --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Trial:
    fleet: Fleet
    at: datetime
    pace: Pace
    asked: bool = False  # a person starts it

    def run(self, pace: Pace | None = None, *, sick: Iterable[str] = ()) -> Timeline:
        """Run the fleet to its end, with these instances' upgrades failing."""
        pace, failing = pace or self.pace, frozenset(sick)
        probed = self.fleet.spec.probe is not None

        def behave(id: str, request: e.HostRequest) -> Behaviour:
            if upgraded_instance(id, request) in failing:
                return pace.failure(request, probed=probed)
            return pace.behaviour(request)

        start = e.UpgradeStartRequested(scale_set=self.fleet.spec.scale_set)
        return run(
            self.fleet,
            Answers(instance=behave, fetch=lambda host: FETCH),
            start=self.at,
            until=HORIZON,
            quiet=HORIZON,
            happenings=[(self.at, start)] if self.asked else [],
        )

    def courses(self, timeline: Timeline) -> Sequence[Course]:
        """Return the upgrades of a run."""
        return read_courses(((entry.at, entry.event) for entry in timeline.entries), self.fleet)

    def faults(self, course: Course, sick: Sequence[str]) -> bool:
        """Say whether an upgrade stops when these instances of it fail."""
        ended = self.run(sick=sick).ended
        return any(u.id == course.upgrade_id and u.status is UpgradeStatus.FAULTED for u in ended)


def _refusal(timeline: Timeline, otherwise: WaitCode) -> Wait | None:
    """Return why a start by hand is refused; where no hold says it, by the code of the wait."""
    for entry in timeline.entries:
        if isinstance(entry.event, e.UpgradeHeld):
            held = entry.event.error.code
            code = WaitCode(held) if held in {*WaitCode} else otherwise
            return Wait(code=code, message=entry.event.reason)
    return None


# --- what it would take to stop it ----------------------------------------------------------------


def _tolerances(trial: _Trial, course: Course) -> Sequence[Tolerance]:
    """Find for each batch, by trying, how many failures stop the upgrade."""
    if course.status is not UpgradeStatus.COMPLETED:
        return ()
    done = _done_before(trial.fleet, course)
    found = []
    for batch in course.batches[:ANALYSED]:
        done += len(batch.instance_ids)
        failures = _least(trial, course, batch, _guess(trial.fleet, done))
        found.append(Tolerance(batch=batch.number, size=len(batch.instance_ids), failures=failures))
    return found


def _done_before(fleet: Fleet, course: Course) -> int:
    upgrade = fleet.upgrade
    if upgrade is None or upgrade.id != course.upgrade_id:
        return 0
    return upgraded_share(fleet, upgrade).total


def _guess(fleet: Fleet, upgraded: int) -> int:
    """Return how many failures among so many upgraded are too many, by that limit alone (M42)."""
    policy = fleet.upgrade.policy if fleet.upgrade is not None else fleet.spec.policy
    within = max(
        upgraded * policy.max_unhealthy_upgraded_instance_percent // 100,
        policy.max_unhealthy_upgraded_instance_count,
    )
    return within + 1


def _least(trial: _Trial, course: Course, batch: Batch, guess: int) -> int | None:
    """Return the fewest failures of a batch that stop the upgrade; the guess saves most tries."""
    ids = batch.instance_ids
    low, high = 0, len(ids) + 1  # so many do not; so many would, if there were as many
    tries = [guess, guess - 1] if guess <= len(ids) else [len(ids)]
    while high - low > 1:
        count = tries.pop(0) if tries else (low + high) // 2
        if not low < count < high:
            continue
        if trial.faults(course, ids[:count]):
            high = count
        else:
            low = count
    return high if high <= len(ids) else None


# --- notes ----------------------------------------------------------------------------------------


def _notes(
    snapshot: Snapshot, fleet: Fleet, wish: Wish, courses: Sequence[Course]
) -> Sequence[str]:
    """Return what was assumed."""
    notes = []
    known = {image.version for image in snapshot.fleet.images}
    if wish.version is not None and wish.version not in known:
        notes.append(f"Version {wish.version} is not published: it is assumed to be, from now on.")
    running = snapshot.fleet.upgrade
    if running is not None and wish.policy is not None:
        notes.append(
            f"The running upgrade to {running.image.version} keeps the policy that it started "
            "with; planned is its rest under the policy of the file."
        )
    if courses and len(courses[0].batches) > ANALYSED:
        notes.append(f"Failures were tried in the first {ANALYSED} batches only.")
    return notes
