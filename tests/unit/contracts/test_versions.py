"""The order of image versions (M21): by numeric components, not by text or date."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollcall_contracts.versions import version_key


@pytest.mark.parametrize(
    "ascending",
    [
        ["1.9", "1.10"],
        ["16.04.201801010", "16.04.201801020", "16.04.202001010"],
        ["20240101.9", "20240101.10", "20240102"],
        ["2019.0.20190410", "2019.0.20190603", "2019.10.1"],
        ["1", "1.0", "1.0.0", "1.0.1", "1.1", "2"],
        ["1.0-rc", "1.0.1"],
        ["9", "10", "100"],
    ],
)
def test_table(ascending: list[str]) -> None:
    for lower, higher in itertools.pairwise(ascending):
        assert version_key(lower) < version_key(higher)


numeric = st.lists(st.integers(0, 10**9), min_size=1, max_size=4)


@given(numeric, numeric)
def test_numbers_compare_as_numbers(first: list[int], second: list[int]) -> None:
    keys = [version_key(".".join(map(str, parts))) for parts in (first, second)]
    assert (keys[0] < keys[1]) == (first < second)
    assert (keys[0] == keys[1]) == (first == second)


@given(st.lists(st.text(max_size=12), max_size=8))
def test_any_texts_can_be_put_in_order(versions: list[str]) -> None:
    assert len(sorted(versions, key=version_key)) == len(versions)


def test_a_digit_that_is_no_number_is_text() -> None:
    assert version_key("1.0\u00b2") < version_key("1.0.1")  # a superscript two
