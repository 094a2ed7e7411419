"""Who is asked before an upgrade or a batch starts: deferral, and both lifecycle hooks."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from rollcall_contracts import events as e
from rollcall_contracts.model import (
    HookAction,
    LifecycleHook,
    LifecycleHookType,
    MaintenanceWindow,
    RollingPolicy,
)
from rollcall_rollout import MemberState, WaitCode, next_wake
from rollcall_rollout.state import UpgradeStatus
from rollcall_testing.fleets import (
    BEFORE_BATCH,
    BEFORE_UPGRADE,
    SET,
    START,
    World,
    fleet,
    image,
    spec,
)

BOTH = ("1.0", "1.1")
APPROVE, REJECT = HookAction.APPROVE, HookAction.REJECT
KIND = LifecycleHookType


def world(capacity: int = 5, **fields: Any) -> World:
    """Return a world in which version 1.1 is published."""
    return World(fleet=fleet(capacity, versions=BOTH, **fields))


def approve(*ids: str) -> e.UpgradeApproveRequested:
    """Return what a person says who approves a deferred upgrade."""
    return e.UpgradeApproveRequested(scale_set=SET, instance_ids=ids)


def asked(told: World) -> e.LifecycleHookStarted:
    """Return the last question of a hook."""
    return told.last(e.LifecycleHookStarted)


def answer(
    told: World, actions: Mapping[str, HookAction], until: datetime | None = None
) -> list[e.Event]:
    """Answer the last question."""
    return told.tell(
        e.LifecycleHookAnswered(
            scale_set=SET, hook_id=asked(told).hook_id, actions=actions, wait_until=until
        )
    )


# --- deferral -------------------------------------------------------------------------------------


def test_a_deferred_upgrade_waits_until_somebody_approves_an_instance() -> None:
    told = world(os_rolling_upgrade_deferral=True)
    told.tell()
    told.answer()
    assert told.last(e.UpgradeStarted).deferred
    assert told.last(e.BatchHeld).code == WaitCode.APPROVAL
    assert told.later(30 * 86400) == []
    told.tell(approve("3", "1"))
    told.answer()
    assert told.batches() == ["1", "3"]
    assert told.fleet.upgrade is not None
    told.tell(approve("*"))
    told.run()
    assert told.batches() == ["1", "3", "0", "2", "4"]
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_an_approval_before_the_image_is_there_counts() -> None:
    told = world(os_rolling_upgrade_deferral=True)
    told.tell()
    told.tell(approve("4"))
    told.answer()
    assert told.batches() == ["4"]


def test_an_approval_of_strangers_or_twice_is_no_change() -> None:
    told = world(os_rolling_upgrade_deferral=True)
    told.tell()
    told.tell(approve("4"))
    before = told.fleet
    told.tell(approve("4", "99"))
    assert told.fleet is before


def test_an_approval_is_of_one_upgrade() -> None:
    told = world(os_rolling_upgrade_deferral=True)
    told.tell()
    told.tell(approve("*"))
    told.run()
    told.tell(e.ImagePublished(image=image("1.2")))
    told.answer()
    assert told.last(e.BatchHeld).code == WaitCode.APPROVAL
    assert len(told.batches()) == 5


def test_a_start_by_hand_is_not_deferred() -> None:
    told = world(os_rolling_upgrade_deferral=True, automatic_os_upgrade=False)
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.run()
    assert not told.last(e.UpgradeStarted).deferred
    assert told.upgrade.status is UpgradeStatus.COMPLETED


# --- the hook before an upgrade -------------------------------------------------------------------


def test_the_hook_is_asked_before_the_upgrade_and_tells_how_long_it_waits() -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    question = asked(told)
    assert question.hook_type is KIND.SCHEDULING
    assert (question.version, question.instance_ids, question.upgrade_id) == ("1.1", (), None)
    assert question.wait_until == START + timedelta(hours=1)
    assert question.max_wait_until == START + timedelta(hours=1.5)
    assert told.types("upgrade.started") == []
    assert next_wake(told.fleet, question.wait_until - timedelta(seconds=30)) == question.wait_until


@pytest.mark.parametrize(
    ("action", "events"),
    [
        (APPROVE, ["upgrade.held", "lifecycle_hook.completed", "upgrade.started"]),
        (REJECT, ["upgrade.held", "lifecycle_hook.completed", "upgrade.held"]),
    ],
)
def test_an_answer_decides(action: HookAction, events: list[str]) -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    answer(told, {"*": action})
    assert told.types("upgrade.", "lifecycle_hook.completed") == events
    assert told.last(e.LifecycleHookCompleted).action is action


@pytest.mark.parametrize("default", [APPROVE, REJECT])
def test_nobody_answers_and_the_default_action_is_taken_at_wait_until(default: HookAction) -> None:
    hook = LifecycleHook(type=KIND.SCHEDULING, wait_duration=600, default_action=default)
    told = world(lifecycle_hooks=(hook,))
    told.tell()
    assert told.later(599) == []
    told.later(1)
    completed = told.last(e.LifecycleHookCompleted)
    assert completed.action is default
    assert completed.reason == f"no answer by 2026-01-01 00:10:00Z: {default}"
    assert (told.types("upgrade.started") == ["upgrade.started"]) is (default is APPROVE)


@pytest.mark.parametrize(
    ("until", "granted"),
    [
        (timedelta(hours=1, minutes=20), timedelta(hours=1, minutes=20)),
        (timedelta(hours=9), timedelta(hours=1.5)),  # never past maxWaitUntil
        (timedelta(minutes=5), timedelta(minutes=5)),  # sooner, too
    ],
)
def test_whoever_is_asked_may_want_more_time(until: timedelta, granted: timedelta) -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    answer(told, {}, until=START + until)
    assert told.later(granted.total_seconds() - 1) == []
    told.later(1)
    assert told.last(e.LifecycleHookCompleted).action is REJECT


def test_a_rejected_version_is_held_and_not_asked_about_again() -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    answer(told, {"*": REJECT})
    assert told.last(e.UpgradeHeld).error.code == WaitCode.HOOK_REJECTED
    assert told.later(86400) == []
    assert len(told.all(e.LifecycleHookStarted)) == 1


@pytest.mark.parametrize(
    ("event", "again"),
    [
        (e.ImagePublished(image=image("1.2")), True),
        (
            e.ScaleSetChanged(
                scale_set=SET, spec=spec(5, lifecycle_hooks=(BEFORE_UPGRADE,), revision=1)
            ),
            True,
        ),
        (
            e.ScaleSetChanged(
                scale_set=SET, spec=spec(6, lifecycle_hooks=(BEFORE_UPGRADE,), revision=1)
            ),
            False,
        ),
    ],
    ids=["newer version", "model update", "only scaled"],
)
def test_what_makes_the_hook_ask_again_after_a_rejection(event: e.Event, again: bool) -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    answer(told, {"*": REJECT})
    told.later(10)
    told.tell(event)
    assert len(told.all(e.LifecycleHookStarted)) == 1 + again


def test_an_answer_to_an_older_question_does_nothing() -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    old = asked(told)
    told.later(10)
    told.tell(e.ImagePublished(image=image("1.2")))
    assert asked(told).version == "1.2"
    before = told.fleet
    told.tell(e.LifecycleHookAnswered(scale_set=SET, hook_id=old.hook_id, actions={"*": APPROVE}))
    assert told.fleet is before
    answer(told, {"*": APPROVE})
    assert told.last(e.UpgradeStarted).image.version == "1.2"


def test_an_answer_after_the_default_action_does_nothing() -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    told.later(3600)
    before = told.fleet
    answer(told, {"*": APPROVE})
    assert told.fleet is before


def test_an_approved_upgrade_still_waits_for_its_window() -> None:
    """The hook is asked last: an answer is not of yesterday."""
    night = MaintenanceWindow.model_validate(
        {"start": "2026-01-01T02:00", "time_zone": "UTC", "duration": 3600}
    )
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,), maintenance_windows=(night,))
    told.tell()
    assert told.all(e.LifecycleHookStarted) == []
    told.later(7200)
    assert len(told.all(e.LifecycleHookStarted)) == 1
    answer(told, {"*": APPROVE})
    assert told.types("upgrade.started") == ["upgrade.started"]


# --- the hook before a batch ----------------------------------------------------------------------


def test_the_hook_is_asked_before_each_batch_about_its_instances() -> None:
    told = World(
        fleet=fleet(versions=BOTH, lifecycle_hooks=(BEFORE_BATCH,)),
        hook=lambda question: {"*": APPROVE},
    )
    told.run()
    questions = told.all(e.LifecycleHookStarted)
    assert [" ".join(q.instance_ids) for q in questions] == told.batches()
    assert {q.upgrade_id for q in questions} == {told.upgrade.id}
    assert len(questions) == 5
    assert told.last(e.BatchStarted).reason.endswith("; approved by the lifecycle hook")
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_no_batch_starts_before_all_of_its_instances_are_answered_for() -> None:
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    answer(told, {"0": APPROVE})
    assert told.batches() == []
    answer(told, {"1": APPROVE})
    assert told.batches() == ["0 1"]


def test_a_rejected_instance_is_left_out_and_the_others_go_on() -> None:
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    answer(told, {"0": REJECT, "1": APPROVE})
    assert told.batches() == ["1"]
    member = told.upgrade.members["0"]
    assert member.state is MemberState.SKIPPED
    assert member.reason == "rejected by the lifecycle hook: answered: 1 approved, 1 rejected"
    told.hook = lambda question: {"*": APPROVE}
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert told.versions_now()["0"] == "1.0"
    assert told.tell() == []  # rejected: not tried again by itself


def test_what_is_said_of_one_goes_before_what_is_said_of_all() -> None:
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    answer(told, {"*": APPROVE, "1": REJECT})
    assert told.batches() == ["0"]


def test_at_wait_until_the_default_action_is_of_those_that_nobody_answered_for() -> None:
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    answer(told, {"1": APPROVE})
    told.later(3600)
    completed = told.last(e.LifecycleHookCompleted)
    assert (completed.approved, completed.rejected) == (("1",), ("0",))
    assert told.batches() == ["1"]


def test_a_batch_of_which_all_are_rejected_makes_room_for_the_next_question() -> None:
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    answer(told, {"*": REJECT})
    assert asked(told).instance_ids == ("2", "3")
    assert told.batches() == []


def test_an_upgrade_of_which_all_are_rejected_ends_and_changes_nothing() -> None:
    told = World(
        fleet=fleet(versions=BOTH, lifecycle_hooks=(BEFORE_BATCH,)),
        hook=lambda question: {"*": REJECT},
    )
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED
    assert (
        told.last(e.UpgradeCompleted).reason
        == "no instance remains; 0 of 10 succeeded, 10 left out"
    )
    assert set(told.versions_now().values()) == {"1.0"}
    assert told.tell() == []


@pytest.mark.parametrize(
    "hooks", [(BEFORE_UPGRADE,), (BEFORE_BATCH,), (BEFORE_UPGRADE, BEFORE_BATCH)]
)
def test_a_start_by_hand_asks_no_hook(hooks: tuple[LifecycleHook, ...]) -> None:
    told = world(lifecycle_hooks=hooks, automatic_os_upgrade=False)
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.run()
    assert told.all(e.LifecycleHookStarted) == []
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_a_person_starts_by_hand_what_a_hook_rejected() -> None:
    told = world(lifecycle_hooks=(BEFORE_UPGRADE,))
    told.tell()
    answer(told, {"*": REJECT})
    told.tell(e.UpgradeStartRequested(scale_set=SET))
    told.run()
    assert told.upgrade.status is UpgradeStatus.COMPLETED


def test_an_outage_while_the_hook_waits_stops_the_approved_batch() -> None:
    """Approval is one gate of several: what happened meanwhile is looked at after it."""
    policy = RollingPolicy(max_unhealthy_upgraded_instance_percent=100)
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,), policy=policy)
    told.until("lifecycle_hook.started")
    told.later(600)
    told.answer()
    for id in ("7", "8", "9"):
        told.tell(
            e.InstanceUnhealthy(
                scale_set=SET, instance_id=id, attempt=1, lease=told.fleet.instances[id].lease
            )
        )
    answer(told, {"*": APPROVE})
    assert told.batches() == []
    assert told.upgrade.status is UpgradeStatus.FAULTED


def test_a_hook_is_closed_in_time_also_while_a_person_has_paused_the_upgrade() -> None:
    told = world(10, lifecycle_hooks=(BEFORE_BATCH,))
    told.until("lifecycle_hook.started")
    told.tell(e.UpgradePauseRequested(scale_set=SET))
    ends = asked(told).wait_until
    told.now = ends - timedelta(seconds=30)
    told.tell()
    assert next_wake(told.fleet, told.now) == ends
    told.later(30)
    assert told.last(e.LifecycleHookCompleted).action is REJECT
