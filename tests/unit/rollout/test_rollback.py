"""Back to the version that the last upgrade found, when a person asks for it."""

from datetime import timedelta
from typing import Any

from rollcall_contracts import events as e
from rollcall_contracts.model import (
    FailureCode,
    Health,
    MetricOutcome,
    Power,
    PowerAction,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import WaitCode
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import (
    GATE,
    SET,
    World,
    broken,
    fleet,
    healthy,
    image,
    powered,
    said,
    spec,
)

BOTH = ("1.0", "1.1")
BACK = e.UpgradeRollbackRequested(scale_set=SET)
NOTHING_TO_UNDO = (
    "the last upgrade changed the version of no instance: there is nothing to undo. To go to a "
    "version of your choice, set imageReference.version to it and deploy the model"
)


def upgraded(capacity: int = 10, versions: tuple[str, ...] = BOTH, **fields: Any) -> World:
    """Return a world after an upgrade to the last of the versions."""
    told = World(fleet=fleet(capacity, versions=versions, **fields))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    return told


def power(change: PowerAction, number: int) -> e.PowerChangeRequested:
    """Return a person's wish of the last of five instances."""
    return e.PowerChangeRequested(scale_set=SET, instance_ids=("4",), change=change, number=number)


def refused(told: World) -> e.UpgradeHeld:
    """Ask for a rollback that is refused, and return why."""
    held = told.tell(BACK)[0]
    assert isinstance(held, e.UpgradeHeld)
    assert told.fleet.upgrade is None
    assert told.tell() == []
    return held


def test_all_instances_go_back_by_the_same_batches_under_the_same_cap() -> None:
    told = upgraded()
    told.most_down = 0
    told.tell(e.UpgradeRollbackRequested(scale_set=SET, reason="it leaks"))
    told.run()
    started = told.last(e.UpgradeStarted)
    assert (started.rollback_of, started.started_by, started.restore_failed) == (
        "1.1",
        StartedBy.USER,
        False,
    )
    assert started.reason == "10 instances go back from 1.1 to 1.0: it leaks"
    assert told.batches()[5:] == ["0 1", "2 3", "4 5", "6 7", "8 9"]
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert set(told.versions_now().values()) == {"1.0"}
    assert told.most_down == 2


def test_a_rolled_back_version_is_quarantined_here_and_held_elsewhere() -> None:
    told = upgraded()
    told.tell(BACK)
    (hold,) = told.all(e.ImageHeld)
    assert (hold.image, hold.by_set, hold.quarantine) == (image("1.1"), SET, True)
    assert hold.error.code == "RolledBack"
    told.run()
    assert told.last(e.UpgradeHeld).error.code == WaitCode.VERSION_HELD
    assert told.later(30 * 86400) == []


def test_a_quarantine_holds_also_over_a_model_update_and_ends_by_a_release() -> None:
    told = upgraded()
    told.tell(BACK)
    told.run()
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(10, revision=1)))
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    told.tell(e.ImageReleased(image=image("1.1")))
    told.run()
    assert set(told.versions_now().values()) == {"1.1"}


def test_a_bad_version_that_was_withdrawn_is_quarantined_for_when_it_is_published_again() -> None:
    told = upgraded(4)
    told.tell(e.ImageWithdrawn(image=image("1.1")))
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    told.tell(e.ImagePublished(image=image("1.1")))
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    assert told.last(e.UpgradeHeld).error.code == WaitCode.VERSION_HELD


def test_a_newer_version_goes_on_after_a_rollback() -> None:
    told = upgraded()
    told.tell(BACK)
    told.run()
    told.tell(e.ImagePublished(image=image("1.2")))
    told.run()
    assert set(told.versions_now().values()) == {"1.2"}


def test_a_quarantine_holds_even_a_set_that_ignores_the_faults_of_others() -> None:
    told = upgraded(hold_faulted_versions=False)
    told.tell(BACK)
    told.run()
    assert told.later(86400) == []
    assert set(told.versions_now().values()) == {"1.0"}


