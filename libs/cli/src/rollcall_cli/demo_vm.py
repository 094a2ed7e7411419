"""`rollcall demo-vm`: virtual machines, a good image, a broken one, and one that cannot boot."""

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from rollcall_cli.demo_play import Ground, Play, Setting, perform

CAPACITY = 5
CUSTOM_DATA = '#!/bin/sh\necho "custom data on $(cat /etc/image-version)"\n'
DRIVER = {
    "ROLLCALL_DRIVER": "qemu",
    "ROLLCALL_STOP_GRACE": "3",
    "ROLLCALL_QEMU_MEMORY": "96",
    "ROLLCALL_QEMU_DATA_DISK_BYTES": str(16 * 1024**2),
    "ROLLCALL_QEMU_ANSWER_TIME": "45",
}


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
    ground = Ground(environment=DRIVER, clean=_end_leftovers)
    perform(vm_setting("demo-vm", images), ground, VmPlay)


def vm_setting(name: str, images: Path) -> Setting:
    """Return what is played with: the test operating system in its four versions."""
    return Setting(
        name=name,
        what="virtual machines",
        images=images,
        files={
            "1.0.0": "v1.qcow2",
            "2.0.0": "v2.qcow2",
            "3.0.0": "v3-broken.qcow2",
            "4.0.0": "v4-unbootable.qcow2",
        },
        bad={
            "3.0.0": "boots, and whose application does not answer",
            "4.0.0": "cannot boot",
        },
        capacity=CAPACITY,
        batch=1,
        health_timeout="PT45S",  # from the end of custom data, when the guest is up
        patience=240,  # without KVM
        custom_data=CUSTOM_DATA,
    )


class VmPlay(Play):
    """What is checked of virtual machines."""

    async def check_more(self) -> None:
        await self._check_failure()
        await self._check_data_disks()

    async def _check_failure(self) -> None:
        """Show what the guests that failed said, as the events of their restores have it."""
        said = [
            event["data"]["reason"]
            for event in await self.fleet.events()
            if event["type"] == "instance.restored.v1"
        ]
        self.view.say("  the consoles of the boots that failed end with:")
        for line in "\n".join(said).splitlines():
            if any(word in line for word in ("Kernel panic", "initrd:", "application:")):
                self.view.say(f"    [dim]{line.strip()[:110]}[/]".replace("[ ", "\\[ "))
        self.outcome.check(
            "each restore tells the end of the console of the boot that failed",
            len(said) == 2 and "application: cannot find" in said[0] and "Kernel panic" in said[1],
        )

    async def _check_data_disks(self) -> None:
        """Compare the history that every machine keeps on its data disk."""
        found: list[list[str]] = []
        async for answer in self.answers("/status"):
            history = str(answer.json()["history"])
            self.view.say(f"  [dim]boots on a data disk: {history}[/]")
            found.append(history.split())
        kept = all(each[:2] == ["v1", "v2"] and each[-1] == "v2" for each in found)
        # The boot of v3 and both restores; v4 never came so far as to find its data disk.
        more = sorted(boot for each in found for boot in each[2:])
        self.outcome.check(
            f"each of {len(found)} data disks was kept, and counted every boot",
            len(found) == CAPACITY and kept and more == ["v2", "v2", "v3-broken"],
        )


def _end_leftovers(folder: Path) -> None:
    """End machines that did not stop in the time that a stack takes; they name our folder."""
    for file in folder.glob("state/agents/*/instances/*/process.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(file.read_text())["pid"])
            if str(folder).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)
