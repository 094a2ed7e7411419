"""maxSurge: new instances first, and the old ones deleted when the new are healthy."""

from collections import Counter
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Drain, FailureCode, Health, RollingPolicy
from rollcall_rollout import InstancePhase, MemberState
from rollcall_rollout.sizing import count_staying
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import SET, World, broken, fleet, healthy, spec

BOTH = ("1.0", "1.1")
SURGE = RollingPolicy(max_surge=True)
TOLERANT = SURGE.model_copy(update={"max_unhealthy_upgraded_instance_percent": 100})


def world(capacity: int = 5, policy: RollingPolicy = SURGE, **fields: Any) -> World:
    """Return a world in which version 1.1 is published."""
    return World(fleet=fleet(capacity, versions=BOTH, policy=policy, **fields))


def creation_fails(*ids: str) -> Any:
    """Return agents that cannot make these instances."""
    return lambda id, r: (
        broken(id) if isinstance(r, e.InstancesCreateRequested) and id in ids else None
    )


def at_most(limit: int) -> Any:
    """Return an observer that fails when more instances are there, leaving ones included."""

    def observe(told: World) -> None:
        there = [i for i in told.fleet.instances.values() if i.phase is not InstancePhase.DELETING]
        assert len(there) <= limit
        assert count_staying(told.fleet) <= told.fleet.spec.capacity

    return observe


def test_the_new_one_is_healthy_before_the_old_one_goes() -> None:
    told = world()
    told.until("batch.completed")
    assert told.types("batch.", "instances.", "probe.")[:5] == [
        "batch.started",
        "instances.create_requested",
        "probe.requested",
        "instances.delete_requested",
        "batch.completed",
    ]
    started = told.all(e.BatchStarted)[0]
    assert (started.instance_ids, started.replacements) == (("0",), {"0": "5"})
    created = told.all(e.InstancesCreateRequested)[0]
    assert (created.instances[0].replaces, created.reason) == ("0", "surge of batch 1")
    deleted = told.all(e.InstancesDeleteRequested)[0]
    assert deleted.reason == "the instance that takes its place is healthy"
    assert told.fleet.instances["5"].is_healthy
    assert told.fleet.instances["0"].phase is InstancePhase.DELETING


def test_a_whole_surge_changes_every_instance_and_is_down_by_none() -> None:
    told = world(10)
    told.observe = at_most(12)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert set(told.fleet.instances) == {str(i) for i in range(10, 20)}
    assert set(told.versions_now().values()) == {"1.1"}
    assert told.swaps == {}
    assert not any(instance.replaces for instance in told.fleet.instances.values())
    assert Counter(i.host for i in told.fleet.instances.values()) == {"host-1": 5, "host-2": 5}


def test_a_successor_stays_in_its_zone() -> None:
    zones = {str(i): healthy(str(i), zone="ab"[i % 2]) for i in range(4)}
    told = world(4, instances=zones, zones=("a", "b"))
    told.run()
    assert told.batches() == ["0", "2", "1", "3"]
    assert [told.fleet.instances[id].zone for id in "4567"] == ["a", "a", "b", "b"]


def test_a_successor_keeps_the_protection_from_scale_in() -> None:
    instances = {str(i): healthy(str(i), protect_from_scale_in=i == 2) for i in range(5)}
    told = world(instances=instances)
    told.run()
    protected = [i.id for i in told.fleet.instances.values() if i.protect_from_scale_in]
    assert protected == ["7"]
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(1, revision=1, policy=SURGE)))
    told.run()
    assert list(told.fleet.instances) == ["7"]


def test_one_that_is_protected_while_its_successor_boots_is_protected_by_that_too() -> None:
    told = world()
    told.until("batch.started")
    told.tell(
        e.InstanceProtectionChanged(
            scale_set=SET, instance_id="0", protect_from_scale_set_actions=True
        )
    )
    told.run()
    successor = told.fleet.instances["5"]
    assert (successor.version, successor.protect_from_scale_set_actions) == ("1.1", True)


def test_successors_are_drained_like_all_others() -> None:
    drain = Drain(request_path="/drain", deadline=30)
    told = world(policy=RollingPolicy(max_surge=True, drain=drain))
    told.until("instances.delete_requested")
    assert told.last(e.InstancesDeleteRequested).drain == drain


# --- no room --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("room", "surges"),
    [
        ({}, True),
        ({"host-1": 6, "host-2": 6}, True),
        ({"host-1": 7, "host-2": 5}, True),
        ({"host-1": 5, "host-2": 6}, False),  # one free place, two needed
        ({"host-1": 5, "host-2": 5}, False),
    ],
)
def test_a_batch_for_which_there_is_no_room_is_done_in_place(
    room: dict[str, int], surges: bool
) -> None:
    """Azure checks its quota before each batch, and falls back to in-place."""
    told = world(10)
    told.room = room
    told.until("batch.started")
    started = told.last(e.BatchStarted)
    assert bool(started.replacements) is surges
    assert started.reason.endswith("; no room for a surge: in place") is not surges
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert set(told.versions_now().values()) == {"1.1"}


