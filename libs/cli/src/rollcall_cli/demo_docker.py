"""`rollcall demo-docker`: containers, a good image, a broken one, and one that ends at once."""

import hashlib
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from rollcall_cli.demo_play import Ground, Play, Setting, perform

CAPACITY = 10
BATCH = 2  # 20 % of ten


def demo_docker(
    images: Annotated[
        Path,
        typer.Option(
            help="The folder of the images: v1.tar and so on, as tests/docker/build-images makes "
            "them.",
            exists=True,
            file_okay=False,
        ),
    ],
) -> None:
    """Roll four container images through ten containers, and check every promise.

    A good one arrives everywhere; one whose application is broken, and one that cannot start, are
    each stopped after the first batch, and the old containers come back. Needs a Docker engine.
    Leaves nothing behind.

    The upgrade history, in Azure's JSON, is printed last. Exits with 0 only if every check held.
    """
    if shutil.which("docker") is None or _docker("info").returncode != 0:
        print("rollcall: no Docker engine answers: start one, or set DOCKER_HOST", file=sys.stderr)
        raise typer.Exit(1)
    namespace = f"rollcall-demo-{secrets.token_hex(4)}"
    setting = Setting(
        name="demo-docker",
        what="containers",
        images=images,
        files={
            "1.0.0": "v1.tar",
            "2.0.0": "v2.tar",
            "3.0.0": "v3-broken.tar",
            "4.0.0": "v4-unstartable.tar",
        },
        bad={
            "3.0.0": "runs, and whose application does not answer",
            "4.0.0": "ends at once",
        },
        capacity=CAPACITY,
        batch=BATCH,
        health_timeout="PT10S",
        patience=150,
    )
    environment = {
        "ROLLCALL_DRIVER": "docker",
        "ROLLCALL_STOP_GRACE": "5",
        "ROLLCALL_START_SETTLE": "1",  # in which a container that cannot start has ended
        "ROLLCALL_DOCKER_NAMESPACE": namespace,
    }
    ground = Ground(environment=environment, clean=lambda _: remove_all_of(namespace))
    perform(setting, ground, DockerPlay)


class DockerPlay(Play):
    """What is checked of containers."""

    async def check_more(self) -> None:
        await self._check_failure()
        await self._check_data_disks()

    async def _check_failure(self) -> None:
        """Show what the container that could not start said, as the event of its failure has it."""
        said = ""
        for event in await self.fleet.events():
            if event["type"] == "instance.failed.v1" and event["data"]["version"] == "4.0.0":
                said = event["data"]["error"]["message"]
        self.view.say(f"  the failure of 4.0.0 says: [dim]{said}[/]")
        self.outcome.check(
            "the failure carries the log of the container that ended",
            "exit code 3" in said and "it cannot start" in said,
        )

    async def _check_data_disks(self) -> None:
        found: list[list[str]] = []
        async for answer in self.answers("/boots"):
            self.view.say(f"  [dim]boots on a data volume: {' '.join(answer.text.split())}[/]")
            found.append(answer.text.split())
        kept = all(each[:2] == ["1.0.0", "2.0.0"] and each[-1] == "2.0.0" for each in found)
        # The boots of the broken version, and those of the old containers after each bad one; 4.0.0
        # ended before it wrote anything.
        more = sorted(boot for each in found for boot in each[2:])
        self.outcome.check(
            f"each of {len(found)} data volumes was kept, and counted every boot",
            len(found) == CAPACITY and kept and more == 2 * BATCH * ["2.0.0"] + BATCH * ["3.0.0"],
        )


def remove_all_of(namespace: str) -> None:
    """Remove the containers, volumes and images that the agents of a namespace have made."""
    mine = f"label=rollcall.agent={namespace}"
    repository = f"rollcall-{hashlib.sha256(namespace.encode()).hexdigest()[:8]}"
    for listing, removal in (
        (("ps", "-aq", "--filter", mine), ("rm", "--force", "--volumes")),
        (("volume", "ls", "-q", "--filter", mine), ("volume", "rm")),
        (("images", "--format", "{{.Repository}}:{{.Tag}}", repository), ("rmi", "--force")),
    ):
        found = _docker(*listing).stdout.split()
        if found:
            _docker(*removal, *found)


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True)
