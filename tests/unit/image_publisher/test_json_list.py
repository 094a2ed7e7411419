"""The JSON list: its one document, and what is refused."""

import json
from typing import Any

import pytest
from image_publisher.domain.feed import FeedCode, FeedError, Page
from image_publisher.domain.json_list import parse_list
from image_publisher.domain.parse import as_three_names

SHA = "a" * 64


def entry(**changes: Any) -> dict[str, Any]:
    fields = {
        "publisher": "Acme",
        "offer": "app",
        "sku": "stable",
        "version": "1.0.0",
        "url": "img/a.tar.gz",
        "sha256": SHA,
        "size": 5,
    }
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def parse(images: Any, **changes: Any) -> Page:
    document = {
        "format": "rollcall-images:1.0",
        "updated": "2026-01-02T03:04:05Z",
        "images": images,
        **changes,
    }
    return parse_list(
        json.dumps(document), url="https://m/f/list.json", choose=as_three_names, max_image_bytes=99
    )


def test_a_list_becomes_images() -> None:
    page = parse(
        [
            entry(),
            entry(version="2.0.0", osType="Windows", excludeFromLatest=True, sha256=SHA.upper()),
            entry(version="3.0.0", unpackedSha256="B" * 64),
        ]
    )
    first, second, third = (one.image for one in page.offered)
    assert (first.unpacked_sha256, third.unpacked_sha256) == (None, "b" * 64)
    assert (first.url, first.os_type, first.exclude_from_latest) == (
        "https://m/f/img/a.tar.gz",
        "Linux",
        False,
    )
    assert (second.os_type, second.exclude_from_latest, second.sha256) == ("Windows", True, SHA)
    versions = ("1.0.0", "2.0.0", "3.0.0")
    assert page.present == {("Acme:app:stable", version) for version in versions}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sha256": None}, FeedCode.CHECKSUM_MISSING),
        ({"size": None}, FeedCode.CHECKSUM_MISSING),
        ({"unpackedSha256": "abc"}, FeedCode.CHECKSUM_MISSING),
        ({"size": 100}, FeedCode.TOO_LARGE_IMAGE),
        ({"url": "file:///etc/shadow"}, FeedCode.PATH_UNSAFE),
        ({"url": None}, FeedCode.PATH_UNSAFE),
        ({"publisher": "a/b"}, FeedCode.NAME_INVALID),
        ({"sku": None}, FeedCode.NAME_INVALID),
        ({"version": None}, FeedCode.NAME_INVALID),
        ({"osType": "BeOS"}, FeedCode.NAME_INVALID),
    ],
)
def test_a_bad_version_is_refused_alone(changes: dict[str, Any], code: FeedCode) -> None:
    page = parse([entry(version="0.9"), entry(**changes)])
    assert [one.image.version for one in page.offered] == ["0.9"]
    assert [one.code for one in page.refused] == [code]


@pytest.mark.parametrize(
    "changes",
    [{"format": "x"}, {"updated": None}, {"updated": "soon"}, {"images": {}}, {"images": [1]}],
)
def test_a_bad_list_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FeedError) as caught:
        parse(**{"images": [], **changes})
    assert caught.value.code is FeedCode.MALFORMED
