"""Power as people want it: what is asked of agents, and what an upgrade makes of it (section 1)."""

from dataclasses import replace
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Health, Power, PowerAction, PowerWish
from rollcall_rollout import InstancePhase, MemberState, waiting
from rollcall_rollout.gates import unhealthy_share
from rollcall_rollout.powering import WISHES
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import SET, World, fleet, healthy, image, said

BOTH = ("1.0", "1.1")
START, RESTART, REDEPLOY = PowerAction.START, PowerAction.RESTART, PowerAction.REDEPLOY
OFF, DEALLOCATE = PowerAction.POWER_OFF, PowerAction.DEALLOCATE
PARKED: dict[str, Any] = {
    "wish": PowerWish.STOPPED,
    "power": Power.STOPPED,
    "health": Health.UNKNOWN,
    "attempt": 2,
}


def ask(change: PowerAction, *ids: str, number: int = 1) -> e.PowerChangeRequested:
    """Return what a person asks."""
    return e.PowerChangeRequested(scale_set=SET, instance_ids=ids, change=change, number=number)


def world(size: int = 5, versions: Any = ("1.0",), **special: Any) -> World:
    """Return a world in which instances such as `i3` have special fields."""
    rest = {k: v for k, v in special.items() if not k[1:].isdigit()}
    instances = {str(i): healthy(str(i), **special.get(f"i{i}", {})) for i in range(size)}
    return World(fleet=fleet(size, versions=versions, instances=instances, **rest))


def requests(told: World) -> list[tuple[str, str]]:
    """Return (instance, change) of each request to an agent."""
    return [
        (order.instance_id, event.change)
        for event in told.all(e.InstancesPowerRequested)
        for order in event.instances
    ]


# --- one instance ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "change", "asked", "power", "wish"),
    [
        ({}, OFF, "powerOff", Power.STOPPED, PowerWish.STOPPED),
        ({}, DEALLOCATE, "powerOff", Power.STOPPED, PowerWish.DEALLOCATED),
        ({}, START, None, Power.RUNNING, PowerWish.RUNNING),
        ({}, RESTART, "restart", Power.RUNNING, PowerWish.RUNNING),
        ({}, REDEPLOY, "restart", Power.RUNNING, PowerWish.RUNNING),
        (PARKED, START, "start", Power.RUNNING, PowerWish.RUNNING),
        (PARKED, RESTART, "restart", Power.RUNNING, PowerWish.RUNNING),
        (PARKED, OFF, None, Power.STOPPED, PowerWish.STOPPED),
        (PARKED, DEALLOCATE, None, Power.STOPPED, PowerWish.DEALLOCATED),
        # It stopped by itself: to start it is the cure, to power it off makes it stay.
        ({"power": Power.STOPPED}, START, "start", Power.RUNNING, PowerWish.RUNNING),
        ({"power": Power.STOPPED}, OFF, "powerOff", Power.STOPPED, PowerWish.STOPPED),
    ],
)
def test_what_is_asked_of_the_agent(
    before: dict[str, Any], change: PowerAction, asked: str | None, power: Power, wish: PowerWish
) -> None:
    told = world(i2=before)
    told.tell(ask(change, "2"))
    told.answer()
    assert requests(told) == ([("2", asked)] if asked else [])
    instance = told.fleet.instances["2"]
    assert (instance.power, instance.wish, instance.phase) == (power, wish, InstancePhase.READY)
    assert instance.is_healthy is (power is Power.RUNNING)
    assert instance.is_parked is (wish is not PowerWish.RUNNING)


def test_every_action_has_its_wish() -> None:
    assert set(WISHES) == set(PowerAction)


@pytest.mark.parametrize(
    ("first", "second"), [(OFF, OFF), (RESTART, RESTART), (OFF, START), (RESTART, OFF)]
)
def test_a_request_that_comes_again_or_late_starts_nothing(
    first: PowerAction, second: PowerAction
) -> None:
    told = world()
    told.tell(ask(second, "2", number=7))
    told.answer()
    done, state = len(requests(told)), told.fleet.instances["2"]
    for late in (ask(second, "2", number=7), ask(first, "2", number=6)):
        told.tell(late)
        told.answer()
    assert len(requests(told)) == done
    assert told.fleet.instances["2"] == state


def test_a_wish_that_is_taken_back_before_the_agent_was_asked_is_none() -> None:
    told = world(i2={"phase": InstancePhase.UPGRADING})
    told.tell(ask(OFF, "2", number=1))
    assert told.fleet.instances["2"].power_due is OFF
    told.tell(ask(START, "2", number=2))
    assert told.fleet.instances["2"].wish is PowerWish.RUNNING
    told.tell(ask(RESTART, "2", number=3))
    told.tell(ask(START, "2", number=4))
    assert told.fleet.instances["2"].power_due is RESTART, "to start does not undo a restart"


