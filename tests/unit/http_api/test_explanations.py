"""Explanations, measured durations, and errors of upgrades that go on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_api.domain.access import OWNER, Grant, Principal, Role
from http_api.domain.measuring import measure
from http_api.domain.present.explanations import (
    FleetRow,
    LogRow,
    Rows,
    Scene,
    explanation_json,
    state_json,
)
from http_api.domain.present.images import HoldRow, holds_for
from http_api.domain.present.instances import InstanceRow
from http_api.domain.present.upgrades import ResultRow, UpgradeRow, latest_json
from rollcall_contracts.model import (
    Extension,
    ImageReference,
    Provisioning,
    RollingPolicy,
    ScaleSetSpec,
)

SET = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
NOW = datetime(2026, 5, 2, 20, 0, tzinfo=UTC)
SPEC = ScaleSetSpec(
    scale_set=SET,
    location="local",
    capacity=3,
    image=ImageReference(publisher="Contoso", offer="Web", sku="stable"),
    provisioning=Provisioning(
        generation=1,
        sealed_custom_data="sealed-1",
        extensions=(Extension(name="setup", sealed_protected_settings="sealed-2"),),
    ),
)
INSTANCE = InstanceRow(
    id="0",
    host="host-1",
    zone=None,
    attempt=1,
    phase="ready",
    version="1.0.0",
    generation=1,
    address=None,
    port=None,
    power="running",
    health="Healthy",
    since=NOW,
    error=None,
    created_at=NOW - timedelta(days=1),
    previous_version=None,
    replaces=None,
    protect_from_scale_in=False,
    protect_from_scale_set_actions=False,
    phase_order=None,
    skip_upgrade=False,
)
UPGRADE = UpgradeRow(
    id="u-1",
    status="RollingForward",
    started_by="Platform",
    image={"version": "2.0.0"},
    policy=RollingPolicy().model_dump(mode="json"),
    cancel_requested=False,
    pause_requested=False,
    deferred=False,
    override=False,
    rollback_of=None,
    batch=1,
    started_at=NOW,
    ended_at=None,
    error=None,
    reason="",
    successful=8,
    failed=0,
    in_progress=1,
    pending=1,
    skipped=0,
    restored=0,
    restore_failed=0,
)
RESULT = ResultRow(
    id="0",
    state="pending",
    batch=None,
    from_version="1.0.0",
    since=NOW,
    error=None,
    reason="",
    approved=False,
    phase=None,
    replacement=None,
)


def fleet(code: str = "UpToDate", message: str = "Nothing.", **changes: Any) -> FleetRow:
    row = FleetRow(
        spec=SPEC.model_dump(mode="json"),
        held=None,
        barred_version=None,
        start_requested=False,
        rollback_requested=False,
        hook=None,
        last_version=None,
        batch_seconds=(30.5,),
        waiting={"code": code, "message": message, "until": None},
    )
    return replace(row, **changes)


def scene(**changes: Any) -> Scene:
    plain = Scene(
        scale_set=SET,
        fleet=fleet(),
        hook=None,
        holds=(),
        upgrade=None,
        results=(),
        instances=(INSTANCE,),
    )
    return replace(plain, **changes)


def explained(given: Scene) -> dict[str, Any]:
    return explanation_json(given, upgrade=None, decisions=())


def test_a_set_that_nobody_has_taken_over_yet() -> None:
    shown = explained(scene(fleet=None, instances=()))
    assert shown["waitingFor"]["code"] == "NotTakenOver"
    assert "never had an upgrade" in shown["sentence"]


def test_the_sentence_is_the_rules_own() -> None:
    waits = fleet("Paused", "A person paused the upgrade.")
    shown = explained(scene(fleet=waits, upgrade=UPGRADE))
    assert shown["waitingFor"] == {
        "code": "Paused",
        "message": "A person paused the upgrade.",
        "until": None,
        "details": {},
    }
    assert shown["sentence"] == (
        "web is brought to 2.0.0: 8 of 10 instances are done, 0 failed. "
        "A person paused the upgrade."
    )
    back = replace(UPGRADE, rollback_of="3.0.0")
    assert "goes back from 3.0.0 to 2.0.0" in explained(scene(upgrade=back))["sentence"]
    ended = replace(UPGRADE, status="Faulted")
    assert "ended Faulted" in explained(scene(upgrade=ended))["sentence"]


HOLD = HoldRow(
    version="2.0.0",
    image={"publisher": "Contoso", "offer": "Web", "sku": "stable", "version": "2.0.0"},
    by_set="other",
    upgrade_id="u-0",
    quarantine=False,
    error={"code": "C", "message": "m"},
    held_at=NOW,
)


@pytest.mark.parametrize(
    ("changes", "details"),
    [
        (
            {
                "fleet": fleet("ApprovalAwaited"),
                "upgrade": replace(UPGRADE, deferred=True),
                "results": (RESULT, replace(RESULT, id="1", approved=True)),
            },
            {"instanceIds": ["0"]},
        ),
        (
            {"fleet": fleet("VersionBarred", barred_version="2.0.0")},
            {"barredVersion": "2.0.0"},
        ),
        (
            {
                "fleet": fleet("BatchInProgress"),
                "upgrade": UPGRADE,
                "results": (RESULT, replace(RESULT, id="4", state="surging")),
            },
            {"instanceIds": ["4"]},
        ),
        (
            {
                "fleet": fleet("MaxUnhealthyInstancePercentExceededBeforeRollingUpgrade"),
                "instances": (INSTANCE, replace(INSTANCE, id="2", power="stopped")),
            },
            {"instanceIds": ["2"]},
        ),
        (
            {
                "fleet": fleet("InstancesExcluded"),
                "instances": (INSTANCE, replace(INSTANCE, id="2", skip_upgrade=True)),
            },
            {"instanceIds": ["2"]},
        ),
        (
            {"fleet": fleet("MetricGate"), "upgrade": UPGRADE},
            {"metricGate": None},
        ),
        ({"fleet": fleet("Baking"), "upgrade": UPGRADE}, {}),
    ],
)
def test_details_are_what_a_program_needs(changes: dict[str, Any], details: Any) -> None:
    assert explained(scene(**changes))["waitingFor"]["details"] == details


def test_where_a_version_failed_is_shown_to_those_who_may_look_there() -> None:
    group = SET.partition("/providers")[0]
    own, other = replace(HOLD, by_set=SET), replace(HOLD, by_set=SET.replace("/s/", "/other/"))
    grants = (Grant(role=Role.READER, scope=group.lower()),)
    shown = holds_for(Principal(name="a", id="1", grants=grants), [own, other])
    assert shown == [own, replace(other, by_set="", upgrade_id="")]
    assert holds_for(OWNER, [own, other]) == [own, other]


def test_details_of_a_held_version() -> None:
    held = {"version": "2.0.0", "code": "VersionHeld", "message": "m"}
    other = replace(HOLD, version="1.5.0")
    shown = explained(scene(fleet=fleet("VersionHeld", held=held), holds=(HOLD, other)))
    (hold,) = shown["waitingFor"]["details"]["holds"]
    assert (hold["version"], hold["bySet"]) == ("2.0.0", "other")


@pytest.mark.parametrize(
    ("instance", "result", "upgrade", "words"),
    [
        ({}, {"state": "succeeded", "reason": "2 of 10"}, {}, "2 of 10"),
        ({}, {"state": "skipped", "reason": "SkipUpgrade, says"}, {}, "SkipUpgrade, says"),
        (
            {},
            {"state": "restored", "reason": "10 s >= 10 s", "error": {"message": "no answer"}},
            {},
            "no answer (10 s >= 10 s)",
        ),
        ({}, {}, {}, "waits for its batch"),
        ({}, {}, {"deferred": True}, "approveRollingUpgrade"),
        ({}, {"approved": True}, {"deferred": True}, "waits for its batch"),
        ({"protect_from_scale_set_actions": True}, {}, {}, "protectFromScaleSetActions"),
        ({}, {}, {"status": "Cancelled"}, "ended before"),
        ({"version": "2.0.0"}, None, {}, "ran 2.0.0 already"),
        ({"created_at": NOW}, None, {}, "after the upgrade had started"),
        ({"replaces": "4"}, None, {}, "the place of the instance 4"),
        ({"skip_upgrade": True}, None, {}, "SkipUpgrade"),
        ({"version": "9.0.0"}, None, {}, "above the target"),
        ({}, None, None, "no upgrade yet"),
    ],
)
def test_each_instance_has_a_reason(
    instance: dict[str, Any],
    result: dict[str, Any] | None,
    upgrade: dict[str, Any] | None,
    words: str,
) -> None:
    shown = explained(
        scene(
            instances=(replace(INSTANCE, **instance),),
            results=() if result is None else (replace(RESULT, **result),),
            upgrade=None if upgrade is None else replace(UPGRADE, **upgrade),
        )
    )
    (item,) = shown["instances"]
    assert words in item["reason"]
    assert item["id"] == "0"


def test_instances_that_are_gone_are_told_of() -> None:
    surged = replace(RESULT, id="7", state="succeeded", batch=1, replacement="9")
    deleted = replace(RESULT, id="8", reason="1 of 10")
    shown = explained(scene(upgrade=UPGRADE, results=(surged, deleted)))["instances"]
    assert [item["id"] for item in shown] == ["0", "7", "8"]
    assert "9" in shown[1]["reason"]
    assert shown[2]["reason"] == "1 of 10"


def test_decisions_carry_what_they_said() -> None:
    body = {"reason": "too many", "upgrade_id": "u-1", "code": "Paused", "until": None}
    entry = LogRow(sequence=7, time=NOW, type="batch.held.v1", body=body)
    (shown,) = explanation_json(scene(), upgrade=None, decisions=[entry])["decisions"]
    assert shown == {
        "sequence": 7,
        "time": NOW.isoformat(),
        "type": "batch.held.v1",
        "reason": "too many",
        "upgradeId": "u-1",
        "code": "Paused",
    }


def test_the_state_has_no_secrets_and_can_be_read_again() -> None:
    shown = state_json(
        fleet(last_version="2.0.0"),
        Rows(instances=[{"id": "0"}], upgrade=None),
        images=(),
        holds=(HOLD,),
        durations=measure(()),
        now=NOW,
    )
    assert shown["time"] == NOW.isoformat()
    assert "sealed-" not in str(shown)
    spec = ScaleSetSpec.model_validate(shown["spec"])
    assert spec.provisioning.extensions[0].name == "setup"
    assert shown["lastVersion"] == "2.0.0"
    assert shown["batchSeconds"] == [30.5]
    assert shown["holds"][0]["by_set"] == "other"
    assert shown["durations"] == {"provisioning": [], "healthy": []}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_durations_are_from_batch_to_boot_and_from_boot_to_health() -> None:
    entries: list[tuple[str, datetime, dict[str, Any]]] = [
        ("instance.healthy.v1", at(0), {"instance_id": "1"}),
        ("batch.started.v1", at(1), {"instance_ids": ["1", "2", "3"]}),
        ("instance.upgraded.v1", at(31), {"instance_id": "1"}),
        ("instance.upgraded.v1", at(32), {"instance_id": "2"}),
        ("instance.failed.v1", at(33), {"instance_id": "3"}),
        ("instance.upgraded.v1", at(34), {"instance_id": "3"}),
        ("instance.healthy.v1", at(36), {"instance_id": "1"}),
        ("instance.failed.v1", at(40), {"instance_id": "2"}),
        ("instance.healthy.v1", at(41), {"instance_id": "2"}),
        ("batch.started.v1", at(50), {"instance_ids": ["4"], "replacements": {"4": "9"}}),
        ("instance.created.v1", at(60), {"instance_id": "9"}),
        ("instance.created.v1", at(61), {"instance_id": "10"}),
        ("instance.healthy.v1", at(63), {"instance_id": "9"}),
        ("instance.healthy.v1", at(64), {"instance_id": "10"}),
    ]
    found = measure(entries)
    assert found.provisioning == (30, 31, 10)
    assert found.healthy == (5, 3)


def latest(upgrade: UpgradeRow, failure: ResultRow | None = None) -> dict[str, Any]:
    shown = latest_json(
        upgrade,
        scale_set=SET,
        location="local",
        cancelled_at=None,
        waiting={"code": "Baking", "message": "m", "until": None},
        failure=failure,
    )
    properties: dict[str, Any] = shown["properties"]
    return properties


@pytest.mark.parametrize(
    ("changes", "policy", "words"),
    [
        ({"successful": 8, "failed": 2}, {}, "continues, as long as not more than 20% of them"),
        ({"successful": 3, "failed": 1}, {}, "stops after its current batch: more than 20%"),
        (
            {"successful": 3, "failed": 1},
            {"max_unhealthy_upgraded_instance_count": 1},
            "continues, as long as not more than 20% and 1 of them",
        ),
        ({"successful": 0, "failed": 4, "override": True}, {}, "in spite of failures"),
        ({"successful": 0, "failed": 4, "rollback_of": "3.0.0"}, {}, "in spite of failures"),
    ],
)
def test_an_upgrade_with_failures_says_whether_it_goes_on(
    changes: dict[str, Any], policy: dict[str, Any], words: str
) -> None:
    rules = RollingPolicy.model_validate(policy).model_dump(mode="json")
    failed = replace(RESULT, id="5", state="failed", error={"code": "C", "message": "no answer"})
    error = latest(replace(UPGRADE, policy=rules, **changes), failed)["error"]
    assert error["code"] == "RollingUpgradeInProgressWithFailedUpgradedVMs"
    assert words in error["message"]
    assert "no answer First failed instance ID is: 5." in error["message"]


def test_an_upgrade_without_failures_or_at_its_end_has_no_such_error() -> None:
    assert "error" not in latest(UPGRADE)
    assert "error" not in latest(replace(UPGRADE, status="Completed", failed=1))
    own = {"code": "MetricGateFailed", "message": "m", "target": None}
    assert latest(replace(UPGRADE, failed=1, error=own))["error"]["code"] == "MetricGateFailed"


def test_what_azure_has_no_place_for_is_in_rollcall() -> None:
    changed = replace(UPGRADE, pause_requested=True, override=True, skipped=2, pending=3)
    shown = latest(changed)
    assert shown["rollcall"] == {
        "upgradeId": "u-1",
        "override": True,
        "rollbackOf": None,
        "deferred": False,
        "skippedInstanceCount": 2,
        "pauseRequested": True,
        "waitingFor": {"code": "Baking", "message": "m", "until": None},
    }
    assert shown["progress"]["pendingInstanceCount"] == 3
    assert latest(replace(changed, status="Completed"))["rollcall"]["waitingFor"] is None
