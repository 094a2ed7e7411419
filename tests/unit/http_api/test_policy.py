"""The rolling policy: each field of the contract, its bounds, its default, and what it excludes."""

from typing import Any

import pytest
from http_api.domain.documents import ModelError, Reader
from http_api.domain.fields import fields_of, to_json
from http_api.domain.policy import ROLLING, policy_from_json, read_policy, upgrade_policy_json
from http_api.domain.schedule import HOOKS, WINDOWS
from http_api.domain.shape import SCALE_SET, canonical
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel
from rollcall_contracts.model import (
    Drain,
    GateAnswer,
    MetricGate,
    RollingPolicy,
)

GATE = {"server": "http://prometheus:9090", "query": "errors", "successCondition": "<= 0.01"}
EVERYTHING: dict[str, Any] = {
    "maxBatchInstancePercent": 10,
    "maxUnhealthyInstancePercent": 30,
    "maxUnhealthyUpgradedInstancePercent": 0,
    "pauseTimeBetweenBatches": "PT30S",
    "enableCrossZoneUpgrade": True,
    "prioritizeUnhealthyInstances": True,
    "rollbackFailedInstancesOnPolicyBreach": True,
    "maxSurge": True,
    "healthTimeout": "PT1M",
    "provisioningTimeout": "PT10M",
    "upgradeTimeout": "P1D",
    "maxBatchInstanceCount": 3,
    "maxUnhealthyInstanceCount": 1,
    "maxUnhealthyUpgradedInstanceCount": 2,
    "canaryInstanceCount": 1,
    "canaryBakeTime": "PT1H",
    "bakeTime": "PT2H",
    "slidingBatches": False,
    "drain": {"requestPath": "/drain", "port": 8080, "deadline": "PT2M"},
    "metricGate": {
        **GATE,
        "failureCondition": "> 0.1",
        "onInconclusive": "Proceed",
        "onUnreachable": "Fault",
        "interval": "PT30S",
        "timeout": "PT5S",
    },
}


def faults(document: dict[str, Any]) -> dict[str | None, str]:
    with pytest.raises(ModelError) as caught:
        policy_from_json(document)
    return {fault.target: fault.message for fault in caught.value.faults}


def test_every_field_is_read_by_its_name_in_camel_case() -> None:
    policy = policy_from_json(EVERYTHING)
    assert set(EVERYTHING) == {to_camel(name) for name in RollingPolicy.model_fields}
    assert policy == RollingPolicy(
        max_batch_instance_percent=10,
        max_unhealthy_instance_percent=30,
        max_unhealthy_upgraded_instance_percent=0,
        pause_time_between_batches=30,
        enable_cross_zone_upgrade=True,
        prioritize_unhealthy_instances=True,
        rollback_failed_instances_on_policy_breach=True,
        max_surge=True,
        health_timeout=60,
        provisioning_timeout=600,
        upgrade_timeout=86_400,
        max_batch_instance_count=3,
        max_unhealthy_instance_count=1,
        max_unhealthy_upgraded_instance_count=2,
        canary_instance_count=1,
        canary_bake_time=3600,
        bake_time=7200,
        drain=Drain(request_path="/drain", port=8080, deadline=120),
        metric_gate=MetricGate(
            server="http://prometheus:9090",
            query="errors",
            success_condition="<= 0.01",
            failure_condition="> 0.1",
            on_inconclusive=GateAnswer.PROCEED,
            on_unreachable=GateAnswer.FAULT,
            interval=30,
            timeout=5,
        ),
    )


def test_what_is_written_is_what_was_read() -> None:
    assert to_json(policy_from_json(EVERYTHING)) == EVERYTHING


def test_no_policy_is_the_default_one() -> None:
    assert policy_from_json({}) == RollingPolicy()
    written = to_json(RollingPolicy())
    assert policy_from_json(written) == RollingPolicy()
    assert written["upgradeTimeout"] is None
    assert written["healthTimeout"] == "PT5M"


def test_seconds_are_durations_and_texts_numbers() -> None:
    policy = policy_from_json(
        {
            "BakeTime": 90,
            "canaryBakeTime": 1.5,
            "canaryInstanceCount": "2",
            "slidingbatches": "true",
            "drain": {"RequestPath": "/d", "deadline": 10, "port": "80"},
        }
    )
    assert (policy.bake_time, policy.canary_bake_time) == (90, 1.5)
    assert (policy.canary_instance_count, policy.sliding_batches) == (2, True)
    assert policy.drain == Drain(request_path="/d", port=80, deadline=10)