def test_room_is_looked_at_before_each_batch() -> None:
    told = world(4)
    told.room = {"host-1": 2, "host-2": 2}
    told.until("batch.completed")
    told.room = {"host-1": 3, "host-2": 3}
    told.run()
    assert [bool(b.replacements) for b in told.all(e.BatchStarted)] == [False, False, True, True]
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_a_set_without_any_host_that_answers_is_upgraded_in_place() -> None:
    told = world(2)
    told.tell()
    told.fleet = told.fleet.amended(hosts=())
    told.answer()
    assert not any(batch.replacements for batch in told.all(e.BatchStarted))


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_successor_that_cannot_be_made_is_deleted_and_counts_as_failed() -> None:
    told = world()
    told.fails = creation_fails("5")
    told.run()
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert told.last(e.UpgradeFaulted).error.code == FailureCode.UNHEALTHY_UPGRADED
    assert told.upgrade.members["0"].state is MemberState.FAILED
    assert set(told.fleet.instances) == set("01234")
    assert set(told.versions_now().values()) == {"1.0"}
    assert told.most_down == 1  # only the one that never was
    assert told.last(e.InstancesDeleteRequested).reason == (
        "it did not become healthy, and takes no one's place"
    )


def test_a_successor_that_does_not_become_healthy_in_time_is_deleted() -> None:
    told = world()
    told.sick = lambda id, version: version == "1.1"
    told.until("batch.started")
    told.answer()
    assert told.later(299) == []
    told.later(1)
    failed = told.last(e.InstanceFailed)
    assert (failed.instance_id, failed.error.code) == ("5", FailureCode.HEALTH_TIMEOUT)
    told.run()
    assert set(told.fleet.instances) == set("01234")
    assert told.types("instances.restore_requested") == []


def test_a_successor_whose_agent_is_silent_is_given_up_in_time() -> None:
    told = world()
    told.until("batch.started")
    told.waiting.clear()
    assert told.later(2399) == []
    told.later(1)
    assert told.last(e.InstanceFailed).error.code == FailureCode.PROVISIONING_TIMEOUT
    told.run()
    assert set(told.fleet.instances) == set("01234")


def test_a_tolerated_failure_keeps_the_old_instance_and_goes_on() -> None:
    told = world(policy=TOLERANT)
    told.observe = at_most(6)
    told.fails = creation_fails("5")
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.versions_now() == {"0": "1.0", "6": "1.1", "7": "1.1", "8": "1.1", "9": "1.1"}


def test_one_whose_successor_failed_keeps_its_own_os_disk() -> None:
    """Also where it has a previous one still, as it was given a new one just before."""
    reimaged = healthy("0", health=Health.UNKNOWN, booting=True, uncommitted=True, attempt=2)
    others = {str(i): healthy(str(i)) for i in range(1, 5)}
    told = world(instances={"0": reimaged, **others})
    told.fails = creation_fails("5")
    told.run()
    assert told.all(e.InstancesRestoreRequested) == []
    assert told.fleet.instances["0"].version == "1.0"


def test_a_creation_of_a_surge_that_failed_is_not_tried_again_as_a_missing_instance() -> None:
    told = world(policy=TOLERANT)
    told.fails = creation_fails("5")
    told.run()
    ids = [o.instance_id for r in told.all(e.InstancesCreateRequested) for o in r.instances]
    assert ids == ["5", "6", "7", "8", "9"]


# --- the set changes meanwhile --------------------------------------------------------------------


def test_scale_out_during_a_surge_makes_the_missing_and_no_more() -> None:
    told = world()
    told.until("batch.started")
    told.observe = at_most(8)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(7, policy=SURGE, revision=1)))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert len(told.fleet.instances) == 7
    assert set(told.versions_now().values()) == {"1.1"}


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_scale_in_during_a_surge_takes_neither_of_a_pair(capacity: int) -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(capacity, policy=SURGE, revision=1)))
    asked = {o.instance_id for r in told.all(e.InstancesDeleteRequested) for o in r.instances}
    assert not asked & {"0", "5"}
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert len(told.fleet.instances) == capacity
    assert set(told.versions_now().values()) == {"1.1"}
    assert told.down() == 0


def test_a_set_that_is_deleted_during_a_surge_leaves_nothing() -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.ScaleSetDeleted(scale_set=SET, revision=1))
    told.run()
    assert told.fleet.instances == {}
    assert told.types("upgrade.") == ["upgrade.started", "upgrade.cancelled"]


def test_an_old_instance_that_dies_while_its_successor_boots_is_replaced_all_the_same() -> None:
    told = world()
    told.until("batch.started")
    told.tell(
        e.InstanceUnhealthy(
            scale_set=SET, instance_id="0", attempt=1, lease=told.fleet.instances["0"].lease
        )
    )
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert "0" not in told.fleet.instances


def test_the_next_batch_does_not_count_those_of_a_surge_as_part_of_the_set() -> None:
    """20 % of ten is two, also while twelve are there and two of them boot or go."""
    told = world(10)
    told.run()
    reasons = {batch.reason for batch in told.all(e.BatchStarted)}
    assert reasons == {
        "2 of 10: at most 2 (20 %) at a time, 0 unhealthy outside, 2 allowed",
    }


def test_an_instance_whose_successor_a_person_deletes_is_left_out_and_its_batch_ends() -> None:
    told = world(4)
    told.until("batch.started")
    (batch,) = told.all(e.BatchStarted)
    smaller = spec(3, revision=1, policy=SURGE, leaving=tuple(batch.replacements.values()))
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=smaller))
    assert told.upgrade.members["0"].state is MemberState.SKIPPED
    told.run()
    assert told.types("upgrade.faulted", "image.held") == []  # it says nothing of the version
    assert set(told.versions_now().values()) == {"1.1"}
    assert len(told.fleet.instances) == 3
