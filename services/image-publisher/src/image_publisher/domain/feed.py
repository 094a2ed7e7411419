"""The words of this service: what a feed offers, what is known, and what can be wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from rollcall_contracts.model import Failure, Image


class FeedCode(StrEnum):
    """The named errors of feeds; stable, because alerts match on them. docs/feeds.md lists each."""

    # The feed as a whole: nothing is taken from it, and what is known stays as it is.
    UNREACHABLE = "FeedUnreachable"
    TRUNCATED = "FeedTruncated"
    TOO_LARGE = "FeedTooLarge"
    MALFORMED = "FeedMalformed"
    PATH_UNSAFE = "FeedPathUnsafe"  # also of one image's path: then only that version is refused
    SIGNATURE_MISSING = "FeedSignatureMissing"
    SIGNATURE_INVALID = "FeedSignatureInvalid"
    KEYRING_UNUSABLE = "FeedKeyringUnusable"
    VERIFIER_MISSING = "FeedVerifierMissing"
    WENT_BACK = "FeedWentBack"
    STALE = "FeedStale"
    POLL_FAILED = "FeedPollFailed"
    # One version: the feed's other versions are taken all the same.
    CHECKSUM_MISSING = "ImageChecksumMissing"
    SIZE_MISMATCH = "ImageSizeMismatch"
    TOO_LARGE_IMAGE = "ImageTooLarge"
    NAME_INVALID = "ImageNameInvalid"
    AMBIGUOUS = "ImageAmbiguous"
    CONTENT_CHANGED = "ImageContentChanged"
    CONFLICT = "ImageConflict"
    RETURNED = "ImageReturned"


class FeedError(Exception):
    """A feed, or one version in it, is refused; `code` is its name and the message says why.

    A document's parser raises it for the document and collects it for a version.
    """

    def __init__(self, code: FeedCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def failure(self, target: str) -> Failure:
        """Return the error as other services see it."""
        return Failure(code=self.code, message=self.message[:1000], target=target[:400])


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the configuration makes of a product: whose image it is, and which files may count."""

    publisher: str
    offer: str
    sku: str
    items: tuple[str, ...] = ()  # kinds of file that may be taken, the most wanted first
    os_type: Literal["Linux", "Windows"] | None = None  # None: what the document says, else Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One version that a feed offers, with the feed's own words for it.

    `product`, `document` and `location` are as the feed has them, so that a mirror that moves to
    another address is not taken for one that changed its content.
    """

    image: Image
    product: str
    document: str
    location: str
    # The version's other files that could be taken. They count when one of them is on record.
    others: tuple["Offered", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One version that was recorded before, by this feed or another."""

    offered: Offered
    feed: str
    withdrawn: bool = False

    @property
    def image(self) -> Image:
        """Return the image as it was recorded."""
        return self.offered.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one document of a feed holds."""

    document: str
    updated: datetime | None  # None: the document does not say
    offered: tuple[Offered, ...] = ()
    refused: tuple[Failure, ...] = ()
    present: frozenset[tuple[str, str]] = frozenset()  # every (product, version), ours or not


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a whole feed offers at one time; versions that were refused are `present` too."""

    top: str  # the document that names the others
    documents: Mapping[str, datetime | None]
    offered: tuple[Offered, ...] = ()
    refused: tuple[Failure, ...] = ()
    present: frozenset[tuple[str, str]] = frozenset()
    unread: frozenset[str] = field(default=frozenset())  # products of documents that were not asked

    @property
    def updated(self) -> datetime | None:
        """Return when the feed says that it was last written."""
        return self.documents.get(self.top)


def image_target(image: Image) -> str:
    """Return how an error names a version."""
    return "/".join((*image.stream, image.version))


def gather(top: Page, pages: tuple[Page, ...] = (), unread: frozenset[str] = frozenset()) -> Offer:
    """Return the documents' content as one offer.

    Where two products become the same version with different content, none of them is offered:
    which of the two was meant is the operator's to say.
    """
    every = (top, *pages)
    by_version: dict[tuple[tuple[str, str, str], str], list[Offered]] = {}
    for page in every:
        for item in page.offered:
            by_version.setdefault((item.image.stream, item.image.version), []).append(item)
    refused = [failure for page in every for failure in page.refused]
    offered: list[Offered] = []
    for items in by_version.values():
        first = items[0]
        if len({(item.image.sha256, item.image.size) for item in items}) == 1:
            offered.append(first)
            continue
        names = ", ".join(sorted({item.product for item in items}))
        message = f"several products become this version: {names}; narrow `match:` in `products:`"
        error = FeedError(FeedCode.AMBIGUOUS, message)
        refused.append(error.failure(image_target(first.image)))
    present = frozenset().union(*(page.present for page in every))
    return Offer(
        top=top.document,
        documents={page.document: page.updated for page in every},
        offered=tuple(offered),
        refused=tuple(refused),
        present=present,
        unread=unread - {product for product, _ in present},
    )
