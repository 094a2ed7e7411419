"""`rollcall plan`: what an upgrade of a scale set would do, when, and what would stop it."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rollcall_rollout.waits import WaitCode
from rollcall_simulator.course import Batch, Course, Pause
from rollcall_simulator.pace import FETCH, Estimate, Pace, pace
from rollcall_simulator.planning import Plan, Wish
from rollcall_simulator.planning import plan as planned
from rollcall_simulator.snapshot import Snapshot, SnapshotError, read_snapshot

from rollcall_cli.client import Api, ClientError
from rollcall_cli.exits import Exit
from rollcall_cli.moments import counted, length, local, zone
from rollcall_cli.policy_file import read_policy_file
from rollcall_cli.session import Session, SetName, on_server

NAMED = 12  # instances that a row names
BY_HAND = {
    WaitCode.SWITCHED_OFF: "automatic OS upgrade is switched off",
    WaitCode.VERSION_BARRED: "this version did not succeed here before",
    WaitCode.HOOK_REJECTED: "the lifecycle hook rejected it",
    WaitCode.NOTHING: "the model pins a version",
}


@on_server
def plan(
    session: Session,
    scale_set: SetName,
    image: Annotated[
        str | None,
        typer.Option(
            help="Plan for this version as if it were the latest, published or not.",
            metavar="VERSION",
        ),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            help="Plan under this rollingUpgradePolicy, JSON or YAML, over the set's own.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Say what an upgrade would do, batch by batch, when it ends, and what would stop it.

    The rules themselves decide, in virtual time, from the set as it is now. Nothing is changed.
    Exits with 1 when it would not come to a good end, with 2 when that cannot be said.
    """
    file = read_policy_file(policy) if policy is not None else None
    snapshot = _snapshot(session.api, session.find(scale_set))
    fleet = snapshot.fleet
    base = fleet.upgrade.policy if fleet.upgrade is not None else fleet.spec.policy
    wish = Wish(
        version=image,
        policy=file.over(base) if file is not None and file.values else None,
        windows=file.windows if file is not None else None,
    )
    measured = pace(snapshot.provisioning, snapshot.healthy, wish.policy or base)
    found = planned(snapshot, measured, wish)
    session.put(plan_json(found), lambda: shown(found))
    if not found.succeeds:
        raise typer.Exit(Exit.NO)


def _snapshot(api: Api, id: str) -> Snapshot:
    try:
        return read_snapshot(api.get(f"{id}/state"), api.get("/rollcall/hosts")["value"])
    except SnapshotError as error:
        raise ClientError(
            f"the API at {api.url} told a state that is not understood: {error}"
        ) from error


# --- for a terminal -------------------------------------------------------------------------------


def shown(found: Plan) -> RenderableType:
    """Return a plan for a terminal."""
    return Group(*_parts(found))


def _parts(found: Plan) -> Iterator[RenderableType]:
    yield Text(_headline(found), style="bold")
    if found.by_hand is not None:
        yield Text(
            f"It does not start by itself ({BY_HAND[found.by_hand]}): planned is a start by hand "
            "now.",
            style="yellow",
        )
    yield Text(f"Assumed: {_pace_words(found.pace)}.", style="dim")
    for number, course in enumerate(found.courses):
        yield Text()
        yield _batches(found, number, course)
        yield from _pauses(course, found.at)
        yield from _end(course, found.at)
    if found.risks or found.tolerances:
        yield Text("\nWhat could stop it", style="bold")
        for line in (*_tolerance_lines(found), *(risk.message for risk in found.risks)):
            yield Text(f"  - {line}")
    if found.notes:
        yield Text("\nTo know", style="bold")
        yield from (Text(f"  - {note}") for note in found.notes)


def _headline(found: Plan) -> str:
    name = found.scale_set.rpartition("/")[2]
    if not found.courses:
        wait = found.wait
        if wait is None or wait.code is WaitCode.NOTHING:
            return f"{name}: there is nothing to do. {wait.message if wait else ''}".rstrip()
        until = f" Until {local(wait.until, found.at)}." if wait.until is not None else ""
        return f"{name}: no upgrade starts. {wait.message}{until}"
    versions = ", then to ".join(course.version for course in found.courses)
    last = found.courses[-1]
    batches = sum(len(course.batches) for course in found.courses)
    running = found.fleet.upgrade is not None
    what = f"{name}: {'the rest of the upgrade ' if running else ''}to {versions}"
    if found.end is None:
        return f"{what} does not come to an end: {_last_pause(last)}"
    early, late = (c[-1].end if c else None for c in (found.fastest, found.slowest))
    span = ""
    if early is not None and late is not None and early < late:
        span = f", between {local(early, found.at)} and {local(late, found.at)}"
    return (
        f"{what} takes {length(found.end - found.at)} from now, in "
        f"{counted(batches, 'batch', 'batches')}: "
        f"{last.status} at {local(found.end, found.at)} {zone(found.end)}{span}."
    )


def _last_pause(course: Course) -> str:
    return course.pauses[-1].message if course.pauses else "its last batch does not end."


def _pace_words(pace: Pace) -> str:
    return (
        f"{_estimate_words(pace.provisioning)} until a new OS disk has booted, "
        f"{_estimate_words(pace.healthy)} from then until healthy, "
        f"{length(FETCH)} for the hosts to fetch the image (a default)"
    )


def _estimate_words(estimate: Estimate) -> str:
    if not estimate.samples:
        return f"{length(estimate.median)} (a default, since no upgrade was measured)"
    return (
        f"{length(estimate.median)} (measured {estimate.samples} times, mostly "
        f"{length(estimate.low)} to {length(estimate.high)})"
    )


