"""The names that `rollcall feed` writes are those that image-publisher reads."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_publisher.domain.feed import FeedError
from image_publisher.domain.parse import check_name, check_version
from rollcall_cli.feeds.folder import FeedFolderError, check_names

words = st.text(alphabet="aZ09.-_+:/ \n", max_size=6) | st.sampled_from(["latest", "1" * 129])


def is_read(name: str, version: str) -> bool:
    try:
        check_name(name, "publisher")
        check_version(version)
    except FeedError:
        return False
    return True


def is_written(name: str, version: str) -> bool:
    try:
        check_names(name, name, name, version)
    except FeedFolderError:
        return False
    return True


@given(words, words)
def test_writer_and_reader_agree(name: str, version: str) -> None:
    assert is_written(name, version) == is_read(name, version)


@pytest.mark.parametrize("version", ["1", "1.0.10", "20240501.1", "1.0-rc1"])
def test_usual_versions_are_taken(version: str) -> None:
    assert is_written("acme", version)
    assert is_read("acme", version)
