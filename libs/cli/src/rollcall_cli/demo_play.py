"""What the demos of ready-made images have in common: the acts, and the checks after each."""

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import typer
from rich.console import Console
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.stack import Stack, StackOptions

from rollcall_cli.demo import INTERRUPTED, POLL, DemoError, Outcome, until_interrupted, watch
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, most_down, why_not
from rollcall_cli.demo_view import DemoView

AGENTS = 2
HEARD_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is played with."""

    name: str
    what: str  # the instances, as people call them
    images: Path  # the folder of the image files
    files: Mapping[str, str]  # the file of each version: 1.0.0, 2.0.0, and bad ones
    bad: Mapping[str, str]  # what is wrong with a version
    capacity: int
    batch: int  # how many are upgraded together
    health_timeout: str
    patience: float  # seconds for any one act, on a busy machine
    custom_data: str = ""


class ImageFeed(Feed):
    """A feed of image files that were made before."""

    def offer(self, version: str, file: Path) -> None:
        """Add an image, and sign the feed."""
        self.begin()
        self.add(version, file)
        self.sign()


class Play:
    """The acts of a demo; a demo adds what it checks at the end."""

    def __init__(
        self, setting: Setting, view: DemoView, fleet: DemoFleet, feed: ImageFeed, outcome: Outcome
    ) -> None:
        self.setting = setting
        self.view = view
        self.fleet = fleet
        self.feed = feed
        self.outcome = outcome

    async def check_more(self) -> None:
        """Check what is this demo's own."""

    async def play(self) -> None:
        """Play all acts. Raises DemoError where one does not come to its end."""
        setting, check, say = self.setting, self.outcome.check, self.view.say
        say(f"[bold]2.[/] A scale set of {setting.capacity} {setting.what} on {AGENTS} hosts")
        await self._all_hosts()
        await self.fleet.create(
            setting.capacity,
            health_timeout=setting.health_timeout,
            custom_data=setting.custom_data,
        )
        self.view.start()
        await self._healthy("the new set", "1.0.0")

        say(
            "[bold]3.[/] Version 2.0.0 is published: it rolls out by itself, "
            f"{setting.batch} at a time"
        )
        await self._roll("2.0.0", "Completed")
        await self._healthy("2.0.0", "2.0.0")
        check("version 2.0.0 reached every instance, and each is healthy", True)

        for act, (version, wrong) in enumerate(setting.bad.items(), start=4):
            say(f"[bold]{act}.[/] Version {version} is published, which {wrong}")
            await self._roll(version, "Faulted")
            await self._healthy("old OS disks back", "2.0.0")
            check(f"after {version}, each instance is healthy on 2.0.0, on its old OS disk", True)
        await self.check_more()
        most = most_down(await self.fleet.events())
        check(
            f"never more than {setting.batch} were down because of an upgrade (most: {most})",
            0 < most <= setting.batch,
        )
        self.outcome.history = await self.fleet.history()

    async def _all_hosts(self) -> None:
        """Wait until each agent was heard of: a set is spread over the hosts that are known."""
        deadline = time.monotonic() + HEARD_WITHIN
        while await self.fleet.hosts() < AGENTS:
            if time.monotonic() > deadline:
                raise DemoError(f"not each of {AGENTS} agents was heard of in {HEARD_WITHIN:g} s")
            await asyncio.sleep(POLL)

    async def _healthy(self, title: str, version: str) -> None:
        await watch(
            self.view,
            self.fleet,
            title,
            lambda f: f.is_healthy_at(version, self.setting.capacity),
            patience=self.setting.patience,
        )

    async def _roll(self, version: str, end: str) -> None:
        """Publish a version, and wait for its upgrade to end; a bad one is to end after a batch."""
        await _offer(self.feed, self.setting, version)
        now = await watch(
            self.view,
            self.fleet,
            f"→ {version}",
            lambda f: f.has_ended(version) is not None,
            patience=self.setting.patience,
        )
        if now.has_ended(version) != end:
            raise DemoError(
                f"the upgrade to {version} is {now.has_ended(version)}, and not {end}: "
                f"{why_not(now.upgrade, await self.fleet.events())}"
            )
        self.outcome.check(f"the upgrade to {version} is {end}", True)
        if end == "Faulted" and now.upgrade is not None:
            progress = now.upgrade["progress"]
            batch = self.setting.batch
            self.outcome.check(
                f"it stopped after its first batch, of {batch}",
                (progress["failedInstanceCount"], progress["pendingInstanceCount"])
                == (batch, self.setting.capacity - batch),
            )

    async def answers(self, path: str) -> AsyncIterator[httpx.Response]:
        """Ask every instance, where the events say that it listens."""
        where = {
            event["data"]["instance_id"]: (event["data"]["address"], event["data"]["port"])
            for event in await self.fleet.events()
            if event["type"] == "instance.created.v1"
        }
        async with httpx.AsyncClient(timeout=10) as http:
            for address, port in where.values():
                yield await http.get(f"http://{address}:{port}{path}")