def test_clients_always_see_iso_8601() -> None:
    body = {"properties": {"upgradePolicy": {"rollingUpgradePolicy": {"bakeTime": 90}}}}
    kept = canonical(body, SCALE_SET)
    assert kept["properties"]["upgradePolicy"]["rollingUpgradePolicy"] == {"bakeTime": "PT1M30S"}


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"maxBatchInstanceCount": 0}, "maxBatchInstanceCount"),
        ({"maxBatchInstanceCount": 100_001}, "maxBatchInstanceCount"),
        ({"maxUnhealthyInstanceCount": -1}, "maxUnhealthyInstanceCount"),
        ({"maxUnhealthyUpgradedInstanceCount": "few"}, "maxUnhealthyUpgradedInstanceCount"),
        ({"canaryInstanceCount": 1.5}, "canaryInstanceCount"),
        ({"canaryBakeTime": "P31D"}, "canaryBakeTime"),
        ({"bakeTime": "soon"}, "bakeTime"),
        ({"upgradeTimeout": "PT0S"}, "upgradeTimeout"),
        ({"upgradeTimeout": "P367D"}, "upgradeTimeout"),
        ({"maxSurge": 1}, "maxSurge"),
        ({"drain": "/drain"}, "drain"),
        ({"drain": {}}, "drain.requestPath"),
        ({"drain": {"requestPath": "drain"}}, "drain.requestPath"),
        ({"drain": {"requestPath": "/d", "port": 0}}, "drain.port"),
        ({"drain": {"requestPath": "/d", "deadline": "PT0S"}}, "drain.deadline"),
        ({"drain": {"requestPath": "/d", "dealine": "PT5S"}}, "drain.dealine"),
        ({"metricGate": {**GATE, "server": "prometheus:9090"}}, "metricGate.server"),
        ({"metricGate": {**GATE, "server": "http://x\n"}}, "metricGate.server"),
        ({"metricGate": {**GATE, "server": "http://me:secret@x"}}, "metricGate.server"),
        ({"metricGate": {**GATE, "query": ""}}, "metricGate.query"),
        ({"metricGate": {**GATE, "query": "q" * 8001}}, "metricGate.query"),
        ({"metricGate": {**GATE, "successCondition": "0.01"}}, "metricGate.successCondition"),
        ({"metricGate": {**GATE, "successCondition": "<= few"}}, "metricGate.successCondition"),
        ({"metricGate": {**GATE, "successCondition": "<= 1\n"}}, "metricGate.successCondition"),
        ({"metricGate": {**GATE, "failureCondition": "=> 1"}}, "metricGate.failureCondition"),
        ({"metricGate": {**GATE, "onInconclusive": "Hope"}}, "metricGate.onInconclusive"),
        ({"metricGate": {**GATE, "interval": "PT0.5S"}}, "metricGate.interval"),
        ({"metricGate": {**GATE, "timeout": "PT301S"}}, "metricGate.timeout"),
        ({"metricGate": {"server": "http://x"}}, "metricGate.successCondition"),
        ({"maxSurge": True, "slidingBatches": True}, "maxSurge"),
        ({"maxBatchInstancePercent": 21}, "maxBatchInstancePercent"),
    ],
)
def test_what_cannot_be_taken_is_named(document: dict[str, Any], place: str) -> None:
    assert place in faults(document)


def test_a_refusal_says_what_would_be_right() -> None:
    found = faults({"metricGate": {**GATE, "successCondition": "small"}, "drain": {"path": "/"}})
    assert "'<= 0.01'" in found["metricGate.successCondition"]
    assert "requestPath, port, deadline" in found["drain.path"]
    found = faults({"metricGate": {**GATE, "server": "http://a:secret@b"}})
    assert "without user and password" in found["metricGate.server"]
    assert "secret" not in str(found)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["PT1S", "P1D", "<= 1", "/d", "http://x", "Wait", "", "20"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(sorted(EVERYTHING["metricGate"])), inner)
        | st.dictionaries(st.sampled_from(sorted(EVERYTHING["drain"])), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(EVERYTHING)), json_values))
def test_any_policy_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        policy = policy_from_json(document)
    except ModelError:
        return
    assert policy_from_json(to_json(policy)) == policy


def test_every_default_is_shown() -> None:
    shown = upgrade_policy_json(None)
    assert shown == {
        "mode": "Manual",
        "maintenanceWindows": [],
        "rollingUpgradePolicy": to_json(RollingPolicy()),
        "automaticOSUpgradePolicy": {
            "enableAutomaticOSUpgrade": False,
            "disableAutomaticRollback": False,
            "useRollingUpgradePolicy": True,
            "osRollingUpgradeDeferral": False,
            "minimumImageAge": "PT0S",
            "holdFaultedVersions": True,
        },
    }


def test_what_was_written_is_shown_as_it_was_beside_the_defaults() -> None:
    written = {"bakeTime": "PT60S", "drain": {"requestPath": "/d"}, "of": {"a": "later version"}}
    shown = upgrade_policy_json({"rollingUpgradePolicy": written})["rollingUpgradePolicy"]
    assert shown == {
        **to_json(RollingPolicy()),
        **written,
        "drain": {"requestPath": "/d", "port": None, "deadline": "PT5M"},
    }


def test_places_are_azures() -> None:
    assert ROLLING == "properties.upgradePolicy.rollingUpgradePolicy"
    assert HOOKS == "properties.lifecycleHooksProfile.lifecycleHooks"
    assert WINDOWS == "properties.upgradePolicy.maintenanceWindows"
    reader = Reader({"properties": {"upgradePolicy": {"rollingUpgradePolicy": {"maxSurge": 0}}}})
    assert read_policy(reader) is None
    assert [fault.target for fault in reader.faults] == [f"{ROLLING}.maxSurge"]


def test_bounds_are_the_contracts() -> None:
    by_name = {field.name: field for field in fields_of(RollingPolicy)}
    assert (by_name["max_batch_instance_percent"].low, by_name["bake_time"].high) == (5, 2_592_000)
    assert not by_name["health_timeout"].zero
    assert by_name["bake_time"].zero
