"""The grammar: what is read is written out the same, and nothing but a template error is raised."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_templates.errors import TemplateError
from rollcall_templates.expressions import (
    INT_MAX,
    INT_MIN,
    Access,
    Call,
    Expression,
    Number,
    Step,
    Text,
    escaped,
    is_expression,
    literal,
    parse,
    show,
)
from rollcall_templates.limits import MAX_EXPRESSION, MAX_NESTING
from rollcall_testing.examples import examples
from rollcall_testing.templating import value_of

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
LEAVES: st.SearchStrategy[Expression] = st.one_of(
    st.builds(Text, st.text(max_size=8)),
    st.builds(Number, st.integers(min_value=INT_MIN, max_value=INT_MAX)),
)


def larger(inner: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    """Return calls of inner expressions, and what is inside them."""
    calls = st.builds(
        Call,
        st.one_of(NAMES, st.builds("{}.{}".format, NAMES, NAMES)),
        st.lists(inner, max_size=3).map(tuple),
    )
    # A name in quotes between brackets is read as a property: one tree for both.
    keys = inner.filter(lambda key: not isinstance(key, Text))
    steps = st.one_of(st.builds(Step, NAMES, st.booleans()), st.builds(Step, keys, st.booleans()))
    targets = inner.filter(lambda each: not isinstance(each, Access))
    accesses = st.builds(Access, targets, st.lists(steps, min_size=1, max_size=3).map(tuple))
    return st.one_of(calls, accesses)


TREES = st.recursive(LEAVES, larger, max_leaves=12)


@given(TREES)
def test_what_is_written_out_reads_as_the_same(tree: Expression) -> None:
    text = show(tree)
    assert parse(text) == tree
    assert show(parse(text)) == text


PIECES = st.sampled_from(
    ["concat", "(", ")", "[", "]", "'", "''", ",", ".", ".?", "[?", "1", "-", " ", "\n", "é", "\0"]
)


def read_or_refused(text: str) -> Expression | TemplateError:
    """Return an expression's tree, or why there is none; any other error fails the test."""
    try:
        return parse(text)
    except TemplateError as error:
        return error


@examples(300)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join)))
def test_any_text_is_read_or_refused_as_a_template_error(text: str) -> None:
    found = read_or_refused(f"[{text}]")
    if isinstance(found, TemplateError):
        assert found.message
        assert found.column is None or 1 <= found.column <= len(text) + 3
    else:
        assert parse(show(found)) == found


@examples(300)
@given(st.one_of(TREES.map(show), st.lists(PIECES, max_size=30).map("".join)))
def test_any_expression_is_evaluated_or_refused_as_a_template_error(text: str) -> None:
    with suppress(TemplateError):  # any other error fails the test
        json.dumps(value_of(text))


@given(st.text())
def test_an_escaped_text_means_itself(text: str) -> None:
    written = escaped(text)
    assert not is_expression(written)
    assert literal(written) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("[", "["),
        ("[open", "[open"),
        ("[[not evaluated]", "[not evaluated]"),
        ("[[", "["),
        ("['it''s']", "it's"),
        ("['[in brackets]']", "[in brackets]"),
        ("[concat ( 'a' , 'b' ) ]", "ab"),
        ("[-5]", -5),
        ("[createArray(createObject('a b', 1))[0]['a b']]", 1),
        ("[createObject('A', createArray(7)).a[sub(1, 1)]]", 7),
        ("[createObject('a', 1).?b]", None),
        ("[createObject('a', 1).?b.?c]", None),
        ("[createArray()[?3]]", None),
    ],
)
def test_texts_and_expressions(text: str, value: object) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("[]", 2, "a function, a text in single quotes or a number at character 2"),
        ("[concat('a']", 12, "',' or ')'"),
        ("[concat('a)]", 9, "a quote that is never closed"),
        ("[concat('a') 'b']", 14, "the end of the expression"),
        ("[parameters.name]", 17, "'(' after 'parameters.name', which must be a function"),
        ("[concat('a').]", 14, "the name of a property"),
        ("[99999999999999999999]", 2, "a whole number of 64 bits"),
        ("[a(1,)]", 6, "a function, a text in single quotes or a number"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, column: int, expected: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text)
    assert expected in caught.value.message
    assert caught.value.column == column


def test_depth_and_length_are_limited() -> None:
    deep = f"[{'a(' * (MAX_NESTING + 2)}1{')' * (MAX_NESTING + 2)}]"
    with pytest.raises(TemplateError, match="nested more than"):
        parse(deep)
    parse(f"[{'a(' * (MAX_NESTING - 1)}1{')' * (MAX_NESTING - 1)}]")
    with pytest.raises(TemplateError, match="may have 24576"):
        parse(f"['{'x' * MAX_EXPRESSION}']")
    # A chain of properties is no nesting.
    parse(f"[a(){'.b' * 10_000}]")
