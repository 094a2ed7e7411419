"""Entries of the event log: found, chosen, verified, told."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_cli.entries import Chain, Filter, exact_body, instances_of, line, newest_sequence
from rollcall_contracts.chain import GENESIS, entry_hash

NOW = datetime(2026, 5, 2, 20, 30, tzinfo=UTC)
STREAM = "/subscriptions/s/resourcegroups/g/providers/microsoft.compute/virtualmachinescalesets/web"


def text_of(number: int, previous: str, body: str, type: str = "batch.started.v1") -> str:
    """Return an entry as the server writes it: `data` last, its text untouched."""
    digest = entry_hash(
        stream=STREAM, sequence=number, id=f"id-{number}", type=type, source="orchestrator",
        time=NOW, body=body, previous_hash=previous,
    )  # fmt: skip  # names and values
    attributes = {
        "specversion": "1.0", "id": f"id-{number}", "source": "orchestrator", "type": type,
        "subject": 'a "data": in a text', "time": NOW.isoformat(), "stream": STREAM,
        "sequence": str(number), "previoushash": previous, "hash": digest, "correlationid": "5b1f",
    }  # fmt: skip  # names and values
    return f'{json.dumps(attributes)[:-1]}, "data": {body}}}'


def log(count: int) -> list[str]:
    texts, previous = [], GENESIS
    for number in range(1, count + 1):
        # Spaces that a parser would not keep.
        texts.append(text_of(number, previous, f'{{"batch":{number},  "instance_ids": ["0"]}}'))
        previous = json.loads(texts[-1])["hash"]
    return texts


def faults(texts: list[str], after: int = 0) -> list[str | None]:
    chain = Chain(after)
    return [chain.fault(json.loads(text), exact_body(text)) for text in texts]


def test_a_whole_log_is_verified() -> None:
    chain = Chain()
    for text in log(4):
        assert chain.fault(json.loads(text), exact_body(text)) is None
    assert chain.words() == "verified 1 to 4: nothing is missing, nothing was changed"
    assert faults(log(4)[2:], after=2) == [None, None]
    assert Chain().words() == "no entry to verify"


def test_what_is_missing_or_changed_is_found() -> None:
    texts = log(4)
    assert faults([texts[0], texts[2]])[-1] == "entries 2 to 2 are missing"
    assert faults([texts[0].replace('"batch":1', '"batch":7')]) == ["entry 1 was changed"]
    rewritten = text_of(2, "0" * 64, '{"batch": 2}')
    assert faults([texts[0], rewritten])[-1] == (
        "an entry before 2 was changed, or 2 is of another chain"
    )


@given(st.integers(0, 10**7))
def test_the_newest_entry_is_found_with_few_questions(newest: int) -> None:
    asked: list[int] = []

    def has_after(number: int) -> bool:
        asked.append(number)
        return number < newest

    assert newest_sequence(has_after) == newest
    assert len(asked) <= 40


ENTRY = {
    "type": "instances.upgrade_requested.v1",
    "correlationid": "5b1f",
    "data": {"instances": [{"instance_id": "3"}, {"instance_id": "4"}], "host": "host-1"},
}


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        (Filter(), True),
        (Filter(types=("instances.*",)), True),
        (Filter(types=("batch.*", "instances.upgrade_requested")), True),
        (Filter(types=("*.v1",)), True),
        (Filter(types=("instance.*",)), False),
        (Filter(instance="4"), True),
        (Filter(instance="5"), False),
        (Filter(upgrade="5b1f"), True),
        (Filter(upgrade="other"), False),
        (Filter(types=("instances.*",), instance="4", upgrade="other"), False),
    ],
)
def test_filters_leave_out(wanted: Filter, takes: bool) -> None:
    assert wanted.takes(ENTRY) is takes
    assert wanted.is_narrow is (wanted != Filter())


def test_instances_are_found_wherever_an_event_names_them() -> None:
    assert instances_of({"instance_id": "1"}) == ["1"]
    assert instances_of({"instance_ids": ["1", "2"], "instances": [{"instance_id": "2"}]}) == [
        "1", "2",
    ]  # fmt: skip  # a list
    assert instances_of({"instances": None}) == []


@pytest.mark.parametrize(
    ("type", "data", "words"),
    [
        ("batch.started.v1", {"batch": 2, "instance_ids": ["4", "5"], "reason": "2 of 10"},
         "instances 4, 5; batch 2; 2 of 10"),
        ("instance.unhealthy.v1", {"instance_id": "5", "reason": "refused"},
         "instance 5; refused"),
        ("upgrade.faulted.v1", {"error": {"code": "X", "message": "bad"}, "reason": ""}, "X: bad"),
        ("image.published.v1",
         {"image": {"publisher": "C", "offer": "W", "sku": "s", "version": "1.0"}}, "C:W:s:1.0"),
        ("probe.requested.v1", {"instances": [{"instance_id": str(i)} for i in range(9)]},
         "instances 0, 1, 2, 3, 4, 5 and 3 more"),
    ],
)  # fmt: skip  # a table
def test_an_entry_is_told_in_a_line(type: str, data: dict[str, Any], words: str) -> None:
    entry = {"sequence": "7", "time": NOW.isoformat(), "type": type, "data": data}
    told = line(entry, NOW).plain
    assert told.startswith("     7 ")
    assert type.removesuffix(".v1") in told
    assert told.endswith(words)
