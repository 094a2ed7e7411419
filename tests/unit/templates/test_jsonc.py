"""JSON as template files have it, with lines and columns."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_templates.jsonc import JsonError, loads, locate

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(min_value=-(2**63), max_value=2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        TEXTS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(TEXTS, inner),
    ),
    max_leaves=15,
)


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_it_reads_json_as_python_does(value: object, indent: int | None, ascii: bool) -> None:
    assert loads(json.dumps(value, indent=indent, ensure_ascii=ascii)) == value


@given(st.one_of(st.text(), st.text(st.sampled_from("{}[]\"':,\\/*tru1e-. \n\0"))))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(JsonError):  # any other error fails the test
        json.dumps(loads(text))


AS_AZ_SENDS = """{"properties": {"mode": "incremental", template:{
  // a comment, as template files have them
  "$schema": "x", /* another
  one */ "parameters": {},
  "resources": [
    {"name": "[concat('a',
       'b')]", 'type': 'it\\'s',},
  ],
}}}"""


def test_it_reads_what_az_sends() -> None:
    found = loads(AS_AZ_SENDS)["properties"]["template"]
    assert found == {
        "$schema": "x",
        "parameters": {},
        "resources": [{"name": "[concat('a',\n       'b')]", "type": "it's"}],
    }


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), (1, 1)),
        (("properties", "template", "$schema"), (3, 14)),
        (("properties", "template", "resources", 0, "name"), (6, 14)),
        (("properties", "template", "resources", 0, "type"), (7, 24)),
        (("properties", "template", "resources", 0, "missing"), (6, 5)),  # the nearest around it
        (("properties", "template", "resources", 5), (5, 16)),
    ],
)
def test_it_says_where_a_value_begins(path: tuple[str | int, ...], place: tuple[int, int]) -> None:
    assert locate(AS_AZ_SENDS, path) == place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected a value, found the end"),
        ('{"a": 1', "line 1, column 8: expected ',' or '}', found the end"),
        ('{"a"\n 1}', "line 2, column 2: expected ':' after a name"),
        ('{"a": NaN}', "expected a value"),
        ('{"a": 1e999}', "a number that is finite"),
        ('["\\ud800"]', "no half of a surrogate pair"),
        ('["\\u0000"]', "a text without NUL"),
        ("[" * 100 + "]" * 100, "at most 64 levels of nesting"),
        ("1 2", "nothing after the value"),
        ("/* open", "expected a value"),
        ("9" * 50, "at most 40 characters"),
    ],
)
def test_what_it_cannot_read_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(text)
    assert message in str(caught.value)
