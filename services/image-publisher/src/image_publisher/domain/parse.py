"""What both feed formats have in common: JSON, times, and one version's fields."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from rollcall_contracts.model import LATEST, Image

from image_publisher.domain.feed import FeedCode, FeedError, Target

_SHA256 = re.compile(r"[0-9a-f]{64}")
# A dot, dash, underscore or plus may divide, but not begin or end.
_VERSION = re.compile(r"[0-9A-Za-z]+([._+-][0-9A-Za-z]+)*")
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")
# NUL, and what may be half of a surrogate pair.
_ESCAPE = re.compile(r"\\u(0000|[dD][89a-fA-F])")
NAME_LIMIT = 128


def load(text: str, where: str) -> dict[str, Any]:
    """Return a document's JSON object. Raises FeedError (FeedMalformed), which names the place."""
    try:
        document = json.loads(text)
        # Written out again only where an escape may stand for what no database stores.
        if _ESCAPE.search(text) and "\\u0000" in _written(document):
            raise FeedError(FeedCode.MALFORMED, f"{where}: holds a NUL character")
    except ValueError as error:  # no JSON, a number of thousands of digits, half a character
        raise FeedError(FeedCode.MALFORMED, f"{where}: is not complete JSON: {error}") from error
    except RecursionError as error:
        raise FeedError(FeedCode.MALFORMED, f"{where}: is nested too deeply") from error
    return as_object(document, where)


def _written(document: object) -> str:
    """Return JSON without escapes but for control characters; half a character is a ValueError."""
    return json.dumps(document, ensure_ascii=False).encode().decode()


def as_object(value: object, where: str) -> dict[str, Any]:
    """Return `value` as a JSON object. Raises FeedError (FeedMalformed)."""
    if not isinstance(value, dict):
        raise FeedError(FeedCode.MALFORMED, f"{where}: is not a JSON object")
    return value


def check_format(document: Mapping[str, Any], expected: str, where: str) -> None:
    """Raise FeedError (FeedMalformed) for a document of another kind."""
    if document.get("format") != expected:
        found = document.get("format")
        raise FeedError(
            FeedCode.MALFORMED, f"{where}: `format` is {found!r}, expected {expected!r}"
        )


def parse_updated(value: object, where: str) -> datetime | None:
    """Return a document's `updated`: RFC 2822 as simplestreams has it, or ISO 8601; UTC if silent.

    Raises FeedError (FeedMalformed) when it is there but no time.
    """
    if value is None:
        return None
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            time = read(str(value))
            return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        except (ValueError, TypeError, OverflowError):
            continue
    raise FeedError(FeedCode.MALFORMED, f"{where}: `updated` {value!r} is not a time")


def check_version(version: object) -> str:
    """Return a version's name. Raises FeedError (ImageNameInvalid)."""
    if (
        not isinstance(version, str)
        or len(version) > NAME_LIMIT
        or not _VERSION.fullmatch(version)
        or version.lower() == LATEST
    ):
        raise FeedError(
            FeedCode.NAME_INVALID,
            f"version {version!r}: use numbers with dots, such as 1.0.10 or 20240501.2",
        )
    return version


def check_name(name: object, what: str) -> str:
    """Return a publisher's, offer's or SKU's name. Raises FeedError (ImageNameInvalid)."""
    if not isinstance(name, str) or len(name) > NAME_LIMIT or not _NAME.fullmatch(name):
        raise FeedError(
            FeedCode.NAME_INVALID, f"{what} {name!r}: use letters, digits, `.`, `_` and `-`"
        )
    return name


def as_three_names(product: str) -> Target | None:
    """Return the target of a product that is named `publisher:offer:sku`, else None."""
    names = product.split(":")
    if len(names) != 3 or not all(
        _NAME.fullmatch(name) and len(name) <= NAME_LIMIT for name in names
    ):
        return None
    return Target(publisher=names[0], offer=names[1], sku=names[2])


def build_image(
    *,
    target: Target,
    version: object,
    url: str,
    sha256: object,
    size: object,
    unpacked_sha256: object = None,
    os_type: object = None,
    exclude_from_latest: bool = False,
    max_image_bytes: int,
) -> Image:
    """Return one version. Raises FeedError, which names the field that is missing or wrong."""
    name = check_version(version)
    digest = _digest(sha256, "sha256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise FeedError(FeedCode.CHECKSUM_MISSING, f"`size` is {size!r}, not a number of bytes")
    if size > max_image_bytes:
        raise FeedError(
            FeedCode.TOO_LARGE_IMAGE,
            f"{size} bytes is above the feed's max_image_bytes of {max_image_bytes}",
        )
    return Image(
        publisher=target.publisher,
        offer=target.offer,
        sku=target.sku,
        version=name,
        os_type=target.os_type or _os_type(os_type),
        url=url,
        sha256=digest,
        size=size,
        unpacked_sha256=(
            None if unpacked_sha256 is None else _digest(unpacked_sha256, "unpackedSha256")
        ),
        exclude_from_latest=exclude_from_latest,
    )


def _digest(value: object, name: str) -> str:
    digest = value.lower() if isinstance(value, str) else ""
    if not _SHA256.fullmatch(digest):
        raise FeedError(FeedCode.CHECKSUM_MISSING, f"`{name}` is {value!r}, not 64 hex digits")
    return digest


def _os_type(value: object) -> Literal["Linux", "Windows"]:
    if value is None or value == "Linux":
        return "Linux"
    if value == "Windows":
        return "Windows"
    raise FeedError(FeedCode.NAME_INVALID, f"osType {value!r} is neither Linux nor Windows")