def test_nothing_is_rolled_back_twice() -> None:
    """Never in a loop: what was rolled back has no previous version any more."""
    told = upgraded()
    told.tell(BACK)
    told.run()
    assert {instance.previous_version for instance in told.fleet.instances.values()} == {None}
    assert told.fleet.last_version is None
    held = refused(told)
    assert held.error.message == NOTHING_TO_UNDO
    assert set(told.versions_now().values()) == {"1.0"}


def test_a_rollback_that_is_asked_for_while_one_runs_changes_nothing() -> None:
    told = upgraded()
    told.tell(BACK)
    told.until("batch.started")
    before = told.fleet
    told.tell(BACK)
    assert told.fleet is before
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_a_set_that_was_never_upgraded_has_no_way_back() -> None:
    held = refused(World(fleet=fleet()))
    assert held.error.code == FailureCode.NOT_ALLOWED


def test_a_previous_version_that_is_published_no_more_is_named() -> None:
    told = upgraded()
    told.tell(e.ImageWithdrawn(image=image("1.0")))
    held = refused(told)
    assert held.error.code == FailureCode.IMAGE_NOT_FOUND
    assert "version 1.0, which the last upgrade found, is published no more" in held.error.message


def test_a_running_upgrade_is_stopped_after_its_batch_and_then_undone() -> None:
    told = World(fleet=fleet(versions=BOTH))
    told.until("batch.started")
    told.until("batch.started")
    told.tell(BACK)
    told.run()
    assert told.types("upgrade.") == [
        "upgrade.started",
        "upgrade.cancelled",
        "upgrade.started",
        "upgrade.completed",
    ]
    assert told.all(e.UpgradeCancelled)[0].reason == "a rollback was asked for"
    assert told.batches() == ["0 1", "2 3", "0 1", "2 3"]
    assert set(told.versions_now().values()) == {"1.0"}


def test_a_running_upgrade_that_changed_nothing_is_only_stopped() -> None:
    """It does not undo the upgrade before, which nobody spoke of."""
    told = upgraded(versions=("1.0", "1.1"))
    told.tell(e.ImagePublished(image=image("1.2")))
    told.tell(BACK)
    told.run()
    assert told.types("upgrade.")[-2:] == ["upgrade.started", "upgrade.cancelled"]
    assert set(told.versions_now().values()) == {"1.1"}


def test_a_rollback_that_comes_twice_does_not_undo_the_upgrade_before() -> None:
    """The upgrade that was meant was only stopped: what it had not changed is as it was."""
    told = upgraded()
    told.tell(e.ImagePublished(image=image("1.2")))
    meant = e.UpgradeRollbackRequested(scale_set=SET, version="1.2")
    told.tell(meant)
    assert told.upgrade.status is UpgradeStatus.CANCELLED
    told.tell(meant)
    told.run()
    assert set(told.versions_now().values()) == {"1.1"}


def test_a_rollback_that_comes_again_after_it_was_done_changes_nothing() -> None:
    told = upgraded(versions=("0.9", "1.0", "1.1"))
    meant = e.UpgradeRollbackRequested(scale_set=SET, version="1.1")
    told.tell(meant)
    told.run()
    before = told.fleet
    told.tell(meant)
    assert told.fleet is before


def test_a_rollback_from_another_version_than_the_last_one_comes_too_late() -> None:
    told = upgraded(versions=("0.9", "1.0", "1.1"))
    before = told.fleet
    told.tell(e.UpgradeRollbackRequested(scale_set=SET, version="1.0"))
    assert told.fleet is before


def test_new_os_disks_of_the_same_version_are_nothing_to_undo() -> None:
    """It would lead to the version before the upgrade before, which nobody spoke of."""
    told = upgraded(4)
    told.tell(e.UpgradeStartRequested(scale_set=SET, reimage=True))
    told.run()
    assert refused(told).error.message == NOTHING_TO_UNDO
    assert set(told.versions_now().values()) == {"1.1"}


