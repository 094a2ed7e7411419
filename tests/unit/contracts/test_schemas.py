"""The checked-in schemas are those of the classes: a change of the wire is seen in review."""

import json
from pathlib import Path

import pytest
import yaml
from rollcall_contracts.events import EVENT_CLASSES, EventBase, event_type
from rollcall_contracts.schemas import (
    ENTRIES,
    EXCHANGE,
    REPORTS,
    asyncapi,
    event_schema,
    schema_name,
)
from rollcall_kit import broker

DOCS = Path(__file__).parents[3] / "docs" / "events"
HINT = "the events changed: if that is intended, run `make golden` and commit docs/events"


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__name__)
def test_a_schema_is_the_checked_in_one(cls: type[EventBase]) -> None:
    file = DOCS / "schemas" / schema_name(cls)
    assert file.exists(), HINT
    assert json.loads(file.read_text()) == event_schema(cls), HINT


def test_no_schema_is_left_of_an_event_that_is_gone() -> None:
    there = {file.name for file in (DOCS / "schemas").iterdir()}
    assert there == {schema_name(cls) for cls in EVENT_CLASSES}, HINT


def test_the_asyncapi_document_is_the_checked_in_one() -> None:
    assert yaml.safe_load((DOCS / "asyncapi.yaml").read_text()) == asyncapi(), HINT


def test_its_references_lead_somewhere() -> None:
    document = asyncapi()

    def check(node: object) -> None:
        if isinstance(node, dict):
            target = node.get("$ref")
            if isinstance(target, str) and target.startswith("#/"):
                found = document
                for part in target[2:].split("/"):
                    found = found[part]
            elif isinstance(target, str):
                assert (DOCS / target).is_file()
            for value in node.values():
                check(value)
        elif isinstance(node, list):
            for value in node:
                check(value)

    check(document)


def test_every_event_has_a_channel_and_the_exchange_is_the_brokers() -> None:
    assert {*ENTRIES, *REPORTS} == set(EVENT_CLASSES)
    channels = asyncapi()["channels"]
    assert set(channels) == {event_type(cls) for cls in ENTRIES} | {
        f"report.{event_type(cls)}" for cls in REPORTS
    }
    assert EXCHANGE == broker.EXCHANGE
