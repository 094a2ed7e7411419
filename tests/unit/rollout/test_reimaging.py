"""New OS disks that people ask for, and the instances that they delete (issue: instances)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Health, Power, PowerAction, PowerWish, RollingPolicy
from rollcall_rollout import Fleet, InstancePhase, WaitCode, waiting
from rollcall_rollout.reimaging import choose
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import SET, World, fleet, healthy, image, spec

ALL = tuple(str(i) for i in range(10))
SICK: dict[str, Any] = {"health": Health.UNHEALTHY}
BOOTING: dict[str, Any] = {"booting": True, "uncommitted": True, **SICK}
OFF: dict[str, Any] = {"wish": PowerWish.STOPPED, "power": Power.STOPPED}


def ask(*ids: str, number: int = 1) -> e.ModelDeployRequested:
    """Return what a person asks."""
    return e.ModelDeployRequested(scale_set=SET, instance_ids=ids, reimage=True, number=number)


def a_fleet(size: int = 10, policy: dict[str, Any] | None = None, **special: Any) -> Fleet:
    """Return a fleet in which instances such as `i3` have special fields."""
    rest = {k: v for k, v in special.items() if not k[1:].isdigit()}
    instances = {str(i): healthy(str(i), **special.get(f"i{i}", {})) for i in range(size)}
    return fleet(
        size, instances=instances, policy=RollingPolicy.model_validate(policy or {}), **rest
    )


def swaps(told: World) -> list[str]:
    """Return the instances of each moment at which new OS disks were asked for, as `0 1`."""
    found: dict[Any, list[str]] = {}
    for event, at in zip(told.log, told.logged_at, strict=True):
        if isinstance(event, e.InstancesUpgradeRequested):
            found.setdefault(at, []).extend(order.instance_id for order in event.instances)
    return [" ".join(sorted(ids, key=int)) for ids in found.values()]


# --- which, and how many --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marked", "special", "policy", "chosen"),
    [
        (ALL, {}, {}, "0 1"),  # M11: 20 % of ten
        (("7",), {}, {}, "7"),
        (ALL[1:], {"i0": BOOTING}, {}, "1"),
        (ALL[2:], {"i0": BOOTING, "i1": BOOTING}, {}, ""),
        (ALL[1:], {"i0": BOOTING}, {"max_unhealthy_instance_percent": 50}, "1"),
        (ALL, {"i5": SICK}, {}, "5 0"),  # the unhealthy first: it is down anyway
        (("0", "1"), {"i5": SICK}, {}, "0"),
        (("0", "1"), {"i5": SICK, "i6": SICK}, {}, ""),
        (("0", "5", "6", "7"), {"i5": SICK, "i6": SICK, "i7": SICK}, {}, "5 6"),
        (ALL, {}, {"max_batch_instance_count": 1}, "0"),
        (ALL, {"i0": OFF, "i1": {"phase": InstancePhase.CREATING}}, {}, "2"),
        (ALL, {}, {"max_batch_instance_percent": 5, "max_unhealthy_instance_percent": 5}, "0"),
    ],
)
def test_who_goes_now(
    marked: tuple[str, ...], special: dict[str, Any], policy: dict[str, Any], chosen: str
) -> None:
    marks = {f"i{id}": {"reimage": True} for id in marked}
    fields = {key: {**marks.get(key, {}), **special.get(key, {})} for key in {*marks, *special}}
    assert " ".join(i.id for i in choose(a_fleet(10, policy, **fields))) == chosen


def test_zones_and_update_domains_are_not_mixed() -> None:
    half = {"max_batch_instance_percent": 50, "max_unhealthy_instance_percent": 50}
    zoned = {f"i{i}": {"reimage": True, "zone": str(i % 2)} for i in range(6)}
    assert [i.id for i in choose(a_fleet(6, half, **zoned))] == ["0", "2", "4"]
    across = {**half, "enable_cross_zone_upgrade": True}
    assert [i.id for i in choose(a_fleet(6, across, **zoned))] == ["0", "1", "2"]
    domains = a_fleet(6, across, update_domains=3, **zoned)
    assert [i.id for i in choose(domains)] == ["0", "3"]


# --- the whole way --------------------------------------------------------------------------------


def test_all_of_a_set_go_in_turns_and_nobody_twice() -> None:
    told = World(fleet=a_fleet(), seed=3)
    told.tell(ask(*ALL))
    told.tell(ask(*ALL))  # delivered twice
    for _ in range(5):
        told.answer()
    told.tell(ask(*ALL))
    assert told.most_down == 2
    assert sorted(told.swaps.values()) == [1] * 10
    assert {id for id, _ in told.swaps} == set(ALL)
    assert all(i.is_healthy and not i.uncommitted for i in told.fleet.instances.values())
    told.tell(ask("4", number=2))
    told.answer()
    assert len(told.swaps) == 11
    assert told.types("upgrade.") == []


def test_it_stops_while_those_before_are_not_healthy_and_a_person_can_give_it_up() -> None:
    told = World(fleet=a_fleet(), sick=lambda id, version: True)
    told.tell(ask(*ALL))
    told.answer()
    told.later(10_000)
    told.answer()
    assert len(told.swaps) == 2
    wait = waiting(told.fleet, told.now)
    assert wait.code == "ModelDeployment"
    assert "2 of 10 unhealthy" in wait.message
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    assert not told.fleet.census.reimaging
    assert waiting(told.fleet, told.now).code == "UpToDate"


def test_it_waits_for_a_running_upgrade_and_then_takes_the_version_of_new_instances() -> None:
    told = World(fleet=fleet(5, versions=("1.0", "1.1")))
    told.until("batch.started")
    told.tell(ask("0", "3"))
    told.run()
    told.answer()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    last = told.last(e.InstancesUpgradeRequested)
    assert (last.upgrade_id, last.instances[0].instance_id) == (None, "0")
    assert last.image.version == "1.1"
    assert len(told.swaps) == 6, "3 got its new OS disk by its batch"


def test_a_version_that_failed_in_the_set_is_not_what_it_brings() -> None:
    told = World(fleet=fleet(5, versions=("1.0", "1.1"), barred_version="1.1"))
    told.tell(ask("3"))
    told.answer()
    assert told.last(e.InstancesUpgradeRequested).image.version == "1.0"
    assert told.versions_now()["3"] == "1.0"


def test_an_upgrade_with_reimage_takes_all_whatever_they_run() -> None:
    told = World(fleet=fleet(5, automatic_os_upgrade=False))
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert told.last(e.UpgradeHeld).reason == "every instance is at the latest version, 1.0"
    told.tell(e.UpgradeStartRequested(scale_set=SET, reimage=True))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.upgrade.reimage
    assert told.batches() == ["0", "1", "2", "3", "4"]
    assert told.most_down == 1
    assert not told.fleet.start_reimage
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert told.types("upgrade.started") == ["upgrade.started"]


# --- deletion of those that a person names --------------------------------------------------------


def smaller(told: World, *leaving: str, revision: int = 1, capacity: int = 5) -> e.ScaleSetChanged:
    update = {"capacity": capacity, "leaving": leaving, "revision": revision}
    return e.ScaleSetChanged(scale_set=SET, spec=told.fleet.spec.model_copy(update=update))


def deleted(told: World) -> list[str]:
    return [o.instance_id for d in told.all(e.InstancesDeleteRequested) for o in d.instances]


@pytest.mark.parametrize(
    "special",
    [
        {},
        {"i2": SICK},
        {"i2": {"protect_from_scale_in": True}},  # the API has asked for force
        {"i1": {"phase": InstancePhase.UPGRADING}},
        {"i1": {"phase": InstancePhase.FAILED, "version": None}},
        {"i1": OFF},
    ],
)
def test_these_very_instances_go_and_no_others(special: dict[str, Any]) -> None:
    told = World(fleet=a_fleet(7, **special))
    told.tell(smaller(told, "1", "2"))
    assert sorted(deleted(told)) == ["1", "2"]
    told.answer()
    assert sorted(told.fleet.instances) == ["0", "3", "4", "5", "6"]
    told.tell(smaller(told, revision=2, capacity=6))
    told.answer()
    assert "7" in told.fleet.instances, "ids are never used twice"


def test_a_model_that_overtakes_the_deletion_names_them_too() -> None:
    told = World(fleet=a_fleet(7))
    late = smaller(told, "1", "2")
    told.tell(smaller(told, "1", "2", revision=2))
    told.tell(late)
    told.answer()
    assert sorted(told.fleet.instances) == ["0", "3", "4", "5", "6"]


def test_deletion_in_the_middle_of_an_upgrade_takes_it_out_of_its_batch() -> None:
    told = World(fleet=fleet(6, versions=("1.0", "1.1")))
    told.until("batch.started")
    told.tell(smaller(told, "0", capacity=5))
    assert told.upgrade.members.get("0") is None
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert set(told.versions_now()) == {"1", "2", "3", "4", "5"}
    assert set(told.versions_now().values()) == {"1.1"}
    assert told.most_down <= 2, "one that goes, and the one of the next batch"


def test_a_scale_in_beside_it_takes_others() -> None:
    told = World(fleet=a_fleet(7))
    told.tell(smaller(told, "1", capacity=4))
    assert sorted(deleted(told)) == ["1", "5", "6"]


def test_a_deletion_alone_does_not_try_a_barred_version_again() -> None:
    told = World(fleet=fleet(6, versions=("1.0", "1.1"), barred_version="1.1"))
    told.tell(smaller(told, "0", capacity=5))
    assert told.fleet.barred_version == "1.1"
    assert spec().leaving == ()


def between(told: World) -> None:
    """Let an upgrade to 1.1 begin, and its hosts fetch the image; nobody else answers."""
    kept, told.waiting = told.waiting, []
    told.tell(e.ImagePublished(image=image("1.1")))
    told.answer(e.InstanceUpgraded, e.InstanceHealthy, e.InstancePowered)
    told.waiting += kept


def reimaged() -> e.Event:
    return ask(*ALL)


def deployed() -> e.Event:
    return e.ModelDeployRequested(scale_set=SET, instance_ids=("0", "1"))


def restarted() -> e.Event:
    return e.PowerChangeRequested(
        scale_set=SET, instance_ids=("0", "1"), change=PowerAction.RESTART, number=1
    )


@pytest.mark.parametrize("asked", [reimaged, deployed, restarted])
def test_m11_a_batch_waits_for_those_that_come_back_before_one_goes_beyond_the_limit(
    asked: Callable[[], e.Event],
) -> None:
    told = World(fleet=a_fleet(10, i0={"generation": 0}, i1={"generation": 0}))
    told.tell()
    told.tell(asked())
    assert told.down() == 2
    between(told)
    assert (told.all(e.BatchStarted), told.down()) == ([], 2)
    (held,) = told.all(e.BatchHeld)
    assert held.code == WaitCode.INSTANCES_BOOTING
    assert held.reason == (
        "Those that are down leave no room: 2 of 10 unhealthy, 2 allowed, and 2 of them are on "
        "their way back until 2026-01-01 00:40:00Z."
    )
    assert waiting(told.fleet, told.now).message == held.reason
    told.run()
    assert (told.upgrade.status, told.most_down) == (UpgradeStatus.COMPLETED, 2)
    assert set(told.versions_now().values()) == {"1.1"}


def test_m11_one_goes_alone_when_those_that_were_to_come_back_have_not_by_their_deadline() -> None:
    told = World(fleet=a_fleet(10))
    told.tell()
    told.tell(ask(*ALL))
    told.waiting = []
    between(told)
    told.later(2399)
    assert told.all(e.BatchStarted) == []
    told.later(1)
    (batch,) = told.all(e.BatchStarted)
    assert batch.instance_ids == ("2",)
    assert batch.reason == "1 of 10: at most 2 (20 %) at a time, 2 unhealthy outside, 2 allowed"


def test_those_that_get_new_os_disks_are_not_held_against_an_upgrade_that_runs() -> None:
    told = World(fleet=a_fleet(5, policy={"max_unhealthy_instance_percent": 40}))
    told.tell()
    told.tell(ask("0", "1"))
    between(told)
    sick = replace(told.fleet.instances["4"], health=Health.UNHEALTHY)
    told.fleet = replace(told.fleet, instances={**told.fleet.instances, "4": sick})
    assert told.tell() == []  # 3 of 5 are down, 2 of them because a person asked
    assert told.all(e.UpgradeFaulted) == []