def test_a_forced_upgrade_that_changed_some_versions_goes_back() -> None:
    instances = {str(i): healthy(str(i), version="1.1" if i == 2 else "1.0") for i in range(4)}
    told = World(fleet=fleet(4, versions=BOTH, instances=instances, automatic_os_upgrade=False))
    told.tell(e.UpgradeStartRequested(scale_set=SET, reimage=True))
    told.run()
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_each_instance_remembers_what_its_own_upgrade_found_and_most_decide() -> None:
    instances = {str(i): healthy(str(i), version="0.9" if i in (1, 2) else "1.0") for i in range(5)}
    told = upgraded(5, ("0.9", "1.0", "1.1"), instances=instances)
    assert {i.previous_version for i in told.fleet.instances.values()} == {"0.9", "1.0"}
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_of_equally_many_the_higher_version_is_gone_back_to() -> None:
    instances = {str(i): healthy(str(i), version="1.9" if i % 2 else "1.10") for i in range(4)}
    told = upgraded(4, ("1.9", "1.10", "1.11"), instances=instances)
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.10"}


def test_one_that_was_added_meanwhile_goes_back_with_the_others() -> None:
    told = upgraded(4)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(5, revision=1)))
    told.run()
    told.tell(BACK)
    told.run()
    assert told.versions_now() == dict.fromkeys("01234", "1.0")


def test_one_that_failed_and_was_left_on_the_new_disk_goes_back_too() -> None:
    policy = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
    told = World(
        fleet=fleet(5, versions=BOTH, disable_automatic_rollback=True, policy=policy),
        sick=lambda id, version: version == "1.1" and id == "3",
    )
    told.run()
    assert told.down() == 1
    told.tell(BACK)
    told.run()
    assert told.batches()[5:] == ["3", "0", "1", "2", "4"]  # the unhealthy first
    assert set(told.versions_now().values()) == {"1.0"}
    assert told.down() == 0


def test_a_surge_has_a_way_back_too() -> None:
    told = upgraded(4, policy=RollingPolicy(max_surge=True))
    assert told.versions_now() == dict.fromkeys("4567", "1.1")
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    assert {instance.previous_version for instance in told.fleet.instances.values()} == {None}
    assert refused(told).error.code == FailureCode.NOT_ALLOWED


def test_a_surge_that_partly_had_no_room_goes_back_as_a_whole() -> None:
    told = World(
        fleet=fleet(4, versions=BOTH, policy=RollingPolicy(max_surge=True)),
        room={"host-1": 3, "host-2": 2},
    )
    told.run()
    told.tell(BACK)
    told.run()
    assert list(told.versions_now().values()) == ["1.0"] * 4


def test_one_that_failed_on_its_way_back_has_no_way_to_the_bad_version() -> None:
    told = upgraded(5)
    failed = e.InstanceFailed(
        scale_set=SET, instance_id="0", attempt=3, error=broken("0"), version="1.0"
    )
    told.tell(BACK)
    told.until("batch.started")
    told.tell(failed)
    assert (instance := told.fleet.instances["0"]).version == "1.0"
    assert instance.previous_version is None


def test_one_that_was_restored_is_no_part_of_a_rollback() -> None:
    policy = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
    told = World(
        fleet=fleet(5, versions=BOTH, policy=policy),
        sick=lambda id, version: version == "1.1" and id == "3",
    )
    told.run()
    told.tell(BACK)
    assert told.last(e.UpgradeStarted).instance_ids == tuple("0124")


def test_a_sick_fleet_is_brought_back_without_asking_the_health_gates() -> None:
    """The way back is most needed when the set is ill; unhealthy ones go first."""
    told = upgraded()
    for id in "02468":
        told.tell(said(told.fleet.instances[id], Health.UNHEALTHY))
    told.most_down = 0
    told.tell(BACK)
    told.run()
    assert told.batches()[5:] == ["0 2", "4 6", "8", "1 3", "5 7", "9"]
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.most_down == 5


