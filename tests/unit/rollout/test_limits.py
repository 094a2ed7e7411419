"""Limits in small sets, counts beside percents, and the override for a sick set."""

from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Health, RollingPolicy, StartedBy
from rollcall_rollout import WaitCode
from rollcall_rollout.gates import Share
from rollcall_rollout.state import Hold, UpgradeStatus
from rollcall_testing.fleets import SET, World, fleet, healthy, image, said

BOTH = ("1.0", "1.1")


def small(size: int, sick: tuple[int, ...] = (), **fields: Any) -> World:
    """Return a world of a few instances, some of them unhealthy."""
    instances = {
        str(i): healthy(str(i), health=Health.UNHEALTHY if i in sick else Health.HEALTHY)
        for i in range(size)
    }
    return World(fleet=fleet(size, versions=BOTH, instances=instances, **fields))


TWO_HOURS = timedelta(hours=2)


@pytest.mark.parametrize(
    ("count", "total", "limit", "floor", "exceeded", "allowed"),
    [
        (1, 4, 20, 0, True, 0),
        (1, 4, 20, 1, False, 1),  # so many are within it, whatever the percent says
        (2, 4, 20, 1, True, 1),
        (2, 4, 20, 2, False, 2),
        (3, 10, 20, 1, True, 2),  # the floor makes no limit smaller
        (2, 10, 20, 1, False, 2),
        (0, 0, 20, 1, False, 1),
    ],
)
def test_a_count_beside_the_percent_is_a_floor(
    count: int, total: int, limit: int, floor: int, exceeded: bool, allowed: int
) -> None:
    share = Share(count=count, total=total, limit=limit, floor=floor)
    assert (share.exceeded, share.allowed) == (exceeded, allowed)


def test_a_share_says_its_numbers() -> None:
    assert str(Share(count=3, total=10, limit=20)) == "3 of 10 unhealthy (30 %) > 20 %"
    assert str(Share(count=1, total=3, limit=20, floor=1)) == (
        "1 of 3 unhealthy (33 %) <= 20 %, 1 always"
    )


# --- sets of one to four --------------------------------------------------------------------------

SIZES = (1, 2, 3, 4)


@pytest.mark.parametrize(("size", "count"), list(product(SIZES, (0, 1))))
def test_a_small_healthy_set_is_upgraded_one_by_one(size: int, count: int) -> None:
    world = small(size, policy=RollingPolicy(max_unhealthy_instance_count=count))
    world.run()
    assert world.upgrade.status is UpgradeStatus.COMPLETED
    assert world.batches() == [str(i) for i in range(size)]
    assert world.most_down == 1


@pytest.mark.parametrize(("size", "count"), list(product(SIZES, (0, 1))))
def test_a_bad_version_takes_one_of_a_small_set_and_gives_it_back(size: int, count: int) -> None:
    world = small(size, policy=RollingPolicy(max_unhealthy_instance_count=count))
    world.sick = lambda id, version: version == "1.1"
    world.run()
    assert world.upgrade.status is UpgradeStatus.FAULTED
    assert set(world.versions_now().values()) == {"1.0"}
    assert world.down() == 0
    assert world.most_down == 1


@pytest.mark.parametrize(("size", "sick"), [(n, i) for n in SIZES for i in range(n)])
def test_without_a_count_one_ill_instance_holds_a_small_set_until_it_recovers(
    size: int, sick: int
) -> None:
    world = small(size, (sick,))
    (held,) = world.tell()
    assert isinstance(held, e.UpgradeHeld)
    assert held.error.code == FailureCode.UNHEALTHY_BEFORE
    world.tell(said(world.fleet.instances[str(sick)], Health.HEALTHY))
    world.run()
    assert set(world.versions_now().values()) == {"1.1"}
    assert world.most_down == 1


@pytest.mark.parametrize(("size", "sick"), [(n, i) for n in SIZES for i in range(n)])
def test_with_a_count_one_ill_instance_goes_first_and_nobody_else_meanwhile(
    size: int, sick: int
) -> None:
    """No healthy one goes while one that is ill anyway can: never two of a few are down."""
    world = small(size, (sick,), policy=RollingPolicy(max_unhealthy_instance_count=1))
    world.run()
    assert world.upgrade.status is UpgradeStatus.COMPLETED
    assert world.batches()[0] == str(sick)
    assert world.most_down == 1


@pytest.mark.parametrize("size", [2, 3, 4])
def test_with_a_count_two_ill_instances_still_hold_a_small_set(size: int) -> None:
    world = small(size, (0, 1), policy=RollingPolicy(max_unhealthy_instance_count=1))
    world.tell()
    assert world.types() == ["upgrade.held"]


@pytest.mark.parametrize(("count", "ends"), [(0, "upgrade.faulted"), (1, "upgrade.completed")])
def test_a_count_tolerates_one_upgraded_instance_that_failed(count: int, ends: str) -> None:
    """One of the first two is 50 % of those upgraded so far (M42): too many without a count."""
    policy = RollingPolicy(max_unhealthy_upgraded_instance_count=count)
    world = small(10, policy=policy)
    world.sick = lambda id, version: version == "1.1" and id == "1"
    world.run()
    assert world.types("upgrade.")[-1] == ends
    assert world.versions_now()["1"] == "1.0"


def test_one_more_than_the_count_is_too_many() -> None:
    policy = RollingPolicy(max_unhealthy_upgraded_instance_count=1)
    world = small(10, policy=policy)
    world.sick = lambda id, version: version == "1.1" and id in "13"
    world.run()
    assert world.types("upgrade.")[-1] == "upgrade.faulted"
    assert world.batches() == ["0 1", "2 3"]


