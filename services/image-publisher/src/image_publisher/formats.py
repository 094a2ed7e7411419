"""The feed formats, each one function: from a feed's documents to what it offers.

A new format is one more function of this kind, with its parser in `domain/`, and a line in READERS.
"""

import asyncio
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Protocol

from rollcall_kit.config import FeedConfig

from image_publisher.documents import Documents
from image_publisher.domain.feed import FeedCode, FeedError, Offer, Page, Target, gather
from image_publisher.domain.items import wanted_kinds
from image_publisher.domain.json_list import parse_list
from image_publisher.domain.parse import as_three_names
from image_publisher.domain.paths import join, normal_url
from image_publisher.domain.simplestreams import (
    INDEX,
    Reference,
    document_key,
    parse_index,
    parse_products,
)
from image_publisher.fetch import size_fault


class Reader(Protocol):
    """What a feed format is."""

    async def __call__(self, feed: FeedConfig, documents: Documents) -> Offer:
        """Return what the feed offers now. Raises FeedError."""


async def read_simplestreams(feed: FeedConfig, documents: Documents) -> Offer:
    """Read the index, and the products documents in it that may hold something of ours."""
    top = normal_url(feed.url)
    choose = chooser(feed)
    index = parse_index(await documents.text(join(top, _form(f"{INDEX}.json", documents))))
    pages = []
    unread: set[str] = set()
    for reference in index.references:
        if not _concerns(reference, choose):
            unread |= reference.products or set()
            continue
        path = _form(reference.path, documents)
        text = await documents.text(join(top, path))
        pages.append(
            # In a thread: a mirror's document may be tens of megabytes.
            await asyncio.to_thread(
                parse_products,
                text,
                path=path,
                top=top,
                choose=choose,
                max_image_bytes=feed.max_image_bytes,
            )
        )
    first = Page(document=document_key(INDEX), updated=index.updated)
    return gather(first, tuple(pages), frozenset(unread))


async def read_json_list(feed: FeedConfig, documents: Documents) -> Offer:
    """Read the one document of a JSON list."""
    url = normal_url(feed.url)
    page = await asyncio.to_thread(
        parse_list,
        await documents.text(url),
        url=url,
        choose=chooser(feed),
        max_image_bytes=feed.max_image_bytes,
    )
    return gather(page)


READERS: Mapping[str, Reader] = {
    "simplestreams": read_simplestreams,
    "json": read_json_list,
}


def chooser(feed: FeedConfig) -> Callable[[str], Target | None]:
    """Return the function from a product's name to what the configuration makes of it.

    A feed without `products:` gives what is named `publisher:offer:sku`, under these names.
    """
    if not feed.products:
        return as_three_names

    def choose(product: str) -> Target | None:
        for mapping in feed.products:
            if fnmatchcase(product, mapping.match):
                said = "os_type" in mapping.model_fields_set
                return Target(
                    publisher=mapping.publisher,
                    offer=mapping.offer,
                    sku=mapping.sku,
                    items=wanted_kinds(mapping.item, mapping.driver),
                    os_type=mapping.os_type if said else None,
                )
        return None

    return choose


def check_files(offer: Offer) -> tuple[tuple[str, FeedError], ...]:
    """Return the file:// images that lie here with another size than the feed says; blocking."""
    faults = ((one.image.url, size_fault(one.image.url, one.image.size)) for one in offer.offered)
    return tuple((url, fault) for url, fault in faults if fault is not None)


def _concerns(reference: Reference, choose: Callable[[str], Target | None]) -> bool:
    if reference.products is None:
        return True
    return any(choose(product) is not None for product in reference.products)


def _form(path: str, documents: Documents) -> str:
    """Return the path of a document in the form that the feed must be read in."""
    if path.endswith(".sjson") and not documents.signed:
        raise FeedError(
            FeedCode.MALFORMED, f"{path} is signed, but the feed is configured as unsigned"
        )
    return path.removesuffix(".json") + ".sjson" if _is_plain(path, documents) else path


def _is_plain(path: str, documents: Documents) -> bool:
    return documents.signed and path.endswith(".json")
