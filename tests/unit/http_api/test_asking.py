"""What people ask of upgrades and instances: what is read, and what is refused in which words."""

from typing import Any

import pytest
from http_api.domain.asking import (
    ALL_EXCLUDED,
    Refusal,
    Standing,
    Wish,
    read_instance_ids,
    read_wish,
    refusal_to_approve,
    refusal_to_pause,
    refusal_to_resume,
    refusal_to_roll_back,
    refusal_to_start,
)
from http_api.domain.documents import ModelError
from http_api.domain.protection import Protection, read_protection
from rollcall_contracts.model import Image

IMAGE = Image(
    publisher="Contoso",
    offer="Web",
    sku="stable",
    version="2.0.0",
    url="file:///x",
    sha256="0" * 64,
    size=1,
)


def standing(
    version: str = "1.0.0", *, protected: bool = False, skips: bool = False, count: int = 1
) -> Standing:
    return Standing(version=version, protected=protected, skips=skips, count=count)


def start(**changes: Any) -> Refusal | None:
    given: dict[str, Any] = {
        "name": "web",
        "is_running": False,
        "version": "latest",
        "images": [IMAGE],
        "standings": [standing()],
    }
    return refusal_to_start(**{**given, **changes})


def test_a_start_that_has_something_to_do_is_not_refused() -> None:
    assert start() is None
    assert start(standings=[standing("2.0.0"), standing(skips=True), standing()]) is None


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"is_running": True}, 409, "cancel"),
        ({"version": "1.0.0"}, 400, ALL_EXCLUDED),
        ({"standings": [standing(protected=True)]}, 400, ALL_EXCLUDED),
        ({"images": []}, 409, "No image"),
        (
            {"images": [IMAGE.model_copy(update={"exclude_from_latest": True})]},
            409,
            "No image",
        ),
        ({"standings": []}, 409, "no instances"),
        ({"standings": [standing("2.0.0")]}, 409, "latest version 2.0.0"),
        ({"standings": [standing("2.0.0"), standing(protected=True)]}, 409, "unprotected"),
        ({"standings": [standing("2.0.0"), standing(skips=True, count=3)]}, 409, "the 3 instances"),
    ],
)
def test_a_start_for_nothing_is_refused(changes: dict[str, Any], status: int, words: str) -> None:
    refusal = start(**changes)
    assert refusal is not None
    assert refusal.status == status
    assert words in refusal.message


def test_azures_words_for_a_set_that_is_all_protected() -> None:
    """azure-aws-gcp.md 1.8."""
    assert ALL_EXCLUDED == (
        "The OS Rolling Upgrade API cannot be used on a Virtual Machine Scale Set unless the "
        "Virtual Machine Scale Set has some unprotected instances which have "
        "imageReference.version set to latest."
    )


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (refusal_to_pause(is_running=False, is_cancelled=False), "no ongoing Rolling Upgrade"),
        (refusal_to_pause(is_running=True, is_cancelled=True), "cancelled"),
        (refusal_to_resume(is_running=False, is_paused=False), "osRollingUpgrade"),
        (refusal_to_resume(is_running=True, is_paused=False), "not paused"),
        (
            refusal_to_roll_back(name="web", is_running=True, is_rollback=True, can_return=True),
            "already",
        ),
        (
            refusal_to_roll_back(name="web", is_running=False, is_rollback=False, can_return=False),
            "nothing to roll back",
        ),
        (
            refusal_to_approve(is_running=False, is_deferred=False, ids=("*",), members=()),
            "no ongoing Rolling Upgrade",
        ),
        (
            refusal_to_approve(is_running=True, is_deferred=False, ids=("*",), members=()),
            "osRollingUpgradeDeferral",
        ),
        (
            refusal_to_approve(is_running=True, is_deferred=True, ids=("1", "7"), members={"1"}),
            "instance 7",
        ),
    ],
)
def test_a_refusal_says_what_to_do(refusal: Refusal | None, words: str) -> None:
    assert refusal is not None
    assert refusal.status == 409
    assert words in refusal.message


@pytest.mark.parametrize(
    "refusal",
    [
        refusal_to_pause(is_running=True, is_cancelled=False),
        refusal_to_resume(is_running=True, is_paused=True),
        refusal_to_roll_back(name="web", is_running=True, is_rollback=False, can_return=False),
        refusal_to_roll_back(name="web", is_running=False, is_rollback=False, can_return=True),
        refusal_to_approve(is_running=True, is_deferred=True, ids=("*",), members=()),
        refusal_to_approve(is_running=True, is_deferred=True, ids=("1",), members={"1", "2"}),
    ],
)
def test_what_can_be_done_is_not_refused(refusal: Refusal | None) -> None:
    assert refusal is None


def test_wishes() -> None:
    assert read_wish({}) == Wish()
    assert read_wish({"Override": "true", "reason": "disk full"}) == Wish(
        override=True, reason="disk full"
    )
    assert read_wish({"reason": "why"}) == Wish(reason="why")


@pytest.mark.parametrize(
    ("body", "target"),
    [
        ({"override": True}, "reason"),
        ({"override": True, "reason": "  "}, "reason"),
        ({"override": "perhaps"}, "override"),
        ({"reason": 5}, "reason"),
        ({"reason": "x" * 1001}, "reason"),
    ],
)
def test_an_override_without_a_reason_is_refused(body: dict[str, Any], target: str) -> None:
    with pytest.raises(ModelError) as caught:
        read_wish(body)
    assert [fault.target for fault in caught.value.faults] == [target]


def test_instance_ids() -> None:
    assert read_instance_ids({"InstanceIds": ["3", "0", "3"]}, required=True) == ("3", "0")
    assert read_instance_ids({"instanceIds": ["0", "*"]}, required=True) == ("*",)
    assert read_instance_ids({}, required=False) == ("*",)
    wrong: list[dict[str, Any]] = [{}, *({"instanceIds": ids} for ids in ([], "0", [0]))]
    for body in wrong:
        with pytest.raises(ModelError):
            read_instance_ids(body, required=True)
    with pytest.raises(ModelError):
        read_instance_ids({"instanceIds": []}, required=False)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({}, Protection()),
        (None, Protection()),
        ({"protectFromScaleIn": True}, Protection(scale_in=True)),
        ({"ProtectFromScaleIn": "true"}, Protection(scale_in=True)),
        (
            {"protectFromScaleSetActions": True},
            Protection(scale_in=True, set_actions=True),
        ),
        (
            {"protectFromScaleIn": True, "protectFromScaleSetActions": True},
            Protection(scale_in=True, set_actions=True),
        ),
        (
            {"protectFromScaleIn": True, "protectFromScaleSetActions": False},
            Protection(scale_in=True),
        ),
    ],
)
def test_protection(policy: Any, expected: Protection) -> None:
    assert read_protection({"properties": {"protectionPolicy": policy}}) == expected


def test_an_instance_without_a_protection_policy_keeps_its_own() -> None:
    assert read_protection({}) is None
    assert read_protection({"properties": {"latestModelApplied": True}}) is None


@pytest.mark.parametrize(
    "policy",
    [
        {"protectFromScaleIn": False, "protectFromScaleSetActions": True},
        {"protectFromScaleIn": "perhaps"},
        {"protectFromScaleSetActions": 1},
        "all",
    ],
)
def test_a_faulty_protection_is_refused(policy: Any) -> None:
    with pytest.raises(ModelError):
        read_protection({"properties": {"protectionPolicy": policy}})
    with pytest.raises(ModelError):
        read_protection({"properties": "none"})
