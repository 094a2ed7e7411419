"""When a previous OS disk comes back, and when it goes: restore, breach, commit."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import Failure, FailureCode, Health, Power, PowerWish, RollingPolicy
from rollcall_rollout import InstancePhase, MemberState
from rollcall_rollout.restoring import restorable
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import (
    SET,
    START,
    World,
    broken,
    credentials_failure,
    fleet,
    healthy,
    image,
    powered,
)

BOTH = ("1.0", "1.1")
TOLERANT = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)


def on_upgrade(failure: Failure) -> Any:
    """Return agents that fail each upgrade so, and nothing else."""
    return lambda id, r: failure if isinstance(r, e.InstancesUpgradeRequested) else None


def states(world: World) -> dict[str, str]:
    """Return how far the members of the batches came."""
    return {m.id: m.state.value for m in world.upgrade.members.values() if m.batch is not None}


def upgraded_by_hand(world: World) -> World:
    """Start the world's upgrade by a person."""
    world.tell(e.UpgradeStartRequested(scale_set=SET))
    world.run()
    return world


# --- instance by instance -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disabled", "by_hand", "breach", "restored"),
    [
        (False, False, False, True),  # by the platform: each failed one, in its own batch
        (True, False, False, False),
        (False, True, False, False),  # a start by hand restores nothing (azure-aws-gcp.md 1.5)
        (True, False, True, True),  # but a breach does, when the policy says so
        (False, True, True, True),
        (True, True, True, True),
    ],
)
def test_who_gets_the_previous_os_disk_back(
    disabled: bool, by_hand: bool, breach: bool, restored: bool
) -> None:
    policy = RollingPolicy(rollback_failed_instances_on_policy_breach=breach)
    world = World(
        fleet=fleet(
            versions=BOTH,
            disable_automatic_rollback=disabled,
            automatic_os_upgrade=not by_hand,
            policy=policy,
        ),
        sick=lambda id, version: version == "1.1",
    )
    if by_hand:
        upgraded_by_hand(world)
    else:
        world.run()
    assert world.upgrade.status is UpgradeStatus.FAULTED
    assert (world.down() == 0) is restored
    assert set(states(world).values()) == {"restored" if restored else "failed"}
    said_first = world.types("upgrade.breached") == ["upgrade.breached"]
    assert said_first is (breach and (disabled or by_hand))  # nothing is left to put back, else


def test_a_breach_puts_only_failed_instances_back() -> None:
    """Healthy upgraded instances are never rolled back (M43)."""
    policy = RollingPolicy(
        rollback_failed_instances_on_policy_breach=True, max_unhealthy_upgraded_instance_percent=25
    )
    world = World(
        fleet=fleet(versions=BOTH, automatic_os_upgrade=False, policy=policy),
        sick=lambda id, version: version == "1.1" and id in "34",
    )
    upgraded_by_hand(world)
    assert world.batches() == ["0 1", "2 3", "4"]
    at_new = {id for id, version in world.versions_now().items() if version == "1.1"}
    assert at_new == set("012")
    assert world.down() == 0
    assert world.types("upgrade.", "instances.restore") == [
        "upgrade.started",
        "upgrade.breached",
        "instances.restore_requested",
        "instances.restore_requested",
        "upgrade.faulted",
    ]
    fault = world.last(e.UpgradeFaulted).error
    assert fault == world.last(e.UpgradeBreached).error
    assert fault.code == FailureCode.UNHEALTHY_UPGRADED


def test_an_outage_of_other_causes_puts_failed_instances_back_too_when_the_policy_says_so() -> None:
    policy = TOLERANT.model_copy(update={"rollback_failed_instances_on_policy_breach": True})
    world = World(
        fleet=fleet(versions=BOTH, automatic_os_upgrade=False, policy=policy),
        sick=lambda id, version: version == "1.1" and id == "0",
    )
    world.tell(e.UpgradeStartRequested(scale_set=SET))
    world.until("batch.started")
    world.now += timedelta(seconds=600)  # none is a newcomer any more
    world.tell(*(powered(id, Power.STOPPED) for id in "789"))
    world.run()
    assert world.last(e.UpgradeFaulted).error.code == FailureCode.UNHEALTHY_DURING
    assert states(world) == {"0": "restored", "1": "succeeded"}


