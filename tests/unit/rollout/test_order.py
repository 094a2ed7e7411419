"""Who goes when: phases, zones, update domains, unhealthy first; and how many at once."""

from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Health, RollingPolicy
from rollcall_testing.fleets import SET, World, fleet, healthy, said

BOTH = ("1.0", "1.1")
WHOLE = RollingPolicy(
    max_batch_instance_percent=100,
    max_unhealthy_instance_percent=100,
    max_unhealthy_upgraded_instance_percent=100,
)


def rolled_out(policy: RollingPolicy, instances: dict[str, dict[str, Any]], **fields: Any) -> World:
    """Return a world after a whole upgrade of instances with these fields."""
    built = {id: healthy(id, **values) for id, values in instances.items()}
    told = World(fleet=fleet(len(built), versions=BOTH, instances=built, policy=policy, **fields))
    told.run()
    assert told.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    return told


def zoned(zones: str) -> dict[str, dict[str, Any]]:
    """Return instances by the letters of their zones."""
    return {str(i): {"zone": zone} for i, zone in enumerate(zones)}


# --- zones, update domains, phases ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("cross", "batches"),
    [
        (False, ["0 2", "4", "1 3", "5", "6"]),  # never two zones at a time
        (True, ["0 1", "2 3", "4 5", "6"]),
    ],
)
def test_zones_are_upgraded_one_after_the_other(cross: bool, batches: list[str]) -> None:
    policy = RollingPolicy(
        max_batch_instance_percent=30,
        max_unhealthy_instance_percent=30,
        enable_cross_zone_upgrade=cross,
    )
    assert rolled_out(policy, zoned("abababc")).batches() == batches


@pytest.mark.parametrize(
    ("domains", "zones", "batches"),
    [
        (2, "aaaaa", ["0 2 4", "1 3"]),
        (5, "aaaaaaa", ["0 5", "1 6", "2", "3", "4"]),
        (3, "aabbaa", ["0", "1 4", "5", "3", "2"]),  # the zone first, then the domain in it
        (20, "aaa", ["0", "1", "2"]),
    ],
)
def test_m33_a_batch_is_of_one_update_domain(domains: int, zones: str, batches: list[str]) -> None:
    assert rolled_out(WHOLE, zoned(zones), update_domains=domains).batches() == batches


def test_m33_a_set_without_service_fabric_is_not_bound_to_update_domains() -> None:
    assert rolled_out(WHOLE, zoned("aaaaa"), update_domains=0).batches() == ["0 1 2 3 4"]


@pytest.mark.parametrize(
    ("orders", "zones", "batches"),
    [
        ((2, 0, None, 0, 1), "aaaaa", ["1 3", "4", "0", "2"]),  # without a number: last
        ((1, 0, 1, 0, 0), "ababa", ["4", "1 3", "0 2"]),  # a phase before a zone
        ((None, None, None, None, 7), "aaaaa", ["4", "0 1 2 3"]),
    ],
)
def test_a_phase_is_done_before_the_next_begins(
    orders: tuple[int | None, ...], zones: str, batches: list[str]
) -> None:
    instances = {
        str(i): {"phase_order": order, "zone": zone}
        for i, (order, zone) in enumerate(zip(orders, zones, strict=True))
    }
    assert rolled_out(WHOLE, instances).batches() == batches


def test_the_reason_of_a_batch_says_its_phase_zone_and_domain() -> None:
    told = rolled_out(WHOLE, {"0": {"phase_order": 3, "zone": "b"}}, update_domains=2)
    assert told.last(e.BatchStarted).reason == (
        "1 of 1 in phase 3, zone b, update domain 0: at most 1 (100 %) at a time, 0 unhealthy "
        "outside, 1 allowed"
    )


@pytest.mark.parametrize("wish", [{"phase_ordering_number": 9}, {"skip_upgrade": True}])
def test_wishes_of_an_application_are_read_only_when_an_upgrade_starts(
    wish: dict[str, Any],
) -> None:
    """Azure: read only at the start of a rolling upgrade (azure-aws-gcp.md 1.3)."""
    told = World(fleet=fleet(5, versions=BOTH))
    told.tell()
    told.tell(said(told.fleet.instances["0"], Health.HEALTHY, **wish))
    told.run()
    assert told.batches() == ["0", "1", "2", "3", "4"]
    assert told.types("instances.skipped") == []


