"""`rollcall apply`: load balancers, scale sets and what they stand on, made as files say."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from rollcall_cli.differences import Change, differences, wanted_changes
from rollcall_cli.exits import Exit
from rollcall_cli.output import Output, console
from rollcall_cli.resource_file import SETS, Resource, ResourceFileError, read_resources
from rollcall_cli.session import Session, on_server
from rollcall_cli.tables import at, outcome
from rollcall_cli.views import LineView
from rollcall_cli.waiting import Timeout, Upgrade, Waiter, finish, newest

STDIN = "-"
COLOURS = {"+": "green", "-": "red", "~": "yellow"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of a document."""

    resource: Resource
    action: str  # created, changed or unchanged; with --dry-run what would be
    changes: Sequence[Change]
    document: Any  # the resource as it is now
    operation: str | None = None  # where to ask whether it is so already
    before: Upgrade | None = None  # the newest upgrade when it was asked for


@on_server
def apply(
    session: Session,
    files: Annotated[
        list[str],
        typer.Option("--file", "-f", help="YAML or JSON; `-` is standard input.", metavar="FILE"),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be changed.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option(
            "--wait", "-w", help="Wait until the sets are so, and for the upgrades that begin."
        ),
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Make load balancers and scale sets as files say.

    Several documents, in any order: what others name is made first. What a document leaves out
    stays as it is, null takes away. Shows what changed; the same file again changes nothing.
    """
    resources = sorted(_read(session, files), key=lambda each: each.order)  # else in their order
    done: list[Applied] = []
    for resource in resources:
        done.append(_applied(session, resource, dry_run=dry_run))
        if session.output is Output.TABLE:
            _say(done[-1], dry_run=dry_run)
    if session.output is not Output.TABLE:
        value = [_planned(each) if dry_run else each.document for each in done]
        if not wait:
            session.put({"value": value}, Text)
    if wait and not dry_run:
        _wait(session, done, timeout)


def _read(session: Session, files: Sequence[str]) -> Iterator[Resource]:
    for file in files:
        yield from read_resources(
            sys.stdin.read() if file == STDIN else _text(Path(file)),
            "standard input" if file == STDIN else file,
            subscription=session.subscription,
            group=session.resource_group,
        )


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ResourceFileError(f"{path}: cannot be read: {why}") from error


def _applied(session: Session, resource: Resource, *, dry_run: bool) -> Applied:
    """Make a resource as its document says, if it is not so. Raises ClientError."""
    api = session.api
    old = api.exists(resource.id)
    wanted = wanted_changes({} if old is None else old, resource.body)
    action = "created" if old is None else "changed" if wanted else "unchanged"
    if dry_run or action == "unchanged":
        return Applied(resource=resource, action=action, changes=wanted, document=old)
    is_set = resource.type == SETS
    before = newest(api, resource.id) if is_set and old is not None else None
    answer = api.send("PUT", resource.id, dict(resource.body))
    made = answer.json()
    found = wanted if old is None else differences(old, made)
    hidden = [change for change in wanted if change.is_secret]
    return Applied(
        resource=resource,
        action=action if found or hidden else "unchanged",
        changes=found if old is None else [*found, *hidden],
        document=made,
        operation=api.operation(answer) if is_set else None,
        before=before,
    )


def _say(applied: Applied, *, dry_run: bool) -> None:
    kind = applied.resource.type.rpartition("/")[2]
    would = "would be " if dry_run and applied.action != "unchanged" else ""
    out = console()
    out.print(
        Text.assemble(f"{kind} ", (applied.resource.name, "bold"), f": {would}{applied.action}"),
        soft_wrap=True,
    )
    if applied.action == "changed":
        for change in applied.changes:
            out.print(Text(f"  {change.words()}", style=COLOURS[change.sign]), soft_wrap=True)
    for warning in at(applied.document, "properties.rollcall.warnings") or ():
        out.print(Text(f"  warning: {warning['message']}", style="yellow"), soft_wrap=True)


def _planned(applied: Applied) -> dict[str, Any]:
    return {
        "id": applied.resource.id,
        "action": applied.action,
        "changes": [change.document() for change in applied.changes],
    }


def _wait(session: Session, done: Sequence[Applied], timeout: float | None) -> None:
    """Wait for the sets, one after the other; leave with the code of the first that is not well."""
    code, ends = Exit.DONE, []
    for each in done:
        if each.operation is None:
            continue
        view = LineView(console(stderr=True))
        waiter = Waiter(session.api, each.resource.id, view, timeout=timeout)
        automatic = at(
            session.api.get(each.resource.id),
            "properties.upgradePolicy.automaticOSUpgradePolicy.enableAutomaticOSUpgrade",
        )
        if automatic:
            end = waiter.until_settled(each.before, each.operation, insist=False)
        else:
            end = Exit.DONE if waiter.until_done(each.operation) else Exit.STILL_RUNNING
        code = code or end
        upgrade = newest(session.api, each.resource.id)
        is_new = upgrade is not None and (each.before is None or upgrade["id"] != each.before["id"])
        ends.append(outcome(upgrade) if upgrade is not None and is_new else "as its model says")
    if session.output is not Output.TABLE:
        value = [session.api.get(each.resource.id) for each in done]
        session.put({"value": value}, Text)
    else:
        for each, words in zip((e for e in done if e.operation), ends, strict=True):
            print(f"{each.resource.name}: {words}")
    finish(code, None)