def test_no_agent_is_asked_while_another_request_is_under_way() -> None:
    told = world(i2={"phase": InstancePhase.UPGRADING, "attempt": 4})
    told.tell(ask(RESTART, "2", "3"))
    assert requests(told) == [("3", "restart")]
    place = {"version": "1.0", "generation": 1, "address": "127.0.0.1", "port": 1}
    told.tell(e.InstanceUpgraded(scale_set=SET, instance_id="2", attempt=4, **place))
    assert requests(told) == [("3", "restart"), ("2", "restart")]
    assert told.last(e.InstancesPowerRequested).instances[0].attempt == 5


def test_what_an_agent_does_not_do_in_time_has_failed_until_it_does_it() -> None:
    told = world()
    told.tell(ask(RESTART, "2"))
    told.waiting.clear()
    (failed,) = told.later(2401)
    assert isinstance(failed, e.InstanceFailed)
    error = told.fleet.instances["2"].error
    assert told.fleet.instances["2"].phase is InstancePhase.FAILED
    assert error is not None
    assert error.code == FailureCode.POWER
    done = {"power": Power.RUNNING, "address": "127.0.0.1", "port": 1}
    told.tell(e.InstancePowered(scale_set=SET, instance_id="2", attempt=2, **done))
    told.answer()
    assert told.fleet.instances["2"].is_healthy


def test_a_start_does_not_undo_what_failed_before() -> None:
    """M30: healthy is running with every extension provisioned; a start runs none."""
    error = Failure(code=FailureCode.EXTENSION, message="code 3", target="x")
    told = world(i2={"phase": InstancePhase.FAILED, "error": error, "health": Health.UNKNOWN})
    told.tell(ask(RESTART, "2"))
    told.answer()
    instance = told.fleet.instances["2"]
    assert (instance.phase, instance.error) == (InstancePhase.FAILED, error)


def test_a_wish_outlives_a_creation_that_is_tried_again() -> None:
    failed = {"version": None, "phase": InstancePhase.FAILED, "health": Health.UNKNOWN}
    told = world(i2=failed)
    told.tell(ask(DEALLOCATE, "2"))
    told.later(61)
    assert told.fleet.instances["2"].phase is InstancePhase.CREATING
    assert requests(told) == []
    told.answer()
    assert requests(told) == [("2", "powerOff")]
    assert told.fleet.instances["2"].is_parked


# --- health ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("probed", [True, False])
def test_what_is_powered_off_is_neither_unhealthy_nor_one_of_the_set(probed: bool) -> None:
    fields: dict[str, Any] = {} if probed else {"probe": None}
    told = world(**fields)
    told.tell(ask(OFF, "1", "2"))
    told.answer()
    share = unhealthy_share(told.fleet, told.fleet.spec.policy)
    assert (share.count, share.total) == (0, 3)
    asked = len(told.all(e.ProbeRequested))
    told.later(100 * 86400)
    assert told.types("instance.unhealthy", "instance.failed") == []
    targets = {t.instance_id for p in told.all(e.ProbeRequested)[asked:] for t in p.targets}
    assert targets <= {"0", "3", "4"}


def test_probing_of_before_says_nothing_of_it() -> None:
    told = world()
    before = told.fleet.instances["2"]
    told.tell(ask(OFF, "2"))
    told.answer()
    told.tell(said(before, Health.UNHEALTHY, attempt=1, lease=before.lease))
    assert told.fleet.instances["2"].health is Health.UNKNOWN


def test_one_that_was_started_has_its_time_to_become_healthy() -> None:
    told = world(i2=PARKED)
    told.sick = lambda id, version: id == "2"
    told.tell(ask(START, "2"))
    told.answer()
    assert told.later(299) == []
    (failed,) = told.later(1)
    assert isinstance(failed, e.InstanceFailed)
    assert failed.error.code == FailureCode.HEALTH_TIMEOUT
    assert told.later(1000) == [], "it is said once"


# --- upgrades -------------------------------------------------------------------------------------