def test_a_rollback_takes_no_healthy_one_while_the_unhealthy_do_not_recover() -> None:
    policy = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
    told = upgraded(policy=policy)
    for id in "024":
        told.tell(said(told.fleet.instances[id], Health.UNHEALTHY))
    told.sick = lambda id, version: id in "024"
    told.tell(BACK)
    told.answer()
    told.later(300)
    told.answer()
    told.later(300)
    assert told.batches()[5:] == ["0 2", "4"]
    assert told.last(e.BatchHeld).code == WaitCode.NO_CANDIDATE
    assert told.down() == 3


def test_a_rollback_that_fails_stops_and_restores_nothing() -> None:
    told = upgraded()
    told.fails = lambda id, r: broken(id) if isinstance(r, e.InstancesUpgradeRequested) else None
    told.tell(BACK)
    told.run()
    assert told.upgrade.status is UpgradeStatus.FAULTED
    assert told.batches()[5:] == ["0 1"]
    assert told.types("instances.restore_requested") == []
    assert told.fleet.barred_version is None  # the version before is not to blame
    told.fails = lambda id, request: None
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    assert refused(told).error.message == NOTHING_TO_UNDO
    assert [hold.image.version for hold in told.all(e.ImageHeld)] == ["1.1"]  # never of the old one


def test_a_rollback_can_be_cancelled() -> None:
    told = upgraded()
    told.tell(BACK)
    told.until("batch.started")
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    told.run()
    assert told.upgrade.status is UpgradeStatus.CANCELLED
    assert list(told.versions_now().values()).count("1.0") == 2
    assert (told.fleet.last_version, told.fleet.barred_version) == ("1.1", None)


def test_a_rollback_that_was_cancelled_can_be_asked_for_again_and_goes_no_version_too_far() -> None:
    told = upgraded(versions=("0.9", "1.0", "1.1"))
    told.tell(BACK)
    told.until("batch.started")
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    told.run()
    told.tell(BACK)
    assert told.last(e.UpgradeStarted).instance_ids == tuple("23456789")
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}
    assert refused(told).error.message == NOTHING_TO_UNDO


def test_new_instances_get_the_version_before_also_when_the_rollback_did_not_end() -> None:
    told = upgraded()
    told.tell(BACK)
    told.until("batch.started")
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    told.run()
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(12, revision=1)))
    told.run()
    assert {told.versions_now()[id] for id in ("10", "11")} == {"1.0"}


def test_one_failure_on_the_way_back_does_not_send_new_instances_to_the_bad_version() -> None:
    told = upgraded()
    told.sick = lambda id, version: id == "9"
    told.tell(BACK)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.fleet.barred_version is None
    told.sick = lambda id, version: False
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(12, revision=1)))
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_one_that_is_powered_off_is_named_and_goes_back_when_a_person_asks_again() -> None:
    told = upgraded(5)
    told.tell(power(PowerAction.POWER_OFF, 1))
    told.answer()
    told.tell(BACK)
    skipped = told.last(e.InstancesSkipped)
    assert (skipped.instance_ids, skipped.reason) == (("4",), "powered off by a person")
    told.run()
    assert told.last(e.UpgradeCompleted).reason == (
        "no instance remains; 4 of 5 succeeded, 1 left out"
    )
    assert refused(told).error.message == (
        "every instance that runs version 1.1 is protected, or powered off: 4"
    )
    told.tell(power(PowerAction.START, 2))
    told.answer()
    told.tell(BACK)
    assert told.last(e.UpgradeStarted).reason == "1 instances go back from 1.1 to 1.0"
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_one_that_restarts_meanwhile_goes_back_with_the_others() -> None:
    told = upgraded(5)
    told.tell(power(PowerAction.RESTART, 1))
    told.tell(BACK)
    assert told.last(e.UpgradeStarted).instance_ids == tuple("01234")
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_one_that_wishes_to_be_skipped_is_not_left_on_the_bad_version() -> None:
    told = upgraded(5)
    told.tell(said(told.fleet.instances["3"], Health.HEALTHY, skip_upgrade=True))
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_one_that_was_made_from_the_bad_version_remembers_where_the_others_went() -> None:
    """Of those that are left, none may know it of its own."""
    told = upgraded(4)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=spec(5, revision=1)))
    told.run()
    told.tell(power(PowerAction.POWER_OFF, 1))
    told.answer()
    told.tell(BACK)
    told.run()
    assert told.versions_now()["4"] == "1.1"
    told.tell(power(PowerAction.START, 2))
    told.answer()
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_one_that_gets_the_bad_version_anew_while_the_others_go_back_is_brought_back_too() -> None:
    told = upgraded(5)
    told.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=("4",), reimage=True, number=1))
    kept = told.answer(e.InstanceUpgraded)
    told.tell(BACK)
    told.answer()
    assert told.last(e.BatchHeld).code == WaitCode.NO_CANDIDATE  # one is down already
    told.tell(*kept)
    told.run()
    assert sorted(told.batches()[5:]) == ["0", "1", "2", "3", "4"]
    assert set(told.versions_now().values()) == {"1.0"}


