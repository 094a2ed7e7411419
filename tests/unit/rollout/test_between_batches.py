"""What happens between batches and at the end: pauses, baking, stopping, and starting again."""

from datetime import timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    Failure,
    FailureCode,
    ImageReference,
    Power,
    Provisioning,
    RollingPolicy,
    StartedBy,
)
from rollcall_rollout import WaitCode, next_wake
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import SET, START, World, fleet, image, powered, spec

BOTH = ("1.0", "1.1")


def world(capacity: int = 10, **policy: Any) -> World:
    """Return a world in which version 1.1 is published, under this policy."""
    return World(fleet=fleet(capacity, versions=BOTH, policy=RollingPolicy.model_validate(policy)))


# --- pause, canary, bake --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        ({"pause_time_between_batches": 600}, [600, 600]),
        ({"pause_time_between_batches": 600, "canary_bake_time": 60}, [600, 600]),  # no canary
        ({"canary_instance_count": 1, "canary_bake_time": 900}, [900]),
        (  # the longer of both after the canary, the pause after the others
            {
                "canary_instance_count": 1,
                "canary_bake_time": 900,
                "pause_time_between_batches": 300,
            },
            [900, 300],
        ),
        (
            {
                "canary_instance_count": 1,
                "canary_bake_time": 100,
                "pause_time_between_batches": 300,
            },
            [300, 300],
        ),
    ],
)
def test_the_time_between_batches_is_counted_from_the_end_of_the_last(
    policy: dict[str, Any], waits: list[int]
) -> None:
    told = world(3, **policy)
    told.tell()
    told.answer()
    for count, wait in enumerate(waits, start=1):
        assert len(told.batches()) == count
        assert told.later(wait - 1) == []
        assert next_wake(told.fleet, told.now) == told.now + timedelta(seconds=1)
        told.later(1)
        told.answer()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_a_wait_is_said_once_for_each_cause() -> None:
    told = world(3, canary_instance_count=1, canary_bake_time=900, pause_time_between_batches=300)
    told.run()
    assert [(held.code, held.until) for held in told.all(e.BatchHeld)] == [
        (WaitCode.CANARY_BAKING, told.times(e.BatchCompleted)[0] + timedelta(seconds=900)),
        (WaitCode.PAUSE_BETWEEN_BATCHES, told.times(e.BatchCompleted)[1] + timedelta(seconds=300)),
    ]


def test_the_gates_are_asked_again_after_the_canary_has_baked() -> None:
    """What the canary makes of the set shows while it bakes."""
    told = world(10, canary_instance_count=1, canary_bake_time=900)
    told.tell()
    told.answer()
    told.tell(powered("0", Power.STOPPED, attempt=2))
    told.run()
    assert told.batches() == ["0"]
    assert told.last(e.UpgradeFaulted).error.code == FailureCode.UNHEALTHY_UPGRADED


@pytest.mark.parametrize(("later", "ended"), [(599, False), (600, True)])
def test_the_end_waits_for_the_bake_time(later: int, ended: bool) -> None:
    told = world(2, bake_time=600)
    told.tell()
    told.answer()
    assert told.types("upgrade.", "batch.held") == ["upgrade.started", "batch.held"]
    told.later(later)
    assert (told.types("upgrade.completed") == ["upgrade.completed"]) is ended


def test_an_instance_that_falls_ill_while_all_bake_faults_the_upgrade() -> None:
    told = world(2, bake_time=600)
    told.tell()
    told.answer()
    told.tell(powered("1", Power.STOPPED, attempt=2))
    assert told.upgrade.status is UpgradeStatus.FAULTED


def test_baking_keeps_no_instance_from_its_commit() -> None:
    told = world(2, bake_time=600)
    told.tell()
    told.answer()
    assert not any(i.uncommitted for i in told.fleet.instances.values())


# --- pause and resume -----------------------------------------------------------------------------


def test_a_paused_upgrade_ends_its_batch_and_starts_no_other_until_it_is_resumed() -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    told.answer()
    assert told.types("batch.") == ["batch.started", "batch.completed", "batch.held"]
    assert told.later(86400) == []
    told.tell(e.UpgradeResumeRequested(scale_set=SET))
    assert len(told.batches()) == 2
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_a_pause_can_be_asked_for_again_after_a_resume() -> None:
    told = world()
    told.until("batch.started")
    for count in (1, 2, 3):
        told.tell(e.UpgradePauseRequested(scale_set=SET))
        told.answer()
        assert len(told.batches()) == count
        assert len(told.all(e.BatchHeld)) == count  # said each time
        told.tell(e.UpgradeResumeRequested(scale_set=SET))


def test_asking_twice_is_no_change() -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    before = told.fleet
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    assert told.fleet is before


def test_a_pause_of_a_set_without_an_upgrade_is_no_change() -> None:
    told = World(fleet=fleet())
    told.tell(e.UpgradePauseRequested(scale_set=SET), e.UpgradeResumeRequested(scale_set=SET))
    told.tell(e.ImagePublished(image=image("1.1")))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


