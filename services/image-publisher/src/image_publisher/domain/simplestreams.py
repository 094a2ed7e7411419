"""simplestreams: an index names products documents, and these name versions and their files.

Written from the format's description (its rules are in docs/feeds.md). Paths are relative to the
mirror's top. A version's name is its serial, the key under `versions`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from rollcall_contracts.model import Failure

from image_publisher.domain.feed import FeedCode, FeedError, Offered, Page, Target
from image_publisher.domain.items import in_order
from image_publisher.domain.parse import (
    as_object,
    build_image,
    check_format,
    load,
    parse_updated,
)
from image_publisher.domain.paths import join, safe_path

INDEX = "streams/v1/index"  # without its ending: .sjson where signatures are asked for, else .json
MAX_DOCUMENTS = 64

Choose = Callable[[str], Target | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """One line of the index: a products document, and the products in it where the index says."""

    path: str
    products: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """The feed's first document."""

    updated: datetime | None
    references: tuple[Reference, ...]


def parse_index(text: str) -> Index:
    """Return the index's content. Raises FeedError."""
    document = load(text, "index")
    check_format(document, "index:1.0", "index")
    references = []
    for name, value in as_object(document.get("index"), "index: `index`").items():
        entry = as_object(value, f"index: {name}")
        if entry.get("datatype", "image-downloads") != "image-downloads":
            continue  # cloud image ids, for example: nothing that can be fetched
        if entry.get("format", "products:1.0") != "products:1.0":
            continue
        products = entry.get("products")
        references.append(
            Reference(
                path=safe_path(entry.get("path")),
                products=frozenset(map(str, products)) if isinstance(products, list) else None,
            )
        )
    if len(references) > MAX_DOCUMENTS:
        raise FeedError(
            FeedCode.TOO_LARGE,
            f"the index names {len(references)} documents, more than {MAX_DOCUMENTS}",
        )
    return Index(
        updated=parse_updated(document.get("updated"), "index"), references=tuple(references)
    )


def document_key(path: str) -> str:
    """Return a document's name without its ending, the same for the signed and the plain form."""
    return path.removesuffix(".sjson").removesuffix(".json")


def parse_products(text: str, *, path: str, top: str, choose: Choose, max_image_bytes: int) -> Page:
    """Return what a products document offers of the products that `choose` knows.

    A version that cannot be used is refused by itself. Raises FeedError for the whole document.
    """
    document = load(text, path)
    check_format(document, "products:1.0", path)
    aliases = document.get("_aliases")
    reader = _Reader(
        document=document_key(path),
        top=top,
        max_image_bytes=max_image_bytes,
        aliases=aliases if isinstance(aliases, dict) else {},
    )
    offered: list[Offered] = []
    refused: list[Failure] = []
    present: set[tuple[str, str]] = set()
    for product, value in as_object(document.get("products"), f"{path}: `products`").items():
        entry = as_object(value, f"{path}: {product}")
        versions = as_object(entry.get("versions", {}), f"{path}: {product}: `versions`")
        present.update((product, version) for version in versions)
        target = choose(product)
        if target is None:
            continue
        for version, content in versions.items():
            try:
                one = reader.version(target, product, entry, version, content)
            except FeedError as error:
                where = (target.publisher, target.offer, target.sku, version)
                refused.append(error.failure("/".join(where)))
                continue
            if one is not None:
                offered.append(one)
    return Page(
        document=reader.document,
        updated=parse_updated(document.get("updated"), path),
        offered=tuple(offered),
        refused=tuple(refused),
        present=frozenset(present),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    document: str
    top: str
    max_image_bytes: int
    aliases: Mapping[str, Any]

    def version(
        self, target: Target, product: str, entry: Mapping[str, Any], version: str, content: object
    ) -> Offered | None:
        """Return the version's image; None where it has no file of the kind that is asked for."""
        level = as_object(content, f"version {version}")
        items = as_object(level.get("items", {}), f"version {version}: `items`")
        inherited = {**_plain(entry), **_plain(level)}
        files: dict[str, list[dict[str, Any]]] = {}
        for name, value in items.items():
            item = self._expand({**inherited, **as_object(value, f"item {name}")})
            if "path" in item:
                files.setdefault(str(item.get("ftype", name)), []).append(item)
        kinds = in_order(files, target)
        if not kinds:
            return None
        if len(files[kinds[0]]) > 1 or (len(kinds) > 1 and not target.items):
            several = ", ".join(sorted(kind for kind in kinds for _ in files[kind]))
            raise FeedError(
                FeedCode.AMBIGUOUS,
                f"several files could be meant ({several}): set `item:` to one, or `driver:`",
            )
        one = self._offered(target, product, version, files[kinds[0]][0])
        others = []
        for kind in kinds[1:]:
            with suppress(FeedError):  # nobody asked for this one; it does not spoil the first
                others.append(self._offered(target, product, version, files[kind][0]))
        return replace(one, others=tuple(others))

    def _offered(
        self, target: Target, product: str, version: str, item: Mapping[str, Any]
    ) -> Offered:
        location = safe_path(item["path"])
        image = build_image(
            target=target,
            version=version,
            url=join(self.top, location),
            sha256=item.get("sha256"),
            size=item.get("size"),
            unpacked_sha256=item.get("unpacked_sha256"),
            os_type=item.get("os_type"),
            exclude_from_latest=item.get("exclude_from_latest") is True,
            max_image_bytes=self.max_image_bytes,
        )
        return Offered(image=image, product=product, document=self.document, location=location)

    def _expand(self, item: dict[str, Any]) -> dict[str, Any]:
        """Add what `_aliases` says for the item's values: {tag: {value: {key: value}}}."""
        for tag, table in self.aliases.items():
            value = item.get(tag)
            extra = table.get(value) if isinstance(table, dict) and isinstance(value, str) else None
            if isinstance(extra, dict):
                item = {**extra, **item}
        return item


def _plain(level: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a product or a version that its items inherit."""
    return {key: value for key, value in level.items() if not isinstance(value, dict | list)}