@pytest.mark.parametrize("error", ["fetch", "credentials"])
def test_other_faults_put_nothing_back_on_a_breach(error: str) -> None:
    policy = RollingPolicy(rollback_failed_instances_on_policy_breach=True)
    world = World(fleet=fleet(versions=BOTH, disable_automatic_rollback=True, policy=policy))
    if error == "fetch":
        world.fetch_fails = lambda host: broken()
    else:
        world.fails = on_upgrade(credentials_failure())
    world.run()
    assert world.types("upgrade.breached", "instances.restore_requested") == []
    assert world.types("upgrade.")[-1] == "upgrade.faulted"


def test_m40_refused_credentials_leave_an_instance_as_it_is_even_on_a_breach() -> None:
    """A restored OS disk would need the same credentials."""
    policy = RollingPolicy(rollback_failed_instances_on_policy_breach=True)
    world = World(
        fleet=fleet(versions=BOTH, policy=policy),
        fails=lambda id, r: (
            None
            if not isinstance(r, e.InstancesUpgradeRequested)
            else credentials_failure()
            if id == "0"
            else broken(id)
        ),
    )
    world.run()
    assert states(world) == {"0": "failed", "1": "restored"}
    assert world.last(e.UpgradeFaulted).error == credentials_failure()


def test_an_instance_that_can_not_be_put_back_stays_failed_and_is_asked_once() -> None:
    world = World(fleet=fleet(versions=BOTH), fails=lambda id, r: broken(id))
    world.run()
    assert set(states(world).values()) == {"restore_failed"}
    assert len(world.all(e.InstancesRestoreRequested)) == 2  # one for each host, once
    assert world.upgrade.status is UpgradeStatus.FAULTED


def test_an_instance_that_failed_without_touching_its_disk_is_put_back_all_the_same() -> None:
    """The agent knows what a restore of an untouched disk is; the control plane need not."""
    world = World(fleet=fleet(versions=BOTH, policy=TOLERANT), fails=on_upgrade(broken()))
    world.run()
    assert set(states(world).values()) == {"restored"}
    assert world.down() == 0


@pytest.mark.parametrize(
    ("fields", "back"),
    [
        ({}, True),
        ({"phase": InstancePhase.FAILED}, True),
        ({"uncommitted": False}, False),  # no previous disk is there
        ({"phase": InstancePhase.UPGRADING}, False),  # its agent is at work
        ({"phase": InstancePhase.RESTORING}, False),
        ({"phase": InstancePhase.DELETING}, False),
    ],
)
def test_which_failed_instances_can_be_put_back(fields: dict[str, Any], back: bool) -> None:
    world = World(fleet=fleet(2, versions=BOTH))
    world.until("batch.started")
    upgrade = world.fleet.upgrade
    assert upgrade is not None
    failed = replace(upgrade.members["0"], state=MemberState.FAILED, error=broken("0"))
    instance = healthy("0", **{"uncommitted": True, **fields})
    of = replace(world.fleet, instances={"0": instance})
    of = replace(of, upgrade=replace(upgrade, members={"0": failed}))
    assert [i.id for i in restorable(of)] == (["0"] if back else [])


# --- the previous OS disk goes --------------------------------------------------------------------


def test_previous_os_disks_are_kept_until_the_batch_has_ended() -> None:
    """Health is only confirmed for good when the whole batch is judged."""
    world = World(fleet=fleet(versions=BOTH))
    world.until("batch.started")
    late = world.answer(e.InstanceHealthy)
    world.tell(late[0])
    assert world.fleet.instances["0"].is_healthy
    assert world.types("instances.commit_requested") == []
    world.tell(late[1])
    assert world.types("batch.", "instances.commit")[:4] == [
        "batch.started",
        "batch.completed",
        "instances.commit_requested",
        "instances.commit_requested",
    ]


