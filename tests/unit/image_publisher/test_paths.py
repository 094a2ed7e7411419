"""A feed cannot point outside of itself."""

import pytest
from image_publisher.domain.feed import FeedCode, FeedError
from image_publisher.domain.paths import image_url, join, normal_url, safe_path


@pytest.mark.parametrize(
    "path",
    [
        "",
        None,
        7,
        "/etc/passwd",
        "../secret",
        "a/../../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        "http://elsewhere/x",
        "file:///etc/passwd",
        "javascript:x",
        "a\\..\\b",
        "a\nb",
        "a\x00b",
    ],
)
def test_an_unsafe_path_is_refused_by_name(path: object) -> None:
    with pytest.raises(FeedError) as caught:
        safe_path(path)
    assert caught.value.code is FeedCode.PATH_UNSAFE


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.img", "https://m/top/a/b.img"),
        (
            "streams/v1/com.ubuntu.cloud:released:download.json",
            "https://m/top/streams/v1/com.ubuntu.cloud:released:download.json",
        ),
        ("a b?c#d%2e", "https://m/top/a%20b%3Fc%23d%252e"),
    ],
)
def test_a_path_is_joined_below_the_top(path: str, expected: str) -> None:
    assert join("https://m/top/", path) == expected
    assert join("https://m/top", path) == expected


@pytest.mark.parametrize(
    ("list_url", "location", "expected"),
    [
        ("https://m/feed/list.json", "img/a.tar.gz", "https://m/feed/img/a.tar.gz"),
        ("https://m/feed/list.json", "http://other/a.tar.gz", "http://other/a.tar.gz"),
        ("file:///srv/list.json", "a.tar.gz", "file:///srv/a.tar.gz"),
        ("file:///srv/list.json", "file:///images/a.tar.gz", "file:///images/a.tar.gz"),
    ],
)
def test_a_list_names_images_relative_or_absolute(
    list_url: str, location: str, expected: str
) -> None:
    assert image_url(list_url, location) == expected


@pytest.mark.parametrize(
    ("list_url", "location"),
    [
        ("https://m/list.json", "file:///etc/shadow"),
        ("https://m/list.json", "ftp://m/a"),
        ("https://m/list.json", "https:///a"),
        ("file:///srv/list.json", "file://otherhost/a"),
        ("file:///srv/list.json", "file:///srv/%2e%2e/a"),
        ("https://m/list.json", None),
        ("https://m/list.json", "../a"),
    ],
)
def test_a_list_cannot_name_what_it_may_not(list_url: str, location: object) -> None:
    with pytest.raises(FeedError) as caught:
        image_url(list_url, location)
    assert caught.value.code is FeedCode.PATH_UNSAFE


def test_a_folder_is_an_address_too() -> None:
    assert normal_url("/srv/my feed") == "file:///srv/my%20feed"
    assert normal_url("https://m/") == "https://m/"
    with pytest.raises(FeedError, match="absolute path"):
        normal_url("feeds/mine")
