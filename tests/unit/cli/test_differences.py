"""What `apply` says that it changes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_cli.differences import NOTHING, Change, differences, wanted_changes

PROBES = [{"name": "a", "id": "/x/a", "properties": {"port": 80}}, {"name": "b"}]

documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner),
    max_leaves=10,
)


@given(documents)
def test_a_document_differs_not_from_itself(document: Any) -> None:
    assert differences(document, document) == []


@pytest.mark.parametrize(
    ("before", "body", "words"),
    [
        ({"sku": {"capacity": 5}}, {"sku": {"capacity": 5}}, []),
        ({"sku": {"capacity": 5, "name": "x"}}, {"sku": {"capacity": 6}},
         ["~ sku.capacity: 5 -> 6"]),
        ({"SKU": {"Capacity": 5}}, {"sku": {"capacity": 6}}, ["~ SKU.Capacity: 5 -> 6"]),
        ({}, {"sku": {"capacity": 6}}, ["+ sku.capacity: 6"]),
        ({"zones": ["1"]}, {"zones": None}, ['- zones: ["1"]']),
        ({}, {"zones": None}, []),
        ({"on": 1}, {"on": True}, ["~ on: 1 -> true"]),
        # What a PUT leaves out stays; of tags nothing does.
        ({"tags": {"a": "1", "b": "2"}}, {"tags": {"a": "1"}}, ['- tags.b: "2"']),
        # Lists are replaced, and compared by the names of their items.
        ({"p": {"probes": PROBES}}, {"p": {"probes": [{"name": "a", "properties": {"port": 81}}]}},
         ["~ p.probes[a].properties.port: 80 -> 81", '- p.probes[b]: {"name": "b"}']),
        ({"probes": PROBES}, {"probes": [*PROBES, {"name": "c"}]}, ['+ probes[c]: {"name": "c"}']),
        ({"zones": ["1", "2"]}, {"zones": ["2"]}, ['~ zones: ["1", "2"] -> ["2"]']),
        # What the server says, nobody writes.
        ({"etag": "1", "properties": {"provisioningState": "Succeeded", "rollcall": {"held": 1}}},
         {"etag": "2", "properties": {"provisioningState": "Failed", "rollcall": {}}}, []),
        ({"id": "/subscriptions/S/x"}, {"id": "/subscriptions/s/X"}, []),
        # Secrets are never shown, and never known.
        ({"osProfile": {}}, {"osProfile": {"customData": "aGk="}},
         ["+ osProfile.customData: (secret)"]),
        ({}, {"userData": "aGk="}, ["+ userData: (secret)"]),
        ({}, {"e": [{"name": "x", "protectedSettings": {"key": "k"}}]},
         ['+ e: [{"name": "x", "protectedSettings": "(secret)"}]']),
    ],
)  # fmt: skip  # a table
def test_a_written_document_changes_what_it_names(before: Any, body: Any, words: list[str]) -> None:
    assert [change.words() for change in wanted_changes(before, body)] == words


def test_two_documents_of_the_server_are_compared_whole() -> None:
    before = {"a": 1, "b": {"c": 2}, "probes": PROBES}
    after = {"a": 1, "b": {}, "probes": PROBES[:1], "d": 4}
    assert differences(before, after) == [
        Change("b.c", 2, NOTHING),
        Change("probes[b]", {"name": "b"}, NOTHING),
        Change("d", NOTHING, 4),
    ]


def test_a_change_is_a_document_too() -> None:
    assert Change("a", 1, NOTHING).document() == {"path": "a", "before": 1}
    assert Change("a", NOTHING, None).document() == {"path": "a", "after": None}
    assert Change("CUSTOMDATA", "old", "new").words() == "~ CUSTOMDATA: (secret)"
    assert Change("x.customData", NOTHING, "k").document() == {
        "path": "x.customData", "after": "(secret)",
    }  # fmt: skip  # a document