def test_a_wish_that_came_before_the_start_is_kept() -> None:
    told = World(fleet=fleet(5))
    told.tell(said(told.fleet.instances["0"], Health.HEALTHY, phase_ordering_number=9))
    told.tell(said(told.fleet.instances["3"], Health.HEALTHY, phase_ordering_number=1))
    told.tell(e.ImagePublished(image=fleet(versions=("1.1",)).images[0]))
    assert told.last(e.UpgradeStarted).phases == {"0": 9, "3": 1}
    told.run()
    assert told.batches() == ["3", "0", "1", "2", "4"]


# --- unhealthy first ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "batches"),
    [
        (False, ["0 1", "2 3", "4 5", "6 7", "8 9"]),
        (True, ["7 9", "0 1", "2 3", "4 5", "6 8"]),  # all the unhealthy before any healthy one
    ],
)
def test_unhealthy_instances_go_first_when_the_policy_says_so(
    first: bool, batches: list[str]
) -> None:
    instances: dict[str, dict[str, Any]] = {str(i): {} for i in range(10)}
    for id in ("7", "9"):
        instances[id] = {"health": Health.UNHEALTHY}
    policy = RollingPolicy(
        max_unhealthy_instance_percent=40,
        prioritize_unhealthy_instances=first,
    )
    assert rolled_out(policy, instances).batches() == batches


def test_unhealthy_first_holds_within_a_phase_and_over_zones() -> None:
    instances: dict[str, dict[str, Any]] = {
        "0": {"zone": "a", "phase_order": 1},
        "1": {"zone": "a"},
        "2": {"zone": "b", "health": Health.UNHEALTHY},
        "3": {"zone": "b", "phase_order": 1},
    }
    policy = WHOLE.model_copy(update={"prioritize_unhealthy_instances": True})
    assert rolled_out(policy, instances).batches() == ["0", "3", "2", "1"]


# --- how many -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "policy", "sizes"),
    [
        (10, {}, [2, 2, 2, 2, 2]),
        (10, {"max_batch_instance_count": 1}, [1] * 10),
        (10, {"max_batch_instance_count": 2}, [2] * 5),  # never more than both say
        (10, {"max_batch_instance_count": 5}, [2] * 5),
        (10, {"canary_instance_count": 1}, [1, 2, 2, 2, 2, 1]),
        (10, {"canary_instance_count": 3}, [2] * 5),  # a canary makes no batch larger
        (10, {"canary_instance_count": 1, "max_batch_instance_count": 1}, [1] * 10),
        (30, {"max_batch_instance_count": 4, "canary_instance_count": 2}, [2, *[4] * 7]),
        (3, {}, [1, 1, 1]),
    ],
)
def test_a_batch_has_as_many_as_percent_count_and_canary_allow(
    size: int, policy: dict[str, Any], sizes: list[int]
) -> None:
    told = rolled_out(RollingPolicy.model_validate(policy), {str(i): {} for i in range(size)})
    assert [len(ids.split()) for ids in told.batches()] == sizes


def test_the_reason_names_the_field_that_set_the_size() -> None:
    policy = RollingPolicy(max_batch_instance_count=2, canary_instance_count=1)
    told = rolled_out(policy, {str(i): {} for i in range(20)})
    reasons = [batch.reason for batch in told.all(e.BatchStarted)]
    assert "at most 1 (canaryInstanceCount 1) at a time" in reasons[0]
    assert "at most 2 (maxBatchInstanceCount 2) at a time" in reasons[1]


def test_a_batch_keeps_its_size_when_the_set_shrinks_meanwhile() -> None:
    """The percent is of the instances that are there when the batch starts."""
    told = World(fleet=fleet(20, versions=BOTH))
    told.until("batch.started")
    assert told.batches() == ["0 1 2 3"]
    smaller = told.fleet.spec.model_copy(update={"capacity": 10, "revision": 1})
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=smaller))
    told.run()
    assert told.batches() == ["0 1 2 3", "4 5", "6 7", "8 9"]
