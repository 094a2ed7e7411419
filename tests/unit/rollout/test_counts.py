"""Who is counted: of the set, on the way in or out, booting, at work (M10, M15)."""

from datetime import timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Drain, Health, Power, PowerWish, RollingPolicy
from rollcall_rollout import InstancePhase
from rollcall_rollout.gates import newcomers, unhealthy_share
from rollcall_rollout.upkeep import deadline
from rollcall_testing.fleets import START, World, fleet, healthy, powered

PHASE = InstancePhase


@pytest.mark.parametrize(
    ("fields", "count", "total"),
    [
        ({}, 0, 4),
        ({"health": Health.UNHEALTHY}, 1, 4),
        ({"health": Health.UNKNOWN}, 1, 4),
        ({"health": Health.INITIALIZING}, 1, 4),
        ({"power": Power.STOPPED}, 1, 4),  # whatever its application said last
        ({"phase": PHASE.UPGRADING}, 1, 4),
        ({"phase": PHASE.RESTORING}, 1, 4),
        ({"phase": PHASE.FAILED}, 1, 4),
        ({"phase": PHASE.DELETING}, 0, 3),  # on its way out
        ({"phase": PHASE.CREATING, "attempt": 1}, 0, 3),  # on its way in
        ({"phase": PHASE.CREATING, "attempt": 2}, 1, 4),  # tried again: missing from the set
        ({"phase": PHASE.CREATING, "replaces": "0"}, 0, 3),  # of a surge
        ({"phase": PHASE.FAILED, "replaces": "0"}, 0, 3),
        ({"replaces": "0"}, 0, 3),
        ({"replaces": "0", "health": Health.UNHEALTHY}, 0, 3),
    ],
)
def test_who_is_part_of_the_set_and_who_counts_as_unhealthy(
    fields: dict[str, Any], count: int, total: int
) -> None:
    instances = {str(i): healthy(str(i)) for i in range(3)}
    instances["3"] = healthy("3", **fields)
    share = unhealthy_share(fleet(4, instances=instances), RollingPolicy())
    assert (share.count, share.total) == (count, total)


@pytest.mark.parametrize(
    ("fields", "later", "boots"),
    [
        ({"health": Health.UNKNOWN}, 299, True),
        ({"health": Health.UNKNOWN}, 300, False),  # it has had its time (M13)
        ({"health": Health.UNHEALTHY}, 0, True),
        ({}, 0, False),
        ({"health": Health.UNKNOWN, "attempt": 2}, 0, False),  # upgraded, or made again
        ({"health": Health.UNKNOWN, "replaces": "0"}, 0, False),  # the old one still serves
        ({"phase": PHASE.CREATING}, 0, False),
        ({"phase": PHASE.FAILED}, 0, False),
    ],
)
def test_a_newcomer_boots_for_the_first_time_and_not_for_ever(
    fields: dict[str, Any], later: int, boots: bool
) -> None:
    of = fleet(1, instances={"0": healthy("0", **fields)})
    found = newcomers(of, RollingPolicy(), START + timedelta(seconds=later))
    assert found == ({"0": START + timedelta(seconds=300)} if boots else {})


@pytest.mark.parametrize(
    ("fields", "comes_back"),
    [
        ({"phase": PHASE.UPGRADING, "booting": True}, True),  # a new OS disk, or a deployment
        ({"phase": PHASE.UPGRADING}, False),  # of an upgrade
        ({"phase": PHASE.POWERING, "booting": True}, True),
        ({"phase": PHASE.POWERING, "wish": PowerWish.STOPPED}, False),
    ],
)
def test_one_that_an_agent_has_in_work_for_a_person_has_as_long_as_its_deadline(
    fields: dict[str, Any], comes_back: bool
) -> None:
    drain = Drain(request_path="/drain", deadline=60)
    policy = RollingPolicy(provisioning_timeout=600, drain=drain)
    of = fleet(1, instances={"0": healthy("0", **fields)}, policy=policy)
    limit = START + timedelta(seconds=660)
    assert deadline(of, of.instances["0"]) == limit
    found = newcomers(of, policy, START + timedelta(seconds=659))
    assert found == ({"0": limit} if comes_back else {})
    assert newcomers(of, policy, limit) == {}


@pytest.mark.parametrize(
    ("power", "health"), [(Power.STOPPED, Health.UNHEALTHY), (Power.RUNNING, Health.HEALTHY)]
)
def test_m30_without_a_probe_the_power_state_is_the_health(power: Power, health: Health) -> None:
    other = Power.RUNNING if power is Power.STOPPED else Power.STOPPED
    instances = {"0": healthy("0", power=other, health=Health.UNKNOWN)}
    told = World(fleet=fleet(1, instances=instances, probe=None))
    told.tell()
    (decided,) = told.tell(powered("0", power))
    assert isinstance(decided, e.InstanceHealthy | e.InstanceUnhealthy)
    assert decided.reason == f"no probe; power state is {power}, extensions succeeded"
    assert told.fleet.instances["0"].health is health
    assert told.tell() == []
