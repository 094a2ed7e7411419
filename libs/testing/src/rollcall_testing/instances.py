"""How instances of each driver are made for a test, and looked at from outside of the driver."""

import hashlib
import importlib
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollcall_testing import tiny_machine
from rollcall_testing.tiny_container import build_tiny_container
from rollcall_testing.tiny_process import build_tiny_process

# Whose agent the tests play. Instances get ports from a place that the name gives: with a name of
# its own, one run of the tests does not meet another on the same machine. Inherited by children.
HOST = os.environ.setdefault("TEST_AGENT_HOST", f"h-{secrets.token_hex(4)}")
CONFORMANCE = "ROLLCALL_CONFORMANCE"  # module:attribute of another kind to test
_VM_PACKAGES = Path(__file__).parents[4] / "tests" / "vm" / "install-packages"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance is: its agent's state folder, and its key there."""

    state: Path
    key: str

    @property
    def top(self) -> Path:
        """Return the instance's folder, for drivers that have one."""
        return self.state / "instances" / self.key


class InstanceKind:
    """An instance that is a folder and a process, as the default driver makes it."""

    driver = "process"
    environment: Mapping[str, str] = {}
    takes_scripts = True
    image_suffix = ".tar.gz"

    def install(self) -> None:
        """Install what the driver needs on this machine."""

    def build(self, path: Path, version: str) -> Path:
        """Make an image whose instances write their version to the first data disk as they boot."""
        return build_tiny_process(path, version)

    def lines(self, place: Place, file: str) -> list[str]:
        """Return the words in a file on the first data disk."""
        found = place.top / "data" / "0" / file
        return found.read_text().split() if found.exists() else []

    def boots(self, place: Place) -> list[str]:
        """Return the versions that have booted, by the data disk."""
        return self.lines(place, "boots")

    def keep(self, place: Place, word: str) -> None:
        """Write a word on the first data disk, which must still be there after upgrades."""
        (place.top / "data" / "0" / "kept").write_text(word)

    def kept(self, place: Place) -> list[str]:
        """Return what `keep` wrote."""
        return self.lines(place, "kept")

    def replace_data_disk(self, place: Place) -> None:
        """Put a copy in the place of the first data disk of a stopped instance."""
        disk = self._data_disk(place)
        copy = shutil.copytree if disk.is_dir() else shutil.copy
        copy(disk, place.state / "copy")
        disk.rename(place.state / "replaced")
        (place.state / "copy").rename(disk)

    def _data_disk(self, place: Place) -> Path:
        return place.top / "data" / "0"

    def living(self, state: Path) -> int:
        """Return how many instances of an agent run."""
        return len(_marked("ROLLCALL_DATA_DIR", state))

    def leftovers(self, place: Place) -> list[str]:
        """Return what half-built things lie about."""
        return sorted(found.name for found in place.top.rglob("*part"))

    def exists(self, place: Place) -> bool:
        """Say whether anything of the instance is left."""
        return place.top.exists()

    def clear(self, state: Path) -> None:
        """Remove what a test left outside of its folder, once instances have been stopped."""


class MachineKind(InstanceKind):
    """A virtual machine with the tiny system, which is up at once and takes no scripts."""

    driver = "qemu"
    environment = tiny_machine.ENVIRONMENT
    takes_scripts = False
    image_suffix = ".img"

    def install(self) -> None:
        subprocess.run([_VM_PACKAGES], check=True)

    def build(self, path: Path, version: str) -> Path:
        return tiny_machine.build_tiny_machine(path, version)

    def _data_disk(self, place: Place) -> Path:
        return place.top / "data" / "0.raw"

    def lines(self, place: Place, file: str) -> list[str]:
        return []

    def boots(self, place: Place) -> list[str]:
        return [f"{letter}.0.0" for letter in tiny_machine.history(self._data_disk(place))]

    def keep(self, place: Place, word: str) -> None:
        with self._data_disk(place).open("r+b") as file:
            file.seek(4096)
            file.write(word.encode())

    def kept(self, place: Place) -> list[str]:
        content = self._data_disk(place).read_bytes()[4096:8192]
        return content.rstrip(b"\0").decode().split()

    def living(self, state: Path) -> int:
        return len(_marked("ROLLCALL_QEMU_INSTANCE", state))


