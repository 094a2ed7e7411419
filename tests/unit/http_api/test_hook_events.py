"""Lifecycle hook events: Azure's shape, and what an answer may say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_api.domain.documents import ModelError
from http_api.domain.hook_events import (
    Answer,
    after,
    hook_event_json,
    hook_from_log,
    hook_from_view,
    read_answer,
)
from rollcall_contracts.events import LifecycleHookCompleted, LifecycleHookStarted
from rollcall_contracts.model import HookAction, LifecycleHookType

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
NOW = datetime(2026, 5, 2, 20, 0, tzinfo=UTC)
WAIT, MAX = NOW + timedelta(hours=4), NOW + timedelta(hours=6)
BATCH = hook_from_view(
    {
        "id": "h-1",
        "type": "UpgradeAutoOSRollingBatchStarting",
        "upgrade_id": "u-1",
        "version": "2.0.0",
        "created_at": NOW.isoformat(),
        "wait_until": WAIT.isoformat(),
        "max_wait_until": MAX.isoformat(),
        "default_action": "Reject",
        "targets": {"0": "Waiting", "3": "Approved"},
    }
)


def answer(*targets: Any, **properties: Any) -> Answer:
    document = {"targetResources": list(targets), **properties} if targets else properties
    return read_answer({"properties": document}, BATCH, scale_set=SET)


def target(id: str, state: str) -> dict[str, Any]:
    return {"resource": {"id": f"{SET}/virtualMachines/{id}"}, "actionState": state}


def test_azures_shape() -> None:
    assert hook_event_json(BATCH, SET) == {
        "id": f"{SET}/lifecycleHookEvents/h-1",
        "name": "h-1",
        "type": "Microsoft.Compute/virtualMachineScaleSets/lifecycleHookEvents",
        "properties": {
            "type": "UpgradeAutoOSRollingBatchStarting",
            "waitUntil": WAIT.isoformat(),
            "maxWaitUntil": MAX.isoformat(),
            "timeCreated": NOW.isoformat(),
            "defaultAction": "Reject",
            "targetResources": [target("0", "Waiting"), target("3", "Approved")],
            "state": "Active",
            "rollcall": {"version": "2.0.0", "upgradeId": "u-1"},
        },
    }


def test_an_answer_names_targets_by_their_ids() -> None:
    given = answer(target("0", "approved"))
    assert given == Answer(actions={"0": HookAction.APPROVE})
    shown = hook_event_json(after(BATCH, given), SET)["properties"]
    assert shown["state"] == "Completed"
    assert [item["actionState"] for item in shown["targetResources"]] == ["Approved", "Approved"]
    upper = {"resource": {"id": f"{SET}/virtualMachines/0".upper()}, "actionState": "Rejected"}
    assert answer(upper) == Answer(actions={"0": HookAction.REJECT})


def test_an_answer_may_ask_for_more_time() -> None:
    until = WAIT + timedelta(hours=2)
    given = answer(waitUntil=until.isoformat().replace("+00:00", "Z"))
    assert given == Answer(actions={}, wait_until=until)
    assert after(BATCH, given).wait_until == until
    assert after(BATCH, given).is_active


def test_what_was_read_and_sent_back_unchanged_is_no_answer() -> None:
    shown = hook_event_json(BATCH, SET)
    assert not read_answer(shown, BATCH, scale_set=SET)


@pytest.mark.parametrize(
    ("targets", "properties", "place"),
    [
        ([target("7", "Approved")], {}, "properties.targetResources[0].resource.id"),
        ([{"actionState": "Approved"}], {}, "properties.targetResources[0].resource.id"),
        ([target("0", "Maybe")], {}, "properties.targetResources[0].actionState"),
        ([target("3", "Rejected")], {}, "properties.targetResources[0].actionState"),
        ([], {"waitUntil": "tomorrow"}, "properties.waitUntil"),
        ([], {"waitUntil": "2026-05-02T22:00:00"}, "properties.waitUntil"),
        ([], {"waitUntil": (MAX + timedelta(seconds=1)).isoformat()}, "properties.waitUntil"),
        ([], {"targetResources": "all"}, "properties.targetResources"),
    ],
)
def test_a_faulty_answer_is_named(
    targets: list[Any], properties: dict[str, Any], place: str
) -> None:
    with pytest.raises(ModelError) as caught:
        answer(*targets, **properties)
    assert [fault.target for fault in caught.value.faults] == [place]


def started(*ids: str) -> dict[str, Any]:
    event = LifecycleHookStarted(
        scale_set=SET,
        hook_id="h-2",
        hook_type=LifecycleHookType.SCHEDULING,
        version="2.0.0",
        instance_ids=ids,
        wait_until=WAIT,
        max_wait_until=MAX,
        default_action=HookAction.APPROVE,
    )
    return event.model_dump(mode="json")


def test_a_hook_for_the_set_has_the_set_as_its_target() -> None:
    completed = LifecycleHookCompleted(
        scale_set=SET, hook_id="h-2", approved=("*",), action=HookAction.APPROVE
    )
    hook = hook_from_log(started(), NOW, completed.model_dump(mode="json"))
    shown = hook_event_json(hook, SET)["properties"]
    assert shown["targetResources"] == [{"resource": {"id": SET}, "actionState": "Approved"}]
    assert shown["state"] == "Completed"


def test_a_hook_that_was_dropped_is_completed_too() -> None:
    hook = hook_from_log(started("0", "1"), NOW, None)
    assert dict(hook.targets) == {"0": "Waiting", "1": "Waiting"}
    assert not hook.is_active
