"""Instances that are left out: protected, or skipped by their application's own wish."""

from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Health
from rollcall_rollout import MemberState
from rollcall_rollout.starting import ALL_EXCLUDED
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import SET, World, fleet, healthy, image, said, spec

BOTH = ("1.0", "1.1")
PROTECTED: dict[str, Any] = {"protect_from_scale_set_actions": True}


def world(size: int = 5, versions: Any = BOTH, **special: Any) -> World:
    """Return a world in which instances such as `i3` have special fields."""
    instances = {str(i): healthy(str(i), **special.get(f"i{i}", {})) for i in range(size)}
    return World(fleet=fleet(size, versions=versions, instances=instances))


def protect(id: str, **fields: bool) -> e.InstanceProtectionChanged:
    """Return what a person says of an instance's protection."""
    return e.InstanceProtectionChanged(scale_set=SET, instance_id=id, **fields)


# --- upgrades -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "goes"),
    [
        ({"protect_from_scale_in": True}, True),  # blocks scale-in only (azure-aws-gcp.md 1.8)
        (PROTECTED, False),
        ({"skip_upgrade": True}, False),
        ({"skip_upgrade": True, **PROTECTED}, False),
    ],
)
def test_who_is_left_out_at_the_start(fields: dict[str, Any], goes: bool) -> None:
    told = world(i2=fields)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.versions_now()["2"] == ("1.1" if goes else "1.0")
    skipped = [(s.instance_ids, s.reason) for s in told.all(e.InstancesSkipped)]
    why = (
        "protectFromScaleSetActions"
        if "protect_from_scale_set_actions" in fields
        else "SkipUpgrade, says its application"
    )
    assert skipped == ([] if goes else [(("2",), why)])
    if not goes:
        assert told.last(e.UpgradeCompleted).reason == (
            "no instance remains; 4 of 5 succeeded, 1 left out"
        )


def test_one_that_is_protected_before_its_batch_is_left_out_then() -> None:
    told = world()
    told.until("batch.started")
    told.tell(protect("3", protect_from_scale_set_actions=True))
    told.run()
    assert told.batches() == ["0", "1", "2", "4"]
    assert told.upgrade.members["3"].state is MemberState.SKIPPED
    assert told.upgrade.members["3"].reason == "protectFromScaleSetActions"


def test_one_that_is_protected_in_its_batch_is_finished() -> None:
    """Its agent is at work: half an upgrade would be worse than either."""
    told = world()
    told.until("batch.started")
    told.tell(protect("0", protect_from_scale_set_actions=True))
    told.run()
    assert told.upgrade.members["0"].state is MemberState.SUCCEEDED


def test_one_whose_protection_ends_before_its_batch_goes() -> None:
    told = world()
    told.until("batch.started")
    told.tell(protect("3", protect_from_scale_set_actions=True))
    told.tell(protect("3"))
    told.run()
    assert told.batches() == ["0", "1", "2", "3", "4"]


def test_one_whose_protection_ends_later_is_upgraded_then_by_an_upgrade_of_its_own() -> None:
    told = world(i2=PROTECTED)
    told.run()
    assert told.tell() == []
    told.tell(protect("2"))
    told.run()
    assert told.batches() == ["0", "1", "3", "4", "2"]
    assert told.types("upgrade.completed") == ["upgrade.completed"] * 2


def test_a_wish_to_be_skipped_that_ends_later_is_granted_then() -> None:
    told = world(i2={"skip_upgrade": True})
    told.run()
    told.tell(said(told.fleet.instances["2"], Health.HEALTHY, skip_upgrade=False))
    told.run()
    assert told.batches()[-1] == "2"


@pytest.mark.parametrize("fields", [PROTECTED, {"skip_upgrade": True}])
def test_a_set_of_which_all_are_left_out_starts_nothing_and_refuses_a_person(
    fields: dict[str, Any],
) -> None:
    told = world(2, i0=fields, i1=fields)
    assert told.tell() == []
    (held,) = told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert isinstance(held, e.UpgradeHeld)
    assert held.error.message == ALL_EXCLUDED