class ContainerKind(InstanceKind):
    """A container with busybox, looked at with the engine's own command."""

    driver = "docker"
    image_suffix = ".tar"

    def build(self, path: Path, version: str) -> Path:
        return build_tiny_container(path, version)

    def _containers(self, state: Path, *more: str) -> list[dict[str, Any]]:
        names = docker("ps", "-aq", *only_of_agent(state), *more).split()
        found: list[dict[str, Any]] = json.loads(docker("inspect", *names)) if names else []
        return found

    def _of(self, place: Place) -> list[dict[str, Any]]:
        return self._containers(place.state, "--filter", f"label=rollcall.key={place.key}")

    def lines(self, place: Place, file: str) -> list[str]:
        containers = self._of(place)
        if not containers:
            return []
        copied = subprocess.run(
            ["docker", "cp", f"{containers[0]['Id']}:/data/0/{file}", "-"], capture_output=True
        )
        if copied.returncode != 0:
            return []
        with tarfile.open(fileobj=io.BytesIO(copied.stdout)) as tar:
            content = tar.extractfile(tar.getmembers()[0])
            return content.read().decode().split() if content else []

    def keep(self, place: Place, word: str) -> None:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            member = tarfile.TarInfo("kept")
            member.size = len(word)
            tar.addfile(member, io.BytesIO(word.encode()))
        container = self._of(place)[0]["Id"]
        subprocess.run(
            ["docker", "cp", "-", f"{container}:/data/0"], input=raw.getvalue(), check=True
        )

    def replace_data_disk(self, place: Place) -> None:
        """Have another volume in its place, of the same name, as if the first were pruned."""
        found = self._of(place)
        for each in found:
            docker("rm", "--force", each["Id"])
        (volume,) = found[0]["HostConfig"]["Mounts"]
        docker("volume", "rm", volume["Source"])
        docker("volume", "create", volume["Source"])
        for each in found:  # the same containers again, with the same names
            labels = [f"--label={key}={value}" for key, value in each["Config"]["Labels"].items()]
            mount = f"type=volume,source={volume['Source']},target={volume['Target']}"
            options = (f"--name={each['Name'].strip('/')}", f"--mount={mount}", *labels)
            docker("create", *options, each["Image"])

    def living(self, state: Path) -> int:
        return sum(each["State"]["Running"] for each in self._containers(state))

    def leftovers(self, place: Place) -> list[str]:
        return []  # the engine makes a container at once

    def exists(self, place: Place) -> bool:
        return bool(self._of(place) or docker("volume", "ls", "-q", *only_of_agent(place.state)))

    def clear(self, state: Path) -> None:
        for name in docker("ps", "-aq", *only_of_agent(state)).split():
            docker("rm", "--force", "--volumes", name)
        for name in docker("volume", "ls", "-q", *only_of_agent(state)).split():
            docker("volume", "rm", name)
        for name in images_of(_agent(state)):
            docker("rmi", "--force", name)


def _agent(state: Path) -> str:
    return f"{HOST}:{state.resolve() / 'instances'}"


def only_of_agent(state: Path) -> tuple[str, str]:
    """Return the filter for what the agent of a state folder made: tests share an engine."""
    return ("--filter", f"label=rollcall.agent={_agent(state)}")


def images_of(agent: str) -> list[str]:
    """Return the names of the images that an agent has in the engine."""
    repository = f"rollcall-{hashlib.sha256(agent.encode()).hexdigest()[:8]}"
    return docker("images", "--format", "{{.Repository}}:{{.Tag}}", repository).split()


def docker(*arguments: str) -> str:
    """Return what the docker command says. Raises CalledProcessError."""
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout


KINDS: dict[str, InstanceKind] = {
    kind.driver: kind for kind in (InstanceKind(), MachineKind(), ContainerKind())
}


def kinds() -> dict[str, InstanceKind]:
    """Return the kinds to test: all of this repository, or the one that is asked for."""
    asked = os.environ.get(CONFORMANCE)
    if not asked:
        from rollcall_testing.domains import DOMAIN  # which is made of what is above

        return {**KINDS, DOMAIN.driver: DOMAIN}
    module, _, name = asked.partition(":")
    kind: InstanceKind = getattr(importlib.import_module(module), name)
    return {kind.driver: kind}


def _marked(variable: str, state: Path) -> list[int]:
    """Return the processes that lead a session and were told a place below a folder."""
    found = []
    mark = f"{variable}={state.resolve()}/".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                leads = os.getsid(int(entry.name)) == int(entry.name)
            except OSError:
                continue  # it has ended meanwhile, or is a zombie
            if leads and any(each.startswith(mark) for each in environment):
                found.append(int(entry.name))
    return found