async def _offer(feed: ImageFeed, setting: Setting, version: str) -> None:
    await asyncio.to_thread(feed.offer, version, setting.images / setting.files[version])


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a demo's hosts are told, and what has to be there before them."""

    environment: Mapping[str, str]  # of everything
    hosts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of one host's agent
    # Done before the stack starts; blocks, and may raise EmbeddedError.
    prepare: Callable[[DemoView], None] = lambda _: None
    # Ends what was prepared, and what the stack left in the demo's folder.
    clean: Callable[[Path], object] = lambda _: None


Actors = Callable[[Setting, DemoView, DemoFleet, ImageFeed, Outcome], Play]


async def _run(
    console: Console, folder: Path, setting: Setting, ground: Ground, actors: Actors
) -> Outcome:
    view = DemoView(console)
    feed = ImageFeed(folder)
    view.say("[bold]1.[/] A signed feed of images with version 1.0.0, and the stack")
    ground.prepare(view)
    await _offer(feed, setting, "1.0.0")
    options = StackOptions(
        state_dir=folder / "state",
        config=feed.write_config(),
        agents=AGENTS,
        throwaway=True,
        extra_env=ground.environment,
        host_env=ground.hosts,
        report=lambda line: view.say(f"  [dim]{line}[/]"),
    )
    outcome = Outcome()
    async with Stack(options) as stack:
        fleet = DemoFleet(stack.api_url, stack.token)
        try:
            await actors(setting, view, fleet, feed, outcome).play()
        finally:
            view.stop()
            await fleet.close()
        view.say(f"[bold]{4 + len(setting.bad)}.[/] Stopping the stack")
    return outcome


def perform(setting: Setting, ground: Ground, actors: Actors) -> None:
    """Play a demo in a folder of its own, show what held, and print the history, in Azure's JSON.

    Raises typer.Exit unless every check held.
    """
    began = time.monotonic()
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    folder = Path(tempfile.mkdtemp(prefix=f"rollcall-{setting.name}-"))
    folder.chmod(0o755)  # the database server may run as another user, below this folder
    try:
        outcome = asyncio.run(until_interrupted(_run(console, folder, setting, ground, actors)))
    except (DemoError, EmbeddedError) as error:
        print(f"rollcall: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    finally:
        ground.clean(folder)
        shutil.rmtree(folder, ignore_errors=True)
    if outcome is None:
        print("rollcall: interrupted; nothing is left running", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)
    for promise, held in outcome.checks:
        console.print(f"  [green]held[/]    {promise}" if held else f"  [red]BROKEN[/]  {promise}")
    console.print(f"  in {time.monotonic() - began:.0f} s")
    print(json.dumps(outcome.history, indent=2))
    if not outcome.held:
        raise typer.Exit(1)
