"""How an instance stands in an engine, as tables."""

from dataclasses import replace

import pytest
from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.docker import (
    DISK,
    PORT,
    Container,
    Volume,
    Wanted,
    base_name,
    configuration,
    data_disks,
    in_place,
    listed,
    new_name,
    numbered_name,
)
from instance_agent.domain.record import Disk

BASE = base_name("h1:/state", "0-abc")
LABELS = {
    DISK: "000002-2.0.0",
    PORT: "20001",
    "rollcall.version": "2.0.0",
    "rollcall.generation": "7",
    "rollcall.digest": "d",
}


def container(name: str, disk: str = "000002-2.0.0") -> Container:
    return Container(id=name, name=name, state="exited", labels={**LABELS, DISK: disk})


def test_names_tell_agents_and_instances_apart() -> None:
    names = {base_name(a, k) for a in ("h1:/a", "h2:/a", "h1:/b") for k in ("0-x", "1-x")}
    assert len(names) == 6


@pytest.mark.parametrize(
    ("name", "number"),
    [
        (numbered_name(BASE, 1), 1),
        (numbered_name(BASE, 12), 12),
        (new_name(BASE, "000002-2.0.0"), 0),
        (BASE, 0),
    ],
)
def test_the_name_says_the_how_manieth_in_place_a_container_is(name: str, number: int) -> None:
    assert container(name).number == number


def test_a_disk_whose_name_ends_in_a_number_is_not_in_place_by_that() -> None:
    assert container(new_name(BASE, "000003-1.0.000009"), "000003-1.0.000009").number == 0


def test_the_highest_number_is_in_place() -> None:
    old, new = container(numbered_name(BASE, 9), "a"), container(numbered_name(BASE, 10), "b")
    waiting = container(new_name(BASE, "c"), "c")
    assert in_place([new, old, waiting]) == new
    assert in_place([waiting]) is None


def test_labels_carry_the_disk() -> None:
    assert container("x").disk == Disk(
        name="000002-2.0.0", version="2.0.0", generation=7, digest="d"
    )
    assert container("x").port == 20001


def test_the_engines_list_is_read() -> None:
    item = {
        "Id": "i",
        "Names": [f"/{numbered_name(BASE, 3)}"],
        "State": "running",
        "Labels": LABELS,
        "Mounts": [
            {"Type": "volume", "Name": "v", "Destination": "/data/0"},
            {"Type": "bind", "Source": "/x", "Destination": "/y"},
        ],
    }
    found = listed(item)
    assert (found.name, found.volumes) == (numbered_name(BASE, 3), {"/data/0": "v"})
    assert listed({**item, "Mounts": None}).volumes == {}


ZERO, ONE = Volume(name="v0", lun=0, id="a"), Volume(name="v1", lun=1, id="b")
MOUNTED = replace(container("x"), volumes={"/data/0": "v0", "/var/log": "v9"})


@pytest.mark.parametrize(
    ("current", "volumes", "places"),
    [
        (None, [], {}),
        (None, [ZERO, ONE], {0: "volume v0 a", 1: "volume v1 b"}),
        (MOUNTED, [ZERO], {0: "volume v0 a"}),
        (MOUNTED, [ZERO, ONE], {0: "volume v0 a", 1: "volume v1 b"}),  # made, not mounted yet
        (MOUNTED, [], {0: "volume v0"}),  # pruned, and made anew by the engine
        (replace(MOUNTED, volumes={"/data/0": "w"}), [ZERO], {0: "volume w"}),
    ],
)
def test_data_disks_are_what_is_mounted_and_what_there_is(
    current: Container | None, volumes: list[Volume], places: dict[int, str]
) -> None:
    found = data_disks(current, volumes, "/data/{lun}")
    assert found == {lun: DataDisk(place=place) for lun, place in places.items()}


def test_a_container_publishes_its_one_port_and_is_started_by_nobody_else() -> None:
    wanted = Wanted(
        image="sha256:x",
        labels={"a": "b"},
        environment={"NAME": "value"},
        volumes={"/data/0": "v0"},
        hostname="vm-0",
        address="127.0.0.1",
        port=20001,
        container_port=8080,
        memory=64,
        cpus=1.5,
        network="front",
    )
    made = configuration(wanted)
    assert made["HostConfig"] == {
        "Mounts": [{"Type": "volume", "Source": "v0", "Target": "/data/0"}],
        "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "20001"}]},
        "RestartPolicy": {"Name": "no"},
        "Memory": 64 * 1024**2,
        "NanoCpus": 1_500_000_000,
        "Init": False,
        "NetworkMode": "front",
    }
    assert (made["Env"], made["ExposedPorts"]) == (["NAME=value"], {"8080/tcp": {}})
    assert "NetworkMode" not in configuration(replace(wanted, network=""))["HostConfig"]
