"""The size of a set: on which hosts new instances are made, and when creation is tried again."""

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, Provisioning
from rollcall_rollout import InstancePhase
from rollcall_rollout.placing import hosts_with_room, place, room_for
from rollcall_testing.fleets import (
    SET,
    World,
    broken,
    credentials_failure,
    fleet,
    healthy,
    image,
    spec,
)


@pytest.mark.parametrize(
    ("room", "count", "fits", "placed"),
    [
        ({}, 3, True, ["b", "b", "c"]),  # no limits: the fewest first, then by name
        ({"a": 9, "b": 1, "c": 9}, 3, True, ["b", "c", "c"]),
        ({"a": 9, "b": 0, "c": 9}, 3, True, ["c", "c", "a"]),
        ({"a": 0, "b": 0, "c": 0}, 1, False, []),
        ({"a": 1, "b": 1, "c": 0}, 2, True, ["b", "a"]),
        ({"a": 1, "b": 1, "c": 0}, 3, False, ["b", "a"]),  # as many as have room
        ({"a": 0, "b": 1}, 9, True, ["b", *["c"] * 8]),  # c has no limit
    ],
)
def test_new_instances_are_made_where_the_fewest_are_and_room_is(
    room: dict[str, int], count: int, fits: bool, placed: list[str]
) -> None:
    instances = {
        str(i): healthy(str(i), host=host) for i, host in enumerate(("a", "a", "a", "c", "away"))
    }
    of = fleet(5, instances=instances, hosts=("a", "b", "c"), room=room)
    assert room_for(of, count) is fits
    assert [host for host, _ in place(of, count)] == placed
    assert [id for _, id in place(of, count)] == [str(5 + n) for n in range(len(placed))]


def test_a_set_without_hosts_has_no_room() -> None:
    of = fleet(1, hosts=())
    assert hosts_with_room(of) == {}
    assert not room_for(of, 1)
    assert place(of, 1) == []


def test_no_room_on_any_host_is_said_once_and_ends_when_there_is() -> None:
    told = World(fleet=fleet(3, instances={}, next_id=0), room={"host-1": 0, "host-2": 0})
    (held,) = told.tell()
    assert isinstance(held, e.ScaleSetHeld)
    assert (held.error.code, held.error.message) == (
        "NoHostAvailable",
        "No host has room for another instance: add a host.",
    )
    assert told.later(1) == []
    told.room = {"host-1": 0, "host-2": 2}
    told.run()
    assert [i.host for i in told.fleet.instances.values()] == ["host-2", "host-2"]


@pytest.mark.parametrize(
    ("failure", "seconds", "again"),
    [
        (broken(), 59, False),
        (broken(), 60, True),
        (credentials_failure(), 60, False),  # only new credentials help (M40)
        (credentials_failure(), 86400, False),
    ],
)
def test_when_a_creation_that_failed_is_tried_again(
    failure: Failure, seconds: int, again: bool
) -> None:
    told = World(fleet=fleet(1, instances={}, next_id=0), fails=lambda id, request: failure)
    told.tell()
    told.answer()
    assert told.fleet.instances["0"].phase is InstancePhase.FAILED
    told.later(seconds)
    assert len(told.all(e.InstancesCreateRequested)) == 1 + again


def test_m41_a_deployment_tries_a_creation_again_that_was_refused_its_credentials() -> None:
    told = World(fleet=fleet(1, instances={}, next_id=0))
    told.fails = lambda id, request: credentials_failure()
    told.tell()
    told.answer()
    told.fails = lambda id, request: None
    renewed = spec(1, provisioning=Provisioning(generation=2), revision=1)
    told.tell(
        e.ScaleSetChanged(scale_set=SET, spec=renewed),
        e.ModelDeployRequested(scale_set=SET, instance_ids=("0",)),
    )
    told.run()
    assert told.down() == 0


def test_an_upgrade_takes_no_instance_down_to_its_target() -> None:
    """1.2 was withdrawn after one instance had got it: the others go to 1.1, and it stays."""
    instances = {"0": healthy("0", version="1.2"), "1": healthy("1"), "2": healthy("2")}
    told = World(fleet=fleet(3, versions=("1.0", "1.1"), instances=instances))
    told.run()
    assert told.versions_now() == {"0": "1.2", "1": "1.1", "2": "1.1"}
    assert told.last(e.UpgradeStarted).instance_ids == ("1", "2")
    told.tell(e.ImagePublished(image=image("1.3")))
    told.run()
    assert set(told.versions_now().values()) == {"1.3"}
