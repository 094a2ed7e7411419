"""Tables of the API's documents: rows as people read them, at any width."""

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rollcall_cli import tables

NOW = datetime(2026, 5, 2, 20, 30, tzinfo=UTC)
GROUP = "/subscriptions/mine/resourceGroups/shop/providers"
SET = f"{GROUP}/Microsoft.Compute/virtualMachineScaleSets/web"
IMAGE = {"publisher": "Contoso", "offer": "Web", "sku": "stable", "version": "latest"}


@pytest.fixture(autouse=True)
def _utc(utc: None) -> None:
    """Read the clock of a machine in UTC."""


def text_of(shown: RenderableType, width: int = 160) -> list[str]:
    console = Console(width=width, record=True, file=StringIO())
    console.print(shown)
    return [line.rstrip() for line in console.export_text().splitlines()]


def scale_set(**properties: Any) -> dict[str, Any]:
    return {
        "id": SET,
        "name": "web",
        "sku": {"capacity": 5},
        "properties": {
            "upgradePolicy": {"automaticOSUpgradePolicy": {"enableAutomaticOSUpgrade": True}},
            "virtualMachineProfile": {"storageProfile": {"imageReference": IMAGE}},
            "provisioningState": "Succeeded",
            "rollcall": {"waitingFor": {"code": "UpToDate", "message": "Nothing."}},
            **properties,
        },
    }


def upgrade(**changes: Any) -> dict[str, Any]:
    return {
        "id": "5b1f",
        "status": "Faulted",
        "startedBy": "Platform",
        "startTime": (NOW - timedelta(minutes=5)).isoformat(),
        "endTime": (NOW - timedelta(minutes=3)).isoformat(),
        "reason": "it was published",
        "error": {"code": "TooMany", "message": "2 of 2 failed"},
        "targetImageReference": {"version": "2.0.0"},
        "progress": {"successfulInstanceCount": 3, "failedInstanceCount": 2},
        "batches": [
            {
                "number": 1,
                "size": 2,
                "startTime": (NOW - timedelta(minutes=4)).isoformat(),
                "endTime": None,
                "succeeded": None,
                "failed": None,
                "reason": "2 of 10",
            }
        ],
        **changes,
    }


def test_sets_are_rows_with_their_subscription_where_there_are_several() -> None:
    rows = text_of(tables.sets_table([scale_set()]))
    assert rows[0].split() == [
        *("name", "group", "capacity", "image", "automatic", "state", "waits", "for"),
    ]
    assert rows[1].split() == [
        *("web", "shop", "5", "Contoso:Web:stable:latest", "on", "Succeeded", "UpToDate"),
    ]
    other = {**scale_set(), "id": SET.replace("mine", "yours")}
    assert "subscription" in text_of(tables.sets_table([scale_set(), other]))[0]
    assert "rollcall apply" in text_of(tables.sets_table([]))[0]


def test_a_set_has_a_page() -> None:
    held = {"code": "ImageNotFound", "message": "no feed has it"}
    warning = {"code": "NoHealthSource", "message": "no probe"}
    document = scale_set(rollcall={"held": held, "warnings": [warning]})
    view = {"virtualMachine": {"statusesSummary": [
        {"code": "HealthState/healthy", "count": 4}, {"code": "ProvisioningState/succeeded",
                                                      "count": 5},
    ]}}  # fmt: skip  # a document
    page = "\n".join(text_of(tables.set_page(document, view, upgrade(), NOW)))
    for part in (
        "web\n",
        "Contoso:Web:stable:latest",
        "5 succeeded, 4 healthy",
        "20 % at a time, at most 20 % unhealthy",
        "none: running with its extensions counts as healthy",
        "to 2.0.0: Faulted, 3 of 5 done, started 20:25:00 UTC by Platform",
        "ImageNotFound: no feed has it",
        "NoHealthSource: no probe",
    ):
        assert part in page
    assert "none yet" in "\n".join(text_of(tables.set_page(document, view, None, NOW)))