# --- override -------------------------------------------------------------------------------------


def overridden(sick: tuple[int, ...], reason: str = "", **fields: Any) -> World:
    """Return a set of ten to which a person brings version 1.1, sick as it is."""
    world = small(10, sick, **fields)
    world.tell(e.UpgradeStartRequested(scale_set=SET, override=True, reason=reason))
    return world


def test_a_start_by_hand_in_a_sick_set_is_refused_with_the_numbers() -> None:
    world = small(10, (5, 6, 7))
    (held,) = world.tell(e.UpgradeStartRequested(scale_set=SET))
    assert isinstance(held, e.UpgradeHeld)
    assert held.error.code == WaitCode.UNHEALTHY
    assert "3 of 10 unhealthy (30 %) > 20 %" in held.error.message


def test_an_override_is_recorded_with_the_words_of_whoever_asked() -> None:
    world = overridden((5, 6, 7), reason="1.1 fixes the outage")
    started = world.last(e.UpgradeStarted)
    assert (started.override, started.started_by) == (True, StartedBy.USER)
    assert started.reason == (
        "10 of 10 instances are below version 1.1; 3 of 10 unhealthy (30 %) > 20 %, overridden; "
        "asked for: 1.1 fixes the outage"
    )


def test_an_override_heals_the_unhealthy_first_and_then_goes_on_with_the_others() -> None:
    world = overridden((1, 4, 7, 8, 9))
    world.run()
    assert world.batches() == ["1 4", "7 8", "9", "0 2", "3 5", "6"]
    assert world.upgrade.status is UpgradeStatus.COMPLETED
    assert world.most_down == 5  # never more than were down before


def test_an_override_takes_no_healthy_instance_while_the_set_is_over_its_limit() -> None:
    world = overridden((1, 4, 7), policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=100))
    world.sick = lambda id, version: id in "147"  # 1.1 does not help them
    world.run(until=TWO_HOURS)
    assert world.batches() == ["1 4", "7"]
    assert world.last(e.BatchHeld).code == WaitCode.NO_CANDIDATE
    assert world.most_down == 3


def test_an_override_takes_one_healthy_instance_when_one_is_within_the_limit() -> None:
    """Two may be down: one that stays ill leaves room for one healthy one, not for two."""
    world = overridden((1,), policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=100))
    world.sick = lambda id, version: id == "1"
    world.run(until=TWO_HOURS)
    assert world.batches() == ["1", *"023456789"]
    assert world.most_down == 2


def test_an_override_of_one_in_a_set_of_two_takes_the_last_healthy_one_only_when_none_is_ill() -> (
    None
):
    world = small(2, (1,), policy=RollingPolicy(max_unhealthy_upgraded_instance_percent=100))
    world.sick = lambda id, version: id == "1"
    world.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    world.run(until=TWO_HOURS)
    assert world.batches() == ["1"]
    assert world.last(e.BatchHeld).code == WaitCode.NO_CANDIDATE
    world.tell(said(world.fleet.instances["1"], Health.HEALTHY))
    world.run()
    assert world.batches() == ["1", "0"]


def test_an_override_restores_nothing_and_still_stops_at_a_version_that_does_not_work() -> None:
    world = overridden((1, 4, 7))
    world.sick = lambda id, version: version == "1.1" or id in "147"
    world.run(until=TWO_HOURS)
    assert world.types("instances.restore_requested") == []
    assert world.upgrade.status is UpgradeStatus.FAULTED
    assert world.batches() == ["1 4"]


@pytest.mark.parametrize(("override", "starts"), [(False, False), (True, True)])
def test_an_override_goes_to_a_version_that_is_held(override: bool, starts: bool) -> None:
    fault = Failure(code="MetricGateFailed", message="too many errors")
    hold = Hold(by_set="/sets/other", upgrade_id="u", error=fault)
    world = World(fleet=fleet(versions=BOTH, holds={"1.1": hold}, automatic_os_upgrade=False))
    world.tell(e.UpgradeStartRequested(scale_set=SET, override=override))
    assert ("upgrade.started" in world.types()) is starts
    assert ("upgrade.held" in world.types()) is not starts
    world.run()
    assert world.fleet.upgrade is None
    assert world.types("batch.held") == []


def test_the_request_is_forgotten_once_it_was_answered() -> None:
    """An override is for one upgrade: the next one asks the gates again."""
    world = overridden((5, 6, 7))
    world.run()
    world.tell(e.ImagePublished(image=image("1.2")))
    world.run()
    assert [started.override for started in world.all(e.UpgradeStarted)] == [True, False]


def test_an_override_starts_nothing_where_there_is_nothing_to_do() -> None:
    world = World(fleet=fleet())
    (held,) = world.tell(e.UpgradeStartRequested(scale_set=SET, override=True))
    assert isinstance(held, e.UpgradeHeld)
    assert held.error.message == "every instance is at the latest version, 1.0"


@pytest.mark.parametrize("override", [True, False])
def test_a_fix_that_is_brought_to_a_sick_set_is_not_held_in_others_for_what_stays_sick(
    override: bool,
) -> None:
    world = small(10, sick=(0, 1, 2, 3) if override else ())
    world.sick = lambda id, version: id == "0"
    world.tell(e.UpgradeStartRequested(scale_set=SET, override=override, reason="the fix"))
    world.run()
    assert world.last(e.UpgradeFaulted).error.code == FailureCode.UNHEALTHY_UPGRADED
    assert bool(world.all(e.ImageHeld)) is not override