def test_the_previous_os_disk_of_one_that_is_not_healthy_is_kept() -> None:
    world = World(
        fleet=fleet(versions=BOTH, disable_automatic_rollback=True, policy=TOLERANT),
        sick=lambda id, version: version == "1.1" and id == "0",
    )
    world.run()
    committed = {o.instance_id for r in world.all(e.InstancesCommitRequested) for o in r.instances}
    assert committed == set("123456789")
    assert world.fleet.instances["0"].uncommitted


def test_what_a_console_said_stays_beside_the_failure_of_the_instance_that_was_put_back() -> None:
    world = World(fleet=fleet(versions=BOTH, policy=TOLERANT), fails=on_upgrade(broken()))
    world.tell()
    while not any(isinstance(answer, e.InstanceRestored) for answer in world.waiting):
        world.tell(world.waiting.pop(0))
    before = {m.id: m.reason for m in world.upgrade.members.values()}
    said = {"reason": "its console ended with: panic"}
    restored = [a for a in world.waiting if isinstance(a, e.InstanceRestored)]
    world.tell(*(answer.model_copy(update=said) for answer in restored))
    for answer in restored:
        member = world.upgrade.members[answer.instance_id]
        assert before[member.id]
        assert member.reason == f"{before[member.id]}; its console ended with: panic"


def test_nothing_is_committed_twice() -> None:
    world = World(fleet=fleet(versions=BOTH))
    world.run()
    orders = [o.instance_id for r in world.all(e.InstancesCommitRequested) for o in r.instances]
    assert sorted(orders) == sorted(set(orders))


# --- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "policy", "failed"),
    [
        (2399, {}, 0),
        (2400, {}, 2),
        (99, {"provisioning_timeout": 100}, 0),
        (100, {"provisioning_timeout": 100}, 2),
        (2400, {"drain": {"request_path": "/drain", "deadline": 60}}, 0),  # it may be draining
        (2460, {"drain": {"request_path": "/drain", "deadline": 60}}, 2),
    ],
)
def test_an_agent_has_so_long_to_replace_an_os_disk(
    seconds: int, policy: dict[str, Any], failed: int
) -> None:
    world = World(fleet=fleet(versions=BOTH, policy=RollingPolicy.model_validate(policy)))
    world.until("batch.started")
    world.later(seconds)
    assert len(world.all(e.InstanceFailed)) == failed
    codes = {event.error.code for event in world.all(e.InstanceFailed)}
    assert codes <= {FailureCode.PROVISIONING_TIMEOUT}


@pytest.mark.parametrize(("seconds", "state"), [(2399, "restoring"), (2400, "restore_failed")])
def test_an_agent_has_so_long_to_put_an_os_disk_back(seconds: int, state: str) -> None:
    world = World(fleet=fleet(versions=BOTH), fails=on_upgrade(broken()))
    world.until("batch.started")
    world.answer(e.InstanceRestored)
    world.later(seconds)
    assert set(states(world).values()) == {state}


@pytest.mark.parametrize(("seconds", "events"), [(299, []), (300, ["batch.completed"])])
def test_a_batch_waits_for_one_that_was_put_back_but_not_for_ever(
    seconds: int, events: list[str]
) -> None:
    world = World(fleet=fleet(versions=BOTH, policy=TOLERANT), fails=on_upgrade(broken()))
    world.until("batch.started")
    world.answer(e.InstanceHealthy)
    world.later(seconds)
    assert world.types("batch.completed") == events


