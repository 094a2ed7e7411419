"""The journal's transitions, as a table and as properties of any course of requests."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instance_agent.domain.data_disks import DataDisk
from instance_agent.domain.drain import Draining
from instance_agent.domain.record import (
    PLANS,
    Answered,
    Disk,
    Operation,
    Order,
    Record,
    Refused,
    Stale,
    Step,
    advance,
    begin,
    believe,
    commit,
    data_fault,
    fail,
    kept_disks,
    remaining,
    succeed,
)
from rollcall_contracts.events import InstanceFailed, InstanceRestored, InstanceUpgraded
from rollcall_contracts.model import Failure

T0 = datetime(2026, 1, 1, tzinfo=UTC)
DRAINING = Draining(began=T0, until=T0 + timedelta(seconds=60))
FAILURE = Failure(code="X", message="why")


def order(operation: Operation, attempt: int, version: str = "") -> Order:
    return Order(
        scale_set="/s",
        instance_id="0",
        attempt=attempt,
        operation=operation,
        version=version,
        generation=attempt,
    )


def work(record: Record | None, asked: Order, steps: int = 99) -> Record:
    """Begin, and do as many steps."""
    begun = begin(record, asked)
    assert isinstance(begun, Record), begun
    for step in remaining(begun)[:steps]:
        begun = advance(begun, step)
    return begun


def done(record: Record | None, asked: Order) -> Record:
    return succeed(work(record, asked))


CREATED = done(None, order(Operation.CREATE, 1, "v1"))
UPGRADED = done(CREATED, order(Operation.UPGRADE, 2, "v2"))


def version(disk: Disk | None) -> str | None:
    return disk.version if disk else None


def test_an_upgrade_keeps_the_disk_it_replaced() -> None:
    assert isinstance(UPGRADED.report, InstanceUpgraded)
    assert (version(UPGRADED.disk), version(UPGRADED.previous)) == ("v2", "v1")
    assert kept_disks(UPGRADED) == {"000001-v1", "000002-v2"}


def test_a_restore_goes_back_to_it_and_reports_what_it_carries() -> None:
    restored = done(UPGRADED, order(Operation.RESTORE, 3))
    assert isinstance(restored.report, InstanceRestored)
    assert (restored.report.version, restored.report.generation) == ("v1", 1)
    assert kept_disks(restored) == {"000001-v1"}
    assert isinstance(begin(restored, order(Operation.RESTORE, 4)), Record)  # it is back already


def test_a_commit_ends_the_way_back() -> None:
    committed = commit(UPGRADED, 2)
    assert isinstance(committed, Record)
    assert kept_disks(committed) == {"000002-v2"}
    assert isinstance(begin(committed, order(Operation.RESTORE, 3)), Refused)
    assert commit(UPGRADED, 1) == Stale(known=2)


@pytest.mark.parametrize("steps", range(8))
def test_a_restore_of_an_upgrade_that_failed_anywhere_leads_to_the_old_disk(steps: int) -> None:
    failed = fail(work(CREATED, order(Operation.UPGRADE, 2, "v2"), steps), FAILURE)
    swapped = steps >= 4
    assert isinstance(failed.report, InstanceFailed)
    assert failed.report.version == ("v2" if swapped else "v1")
    restored = done(failed, order(Operation.RESTORE, 3))
    assert version(restored.disk) == "v1"
    assert restored.swaps == (3 if swapped else 1)


def test_a_second_upgrade_after_a_failed_one_keeps_the_last_confirmed_disk() -> None:
    failed = fail(work(CREATED, order(Operation.UPGRADE, 2, "v2")), FAILURE)
    again = done(failed, order(Operation.UPGRADE, 3, "v2"))
    assert again.disk == Disk(name="000003-v2", version="v2", generation=3)
    assert version(again.previous) == "v1"


@pytest.mark.parametrize("operation", [Operation.UPGRADE, Operation.RESTORE])
def test_what_this_host_does_not_hold_is_refused(operation: Operation) -> None:
    decision = begin(None, order(operation, 1, "v1"))
    assert isinstance(decision, Refused)
    assert "state folder" in decision.failure.message


def test_a_created_instance_has_nothing_to_go_back_to() -> None:
    assert isinstance(begin(CREATED, order(Operation.RESTORE, 2)), Refused)


def test_the_same_attempt_is_answered_again_an_older_one_ignored() -> None:
    assert UPGRADED.report is not None
    assert begin(UPGRADED, order(Operation.UPGRADE, 2, "v2")) == Answered(report=UPGRADED.report)
    assert begin(UPGRADED, order(Operation.UPGRADE, 1, "v2")) == Stale(known=2)
    assert begin(UPGRADED, order(Operation.DELETE, 1)) == Stale(known=2)


@pytest.mark.parametrize("operation", Operation)
def test_a_half_done_operation_goes_on_with_its_next_step(operation: Operation) -> None:
    asked = order(operation, 3, "v3")
    plan = PLANS[operation]
    for steps in range(len(plan) + 1):
        record = work(UPGRADED, asked, steps)
        again = begin(record, asked)
        assert again == record
        assert remaining(record) == plan[steps:]


def test_an_instance_is_drained_when_all_else_is_ready_and_right_before_it_stops() -> None:
    for operation, before in ((Operation.UPGRADE, Step.PREPARED), (Operation.DELETE, None)):
        plan = PLANS[operation]
        at = plan.index(Step.DRAINED)
        assert plan[at + 1] is Step.STOPPED
        assert (plan[at - 1] if at else None) is before
    assert not {Step.DRAINED} & {*PLANS[Operation.CREATE], *PLANS[Operation.RESTORE]}


def test_what_is_known_of_a_drain_ends_with_it() -> None:
    half = work(CREATED, order(Operation.UPGRADE, 2, "v2"), 1)
    draining = replace(half, draining=DRAINING, note="told")
    assert begin(draining, order(Operation.UPGRADE, 2, "v2")) == draining  # goes on
    drained = advance(draining, Step.DRAINED)
    assert (drained.draining, drained.note) == (None, "told")
    failed = fail(drained, FAILURE)
    assert failed.report is not None
    assert failed.report.reason == "told"
    for operation in (Operation.UPGRADE, Operation.RESTORE, Operation.DELETE):
        next_one = begin(draining, order(operation, 3, "v3"))
        assert isinstance(next_one, Record)
        assert (next_one.draining, next_one.note) == (None, "")


def test_a_name_of_a_version_cannot_leave_its_folder() -> None:
    record = begin(None, order(Operation.CREATE, 1, "../../etc"))
    assert isinstance(record, Record)
    assert record.target is not None
    assert "/" not in record.target.name


@given(
    st.lists(
        st.tuples(st.sampled_from(Operation), st.integers(0, 7), st.booleans(), st.booleans()),
        max_size=12,
    )
)
def test_whatever_is_asked_the_disks_in_use_are_kept_and_swaps_counted(
    course: list[tuple[Operation, int, bool, bool]],
) -> None:
    record: Record | None = None
    attempt = 0
    for operation, steps, fails, commits in course:
        attempt += 1
        decision = begin(record, order(operation, attempt, f"v{attempt}"))
        if not isinstance(decision, Record):
            continue
        before = decision.swaps
        record = decision
        for step in remaining(decision)[:steps] if fails else remaining(decision):
            record = advance(record, step)
        if operation is Operation.DELETE and not fails:
            record = None
            continue
        assert record.swaps - before in (0, 1)
        record = fail(record, FAILURE) if fails else succeed(record)
        assert record.report is not None
        assert record.report.attempt == attempt
        if record.disk is not None:
            assert record.disk.name in kept_disks(record)
        assert record.previous is None or record.previous != record.disk
        if commits:
            committed = commit(record, attempt)
            assert isinstance(committed, Record)
            assert kept_disks(committed) <= kept_disks(record)
            record = committed


def test_a_record_cannot_succeed_without_a_disk() -> None:
    with pytest.raises(ValueError, match="without an OS disk"):
        succeed(replace(CREATED, disk=None))


def test_the_last_step_ends_the_plan() -> None:
    assert remaining(CREATED) == ()
    assert CREATED.step is Step.DONE


CUT_OFF = work(CREATED, order(Operation.UPGRADE, 2, "v2"), 3)  # stopped; then the agent was killed
V2 = Disk(name="000002-v2", version="v2", generation=2)
V9 = Disk(name="000009-v9", version="v9", generation=9)


@pytest.mark.parametrize("operation", [Operation.RESTORE, Operation.UPGRADE, Operation.DELETE])
def test_a_swap_that_was_not_written_down_is_believed_when_another_operation_begins(
    operation: Operation,
) -> None:
    begun = begin(CUT_OFF, order(operation, 3, "v3"), V2)
    assert isinstance(begun, Record)
    assert (version(begun.disk), version(begun.previous), begun.swaps) == ("v2", "v1", 2)
    if operation is Operation.RESTORE:
        assert version(begun.target) == "v1"


def test_the_same_operation_goes_on_and_counts_its_swap_itself() -> None:
    assert begin(CUT_OFF, order(Operation.UPGRADE, 2, "v2"), V2) == CUT_OFF


def test_a_restore_that_was_not_written_down_is_believed() -> None:
    restoring = work(UPGRADED, order(Operation.RESTORE, 3), 1)
    believed = believe(restoring, CREATED.disk)
    assert (version(believed.disk), believed.previous) == ("v1", None)
    assert believe(UPGRADED, CREATED.disk).disk == CREATED.disk  # also where it was lost whole


def test_a_creation_that_was_not_written_down_is_believed() -> None:
    creating = work(None, order(Operation.CREATE, 1, "v1"), 2)
    upgrading = begin(creating, order(Operation.UPGRADE, 2, "v2"), CREATED.disk)
    assert isinstance(upgrading, Record)
    assert (upgrading.disk, upgrading.previous) == (CREATED.disk, None)


def test_the_disk_of_an_operation_that_the_journal_lost_leaves_a_way_back() -> None:
    believed = believe(CREATED, V2)
    assert (version(believed.disk), version(believed.previous)) == ("v2", "v1")
    again = done(believed, order(Operation.UPGRADE, 2, "v2"))  # its request comes again
    assert (version(again.disk), version(again.previous)) == ("v2", "v1")


def test_a_disk_that_no_operation_made_is_not_believed() -> None:
    assert believe(CREATED, Disk(name="/foreign", version="", generation=0)) == CREATED
    assert believe(CREATED, None) == CREATED
    assert believe(CREATED, CREATED.disk) == CREATED


DATA = {0: DataDisk(place="inode 1:5", content="ext:a")}
OTHER = {0: DataDisk(place="inode 1:6")}
AFTER_BOOT = {0: DataDisk(place="inode 2:5", content="ext:b")}  # and its owner has formatted it
KEPT = succeed(replace(work(CREATED, order(Operation.UPGRADE, 2, "v2")), data_disks=DATA))


@pytest.mark.parametrize(
    ("operation", "now", "fault"),
    [
        (Operation.UPGRADE, {}, "is gone"),
        (Operation.UPGRADE, OTHER, "and now is"),
        (Operation.UPGRADE, AFTER_BOOT, ""),
        (Operation.UPGRADE, DATA | {1: OTHER[0]}, ""),
        (Operation.CREATE, {}, "is gone"),
        (Operation.RESTORE, {}, "is gone"),
        (Operation.RESTORE, OTHER, ""),
        (Operation.START, {}, "is gone"),
        (Operation.RESTART, OTHER, ""),
        (Operation.STOP, {}, ""),
        (Operation.DELETE, {}, ""),
    ],
)
def test_data_disks_are_those_of_the_operations_before(
    operation: Operation, now: dict[int, DataDisk], fault: str
) -> None:
    begun = begin(KEPT, order(operation, 3, "v3"))
    assert isinstance(begun, Record)
    said = data_fault(begun, now)
    assert fault in said
    assert bool(said) == bool(fault)


def test_data_disks_that_an_operation_made_are_known_though_it_was_cut_off() -> None:
    half = replace(
        work(KEPT, order(Operation.UPGRADE, 3, "v3"), 3), data_disks=OTHER | {1: OTHER[0]}
    )
    begun = begin(half, order(Operation.UPGRADE, 4, "v4"))
    assert isinstance(begun, Record)
    assert begun.known_data == DATA | {1: OTHER[0]}


@pytest.mark.parametrize(
    ("operation", "expected"), [(Operation.RESTART, OTHER), (Operation.RESTORE, DATA)]
)
def test_a_restart_says_that_another_data_disk_is_meant_and_a_restore_does_not(
    operation: Operation, expected: dict[int, DataDisk]
) -> None:
    ended = succeed(replace(work(KEPT, order(operation, 3)), data_disks=OTHER))
    assert ended.known_data == expected


def test_the_data_disks_of_what_was_taken_over_are_its_owners() -> None:
    taken = begin(None, order(Operation.CREATE, 1), V9)
    assert isinstance(taken, Record)
    ended = succeed(replace(work(taken, order(Operation.CREATE, 1)), data_disks=DATA))
    begun = begin(ended, order(Operation.UPGRADE, 2, "v2"))
    assert isinstance(begun, Record)
    assert data_fault(begun, {}) == ""