@pytest.mark.parametrize("late", [e.UpgradePauseRequested, e.UpgradeCancelRequested])
def test_what_was_said_of_an_upgrade_is_not_taken_for_the_next_one(late: Any) -> None:
    """A request may come twice, and long after."""
    told = world()
    told.until("batch.started")
    request = late(scale_set=SET, upgrade_id=told.upgrade.id)
    told.tell(e.ImagePublished(image=image("1.2")))
    told.tell(e.UpgradeCancelRequested(scale_set=SET, upgrade_id=told.upgrade.id))
    told.until("upgrade.started")
    before = told.fleet
    told.tell(request, e.UpgradeResumeRequested(scale_set=SET, upgrade_id="another"))
    assert told.fleet is before
    told.run()
    assert set(told.versions_now().values()) == {"1.2"}


def test_what_was_said_of_the_upgrade_that_runs_is_taken() -> None:
    told = world()
    told.until("batch.started")
    about = {"scale_set": SET, "upgrade_id": told.upgrade.id}
    told.tell(e.UpgradePauseRequested(**about))
    told.answer()
    assert len(told.batches()) == 1
    told.tell(e.UpgradeResumeRequested(**about))
    assert len(told.batches()) == 2
    told.tell(e.UpgradeCancelRequested(**about))
    told.run()
    assert told.upgrade.status is UpgradeStatus.CANCELLED


def test_a_cancellation_that_names_an_upgrade_leaves_the_new_os_disks_that_are_asked_for() -> None:
    told = World(fleet=fleet())
    told.tell(
        e.ModelDeployRequested(scale_set=SET, instance_ids=tuple("0123"), reimage=True, number=1)
    )
    told.tell(e.UpgradeCancelRequested(scale_set=SET, upgrade_id="another"))
    assert told.fleet.census.reimaging
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    assert not told.fleet.census.reimaging


# --- cancel, and start again ----------------------------------------------------------------------


def test_an_upgrade_that_has_come_to_all_bakes_beyond_its_time_limit() -> None:
    told = world(5, bake_time=3600, upgrade_timeout=1800)
    told.run()
    assert told.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert told.now > START + timedelta(seconds=3600)
    assert told.fleet.barred_version is None


@pytest.mark.parametrize("when", ["before the first batch", "in a batch", "while paused"])
def test_a_cancelled_upgrade_stops_after_its_batch_and_undoes_nothing(when: str) -> None:
    told = world()
    told.tell()
    if when != "before the first batch":
        told.until("batch.started")
    if when == "while paused":
        told.tell(e.UpgradePauseRequested(scale_set=SET))
        told.answer()
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    told.run()
    assert told.upgrade.status is UpgradeStatus.CANCELLED
    assert told.all(e.UpgradeCancelled)[0].reason == "cancelled by a user, after the current batch"
    changed = 0 if when == "before the first batch" else 2
    assert list(told.versions_now().values()).count("1.1") == changed
    assert told.down() == 0
    assert told.types("instances.restore") == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"automatic_os_upgrade": False}, "automatic OS upgrade was switched off (M05)"),
        (
            {
                "image": ImageReference(
                    publisher="Contoso", offer="Web", sku="stable", version="1.0"
                )
            },
            "the model pins version 1.0 now",
        ),
        (
            {"image": ImageReference(publisher="Contoso", offer="Web", sku="beta")},
            "the model follows another image now",
        ),
    ],
)
@pytest.mark.parametrize("by_hand", [False, True])
def test_a_model_that_wants_something_else_cancels_an_upgrade_by_the_platform(
    change: dict[str, Any], reason: str, by_hand: bool
) -> None:
    told = World(fleet=fleet(versions=BOTH, automatic_os_upgrade=not by_hand))
    if by_hand:
        told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.until("batch.started")
    changed = spec(**{"automatic_os_upgrade": not by_hand, **change, "revision": 1})
    told.tell(e.ScaleSetChanged(scale_set=SET, spec=changed))
    told.run()
    cancels = not by_hand or "another image" in reason
    reasons = [cancelled.reason for cancelled in told.all(e.UpgradeCancelled)]
    assert reasons == ([reason] if cancels else [])


AGAIN: list[tuple[str, e.Event, bool]] = [
    ("a tick", e.ImagePublished(image=image("1.0")), False),
    ("another size", e.ScaleSetChanged(scale_set=SET, spec=spec(11, revision=1)), False),
    (
        "any other change of the model",
        e.ScaleSetChanged(
            scale_set=SET, spec=spec(provisioning=Provisioning(generation=2), revision=1)
        ),
        True,
    ),
    ("a write of the same model", e.ScaleSetChanged(scale_set=SET, spec=spec(revision=1)), True),
    ("a person", e.UpgradeStartRequested(scale_set=SET), True),
    ("a newer version", e.ImagePublished(image=image("1.2")), True),
    ("a release", e.ImageReleased(image=image("1.1")), True),
]


