"""`rollcall demo-vm`: virtual machines, a good image, a broken one, and one that cannot boot."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rollcall_embedded.process import EmbeddedError
from rollcall_embedded.stack import Stack, StackOptions

from rollcall_cli.demo import INTERRUPTED, DemoError, Outcome, until_interrupted, watch
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, most_down
from rollcall_cli.demo_view import DemoView

CAPACITY = 5
AGENTS = 2
IMAGES = {"1.0.0": "v1", "2.0.0": "v2", "3.0.0": "v3-broken", "4.0.0": "v4-unbootable"}
HEALTH_TIMEOUT = "PT25S"  # from the end of custom data, when the guest is up
PATIENCE = 240.0  # seconds for any one act: without KVM, on a busy machine
CUSTOM_DATA = '#!/bin/sh\necho "custom data on $(cat /etc/image-version)"\n'
DRIVER = {
    "ROLLCALL_DRIVER": "qemu",
    "ROLLCALL_STOP_GRACE": "3",
    "ROLLCALL_QEMU_MEMORY": "96",
    "ROLLCALL_QEMU_DATA_DISK_BYTES": str(16 * 1024**2),
    "ROLLCALL_QEMU_ANSWER_TIME": "45",
    # Both agents are hosts of their own, and share this machine's cores.
    "ROLLCALL_QEMU_BOOTS_AT_ONCE": str(max(1, (os.cpu_count() or 1) // AGENTS)),
}


class VmFeed(Feed):
    """A feed of disk images that were made before."""

    def offer(self, version: str, file: Path) -> None:
        """Add a disk image, and sign the feed."""
        self.begin()
        self.add(version, file)
        self.sign()


def demo_vm(
    images: Annotated[
        Path,
        typer.Option(
            help="The folder of the test operating system's images: v1.qcow2 and so on, as "
            "tests/vm/build-test-os makes them.",
            exists=True,
            file_okay=False,
        ),
    ],
) -> None:
    """Roll four disk images through five virtual machines of QEMU, and check every promise.

    A good one arrives everywhere; one whose application is broken and one that cannot boot are
    stopped after the first batch, and the old OS disks come back. Leaves nothing behind.

    The upgrade history, in Azure's JSON, is printed last. Exits with 0 only if every check held.
    """
    began = time.monotonic()
    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    folder = Path(tempfile.mkdtemp(prefix="rollcall-demo-vm-"))
    folder.chmod(0o755)  # the database server may run as another user, below this folder
    try:
        outcome = asyncio.run(until_interrupted(_run(console, folder, images)))
    except (DemoError, EmbeddedError) as error:
        print(f"rollcall: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    finally:
        _end_leftovers(folder)
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


async def _run(console: Console, folder: Path, images: Path) -> Outcome:
    view = DemoView(console)
    feed = VmFeed(folder)
    view.say("[bold]1.[/] A signed feed of disk images with version 1.0.0, and the stack")
    await _offer(feed, images, "1.0.0")
    options = StackOptions(
        state_dir=folder / "state",
        config=feed.write_config(),
        agents=AGENTS,
        throwaway=True,
        extra_env=DRIVER,
        report=lambda line: view.say(f"  [dim]{line}[/]"),
    )
    outcome = Outcome()
    async with Stack(options) as stack:
        fleet = DemoFleet(stack.api_url, stack.token)
        try:
            await Play(view, fleet, feed, outcome, images).play()
        finally:
            view.stop()
            await fleet.close()
        view.say("[bold]6.[/] Stopping the stack")
    return outcome


async def _offer(feed: VmFeed, images: Path, version: str) -> None:
    await asyncio.to_thread(feed.offer, version, images / f"{IMAGES[version]}.qcow2")


class Play:
    """The acts of the demo."""

    def __init__(
        self, view: DemoView, fleet: DemoFleet, feed: VmFeed, outcome: Outcome, images: Path
    ) -> None:
        self._view = view
        self._fleet = fleet
        self._feed = feed
        self._outcome = outcome
        self._images = images

    async def play(self) -> None:
        """Play all acts. Raises DemoError where one does not come to its end."""
        check, say = self._outcome.check, self._view.say
        say(f"[bold]2.[/] A scale set of {CAPACITY} virtual machines on {AGENTS} hosts")
        await self._fleet.create(CAPACITY, health_timeout=HEALTH_TIMEOUT, custom_data=CUSTOM_DATA)
        self._view.start()
        await self._healthy("the new set", "1.0.0")

        say("[bold]3.[/] Version 2.0.0 is published: it rolls out by itself, one machine at a time")
        await self._roll("2.0.0", "Completed")
        await self._healthy("2.0.0", "2.0.0")
        check("version 2.0.0 reached every machine, and each is healthy", True)

        for act, version, what in (
            (4, "3.0.0", "boots, and whose application does not answer"),
            (5, "4.0.0", "cannot boot"),
        ):
            say(f"[bold]{act}.[/] Version {version} is published, which {what}")
            await self._roll(version, "Faulted")
            await self._healthy("old OS disks back", "2.0.0")
            check(f"after {version}, every machine is healthy on 2.0.0, on its old OS disk", True)
        await self._check_failure()
        await self._check_data_disks()
        most = most_down(await self._fleet.events())
        check(
            f"never more than one machine was down because of an upgrade (most: {most})", most == 1
        )
        self._outcome.history = await self._fleet.history()

    async def _healthy(self, title: str, version: str) -> None:
        await watch(
            self._view,
            self._fleet,
            title,
            lambda f: f.is_healthy_at(version, CAPACITY),
            patience=PATIENCE,
        )

    async def _roll(self, version: str, end: str) -> None:
        """Publish a version, and wait for its upgrade to end; a bad one is to end after a batch."""
        await _offer(self._feed, self._images, version)
        now = await watch(
            self._view,
            self._fleet,
            f"→ {version}",
            lambda f: f.has_ended(version) is not None,
            patience=PATIENCE,
        )
        self._outcome.check(f"the upgrade to {version} is {end}", now.has_ended(version) == end)
        if end == "Faulted" and now.upgrade is not None:
            progress = now.upgrade["progress"]
            self._outcome.check(
                "it stopped after its first batch, of one",
                (progress["failedInstanceCount"], progress["pendingInstanceCount"])
                == (1, CAPACITY - 1),
            )

    async def _check_failure(self) -> None:
        """Show what the guest that could not boot said, as the event of its failure has it."""
        said = ""
        for event in await self._fleet.events():
            if event["type"] == "instance.failed.v1":
                message = event["data"]["error"]["message"]
                said = message if "console" in message else said
        self._view.say("  the console of the boot that failed ends with:")
        for line in said.splitlines()[-40:]:
            if "Kernel panic" in line or "initrd" in line or "not syncing" in line:
                self._view.say(f"    [dim]{line.strip()[:110]}[/]".replace("[ ", "\\[ "))
        self._outcome.check(
            "the failure carries the console of the boot that failed", "Kernel panic" in said
        )

    async def _check_data_disks(self) -> None:
        """Compare the history that every machine keeps on its data disk."""
        found: list[list[str]] = []
        async for facts in self._machines():
            self._view.say(f"  [dim]boots on a data disk: {facts['history']}[/]")
            found.append(str(facts["history"]).split())
        kept = all(each[:2] == ["v1", "v2"] and each[-1] == "v2" for each in found)
        # The boot of v3 and both restores; v4 never came so far as to find its data disk.
        more = sorted(boot for each in found for boot in each[2:])
        self._outcome.check(
            f"each of {len(found)} data disks was kept, and counted every boot",
            len(found) == CAPACITY and kept and more == ["v2", "v2", "v3-broken"],
        )

    async def _machines(self) -> AsyncIterator[dict[str, Any]]:
        """Ask every machine for its status, where the events say that it listens."""
        where = {
            event["data"]["instance_id"]: (event["data"]["address"], event["data"]["port"])
            for event in await self._fleet.events()
            if event["type"] == "instance.created.v1"
        }
        async with httpx.AsyncClient(timeout=10) as http:
            for address, port in where.values():
                answer = await http.get(f"http://{address}:{port}/status")
                facts: dict[str, Any] = answer.json()
                yield facts


def _end_leftovers(folder: Path) -> None:
    """End machines that did not stop in the time that a stack takes; they name our folder."""
    for file in folder.glob("state/agents/*/instances/*/process.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(file.read_text())["pid"])
            if str(folder).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)
