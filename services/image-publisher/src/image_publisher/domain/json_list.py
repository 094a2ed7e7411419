"""The JSON list: one document with all versions, for people without a mirror (docs/feeds.md)."""

from collections.abc import Callable
from typing import Any

from rollcall_contracts.model import Failure

from image_publisher.domain.feed import FeedCode, FeedError, Offered, Page, Target
from image_publisher.domain.parse import (
    as_object,
    build_image,
    check_format,
    check_name,
    load,
    parse_updated,
)
from image_publisher.domain.paths import image_url

FORMAT = "rollcall-images:1.0"
DOCUMENT = "list"


def parse_list(
    text: str, *, url: str, choose: Callable[[str], Target | None], max_image_bytes: int
) -> Page:
    """Return what the list at `url` offers of the images that `choose` knows.

    A version that cannot be used is refused by itself. Raises FeedError for the whole list.
    """
    document = load(text, "list")
    check_format(document, FORMAT, "list")
    updated = parse_updated(document.get("updated"), "list")
    if updated is None:
        raise FeedError(FeedCode.MALFORMED, "list: `updated` is missing")
    entries = document.get("images")
    if not isinstance(entries, list):
        raise FeedError(FeedCode.MALFORMED, "list: `images` is not a JSON list")
    offered: list[Offered] = []
    refused: list[Failure] = []
    present: set[tuple[str, str]] = set()
    for number, value in enumerate(entries):
        entry = as_object(value, f"list: images[{number}]")
        names = [entry.get(key) for key in ("publisher", "offer", "sku")]
        product = ":".join(map(str, names))
        present.add((product, str(entry.get("version"))))
        try:
            check_names(names)
            target = choose(product)
            if target is not None:
                offered.append(_offered(entry, target, product, url, max_image_bytes))
        except FeedError as error:
            refused.append(error.failure("/".join(map(str, (*names, entry.get("version"))))))
    return Page(
        document=DOCUMENT,
        updated=updated,
        offered=tuple(offered),
        refused=tuple(refused),
        present=frozenset(present),
    )


def check_names(names: list[Any]) -> None:
    """Raise FeedError (ImageNameInvalid) for a name that cannot be used."""
    for name, what in zip(names, ("publisher", "offer", "sku"), strict=True):
        check_name(name, what)


def _offered(
    entry: dict[str, Any], target: Target, product: str, url: str, max_image_bytes: int
) -> Offered:
    address = image_url(url, entry.get("url"))
    image = build_image(
        target=target,
        version=entry.get("version"),
        url=address,
        sha256=entry.get("sha256"),
        size=entry.get("size"),
        unpacked_sha256=entry.get("unpackedSha256"),
        os_type=entry.get("osType"),
        exclude_from_latest=entry.get("excludeFromLatest") is True,
        max_image_bytes=max_image_bytes,
    )
    return Offered(image=image, product=product, document=DOCUMENT, location=str(entry["url"]))