def test_an_upgrade_leaves_out_what_is_powered_off_and_follows_when_it_starts() -> None:
    told = world(versions=BOTH, i1=PARKED)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert [(s.instance_ids, s.reason) for s in told.all(e.InstancesSkipped)] == [
        (("1",), "powered off by a person")
    ]
    assert told.versions_now()["1"] == "1.0"
    assert told.fleet.barred_version is None
    told.tell(ask(START, "1"))
    told.run()
    assert told.versions_now()["1"] == "1.1"
    assert told.all(e.UpgradeStarted)[-1].instance_ids == ("1",)
    assert told.most_down == 2  # the one that is off, and the one of the batch


def test_no_upgrade_starts_for_what_is_powered_off_alone() -> None:
    told = world(3, versions=BOTH, i0={"version": "1.1"}, i1={"version": "1.1"}, i2=PARKED)
    told.run()
    assert told.types("upgrade.") == []
    assert waiting(told.fleet, told.now).code == "InstancesExcluded"
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert told.last(e.UpgradeHeld).error.code == FailureCode.NOT_ALLOWED


def test_one_that_is_powered_off_before_its_batch_is_left_out_then() -> None:
    told = world(versions=BOTH)
    told.until("batch.started")
    told.tell(ask(OFF, "3"))
    told.run()
    assert told.batches() == ["0", "1", "2", "4"]
    member = told.upgrade.members["3"]
    assert (member.state, member.reason) == (MemberState.SKIPPED, "powered off by a person")
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_one_that_is_powered_off_in_its_batch_is_finished_first() -> None:
    told = world(versions=BOTH)
    told.until("batch.started")
    told.tell(ask(OFF, "0"))
    assert requests(told) == []
    told.run()
    assert told.upgrade.members["0"].state is MemberState.SUCCEEDED
    assert told.fleet.instances["0"].is_parked
    assert told.upgrade.status is UpgradeStatus.COMPLETED, "M42: it is not held against it"


@pytest.mark.parametrize("change", [OFF, RESTART])
def test_what_a_person_takes_down_does_not_fault_an_upgrade(change: PowerAction) -> None:
    """M15, M42: these limits are for outages that nobody wanted."""
    told = world(10, versions=BOTH, policy={"pause_time_between_batches": 600})
    told.until("batch.completed")
    told.tell(ask(change, *(str(i) for i in range(6))))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.types("upgrade.faulted") == []


def test_batches_shrink_with_what_is_powered_off() -> None:
    off = {f"i{i}": PARKED for i in range(5)}
    told = world(10, versions=BOTH, **off)
    told.run()
    assert told.batches() == ["5", "6", "7", "8", "9"], "20 % of five, not of ten"


def test_neither_restore_nor_rollback_starts_it() -> None:
    told = world(3, versions=BOTH, automatic_os_upgrade=False)
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.run()
    told.tell(ask(OFF, "1"))
    told.answer()
    told.tell(e.UpgradeRollbackRequested(scale_set=SET))
    told.run()
    assert told.versions_now() == {"0": "1.0", "1": "1.1", "2": "1.0"}
    assert told.fleet.instances["1"].power is Power.STOPPED


def test_the_model_is_deployed_to_it_when_it_starts() -> None:
    told = world(3, versions=BOTH, i1=PARKED, automatic_os_upgrade=False)
    told.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=("*",)))
    told.run()
    assert told.versions_now() == {"0": "1.1", "1": "1.0", "2": "1.1"}
    assert waiting(told.fleet, told.now).code != "ModelDeployment", "nobody waits for it"
    told.tell(ask(START, "1"))
    told.run()
    assert told.versions_now()["1"] == "1.1"


def test_a_scale_in_takes_it_after_the_unhealthy_and_before_the_rest() -> None:
    told = world(4, i1=PARKED, i2={"health": Health.UNHEALTHY})
    smaller = told.fleet.spec.model_copy(update={"capacity": 2, "revision": 1})
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=smaller))
    gone = [o.instance_id for d in told.all(e.InstancesDeleteRequested) for o in d.instances]
    assert sorted(gone) == ["1", "2"]
    again = world(4, i1=PARKED)
    again.fleet = replace(again.fleet, images=(image("1.0"),))
    again.tell(e.ScaleSetChanged(scale_set=SET, spec=smaller.model_copy(update={"capacity": 3})))
    assert again.last(e.InstancesDeleteRequested).instances[0].instance_id == "1"


def test_a_start_by_hand_says_that_those_below_the_version_are_at_work() -> None:
    told = world(3, versions=BOTH, automatic_os_upgrade=False)
    told.tell(ask(PowerAction.RESTART, "0", "1", "2"))
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    assert told.last(e.UpgradeHeld).reason == (
        "3 instances are below version 1.1, and all of them are restarted, changed or deleted at "
        "the moment: ask again when that is done"
    )