def _batches(found: Plan, number: int, course: Course) -> RenderableType:
    table = Table(
        title=f"Batches to {course.version}, {len(course.instance_ids)} instances",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    zones = any(i.zone for i in found.fleet.instances.values())
    table.add_column("batch", justify="right")
    table.add_column("instances")
    if zones:
        table.add_column("zone")
    table.add_column(f"begins ({zone(found.at)})", no_wrap=True)
    table.add_column("ends", no_wrap=True)
    table.add_column("stops if")
    stops = {t.batch: t.failures for t in found.tolerances} if number == 0 else {}
    for batch in course.batches:
        row = [str(batch.number), _ids(batch.instance_ids)]
        if zones:
            row.append(", ".join(_zones(found, batch)))
        row += [
            local(batch.begin, found.at),
            local(batch.end, found.at) if batch.end is not None else "-",
            _stops(batch, stops),
        ]
        table.add_row(*row)
    return table


def _stops(batch: Batch, stops: dict[int, int | None]) -> str:
    if batch.number not in stops:
        return "-"
    count = stops[batch.number]
    return "-" if count is None else f"{count} of {len(batch.instance_ids)} fail"


def _zones(found: Plan, batch: Batch) -> list[str]:
    instances = found.fleet.instances
    return sorted({instances[id].zone or "-" for id in batch.instance_ids if id in instances})


def _ids(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return ", ".join(ids[:NAMED]) + more


def _pauses(course: Course, now: datetime) -> Iterator[Text]:
    for pause in course.pauses:
        if pause.end is None or (pause.end - pause.begin).total_seconds() >= 1:
            end = "for good" if pause.end is None else f"until {local(pause.end, now)}"
            yield Text(f"  waits {local(pause.begin, now)} {end}: {pause.message}", style="dim")


def _end(course: Course, now: datetime) -> Iterator[Text]:
    if course.error is not None and course.end is not None:
        when = local(course.end, now)
        yield Text(f"  {course.status} {when}: {course.error.message}", style="red")


def _tolerance_lines(found: Plan) -> Iterator[str]:
    stopping = [t for t in found.tolerances if t.failures is not None]
    if not found.tolerances:
        return
    if not stopping:
        yield "No batch alone can fail so badly that the upgrade faults."
        return
    first = stopping[0]
    all_ = "" if first.size > 1 else ", its only one"
    yield (
        f"In batch {first.batch} it takes {first.failures} of {first.size} instances{all_} that "
        "fail or do not become healthy; the column `stops if` has the others."
    )


# --- JSON -----------------------------------------------------------------------------------------


def plan_json(found: Plan) -> dict[str, Any]:
    """Return a plan as a document; times in UTC, durations in seconds."""
    tolerances = {t.batch: t.failures for t in found.tolerances}
    return {
        "scaleSet": found.scale_set,
        "time": found.at.isoformat(),
        "succeeds": found.succeeds,
        "end": _iso(found.end),
        "earliestEnd": _iso(found.fastest[-1].end) if found.fastest else None,
        "latestEnd": _iso(found.slowest[-1].end) if found.slowest else None,
        "waitingFor": None
        if found.wait is None
        else {
            "code": found.wait.code,
            "message": found.wait.message,
            "until": _iso(found.wait.until),
        },
        "startedByHandBecause": found.by_hand,
        "assumed": {
            "provisioning": _estimate_json(found.pace.provisioning),
            "healthy": _estimate_json(found.pace.healthy),
        },
        "upgrades": [
            course_json(course, tolerances if number == 0 else {}, found)
            for number, course in enumerate(found.courses)
        ],
        "risks": [{"code": risk.code, "message": risk.message} for risk in found.risks],
        "notes": list(found.notes),
    }


def course_json(
    course: Course, tolerances: dict[int, int | None] | None = None, found: Plan | None = None
) -> dict[str, Any]:
    """Return an upgrade's course as a document."""
    return {
        "upgradeId": course.upgrade_id,
        "version": course.version,
        "status": course.status,
        "begin": course.begin.isoformat(),
        "end": _iso(course.end),
        "reason": course.end_reason or course.reason,
        "error": None if course.error is None else course.error.model_dump(),
        "instances": list(course.instance_ids),
        "skipped": list(course.skipped),
        "batches": [_batch_json(batch, tolerances, found) for batch in course.batches],
        "pauses": [_pause_json(pause) for pause in course.pauses],
    }


def _batch_json(
    batch: Batch, tolerances: dict[int, int | None] | None, found: Plan | None
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "number": batch.number,
        "instances": list(batch.instance_ids),
        "replacements": dict(batch.replacements),
        "begin": batch.begin.isoformat(),
        "end": _iso(batch.end),
        "succeeded": batch.succeeded,
        "failed": batch.failed,
        "reason": batch.reason,
    }
    if found is not None:
        document["zones"] = _zones(found, batch)
    if tolerances is not None:
        document["failuresToStop"] = tolerances.get(batch.number)
    return document


def _pause_json(pause: Pause) -> dict[str, Any]:
    return {
        "code": pause.code,
        "message": pause.message,
        "begin": pause.begin.isoformat(),
        "end": _iso(pause.end),
    }


def _estimate_json(estimate: Estimate) -> dict[str, Any]:
    return {
        "median": estimate.median,
        "low": estimate.low,
        "high": estimate.high,
        "samples": estimate.samples,
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