@pytest.mark.parametrize(("seconds", "faults"), [(2399, False), (2400, True)])
def test_a_host_has_so_long_to_fetch_the_image(seconds: int, faults: bool) -> None:
    world = World(fleet=fleet(versions=BOTH))
    world.tell()
    world.tell(world.waiting.pop(0))
    world.later(seconds)
    assert (world.types("upgrade.faulted") == ["upgrade.faulted"]) is faults
    if faults:
        error = world.last(e.UpgradeFaulted).error
        assert error.code == FailureCode.IMAGE_UNAVAILABLE
        assert "by host-2: is the agent running?" in error.message
        assert error.target == "host-2"


PARKED = {"wish": PowerWish.STOPPED, "power": Power.STOPPED}


@pytest.mark.parametrize("left_out", [{"protect_from_scale_set_actions": True}, PARKED])
def test_the_host_of_one_that_is_left_out_is_not_waited_for(left_out: dict[str, Any]) -> None:
    instances = {str(i): healthy(str(i)) for i in range(10)}
    instances["9"] = healthy("9", host="host-9", **left_out)
    world = World(fleet=fleet(versions=BOTH, instances=instances))
    world.tell()
    assert {asked.host for asked in world.all(e.ImageFetchRequested)} == {"host-1", "host-2"}
    world.run()
    assert world.upgrade.status is UpgradeStatus.COMPLETED


def test_one_that_is_protected_while_its_host_is_silent_is_not_waited_for() -> None:
    instances = {str(i): healthy(str(i)) for i in range(10)}
    instances["9"] = healthy("9", host="host-9")
    world = World(fleet=fleet(versions=BOTH, instances=instances))
    world.tell()
    world.waiting = [answer for answer in world.waiting if "host-9" not in str(answer)]
    world.answer()
    assert world.batches() == []
    world.tell(
        e.InstanceProtectionChanged(
            scale_set=SET, instance_id="9", protect_from_scale_set_actions=True
        )
    )
    world.run()
    assert world.upgrade.status is UpgradeStatus.COMPLETED


def silent(world: World, *hosts: str) -> None:
    """Let time pass while some hosts do not answer, until nothing happens any more."""
    world.waiting = [answer for answer in world.waiting if getattr(answer, "host", "") not in hosts]
    world.run()


OVERRIDE = e.UpgradeStartRequested(scale_set=SET, override=True)
BACK = e.UpgradeRollbackRequested(scale_set=SET)


@pytest.mark.parametrize("asked", [OVERRIDE, BACK])
def test_a_silent_host_keeps_no_set_on_a_bad_version(asked: e.Event) -> None:
    world = World(fleet=fleet(4, versions=BOTH, automatic_os_upgrade=asked is BACK))
    world.run()
    world.tell(asked)
    silent(world, "host-2")
    skipped = world.last(e.InstancesSkipped)
    assert skipped.instance_ids == ("1", "3")
    assert skipped.reason == (
        "The image was not fetched within 2400 s by host-2: is the agent running?"
    )
    assert world.upgrade.status is UpgradeStatus.COMPLETED
    there = world.upgrade.image.version
    assert [world.versions_now()[id] == there for id in "0123"] == [True, False, True, False]


@pytest.mark.parametrize("asked", [OVERRIDE, BACK])
def test_where_all_hosts_are_silent_an_override_or_a_rollback_faults_too(asked: e.Event) -> None:
    world = World(fleet=fleet(4, versions=BOTH, automatic_os_upgrade=asked is BACK))
    world.run()
    world.tell(asked)
    silent(world, "host-1", "host-2")
    assert world.last(e.UpgradeFaulted).error.code == FailureCode.IMAGE_UNAVAILABLE
    assert "by host-1, host-2: is the agent running?" in world.last(e.UpgradeFaulted).reason