def instance(id: str, **own: Any) -> dict[str, Any]:
    return {
        "instanceId": id,
        "name": f"web_{id}",
        "properties": {
            "osProfile": {"computerName": f"web{id}"},
            "storageProfile": {"imageReference": {"exactVersion": "1.0.0"}},
            "instanceView": {"statuses": [{"code": "ProvisioningState/succeeded"},
                                          {"code": "PowerState/running"}]},
            "rollcall": {"host": "host-1", "phase": "ready", "health": "Healthy",
                         "since": NOW.isoformat(), "error": None, **own},
        },
    }  # fmt: skip  # a document


def test_instances_are_rows_without_columns_that_say_nothing() -> None:
    rows = text_of(tables.instances_table([instance("0"), instance("1")], NOW))
    assert rows[0].split() == ["id", "name", "host", "version", "phase", "health", "power", "since"]
    assert rows[2].split() == [
        *("1", "web1", "host-1", "1.0.0", "ready", "Healthy", "running", "20:30:00"),
    ]
    sick = instance("2", phase="failed", error={"message": "no answer"})
    sick["zones"] = ["1"]
    rows = text_of(tables.instances_table([instance("0"), sick], NOW))
    assert rows[0].split()[-1] == "error"
    assert rows[2].endswith("no answer")
    assert "zone" in rows[0]


def test_images_are_rows() -> None:
    base = "/subscriptions/s/providers/Microsoft.Compute/locations/local/publishers/Contoso"
    image: dict[str, Any] = {
        "id": f"{base}/artifacttypes/vmimage/offers/Web/skus/stable/versions/1.0.0",
        "properties": {
            "osDiskImage": {"operatingSystem": "Linux"},
            "automaticOSUpgradeProperties": {"automaticOSUpgradeSupported": False},
            "rollcall": {"sha256": "abcdef0123456789", "size": 5 * 1024**3,
                         "excludeFromLatest": True},
        },
    }  # fmt: skip  # a document
    row = " ".join(text_of(tables.images_table([image]))[1].split())
    assert row == "Contoso Web stable 1.0.0 Linux not in the catalogue never 5.0 GiB abcdef012345"
    assert tables.image_parts(image["id"]) == ("Contoso", "Web", "stable", "1.0.0")


def test_both_histories_are_told_alike() -> None:
    own = upgrade()
    azure = {
        "properties": {
            "runningStatus": {"code": "Faulted", "startTime": own["startTime"],
                              "endTime": own["endTime"]},
            "rollcall": {"upgradeId": "5b1f"},
            **{k: own[k] for k in ("progress", "startedBy", "targetImageReference", "error")},
        }
    }  # fmt: skip  # a document
    rows = text_of(tables.history_lines([own], NOW))
    assert rows == text_of(tables.history_lines([azure], NOW))
    assert rows == [
        "started   took   version  status   instances  by",
        "20:25:00  2 min  2.0.0    Faulted  3 of 5     Platform",
        "  5b1f",
        "  TooMany: 2 of 2 failed",
    ]
    runs = text_of(tables.history_lines([upgrade(endTime=None, error=None)], NOW))
    assert "5 min so far" in runs[1]
    assert "never had an upgrade" in text_of(tables.history_lines([], NOW))[0]


def test_an_upgrade_has_a_page_with_batches_and_instances() -> None:
    results = [
        {"instanceId": "0", "state": "restored", "batch": 1, "fromVersion": "1.0.0",
         "error": {"message": "no answer"}, "reason": ""},
        {"instanceId": "1", "state": "pending", "batch": None, "fromVersion": "1.0.0",
         "error": None, "reason": ""},
    ]  # fmt: skip  # documents
    page = "\n".join(text_of(tables.upgrade_page(upgrade(instances=results), NOW)))
    assert "TooMany: 2 of 2 failed" in page
    assert "4 min so far" in page
    assert " 0  restored      1  1.0.0  no answer" in page


def test_how_it_ended_is_a_sentence() -> None:
    assert tables.outcome(upgrade()) == (
        "The upgrade to 2.0.0 is Faulted: 3 of 5 instances in 1 batch. TooMany: 2 of 2 failed"
    )


@pytest.mark.parametrize(
    ("size", "words"), [(512, "512 B"), (2048, "2 KiB"), (5 * 1024**2, "5 MiB")]
)
def test_sizes_are_read_at_a_glance(size: int, words: str) -> None:
    assert tables.size_words(size) == words
