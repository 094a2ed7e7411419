"""When a long-running operation has ended, and how."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_api.domain.operations import (
    PATIENCE,
    InstanceFacts,
    Kind,
    Operation,
    SetFacts,
    Status,
    UpgradeFacts,
    judge_cancel,
    judge_deletion,
    judge_instances,
    judge_protection,
    judge_set,
    judge_start,
    operation_json,
    to_wait_for,
)

START = datetime(2026, 5, 1, tzinfo=UTC)
NO_IMAGE = {"code": "ImageNotFound", "message": "publish one", "target": None, "version": ""}


def operation(kind: Kind, **goal: Any) -> Operation:
    return Operation(id="o", kind=kind, resource="/subscriptions/s/x", goal=goal, started_at=START)


@pytest.mark.parametrize(
    ("facts", "seconds", "status", "code"),
    [
        ({"revision": 6}, 0, "InProgress", None),  # the orchestrator has an older model
        ({"revision": 7}, 0, "InProgress", None),
        ({"revision": 7, "phases": {"creating": 2}}, 900, "InProgress", None),
        ({"revision": 7, "phases": {"ready": 2}}, 0, "Succeeded", None),
        ({"revision": 9, "phases": {"ready": 2}}, 0, "Succeeded", None),  # a newer one supersedes
        ({"revision": 6, "phases": {"ready": 2}}, 0, "InProgress", None),
        ({"revision": 7, "phases": {"ready": 3}}, 0, "InProgress", None),
        ({"revision": 7, "phases": {"ready": 2, "deleting": 1}}, 0, "InProgress", None),
        ({"revision": 7, "held": NO_IMAGE}, 29, "InProgress", None),
        ({"revision": 7, "held": NO_IMAGE}, 30, "Failed", "ImageNotFound"),
        ({"revision": 7, "held": {"code": "MaxUnhealthy"}}, 99, "InProgress", None),
        (
            {
                "revision": 7,
                "phases": {"ready": 1, "failed": 1},
                "broken": {"code": "VMExtensionProvisioningError", "message": "401"},
            },
            0,
            "Failed",
            "VMExtensionProvisioningError",
        ),
        ({"revision": 7, "phases": {"ready": 1, "failed": 1}}, 0, "Succeeded", None),
    ],
)
def test_a_set_is_done_when_it_is_as_asked_for(
    facts: dict[str, Any], seconds: int, status: str, code: str | None
) -> None:
    outcome = judge_set(
        operation(Kind.SET, revision=7),
        SetFacts(capacity=2, **facts),
        START + timedelta(seconds=seconds),
    )
    assert outcome.status == status
    assert (outcome.error or {}).get("code") == code


def test_a_set_that_was_deleted_meanwhile_ends_its_write() -> None:
    outcome = judge_set(operation(Kind.SET, revision=7), None, START)
    assert outcome.status == "Canceled"
    assert outcome.error is not None
    assert outcome.error["code"] == "OperationPreempted"


@pytest.mark.parametrize(
    ("protection", "seconds", "status"),
    [
        ((True, False), 0, "Succeeded"),
        ((False, False), 29, "InProgress"),  # the orchestrator does not know yet
        ((True, True), 29, "InProgress"),
        ((False, False), 30, "Succeeded"),  # somebody else has changed it since
        (None, 0, "Succeeded"),  # gone, and so in nobody's way
    ],
)
def test_a_protection_is_done_when_it_holds(
    protection: tuple[bool, bool] | None, seconds: int, status: str
) -> None:
    asked = operation(Kind.PROTECTION, id="0", scale_in=True, set_actions=False)
    assert judge_protection(asked, protection, START + timedelta(seconds=seconds)).status == status


@pytest.mark.parametrize(("left", "status"), [(0, "Succeeded"), (1, "InProgress")])
def test_a_deletion_is_done_when_nothing_is_left(left: int, status: str) -> None:
    assert judge_deletion(left).status == status


def test_only_those_that_change_are_waited_for() -> None:
    known = [("0", 4, True), ("1", 2, False), ("2", 9, False)]
    assert to_wait_for(known, ("*",)) == {"1": 2, "2": 9}
    assert to_wait_for(known, ("0", "1")) == {"1": 2}


@pytest.mark.parametrize(
    ("facts", "waited", "status", "message"),
    [
        ((2, "ready", False), 0, "InProgress", ""),  # nobody has heard of it yet
        ((2, "ready", True), 99, "InProgress", ""),  # an upgrade goes first
        ((3, "upgrading", False), 0, "InProgress", ""),
        ((3, "ready", False), 0, "Succeeded", ""),
        ((2, "ready", False), 30, "Succeeded", ""),  # found to be at the model already
        ((3, "failed", False), 0, "Failed", "Instance 1: no"),
        ((2, "failed", True), 99, "InProgress", ""),
        (None, 0, "Succeeded", ""),
    ],
)
def test_instances_are_done_when_each_has_had_its_turn(
    facts: tuple[int, str, bool] | None, waited: int, status: str, message: str
) -> None:
    instances = {}
    if facts is not None:
        attempt, phase, deploy = facts
        error = {"code": "VMExtensionProvisioningError", "message": "no"}
        instances["1"] = InstanceFacts(
            id="1", attempt=attempt, phase=phase, deploy=deploy, error=error
        )
    outcome = judge_instances(
        operation(Kind.INSTANCES, attempts={"1": 2}), instances, START + timedelta(seconds=waited)
    )
    assert outcome.status == status
    assert (outcome.error or {}).get("message", "") == message


def test_the_first_of_several_failed_instances_is_named() -> None:
    instances = {
        id: InstanceFacts(id=id, attempt=9, phase="failed", deploy=False) for id in ("1", "2")
    }
    goal = operation(Kind.INSTANCES, attempts={"1": 2, "2": 2})
    outcome = judge_instances(goal, instances, START + PATIENCE)
    assert outcome.error == {
        "code": "VMProvisioningError",
        "message": "Instance 1: it could not be provisioned (2 instances failed)",
    }


@pytest.mark.parametrize(
    ("facts", "status", "code"),
    [
        (UpgradeFacts(), "InProgress", None),
        (UpgradeFacts(held={"code": "OperationNotAllowed", "message": "m"}), "Failed", "Operation"),
        (UpgradeFacts(status="RollingForward"), "InProgress", None),
        (UpgradeFacts(status="Completed"), "Succeeded", None),
        (UpgradeFacts(status="Cancelled"), "Canceled", "Canceled"),
        (UpgradeFacts(status="Faulted", error={"code": "MaxU", "message": "m"}), "Failed", "MaxU"),
        (UpgradeFacts(status="Faulted"), "Failed", "RollingUpgradeFaulted"),
    ],
)
def test_a_start_lasts_as_long_as_its_upgrade(
    facts: UpgradeFacts, status: str, code: str | None
) -> None:
    outcome = judge_start(facts)
    assert outcome.status == status
    assert str((outcome.error or {}).get("code")).startswith(str(code))


@pytest.mark.parametrize(
    ("upgrade", "status"),
    [("RollingForward", "InProgress"), ("Cancelled", "Succeeded"), (None, "Succeeded")],
)
def test_a_cancellation_is_done_when_the_upgrade_has_ended(
    upgrade: str | None, status: str
) -> None:
    assert judge_cancel(upgrade).status == status


def test_the_status_document_has_arms_words() -> None:
    running = operation(Kind.SET, revision=1)
    assert operation_json(running, "/x") == {
        "id": "/x",
        "name": "o",
        "status": "InProgress",
        "startTime": "2026-05-01T00:00:00+00:00",
    }
    assert {status.value for status in Status} == {"InProgress", "Succeeded", "Failed", "Canceled"}
