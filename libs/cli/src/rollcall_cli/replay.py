"""`rollcall replay`: a past upgrade, and how it would have gone under another policy."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rollcall_contracts.events import parse
from rollcall_simulator.course import Batch, Course
from rollcall_simulator.recording import LogEntry, Record, RecordError, read_record
from rollcall_simulator.replaying import Replay
from rollcall_simulator.replaying import replay as replayed

from rollcall_cli.client import Api, ClientError, NotFoundError
from rollcall_cli.exits import Exit
from rollcall_cli.moments import counted, length, local
from rollcall_cli.plan import course_json
from rollcall_cli.policy_file import read_policy_file
from rollcall_cli.session import Session, on_server

NAMED = 8  # instances that a cell names
LAST = "latest"


@on_server
def replay(
    session: Session,
    upgrade: Annotated[
        str,
        typer.Argument(metavar="UPGRADE", help="The id of a past upgrade; `latest` with --set."),
    ],
    policy: Annotated[
        Path | None,
        typer.Option(
            help="The rollingUpgradePolicy to replay it under, JSON or YAML, over its own.",
            show_default="its own",
            metavar="FILE",
        ),
    ] = None,
    scale_set: Annotated[
        str | None,
        typer.Option(
            "--set",
            help="The scale set that had it: its name, or its whole id.",
            show_default="looked for",
        ),
    ] = None,
) -> None:
    """Say how a past upgrade would have gone under another policy, side by side with what was.

    Its instances take as long and fail as they did, and outages come at their times; the rules
    decide anew. Exits with 1 when it would not have been completed, with 2 when that cannot be
    said.
    """
    api = session.api
    file = read_policy_file(policy) if policy is not None else None
    id, upgrade_id = _find(session, upgrade, scale_set)
    record = _record(api, id, upgrade_id)
    own = record.started.policy
    found = replayed(
        record,
        file.over(own) if file is not None else own,
        file.windows if file is not None else None,
    )
    session.put(replay_json(found), lambda: shown(found))
    if not found.succeeds:
        raise typer.Exit(Exit.NO)


def _find(session: Session, upgrade: str, scale_set: str | None) -> tuple[str, str]:
    """Return the ids of an upgrade's set, and its own. Raises ClientError."""
    api = session.api
    if upgrade == LAST:
        if scale_set is None:
            raise ClientError("`latest` of which scale set? Name it with --set")
        id = session.find(scale_set)
        known = api.get(f"{id}/rollcall/upgrades", {"$top": 1})["value"]
        if not known:
            raise ClientError(f"the scale set {id} never had an upgrade")
        return id, known[0]["id"]
    named = None if scale_set is None else session.find(scale_set)
    for id in api.set_ids() if named is None else [named]:
        try:
            return id, api.get(f"{id}/rollcall/upgrades/{upgrade}")["id"]
        except NotFoundError as error:
            if named is not None:
                raise ClientError(
                    f"{error}: `rollcall explain` shows the id of a set's last upgrade"
                ) from error
    raise ClientError(
        f"no scale set has an upgrade {upgrade}: `rollcall explain SET` shows the id of its last "
        "one, and `latest` with --set takes that"
    )


def _record(api: Api, id: str, upgrade_id: str) -> Record:
    try:
        return read_record(
            map(_entry, api.log(scaleSet=id)),
            map(_entry, api.log(stream="images")),
            upgrade_id,
            datetime.now(UTC),
        )
    except RecordError as error:
        raise ClientError(f"this upgrade cannot be replayed: {error}") from error


def _entry(item: Mapping[str, Any]) -> LogEntry:
    try:
        event = parse(json.dumps(item["data"]))
    except ValidationError as error:
        raise ClientError(
            f"entry {item['sequence']} of the event log, {item['type']}, is not understood: this "
            "command may be older than the server"
        ) from error
    return LogEntry(time=datetime.fromisoformat(item["time"]), event=event)


# --- for a terminal -------------------------------------------------------------------------------


def shown(found: Replay) -> RenderableType:
    """Return a replay for a terminal."""
    return Group(*_parts(found))


def _parts(found: Replay) -> Iterator[RenderableType]:
    yield Text(_headline(found), style="bold")
    yield Text()
    yield _table(found)
    if found.notes:
        yield Text("\nTo know", style="bold")
        yield from (Text(f"  - {note}") for note in found.notes)


def _headline(found: Replay) -> str:
    was, would = found.record.course, found.course
    name = found.record.started.scale_set.rpartition("/")[2]
    what = f"The upgrade of {name} to {was.version}"
    if would is None:
        hold = found.hold
        why = f" {hold.message}" if hold is not None else ""
        return f"{what} was {was.status}; under this policy it would not have started.{why}"
    if found.is_same:
        return f"{what} would have come to the same: {_outcome(was)}."
    ends = f"{what} was {_outcome(was)}; under this policy it would have been {_outcome(would)}."
    return f"{ends} {would.error.message}" if would.error is not None else ends


def _outcome(course: Course) -> str:
    if course.end is None:
        return f"without an end, in batch {len(course.batches)}"
    batches = counted(len(course.batches), "batch", "batches")
    return f"{course.status} after {batches} and {length(course.end - course.begin)}"


def _table(found: Replay) -> RenderableType:
    was, would = found.record.course, found.course
    now = found.record.at
    table = Table(title_justify="left", box=None, pad_edge=False)
    table.add_column("batch", justify="right")
    for name in ("as it was", "as it would have been"):
        table.add_column(name, header_style="bold")
    pairs = zip_longest(was.batches, would.batches if would is not None else ())
    for number, (left, right) in enumerate(pairs, start=1):
        table.add_row(str(number), _cell(left, now), _cell(right, now))
    table.add_row("", _ending(was, now), _ending(would, now))
    return table


def _cell(batch: Batch | None, now: datetime) -> Text:
    if batch is None:
        return Text("-", style="dim")
    ids = ", ".join(batch.instance_ids[:NAMED])
    more = f" and {len(batch.instance_ids) - NAMED} more" if len(batch.instance_ids) > NAMED else ""
    end = local(batch.end, now) if batch.end is not None else "…"
    style = "red" if batch.failed else ""
    return Text(
        f"{local(batch.begin, now)} - {end}: {batch.succeeded or 0} healthy, "
        f"{batch.failed or 0} not ({ids}{more})",
        style=style,
    )


def _ending(course: Course | None, now: datetime) -> Text:
    if course is None:
        return Text("not started", style="yellow")
    if course.end is None:
        why = course.pauses[-1].message if course.pauses else ""
        return Text(f"no end: {why}", style="yellow")
    code = f" ({course.error.code})" if course.error is not None else ""
    style = "green" if course.status == "Completed" else "red"
    return Text(f"{local(course.end, now)} {course.status}{code}", style=style)


# --- JSON -----------------------------------------------------------------------------------------


def replay_json(found: Replay) -> dict[str, Any]:
    """Return a replay as a document; times in UTC."""
    return {
        "scaleSet": found.record.started.scale_set,
        "upgradeId": found.record.course.upgrade_id,
        "same": found.is_same,
        "succeeds": found.succeeds,
        "policy": found.policy.model_dump(mode="json"),
        "recorded": course_json(found.record.course),
        "replayed": None if found.course is None else course_json(found.course),
        "hold": None if found.hold is None else found.hold.model_dump(),
        "unreached": list(found.unreached),
        "notes": list(found.notes),
    }
