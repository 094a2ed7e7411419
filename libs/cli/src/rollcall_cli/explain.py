"""`rollcall explain`: what a scale set waits for and why, in one sentence and then in full."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rollcall_cli.moments import counted, length, local, zone
from rollcall_cli.session import Session, SetName, on_server

SHOWN = 40  # instances, unless all are asked for
# Those at work and those that failed come first: they are what somebody looks for.
ORDER = ("failed", "restore_failed", "restoring", "provisioned", "upgrading", "surging", "restored")
COLOURS = {
    "succeeded": "green",
    "failed": "red",
    "restore_failed": "red",
    "restored": "yellow",
    "pending": "dim",
    "skipped": "dim",
    None: "dim",
}


@on_server
def explain(
    session: Session,
    scale_set: SetName,
    decisions: Annotated[
        int, typer.Option(help="How many of the last decisions to show.", min=1, max=1000)
    ] = 10,
    all_instances: Annotated[
        bool, typer.Option("--all", help=f"Show every instance, not only {SHOWN}.")
    ] = False,
) -> None:
    """Say what a scale set waits for and why, and until when.

    Then its upgrade, the last decisions, and each instance's part in it.
    """
    id = session.find(scale_set)
    document = session.api.get(f"{id}/explain", {"$top": decisions})
    limit = len(document["instances"]) if all_instances else SHOWN
    session.put(document, lambda: shown(document, datetime.now(UTC), limit=limit))


def shown(document: Mapping[str, Any], now: datetime, *, limit: int) -> RenderableType:
    """Return an explanation for a terminal."""
    return Group(*_parts(document, now, limit))


def _parts(document: Mapping[str, Any], now: datetime, limit: int) -> Iterator[RenderableType]:
    yield Text(document["sentence"], style="bold")
    until = document["waitingFor"].get("until")
    if until is not None:
        moment = datetime.fromisoformat(until)
        yield Text(f"Until {_when(moment, now)}.", style="bold yellow")
    if document["upgrade"] is not None:
        yield Text()
        yield from _upgrade(document["upgrade"], now)
    if document["decisions"]:
        yield Text()
        yield _decisions(document["decisions"], now)
    if document["instances"]:
        yield Text()
        yield _instances(document["instances"], limit)
        more = len(document["instances"]) - limit
        if more > 0:
            yield Text(f"… and {more} more: --all shows them.", style="dim")


def _when(moment: datetime, now: datetime) -> str:
    far = f"in {length(moment - now)}" if moment > now else f"{length(now - moment)} ago"
    return f"{local(moment, now)} {zone(moment)} ({far})"


def _upgrade(upgrade: Mapping[str, Any], now: datetime) -> Iterator[Text]:
    version, status = upgrade["targetImageReference"]["version"], upgrade["status"]
    begin = datetime.fromisoformat(upgrade["startTime"])
    end = upgrade["endTime"]
    progress = upgrade["progress"]
    colour = {"Completed": "green", "Faulted": "red", "Cancelled": "yellow"}.get(status, "cyan")
    runs = "runs" if end is None else f"ended {_when(datetime.fromisoformat(end), now)}"
    yield Text.assemble(
        (f"Upgrade to {version}: ", "bold"),
        (status, colour),
        f"; started by {upgrade['startedBy']} {_when(begin, now)}; {runs}",
    )
    yield Text(
        f"  {progress['successfulInstanceCount']} succeeded, "
        f"{progress['failedInstanceCount']} failed, "
        f"{progress['inProgressInstanceCount']} at work, "
        f"{progress['pendingInstanceCount']} not begun; "
        f"{counted(len(upgrade['batches']), 'batch', 'batches')} so far"
    )
    yield Text(f"  id {upgrade['id']}", style="dim")
    if upgrade["error"] is not None:
        yield Text(f"  {upgrade['error']['code']}: {upgrade['error']['message']}", style="red")


def _decisions(decisions: Sequence[Mapping[str, Any]], now: datetime) -> RenderableType:
    table = Table(
        title="Last decisions, the newest first", title_justify="left", box=None, pad_edge=False
    )
    table.add_column(f"time ({zone(now)})", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("reason")
    for entry in decisions:
        name = entry["type"].rpartition(".")[0].replace("_", " ").replace(".", " ")
        batch = f" {entry['batch']}" if "batch" in entry else ""
        table.add_row(
            local(datetime.fromisoformat(entry["time"]), now),
            Text(f"{name}{batch}"),
            Text(entry["reason"] or (entry.get("error") or {}).get("message", "")),
        )
    return table


def _instances(instances: Sequence[Mapping[str, Any]], limit: int) -> RenderableType:
    table = Table(title="Instances", title_justify="left", box=None, pad_edge=False)
    table.add_column("id", justify="right")
    for name in ("state", "version", "health", "batch"):
        table.add_column(name, no_wrap=True)
    table.add_column("why")
    for item in sorted(instances, key=_urgency)[:limit]:
        state = item["state"]
        health = item["health"] or "-"
        table.add_row(
            item["id"],
            Text(state or "-", style=COLOURS.get(state, "yellow")),
            item["version"] or "-",
            Text(health, style="" if health in ("Healthy", "-") else "red"),
            str(item["batch"] or "-"),
            Text(item["reason"]),
        )
    return table


def _urgency(item: Mapping[str, Any]) -> tuple[int, bool, int]:
    state = item["state"]
    place = ORDER.index(state) if state in ORDER else len(ORDER)
    return (place, item["health"] in (None, "Healthy"), int(item["id"]))