def test_one_that_leaves_the_bad_version_by_itself_is_not_swapped_again() -> None:
    """A new OS disk that was on its way came from a newer version."""
    told = upgraded(5)
    told.tell(e.ModelDeployRequested(scale_set=SET, instance_ids=("4",), reimage=True, number=1))
    kept = told.answer(e.InstanceUpgraded)
    told.tell(BACK)
    told.waiting, others = [], told.waiting
    told.tell(*(report.model_copy(update={"version": "1.2"}) for report in kept))
    told.waiting += others
    told.run()
    skipped = told.last(e.InstancesSkipped)
    assert (skipped.instance_ids, skipped.reason) == (("4",), "left version 1.1")
    assert told.versions_now() == {**dict.fromkeys("0123", "1.0"), "4": "1.2"}


def test_a_rollback_keeps_to_pauses_and_sizes_and_goes_through_no_canary() -> None:
    policy = RollingPolicy(
        canary_instance_count=1,
        canary_bake_time=3600,
        bake_time=3600,
        pause_time_between_batches=60,
        max_batch_instance_count=3,
    )
    told = upgraded(20, policy=policy)
    begun = told.now
    told.tell(BACK)
    told.run()
    assert [len(ids.split()) for ids in told.batches()[8:]] == [3, 3, 3, 3, 3, 3, 2]
    waits = [held.code for held in told.all(e.BatchHeld) if held.upgrade_id == told.upgrade.id]
    assert waits == [WaitCode.PAUSE_BETWEEN_BATCHES] * 6
    assert told.now - begun < timedelta(minutes=8)


def test_a_rollback_is_not_stopped_by_what_the_bad_version_made_of_the_metrics() -> None:
    told = upgraded(5, policy=RollingPolicy(metric_gate=GATE))
    told.metric = lambda question: MetricOutcome.FAILURE
    told.tell(BACK)
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert set(told.versions_now().values()) == {"1.0"}


def test_the_switch_and_the_windows_of_automatic_upgrades_do_not_stop_a_rollback() -> None:
    told = upgraded()
    off = spec(10, automatic_os_upgrade=False, revision=1)
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=off))
    told.tell(BACK)
    told.run()
    assert set(told.versions_now().values()) == {"1.0"}


def test_a_stopped_instance_goes_back_with_the_others() -> None:
    told = upgraded(5)
    told.tell(powered("4", Power.STOPPED, attempt=2))
    told.tell(BACK)
    told.run()
    assert told.batches()[5:] == ["4", "0", "1", "2", "3"]
    assert set(told.versions_now().values()) == {"1.0"}