def test_protection_that_is_said_again_is_no_change() -> None:
    told = world(i2=PROTECTED, versions=("1.0",))
    before = told.fleet
    told.tell(protect("2", protect_from_scale_set_actions=True), protect("99"))
    assert told.fleet is before


def test_left_out_ones_do_not_count_as_upgraded() -> None:
    """One that failed of one that was upgraded is 100 %, however many were left out (M42)."""
    told = world(5, **{f"i{i}": PROTECTED for i in range(1, 5)})
    told.sick = lambda id, version: version == "1.1"
    told.run()
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert "100% of instances" in told.last(e.UpgradeFaulted).error.message


def test_a_rollback_leaves_out_what_is_protected_and_names_it() -> None:
    told = world(3)
    told.run()
    told.tell(protect("1", protect_from_scale_set_actions=True))
    told.tell(e.UpgradeRollbackRequested(scale_set=SET))
    told.run()
    assert told.versions_now() == {"0": "1.0", "1": "1.1", "2": "1.0"}
    skipped = told.last(e.InstancesSkipped)
    assert (skipped.instance_ids, skipped.reason) == (("1",), "protectFromScaleSetActions")
    assert told.batches()[3:] == ["0", "2"]
    assert told.last(e.UpgradeStarted).reason == "2 instances go back from 1.1 to 1.0"


# --- scale-in -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("special", "capacity", "gone"),
    [
        ({}, 3, {"3", "4"}),  # the newest
        ({"i0": {"health": Health.UNHEALTHY}}, 3, {"0", "4"}),  # unhealthy ones first
        ({"i4": {"protect_from_scale_in": True}}, 3, {"2", "3"}),
        ({"i4": PROTECTED}, 3, {"2", "3"}),
        ({"i0": {"health": Health.UNHEALTHY, "protect_from_scale_in": True}}, 4, {"4"}),
        ({f"i{i}": {"protect_from_scale_in": True} for i in range(4)}, 2, {"4"}),  # no more may go
        ({f"i{i}": PROTECTED for i in range(5)}, 1, set()),
    ],
)
def test_who_goes_when_the_set_is_made_smaller(
    special: dict[str, dict[str, Any]], capacity: int, gone: set[str]
) -> None:
    told = world(5, ("1.0",), **special)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(capacity, revision=1)))
    told.run()
    assert set("01234") - told.fleet.instances.keys() == gone


def test_one_that_may_go_again_goes() -> None:
    told = world(2, ("1.0",), i0={"protect_from_scale_in": True}, i1=PROTECTED)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(1, revision=1)))
    assert told.types("instances.delete") == []
    told.tell(protect("1"))
    told.run()
    assert set(told.fleet.instances) == {"0"}


def test_scale_in_takes_none_that_a_batch_has_in_flight() -> None:
    told = world(5)
    told.until("batch.started")
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(1, revision=1)))
    asked = {o.instance_id for r in told.all(e.InstancesDeleteRequested) for o in r.instances}
    assert asked == set("1234")
    told.run()
    assert told.versions_now() == {"0": "1.1"}
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_the_deletion_of_a_set_spares_nobody() -> None:
    """Azure: deleting the set is not blocked by protection."""
    told = world(2, i0=PROTECTED, i1={"protect_from_scale_in": True})
    told.tell(e.ScaleSetDeleted(scale_set=SET, revision=1))
    told.run()
    assert told.fleet.instances == {}


def test_a_deletion_is_asked_for_again_when_the_agent_is_silent() -> None:
    told = world(2, ("1.0",))
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(1, revision=1)))
    told.waiting.clear()
    assert told.later(59) == []
    told.later(1)
    orders = [
        (o.instance_id, o.attempt)
        for r in told.all(e.InstancesDeleteRequested)
        for o in r.instances
    ]
    assert orders == [("1", 2), ("1", 3)]


def test_a_new_version_that_all_of_a_set_skip_does_not_hide_the_next() -> None:
    told = world(1, i0={"skip_upgrade": True})
    told.tell(e.ImagePublished(image=image("1.2")))
    told.tell(said(told.fleet.instances["0"], Health.HEALTHY, skip_upgrade=False))
    told.run()
    assert told.versions_now() == {"0": "1.2"}
