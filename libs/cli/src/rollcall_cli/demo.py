"""`rollcall demo`: a fleet, a good image and a bad one, and a check of every promise."""

import asyncio
import json
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.stack import Stack, StackOptions

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, FleetView, most_down
from rollcall_cli.demo_view import DemoView

CAPACITY = 10
ALLOWED = 2  # 20 % of ten
HEALTH_TIMEOUT = "PT10S"  # Azure's five minutes would make a long demo
PATIENCE = 90.0  # seconds for any one act
BOOT_SECONDS = 1.0  # for a person to follow; the application itself starts at once
POLL = 0.15
INTERRUPTED = 130


class DemoError(Exception):
    """The demo did not go as it must; the message says where it stood."""


@dataclass(kw_only=True)
class Outcome:
    """What was seen, for the checks at the end."""

    history: dict[str, Any] = field(default_factory=dict)
    checks: list[tuple[str, bool]] = field(default_factory=list)

    def check(self, promise: str, held: bool) -> None:
        self.checks.append((promise, held))

    @property
    def held(self) -> bool:
        return bool(self.checks) and all(held for _, held in self.checks)


def demo(
    agents: Annotated[int, typer.Option(help="How many hosts to play.", min=1, max=10)] = 2,
) -> None:
    """Roll a good image through ten instances, then a bad one, and check every promise.

    Runs a whole stack of its own in a temporary folder and leaves nothing behind.

    The upgrade history, in Azure's JSON, is printed last. Exits with 0 only if every check held.
    """
    # Where nobody looks at a terminal, a line stays a line.
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    folder = Path(tempfile.mkdtemp(prefix="rollcall-demo-"))
    folder.chmod(0o755)  # the database server may run as another user, below this folder
    try:
        outcome = asyncio.run(until_interrupted(_run(console, folder, agents)))
    except (DemoError, EmbeddedError) as error:
        print(f"rollcall: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if outcome is None:
        print("rollcall: interrupted; nothing is left running", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    for promise, held in outcome.checks:
        console.print(f"  [green]held[/]    {promise}" if held else f"  [red]BROKEN[/]  {promise}")
    print(json.dumps(outcome.history, indent=2))
    if not outcome.held:
        raise typer.Exit(1)


async def until_interrupted(demo: Coroutine[Any, Any, Outcome]) -> Outcome | None:
    """Run a demo; SIGINT or SIGTERM ends it, with everything stopped, and gives None."""
    work = asyncio.create_task(demo)
    interrupted = asyncio.Event()

    def interrupt() -> None:
        interrupted.set()
        work.cancel()

    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(name, interrupt)
    try:
        return await work
    except asyncio.CancelledError:
        if not interrupted.is_set():
            raise
        return None


async def _run(console: Console, folder: Path, agents: int) -> Outcome:
    view = DemoView(console)
    feed = Feed(folder, boot_seconds=BOOT_SECONDS)
    view.say("[bold]1.[/] A signed image feed with version 1.0.0, and the stack that reads it")
    await asyncio.to_thread(feed.publish, "1.0.0")
    options = StackOptions(
        state_dir=folder / "state",
        config=feed.write_config(),
        agents=agents,
        throwaway=True,
        report=lambda line: view.say(f"  [dim]{line}[/]"),
    )
    outcome = Outcome()
    async with Stack(options) as stack:
        fleet = DemoFleet(stack.api_url, stack.token)
        try:
            await _play(view, fleet, feed, outcome, folder)
        finally:
            view.stop()
            await fleet.close()
        view.say("[bold]5.[/] Stopping the stack")
    return outcome


async def _play(
    view: DemoView, fleet: DemoFleet, feed: Feed, outcome: Outcome, folder: Path
) -> None:
    view.say(f"[bold]2.[/] A scale set of {CAPACITY} instances follows the image's latest version")
    await fleet.create(CAPACITY, health_timeout=HEALTH_TIMEOUT)
    view.start()
    await watch(view, fleet, "the new set", lambda f: f.is_healthy_at("1.0.0", CAPACITY))
    marks = _mark_data_disks(folder)

    view.say("[bold]3.[/] Version 2.0.0 is published: it rolls out by itself, 20 % at a time")
    await asyncio.to_thread(feed.publish, "2.0.0")
    good = await watch(view, fleet, "1.0.0 → 2.0.0", lambda f: f.has_ended("2.0.0") is not None)
    outcome.check("version 2.0.0 reached every instance", good.is_healthy_at("2.0.0", CAPACITY))
    outcome.check("its upgrade is Completed", good.has_ended("2.0.0") == "Completed")

    view.say("[bold]4.[/] Version 3.0.0 is published, whose application never becomes healthy")
    await asyncio.to_thread(feed.publish, "3.0.0", healthy=False)
    bad = await watch(view, fleet, "2.0.0 → 3.0.0", lambda f: f.has_ended("3.0.0") is not None)
    outcome.check("the upgrade to 3.0.0 is Faulted", bad.has_ended("3.0.0") == "Faulted")
    progress = bad.upgrade["progress"] if bad.upgrade else {}
    outcome.check(
        f"it stopped after its first batch of {ALLOWED}",
        (progress.get("failedInstanceCount"), progress.get("pendingInstanceCount"))
        == (ALLOWED, CAPACITY - ALLOWED),
    )
    await watch(view, fleet, "restored", lambda f: f.is_healthy_at("2.0.0", CAPACITY))
    outcome.check("the previous OS disks are back, and every instance is healthy on 2.0.0", True)

    most = most_down(await fleet.events())
    outcome.check(
        f"never more than {ALLOWED} of {CAPACITY} were down because of an upgrade (most: {most})",
        0 < most <= ALLOWED,
    )
    outcome.check(
        f"each of {len(marks)} data disks kept its content",
        len(marks) == CAPACITY
        and all(path.is_file() and path.read_text() == text for path, text in marks.items()),
    )
    outcome.history = await fleet.history()
    codes = [item["properties"]["runningStatus"]["code"] for item in outcome.history["value"]]
    outcome.check("the history tells both upgrades", sorted(codes) == ["Completed", "Faulted"])


async def watch(
    view: DemoView,
    fleet: DemoFleet,
    title: str,
    reached: Callable[[FleetView], bool],
    patience: float = PATIENCE,
) -> FleetView:
    """Show the fleet until it is as wanted. Raises DemoError when that takes too long."""
    deadline = time.monotonic() + patience
    while True:
        now = await fleet.view()
        view.show(now, title)
        if reached(now):
            return now
        if time.monotonic() > deadline:
            view.stop()
            raise DemoError(f"{title}: not reached within {patience:g} s; the last state was {now}")
        await asyncio.sleep(POLL)


def _mark_data_disks(folder: Path) -> dict[Path, str]:
    """Write something of our own on each data disk: what must still be there at the end.

    The application keeps `boots` on its data disk, which is how the disks are found.
    """
    marks: dict[Path, str] = {}
    for boots in folder.glob("state/agents/**/boots"):
        mark = boots.with_name("written-before-the-upgrades")
        marks[mark] = secrets.token_hex(16)
        mark.write_text(marks[mark])
    return marks
