"""The event log's chain."""

import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.chain import GENESIS, Entry, entry_hash, is_intact

TIME = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
FIELDS: dict[str, Any] = {
    "stream": "images",
    "sequence": 1,
    "id": "0b7e",
    "type": "image.published.v1",
    "source": "image-publisher",
    "time": TIME,
    "body": '{"a": 1}',
    "previous_hash": GENESIS,
}
ENTRY = Entry(**FIELDS, hash=entry_hash(**FIELDS))


def test_the_hash_is_the_documented_one() -> None:
    # docs/auditing.md: auditors compute it without our code, so it may never change.
    text = "\n".join(
        [
            "0" * 64,
            "images",
            "1",
            "0b7e",
            "image.published.v1",
            "image-publisher",
            "2026-01-02T03:04:05.678000+00:00",
            '{"a": 1}',
        ]
    )
    assert ENTRY.hash == hashlib.sha256(text.encode()).hexdigest()
    assert ENTRY.hash == "1dafd4d38728f2cab04f6bfdca9fc1192832d5c8f8a46fe4ad35cf8860c6151a"
    assert is_intact(ENTRY)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "image"),
        ("sequence", 2),
        ("id", "0b7f"),
        ("type", "image.published.v2"),
        ("source", "orchestrator"),
        ("time", TIME.replace(microsecond=679)),
        ("body", '{"a": 1} '),
        ("previous_hash", "1" + GENESIS[1:]),
        ("hash", GENESIS),
    ],
)
def test_no_field_can_be_changed(field: str, value: Any) -> None:
    assert not is_intact(dataclasses.replace(ENTRY, **{field: value}))


line = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=20)


@given(line, line, line, line, st.text(st.characters(codec="utf-8"), max_size=50))
def test_text_cannot_move_from_one_field_to_the_next(
    id: str, type: str, source: str, moved: str, body: str
) -> None:
    fields = FIELDS | {"id": id, "type": type, "source": source, "body": body}
    if moved:
        there = entry_hash(**(fields | {"type": type + moved}))
        assert there != entry_hash(**(fields | {"source": moved + source}))
    assert entry_hash(**fields) != entry_hash(**(fields | {"body": source + "\n" + body}))
