"""How an instance stands in a Docker engine: names, labels, and a container's configuration.

All facts are in the engine. Each OS disk is a container; which one is in place says its name, so
one rename is a swap: `BASE.NUMBER`, where the highest number is in place, and `BASE.new.DISK` for
one that never was.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.record import Disk

LABEL = "rollcall."
AGENT, KEY, DISK, PORT = (f"{LABEL}{name}" for name in ("agent", "key", "disk", "port"))
LUN, VOLUME_ID = f"{LABEL}lun", f"{LABEL}volume-id"
RUNNING, PAUSED = "running", "paused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container of ours, as the engine lists it."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    volumes: Mapping[str, str] = field(default_factory=dict)  # by where they are mounted

    @property
    def disk(self) -> Disk:
        """Return the OS disk that the container is."""
        return Disk(
            name=self.labels[DISK],
            version=self.labels.get(f"{LABEL}version", ""),
            generation=int(self.labels.get(f"{LABEL}generation", "0")),
            digest=self.labels.get(f"{LABEL}digest", ""),
        )

    @property
    def number(self) -> int:
        """Return the how-manieth in place it is, or 0 when it never was."""
        found = re.search(r"\.(\d+)$", self.name)
        return int(found[1]) if found and f".new.{self.labels[DISK]}" not in self.name else 0

    @property
    def port(self) -> int:
        """Return the instance's port on the host."""
        return int(self.labels[PORT])


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume of ours."""

    name: str
    lun: int
    id: str  # made up when it was made: another one of the same name has another

    @property
    def place(self) -> str:
        """Return what tells it from every other volume."""
        return f"volume {self.name} {self.id}"


def base_name(agent: str, key: str) -> str:
    """Return what the names of all that belongs to an instance begin with."""
    return f"rollcall-{hashlib.sha256(agent.encode()).hexdigest()[:8]}-{key}"


def new_name(base: str, disk: str) -> str:
    """Return the name of a container that was not in place yet."""
    return f"{base}.new.{disk}"


def numbered_name(base: str, number: int) -> str:
    """Return the name of the `number`-th container that is put in place."""
    return f"{base}.{number:06d}"


def volume_name(base: str, lun: int) -> str:
    """Return the name of a data disk."""
    return f"{base}.data-{lun}"


class Item(Protocol):
    """What the engine lists."""

    def __getitem__(self, name: str) -> Any:
        """Return one of its properties."""
        ...


def listed(item: Item) -> Container:
    """Return a container from the engine's list."""
    return Container(
        id=item["Id"],
        name=item["Names"][0].lstrip("/"),
        state=item["State"],
        labels=item["Labels"],
        volumes={
            mount["Destination"]: mount["Name"]
            for mount in item["Mounts"] or ()
            if mount["Type"] == "volume"
        },
    )


def listed_volume(item: Item) -> Volume:
    """Return a volume from the engine's list."""
    labels = item["Labels"]
    return Volume(name=item["Name"], lun=int(labels[LUN]), id=labels[VOLUME_ID])


def in_place(containers: Iterable[Container]) -> Container | None:
    """Return the container that is the instance now."""
    placed = [container for container in containers if container.number]
    return max(placed, key=lambda container: container.number, default=None)


def data_disks(
    current: Container | None, volumes: Iterable[Volume], path: str
) -> dict[int, DataDisk]:
    """Return an instance's data disks; what is mounted in the place of one counts as that one."""
    by_name = {volume.name: volume for volume in volumes}
    found = {volume.lun: DataDisk(place=volume.place) for volume in by_name.values()}
    pattern = re.compile(re.escape(path).replace(r"\{lun\}", r"(\d+)"))
    for mounted, name in current.volumes.items() if current else ():
        lun = pattern.fullmatch(mounted)
        if lun:
            volume = by_name.get(name)
            found[int(lun[1])] = DataDisk(place=volume.place if volume else f"volume {name}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A container to be made; sizes are MiB."""

    image: str
    labels: Mapping[str, str]
    environment: Mapping[str, str]
    volumes: Mapping[str, str]  # names, by where they are mounted
    hostname: str
    address: str
    port: int
    container_port: int
    memory: int = 0
    cpus: float = 0.0
    network: str = ""
    init: bool = False


def configuration(wanted: Wanted) -> dict[str, Any]:
    """Return what the engine is told to make."""
    published = f"{wanted.container_port}/tcp"
    host: dict[str, Any] = {
        "Mounts": [
            {"Type": "volume", "Source": name, "Target": path}
            for path, name in wanted.volumes.items()
        ],
        "PortBindings": {published: [{"HostIp": wanted.address, "HostPort": str(wanted.port)}]},
        "RestartPolicy": {"Name": "no"},  # the agent starts what should run
        "Memory": wanted.memory * 1024**2,
        "NanoCpus": int(wanted.cpus * 1e9),
        "Init": wanted.init,
    }
    if wanted.network:
        host["NetworkMode"] = wanted.network
    return {
        "Image": wanted.image,
        "Hostname": wanted.hostname,
        "Labels": dict(wanted.labels),
        "Env": [f"{name}={value}" for name, value in wanted.environment.items()],
        "ExposedPorts": {published: {}},
        "HostConfig": host,
    }