def test_a_host_whose_instances_were_left_out_stops_nothing_when_it_answers_late() -> None:
    world = World(fleet=fleet(4, versions=BOTH))
    world.run()
    world.tell(BACK)
    world.waiting = [answer for answer in world.waiting if "host-2" not in str(answer)]
    world.answer()
    world.later(2400)
    about = {"scale_set": SET, "upgrade_id": world.upgrade.id, "error": broken()}
    world.tell(e.ImageFetchFailed(host="host-2", **about))
    world.run()
    assert world.upgrade.status is UpgradeStatus.COMPLETED


def test_a_late_success_makes_the_instance_true_and_its_part_in_the_upgrade_no_better() -> None:
    world = World(fleet=fleet(versions=BOTH, disable_automatic_rollback=True))
    world.until("batch.started")
    late = list(world.waiting)
    world.waiting.clear()
    world.later(2400)
    world.tell(*late)
    world.run()
    assert {world.versions_now()[id] for id in "01"} == {"1.1"}
    assert world.down() == 0
    assert set(states(world).values()) == {MemberState.FAILED.value}
    assert world.upgrade.status is UpgradeStatus.FAULTED


def test_a_late_success_counts_as_failed_in_an_upgrade_that_goes_on() -> None:
    world = World(fleet=fleet(versions=BOTH, disable_automatic_rollback=True, policy=TOLERANT))
    world.until("batch.started")
    late = [answer for answer in world.waiting if getattr(answer, "instance_id", "") == "0"]
    world.waiting = [answer for answer in world.waiting if answer not in late]
    world.answer()
    world.later(2400)
    world.tell(*late)
    world.run()
    assert world.versions_now()["0"] == "1.1"
    assert world.upgrade.members["0"].state is MemberState.FAILED
    assert world.last(e.UpgradeCompleted).reason == "no instance remains; 9 of 10 succeeded"


def test_a_success_of_a_given_up_attempt_does_not_undo_its_restore() -> None:
    world = World(fleet=fleet(versions=BOTH))
    world.until("batch.started")
    late = list(world.waiting)
    world.waiting.clear()
    world.later(2400)
    world.tell(*late)
    world.run()
    assert set(world.versions_now().values()) == {"1.0"}
    assert world.down() == 0


def test_the_time_to_become_healthy_is_the_policy_s() -> None:
    policy = RollingPolicy(health_timeout=60)
    world = World(fleet=fleet(versions=BOTH, policy=policy), sick=lambda id, v: v == "1.1")
    world.until("batch.started")
    world.answer()
    world.now = START + timedelta(seconds=59)
    assert world.tell() == []
    world.later(1)
    failed = world.all(e.InstanceFailed)
    assert [event.error.code for event in failed] == [FailureCode.HEALTH_TIMEOUT] * 2
    assert failed[0].reason == "60 s >= 60 s"


def test_the_fault_names_the_most_telling_error_and_the_first_instance() -> None:
    world = World(fleet=fleet(versions=BOTH), fails=on_upgrade(broken()))
    world.run()
    assert world.last(e.UpgradeFaulted).error.message == (
        "Rolling Upgrade failed after exceeding the MaxUnhealthyUpgradedInstancePercent value "
        "defined in the RollingUpgradePolicy. 100% of instances are in an unhealthy state after "
        "being upgraded - more than the threshold of 20%. The most impactful error is: init "
        "exited with 1 First failed instance ID is: 0."
    )


def test_a_version_that_faulted_is_announced_to_other_sets_once() -> None:
    world = World(fleet=fleet(versions=BOTH), sick=lambda id, version: version == "1.1")
    world.run()
    (held,) = world.all(e.ImageHeld)
    assert (held.image, held.by_set, held.quarantine) == (image("1.1"), SET, False)


def test_nothing_is_known_of_the_health_of_one_that_is_worked_on() -> None:
    world = World(fleet=fleet(versions=BOTH))
    world.until("batch.started")
    assert world.fleet.instances["0"].phase is InstancePhase.UPGRADING
    assert world.fleet.instances["0"].health is Health.UNKNOWN
    assert world.fleet.instances["2"].health is Health.HEALTHY
