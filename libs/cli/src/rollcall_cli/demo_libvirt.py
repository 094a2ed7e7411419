"""`rollcall demo-libvirt`: domains of libvirt, three of which were somebody's before."""

import importlib.util
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rollcall_embedded.libvirt import POOL, LibvirtDaemon

from rollcall_cli.demo_domains import Owner
from rollcall_cli.demo_play import Ground, perform
from rollcall_cli.demo_view import DemoView
from rollcall_cli.demo_vm import VmPlay, vm_setting

# Two are found by their name, by the agent of host-1; one has a mark, for the agent of host-2.
ADOPTED = ("alpha-1", "alpha-2", "beta-1")
MARK = "<instance scaleSet='web' version='1.0.0' host='host-2'/>"
HOSTS = {
    # Agents that share one libvirt tell what they make apart by its name.
    "host-1": {"ROLLCALL_LIBVIRT_PREFIX": "host-1", "ROLLCALL_LIBVIRT_ADOPT": "alpha-*=web@1.0.0"},
    "host-2": {"ROLLCALL_LIBVIRT_PREFIX": "host-2"},
}
DRIVER = {
    "ROLLCALL_DRIVER": "libvirt",
    "ROLLCALL_STOP_GRACE": "3",
    "ROLLCALL_LIBVIRT_POOL": POOL,
    "ROLLCALL_LIBVIRT_TYPE": "qemu",  # the account that runs the daemon may not be one for KVM
    "ROLLCALL_LIBVIRT_MEMORY": "96",
    "ROLLCALL_LIBVIRT_DATA_DISK_BYTES": str(16 * 1024**2),
    "ROLLCALL_LIBVIRT_ANSWER_TIME": "45",
}


def demo_libvirt(
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
    """Roll four disk images through five domains of libvirt, and check every promise.

    Three of them exist before, with things of their own, and are adopted; two are made. The libvirt
    is one that the demo starts, and not the machine's. A good image arrives everywhere; one whose
    application is broken and one that cannot boot are stopped after the first batch, and the old OS
    disks come back. Leaves nothing behind.

    The upgrade history, in Azure's JSON, is printed last. Exits with 0 only if every check held.
    """
    _refuse_without_tools()
    setting = vm_setting("demo-libvirt", images)
    daemon = LibvirtDaemon()
    owner = Owner(daemon, images / setting.files["1.0.0"])

    def prepare(view: DemoView) -> None:
        daemon.start()
        view.say(f"  [dim]libvirt is ready: virsh -c '{daemon.uri}'[/]")
        for name in ADOPTED:
            owner.make(name)
        owner.mark("beta-1", MARK)
        view.say(f"  [dim]{', '.join(ADOPTED)} run, as their owner made them[/]")

    ground = Ground(
        environment={**DRIVER, "ROLLCALL_LIBVIRT_URI": daemon.uri},
        hosts=HOSTS,
        prepare=prepare,
        clean=lambda _: daemon.stop(),
    )
    perform(setting, ground, partial(LibvirtPlay, owner))


def _refuse_without_tools() -> None:
    """Raise typer.Exit where something is missing that only the demo or its agents need."""
    missing = [name for name in ("xorriso", "qemu-img") if shutil.which(name) is None]
    if importlib.util.find_spec("libvirt") is None:
        missing.append("libvirt-python")
    if missing:
        print(
            f"rollcall: needed for libvirt: {', '.join(missing)}: run tests/vm/install-libvirt, or "
            "see docs/libvirt.md",
            file=sys.stderr,
        )
        raise typer.Exit(1)


class LibvirtPlay(VmPlay):
    """What is checked of domains: all that is of virtual machines, and what their owner kept."""

    def __init__(self, owner: Owner, *actors: Any) -> None:
        super().__init__(*actors)
        self._owner = owner

    async def check_more(self) -> None:
        await super().check_more()
        before = self._owner.before
        after = {name: self._owner.look(name) for name in before}
        check = self.outcome.check
        left = [
            f"{name} is {'' if seen.is_adopted else 'not '}adopted, and runs from {seen.os_disk}"
            for name, seen in after.items()
            if not seen.is_adopted or seen.os_disk == before[name].os_disk
        ]
        adopted = f"{len(before)} domains were adopted, and run from other OS disks now"
        check("; ".join([adopted, *left]), not left)
        check(
            "all else of them is to the letter what their owner made it",
            all(
                seen.but_for_rollcall() == before[name].but_for_rollcall()
                for name, seen in after.items()
            ),
        )
        check(
            "the OS disks that they came with are kept", all(map(self._owner.has_its_file, before))
        )
