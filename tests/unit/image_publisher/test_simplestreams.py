"""The parser of simplestreams: shapes as mirrors publish them, and what is refused."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from image_publisher.domain.feed import FeedCode, FeedError, Page, Target, gather
from image_publisher.domain.parse import as_three_names
from image_publisher.domain.simplestreams import Reference, parse_index, parse_products

SHA = "b8aa1ce5d11939eaa01205fc31348532a31b82790921d45ceb397fbe76492787"
OTHER = "c" * 64
UBUNTU = Target(publisher="Canonical", offer="UbuntuServer", sku="22.04", items=("disk1.img",))


def item(**changes: Any) -> dict[str, Any]:
    fields = {"ftype": "disk1.img", "path": "22.04/disk.img", "size": 12, "sha256": SHA}
    return {key: value for key, value in {**fields, **changes}.items() if value is not None}


def products(
    versions: dict[str, Any], *, product: str = "com.ubuntu.cloud:server:22.04:amd64", **more: Any
) -> str:
    document = {
        "format": "products:1.0",
        "updated": "Sat, 04 May 2013 01:58:57 +0000",
        "products": {product: {"arch": "amd64", "versions": versions}},
        **more,
    }
    return json.dumps(document)


def parse(
    text: str,
    choose: Callable[[str], Target | None] = lambda _: UBUNTU,
    *,
    max_image_bytes: int = 1000,
) -> Page:
    return parse_products(
        text,
        path="streams/v1/x.sjson",
        top="https://m/releases",
        choose=choose,
        max_image_bytes=max_image_bytes,
    )


def test_an_index_names_its_documents() -> None:
    index = parse_index(
        json.dumps(
            {
                "format": "index:1.0",
                "updated": "Tue, 24 Feb 2015 14:14:24 +0000",
                "index": {
                    "a": {
                        "datatype": "image-downloads",
                        "format": "products:1.0",
                        "path": "streams/v1/a.json",
                        "products": ["p1", "p2"],
                    },
                    "b": {"path": "streams/v1/b.json"},
                    "aws": {"datatype": "image-ids", "path": "../evil"},
                },
            }
        )
    )
    assert index.updated == datetime(2015, 2, 24, 14, 14, 24, tzinfo=UTC)
    assert index.references == (
        Reference(path="streams/v1/a.json", products=frozenset({"p1", "p2"})),
        Reference(path="streams/v1/b.json", products=None),
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", FeedCode.MALFORMED),
        ('{"format": "index:1.0", "ind', FeedCode.MALFORMED),
        ("[]", FeedCode.MALFORMED),
        ("[" * 100_000, FeedCode.MALFORMED),
        ('{"format": "products:1.0", "index": {}}', FeedCode.MALFORMED),
        ('{"format": "index:1.0"}', FeedCode.MALFORMED),
        ('{"format": "index:1.0", "index": {}, "updated": "soon"}', FeedCode.MALFORMED),
        ('{"format": "index:1.0", "index": {"a": {"path": "../x"}}}', FeedCode.PATH_UNSAFE),
        ('{"format": "index:1.0", "index": {"a": {"path": "/x"}}}', FeedCode.PATH_UNSAFE),
        ('{"format": "index:1.0", "index": {"a": {"path": "ftp://x"}}}', FeedCode.PATH_UNSAFE),
        (
            json.dumps(
                {"format": "index:1.0", "index": {str(n): {"path": f"p{n}"} for n in range(65)}}
            ),
            FeedCode.TOO_LARGE,
        ),
    ],
)
def test_a_bad_index_is_refused_by_name(text: str, code: FeedCode) -> None:
    with pytest.raises(FeedError) as caught:
        parse_index(text)
    assert caught.value.code is code


def test_a_version_becomes_an_image() -> None:
    page = parse(products({"20240501.1": {"items": {"disk1.img": item()}}}))
    (one,) = page.offered
    assert page.document == "streams/v1/x"
    assert (one.product, one.location) == ("com.ubuntu.cloud:server:22.04:amd64", "22.04/disk.img")
    assert one.image.url == "https://m/releases/22.04/disk.img"
    assert (one.image.sha256, one.image.size, one.image.version) == (SHA, 12, "20240501.1")
    assert (one.image.stream, one.image.os_type) == (
        ("canonical", "ubuntuserver", "22.04"),
        "Linux",
    )


def test_items_inherit_from_version_and_product_and_aliases() -> None:
    text = products(
        {
            "1": {
                "exclude_from_latest": True,
                "region": "here",
                "items": {"disk1.img": item(path=None, size=None)},
            }
        },
        _aliases={"region": {"here": {"path": "from/alias.img", "size": 3}}},
    )
    (one,) = parse(text).offered
    assert one.image.exclude_from_latest
    assert (one.location, one.image.size) == ("from/alias.img", 3)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sha256": None}, FeedCode.CHECKSUM_MISSING),
        ({"sha256": None, "md5": "6ba617eafc992e33e7c141c679225e53"}, FeedCode.CHECKSUM_MISSING),
        ({"sha256": "abc"}, FeedCode.CHECKSUM_MISSING),
        ({"sha256": SHA + "\n"}, FeedCode.CHECKSUM_MISSING),
        ({"size": None}, FeedCode.CHECKSUM_MISSING),
        ({"size": "12"}, FeedCode.CHECKSUM_MISSING),
        ({"size": True}, FeedCode.CHECKSUM_MISSING),
        ({"size": -1}, FeedCode.CHECKSUM_MISSING),
        ({"size": 1001}, FeedCode.TOO_LARGE_IMAGE),
        ({"path": "../../etc/shadow"}, FeedCode.PATH_UNSAFE),
        ({"path": "/etc/shadow"}, FeedCode.PATH_UNSAFE),
        ({"path": "https://elsewhere/a"}, FeedCode.PATH_UNSAFE),
    ],
)
def test_a_bad_version_is_refused_alone(changes: dict[str, Any], code: FeedCode) -> None:
    versions = {
        "1": {"items": {"disk1.img": item()}},
        "2": {"items": {"disk1.img": item(**changes)}},
    }
    page = parse(products(versions))
    assert [one.image.version for one in page.offered] == ["1"]
    assert [(one.code, one.target) for one in page.refused] == [
        (code, "Canonical/UbuntuServer/22.04/2")
    ]
    assert len(page.present) == 2  # refused is not gone


@pytest.mark.parametrize(
    "version", ["latest", "LATEST", "1\n", "1..0", ".1", "1/2", "a b", "", "1" * 129]
)
def test_a_bad_version_name_is_refused(version: str) -> None:
    page = parse(products({version: {"items": {"disk1.img": item()}}}))
    assert page.offered == ()
    assert [one.code for one in page.refused] == [FeedCode.NAME_INVALID]


def test_the_item_is_chosen_by_its_kind() -> None:
    files = {"a": item(), "b": item(ftype="squashfs", path="22.04/root.squashfs")}
    (one,) = parse(products({"1": {"items": files}})).offered
    assert one.location == "22.04/disk.img"
    # A version without a file of the kind offers nothing to us, and that is no error.
    page = parse(products({"1": {"items": {"b": files["b"]}}}))
    assert (page.offered, page.refused) == ((), ())
    # Nobody said which one.
    page = parse(
        products({"1": {"items": files}}), lambda _: Target(publisher="a", offer="b", sku="c")
    )
    assert [one.code for one in page.refused] == [FeedCode.AMBIGUOUS]


@pytest.mark.parametrize(
    ("configured", "document", "expected"),
    [
        (None, None, "Linux"),
        (None, "Windows", "Windows"),
        ("Linux", "Windows", "Linux"),
        ("Windows", None, "Windows"),
    ],
)
def test_the_os_type_is_the_configured_one_first(
    configured: Any, document: str | None, expected: str
) -> None:
    target = Target(publisher="a", offer="b", sku="c", os_type=configured)
    (one,) = parse(
        products({"1": {"items": {"x": item(os_type=document)}}}), lambda _: target
    ).offered
    assert one.image.os_type == expected


@pytest.mark.parametrize(
    ("product", "expected"),
    [
        ("acme:app:stable", ("acme", "app", "stable")),
        ("com.ubuntu.cloud:server:22.04:amd64", None),
        ("acme:app", None),
        ("acme::stable", None),
        ("acme:a/b:stable", None),
    ],
)
def test_without_a_mapping_three_names_are_taken(
    product: str, expected: tuple[str, str, str] | None
) -> None:
    target = as_three_names(product)
    assert (target and (target.publisher, target.offer, target.sku)) == expected


def test_products_that_become_one_version_are_not_guessed() -> None:
    first = parse(products({"1": {"items": {"a": item()}}}, product="p:amd64"))
    second = parse(products({"1": {"items": {"a": item(sha256=OTHER)}}}, product="p:arm64"))
    offer = gather(first, (second,))
    assert offer.offered == ()
    assert [one.code for one in offer.refused] == [FeedCode.AMBIGUOUS]
    same = gather(first, (parse(products({"1": {"items": {"a": item()}}}, product="p:2")),))
    assert len(same.offered) == 1