@pytest.mark.parametrize(
    ("event", "again"),
    [(event, again) for _, event, again in AGAIN],
    ids=[name for name, _, _ in AGAIN],
)
@pytest.mark.parametrize("end", [UpgradeStatus.CANCELLED, UpgradeStatus.FAULTED])
def test_what_starts_an_upgrade_again_that_did_not_succeed(
    end: UpgradeStatus, event: e.Event, again: bool
) -> None:
    told = world()
    if end is UpgradeStatus.FAULTED:
        told.sick = lambda id, version: version == "1.1"
    else:
        told.until("batch.started")
        told.tell(e.UpgradeCancelRequested(scale_set=SET))
    told.run()
    assert told.upgrade.status is end
    assert told.tell() == []
    told.sick = lambda id, version: False
    told.tell(event)
    told.run()
    assert told.types("upgrade.started").count("upgrade.started") == 1 + again
    if again:
        assert told.upgrade.status is UpgradeStatus.COMPLETED
        assert set(told.versions_now().values()) == {told.fleet.images[-1].version}


def test_a_start_again_takes_only_those_that_are_behind() -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.UpgradeCancelRequested(scale_set=SET))
    told.run()
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    started = told.last(e.UpgradeStarted)
    assert started.instance_ids == tuple("23456789")
    assert started.started_by is StartedBy.USER


def test_a_person_who_asks_while_an_upgrade_runs_starts_no_second_one() -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.run()
    assert told.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert told.tell() == []


def test_a_version_that_succeeded_with_tolerated_failures_is_not_tried_again_on_those() -> None:
    told = world(max_unhealthy_upgraded_instance_percent=100)
    told.sick = lambda id, version: version == "1.1" and id == "3"
    told.run()
    assert told.types("upgrade.") == ["upgrade.started", "upgrade.completed"]
    assert told.last(e.UpgradeCompleted).reason == "no instance remains; 9 of 10 succeeded"
    assert told.tell() == []


# --- the upgrade as a whole -----------------------------------------------------------------------


@pytest.mark.parametrize(("later", "faults"), [(3599, False), (3600, True)])
def test_an_upgrade_that_takes_too_long_faults_between_batches(later: int, faults: bool) -> None:
    told = world(upgrade_timeout=3600)
    told.until("batch.started")
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    told.answer()
    assert told.later(later - 30) == []
    assert next_wake(told.fleet, told.now) == START + timedelta(seconds=3600) or not faults
    told.later(30)
    errors = [fault.error.code for fault in told.all(e.UpgradeFaulted)]
    assert errors == ([FailureCode.UPGRADE_TIMEOUT] if faults else [])


def test_an_upgrade_that_takes_too_long_ends_its_batch_first() -> None:
    told = world(upgrade_timeout=600, provisioning_timeout=2000)
    told.until("batch.started")
    assert told.later(601) == []
    told.answer()
    assert told.types("upgrade.", "batch.") == [
        "upgrade.started",
        "batch.started",
        "batch.completed",
        "upgrade.faulted",
    ]
    assert told.last(e.UpgradeFaulted).error.message == (
        "The upgrade did not end within the upgradeTimeout of 600 s."
    )
    assert told.all(e.ImageHeld) == []  # slow is not bad: other sets may try


@pytest.mark.parametrize("when", ["before the first batch", "in a batch", "while all bake"])
def test_an_image_that_is_withdrawn_faults_its_upgrades_after_the_batch(when: str) -> None:
    told = world(2, bake_time=600)
    told.tell()
    if when == "in a batch":
        told.until("batch.started")
    if when == "while all bake":
        told.answer()
    told.tell(e.ImageWithdrawn(image=image("1.1")))
    told.run()
    assert told.last(e.UpgradeFaulted).error == Failure(
        code=FailureCode.IMAGE_WITHDRAWN,
        message="Version 1.1 was withdrawn from its feed.",
        target="1.1",
    )
    assert (
        told.batches()
        == {
            "before the first batch": [],
            "in a batch": ["0"],
            "while all bake": ["0", "1"],
        }[when]
    )
    assert told.all(e.ImageHeld) == []  # withdrawn already


def test_a_withdrawn_image_of_another_version_stops_nothing() -> None:
    told = world()
    told.until("batch.started")
    told.tell(e.ImageWithdrawn(image=image("1.0")))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_the_durations_of_the_last_ten_batches_are_kept() -> None:
    told = World(fleet=fleet(12, versions=BOTH, policy=RollingPolicy(max_batch_instance_count=1)))
    told.until("batch.started")
    for number in range(12):
        told.now += timedelta(seconds=10 + number)
        while len(told.all(e.BatchCompleted)) == number:
            told.tell(told.waiting.pop(0))
    assert told.fleet.batch_seconds == tuple(float(10 + number) for number in range(2, 12))
