"""Documents from somebody who means no good: an error with a name, never another exception."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_publisher.domain.feed import FeedCode, FeedError, Target
from image_publisher.domain.json_list import parse_list
from image_publisher.domain.parse import load, parse_updated
from image_publisher.domain.simplestreams import parse_index, parse_products

TARGET = Target(publisher="a", offer="b", sku="c")
KEYS = st.sampled_from(
    [
        *("format", "updated", "index", "products", "versions", "items", "path", "ftype", "size"),
        *("sha256", "_aliases", "images", "publisher", "offer", "sku", "version", "url", "osType"),
        *("datatype", "1.0", "image"),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["1.0", "a" * 64, "a/b", "http://[", "file:///x", "Linux", "9999-12-31"]),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


def text_of(value: Any, form: str) -> str:
    return json.dumps({**value, "format": form} if isinstance(value, dict) else value)


@given(VALUES | st.dictionaries(KEYS, VALUES))
def test_any_json_is_read_or_refused_by_name(value: Any) -> None:
    for parse in (
        lambda: parse_index(text_of(value, "index:1.0")),
        lambda: parse_products(
            text_of(value, "products:1.0"),
            path="p.json",
            top="https://m",
            choose=lambda _: TARGET,
            max_image_bytes=10**9,
        ),
        lambda: parse_list(
            text_of(value, "rollcall-images:1.0"),
            url="https://m/l.json",
            choose=lambda _: TARGET,
            max_image_bytes=10**9,
        ),
    ):
        with suppress(FeedError):
            parse()


@given(VALUES)
def test_any_products_are_read_or_refused_by_name(value: Any) -> None:
    document = {"format": "products:1.0", "products": {"p": {"versions": {"1": {"items": value}}}}}
    with suppress(FeedError):
        parse_products(
            json.dumps(document),
            path="p.json",
            top="https://m",
            choose=lambda _: TARGET,
            max_image_bytes=10**9,
        )


@pytest.mark.parametrize(
    "text", ['{"a": "\\u0000"}', '{"a\\ud800": 1}', '{"a": ' + "9" * 5000 + "}", '{"a": "\x01"}']
)
def test_what_cannot_be_stored_is_refused(text: str) -> None:
    with pytest.raises(FeedError) as caught:
        load(text, "x")
    assert caught.value.code is FeedCode.MALFORMED


def test_escapes_of_whole_characters_are_read() -> None:
    assert load('{"a": "\\ud83d\\ude00"}', "x") == {"a": "\U0001f600"}


@pytest.mark.parametrize("value", ["0001-01-01T00:00:00+23:00", "x", 7, []])
def test_a_time_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(FeedError):
        parse_updated(value, "x")


def test_an_errors_text_is_bounded() -> None:
    failure = FeedError(FeedCode.MALFORMED, "x" * 10**6).failure("y" * 10**6)
    assert len(failure.message) + len(failure.target or "") < 2000
