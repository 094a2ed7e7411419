"""Shapes of older api-versions, filters of instances, and conditions on etags."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from http_api.domain.api_versions import for_older, from_older, progress_for_older
from http_api.domain.conditions import Conditions, etag_of
from http_api.domain.documents import ModelError
from http_api.domain.instance_filter import parse_filter
from http_api.domain.resource_filter import parse_resource_filter


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            {"automaticOSUpgrade": True},
            {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}},
        ),
        (
            {"AUTOMATICosUpgrade": "true", "mode": "Manual"},
            {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": "true"}, "mode": "Manual"},
        ),
        (
            {"autoOSUpgradePolicy": {"disableAutoRollback": True}},
            {"automaticOSUpgradePolicy": {"disableAutomaticRollback": True}},
        ),
        (
            {"autoOSUpgradePolicy": {"disableAutoRollback": False, "other": 1}},
            {
                "automaticOSUpgradePolicy": {"disableAutomaticRollback": False},
                "autoOSUpgradePolicy": {"other": 1},
            },
        ),
        ({"mode": "Manual"}, {"mode": "Manual"}),
        ("text", "text"),
        (
            {"automaticOSUpgrade": True, "automaticOSUpgradePolicy": "text"},
            {"automaticOSUpgrade": True, "automaticOSUpgradePolicy": "text"},
        ),
    ],
)
def test_old_names_become_the_present_ones(policy: Any, expected: Any) -> None:
    body = {"Properties": {"upgradepolicy": policy, "x": 1}, "location": "l"}
    assert from_older(body, "2017-03-30") == {
        "Properties": {"upgradepolicy": expected, "x": 1},
        "location": "l",
    }
    assert from_older(body, "2018-10-01") == body
    assert from_older({"tags": {}}, "2017-03-30") == {"tags": {}}


def test_old_clients_find_old_names_beside_the_present_ones() -> None:
    automatic = {"enableAutomaticOSUpgrade": True, "disableAutomaticRollback": False}
    document = {"properties": {"upgradePolicy": {"automaticOSUpgradePolicy": automatic}}}
    shown = for_older(document, "2017-03-30")["properties"]["upgradePolicy"]
    assert shown == {
        "automaticOSUpgradePolicy": automatic,
        "automaticOSUpgrade": True,
        "autoOSUpgradePolicy": {"disableAutoRollback": False},
    }
    assert for_older(document, "2018-10-01") == document
    # what was read can be put back
    back = from_older(for_older(document, "2017-03-30"), "2017-03-30")
    assert back == document
    upgrade = {"properties": {"progress": {"inProgressInstanceCount": 3}}}
    older = progress_for_older(upgrade, "2017-03-30")["properties"]["progress"]
    assert older == {"inProgressInstanceCount": 3, "inprogressInstanceCount": 3}
    assert progress_for_older(upgrade, "2026-04-01") == upgrade


CODES = ["ProvisioningState/succeeded", "PowerState/running"]


@pytest.mark.parametrize(
    ("text", "latest", "passes"),
    [
        ("properties/latestModelApplied eq true", True, True),
        ("properties/latestModelApplied eq true", False, False),
        ("PROPERTIES/LATESTMODELAPPLIED EQ FALSE", False, True),
        ("properties/latestModelApplied ne true", False, True),
        ("startswith(instanceView/statuses/code,'PowerState') eq true", False, True),
        ("startswith(instanceView/statuses/code, 'powerstate/RUN') eq true", False, True),
        ("startswith(instanceView/statuses/code,'PowerState/stopped') eq true", False, False),
        ("startswith(instanceView/statuses/code,'PowerState/stopped') eq false", False, True),
        (
            "startswith(instanceView/statuses/code,'PowerState') eq true and "
            "properties/latestModelApplied eq true",
            False,
            False,
        ),
    ],
)
def test_filters(text: str, latest: bool, passes: bool) -> None:
    assert parse_filter(text)(CODES, latest) is passes


@pytest.mark.parametrize("text", ["name eq 'x'", "properties/latestModelApplied", "a and b"])
def test_a_filter_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="filter may be"):
        parse_filter(text)


@pytest.mark.parametrize("text", ["tagName eq 'x'", "name eq 'x' or name eq 'y'", "name eq x", "x"])
def test_a_filter_of_resources_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="filter may be"):
        parse_resource_filter(text)


@pytest.mark.parametrize("parse", [parse_filter, parse_resource_filter])
@pytest.mark.parametrize("word", [" ", "a and ", "\t\n"])
def test_a_filter_takes_a_time_that_grows_with_its_length_alone(
    parse: Callable[[str], object], word: str
) -> None:
    began = time.process_time()
    with pytest.raises(ModelError, match="at most 1000 are taken"):
        parse(f"x{word * 100_000}x")
    with pytest.raises(ModelError, match="filter may be"):
        parse(f"x{word * (990 // len(word))}x")
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        (
            "resourceType eq 'Microsoft.Network/loadBalancers'",
            {"resourcetype": ["microsoft.network/loadbalancers"]},
        ),
        ("RESOURCEGROUP EQ 'G'  AND  Name eq 'ab'", {"resourcegroup": ["g"], "name": ["ab"]}),
        (
            "resourceGroup eq 'g' and name eq 'None' and resourceGroup eq 'H'",
            {"resourcegroup": ["g", "h"], "name": ["none"]},
        ),
    ],
)
def test_filters_of_resources(text: str, wanted: dict[str, list[str]]) -> None:
    nothing: dict[str, list[str]] = {"resourcetype": [], "resourcegroup": [], "name": []}
    assert parse_resource_filter(text) == {**nothing, **wanted}


ETAG = etag_of({"a": 1})


@pytest.mark.parametrize(
    ("conditions", "etag", "is_refused"),
    [
        (Conditions(), ETAG, False),
        (Conditions(), None, False),
        (Conditions(if_none_match="*"), None, False),
        (Conditions(if_none_match="*"), ETAG, True),
        (Conditions(if_match="*"), None, True),
        (Conditions(if_match="*"), ETAG, False),
        (Conditions(if_match=ETAG), ETAG, False),
        (Conditions(if_match=f'"x", W/{ETAG}'), ETAG, False),
        (Conditions(if_match=ETAG.strip('"')), ETAG, False),
        (Conditions(if_match='"x"'), ETAG, True),
    ],
)
def test_conditions(conditions: Conditions, etag: str | None, is_refused: bool) -> None:
    assert (conditions.refusal(etag) is not None) is is_refused


def test_an_etag_changes_with_what_it_is_of() -> None:
    assert etag_of({"a": 1}) == ETAG != etag_of({"a": 2})
    assert ETAG.startswith('"')
