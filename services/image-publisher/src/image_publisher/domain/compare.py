"""What follows from an offer: the rules of M23, by comparing it with what was recorded before.

Safe means: no instance is touched by a feed that is in doubt. So an offer that is old, or that
contradicts itself in time, changes nothing; and of the two ways to err with a version, withdrawing
(its rollouts stop) is taken before publishing. What was withdrawn never comes back by itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rollcall_contracts.model import Failure

from image_publisher.domain.feed import (
    FeedCode,
    FeedError,
    Known,
    Offer,
    Offered,
    image_target,
)

FUTURE_TOLERANCE = timedelta(days=1)  # of a feed's clock

Key = tuple[tuple[str, str, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """A recorded version that must not be rolled out any more, and why."""

    known: Known
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with an offer. `accepted` is false when nothing may be taken from it."""

    accepted: bool
    published: tuple[Offered, ...] = ()
    withdrawn: tuple[Withdrawal, ...] = ()
    refreshed: tuple[Offered, ...] = ()  # same content, other address or flags
    problems: tuple[Failure, ...] = ()


def compare(
    known: Iterable[Known],
    offer: Offer,
    *,
    feed: str,
    seen: Mapping[str, datetime],
    now: datetime,
    max_age: float | None = None,
) -> Verdict:
    """Return what the offer changes.

    `known` holds at least the feed's own versions and those of the offer's streams; `seen` is the
    newest `updated` accepted so far of each document; `max_age` is in seconds.
    """
    recorded = {(one.image.stream, one.image.version): one for one in known}
    missing = [one for one in recorded.values() if _is_missing(one, offer, feed)]
    alarm = (
        _went_back(offer, seen)
        or _from_the_future(offer, now)
        or stale(offer.updated, now=now, max_age=max_age)
        or _lost_versions(missing, recorded, offer, seen)
    )
    if alarm is not None:
        return Verdict(accepted=False, problems=(alarm.failure(f"feeds/{feed}"),))
    withdrawn = [
        Withdrawal(known=one, reason=_why_withdrawn(one, offer, feed))
        for one in missing
        if _is_newer(one.offered.document, offer, seen)
    ]
    published: list[Offered] = []
    refreshed: list[Offered] = []
    problems = list(offer.refused)
    for one in offer.offered:
        before = recorded.get((one.image.stream, one.image.version))
        one = _as_recorded(one, before)
        if before is None:
            published.append(_seen_at(one, now))
            continue
        fault = _fault(before, one, feed)
        if fault is not None:
            problems.append(fault.failure(image_target(one.image)))
        if fault is not None and fault.code is FeedCode.CONTENT_CHANGED and not before.withdrawn:
            withdrawn.append(Withdrawal(known=before, reason=fault.message))
        as_before = _seen_at(one, before.image.published_at)
        if fault is None and before.feed == feed and before.offered != as_before:
            refreshed.append(as_before)
    # Newest first: whoever takes the events one by one never sees an old version as the latest.
    published.sort(key=lambda one: one.image.order, reverse=True)
    return Verdict(
        accepted=True,
        published=tuple(published),
        withdrawn=tuple(withdrawn),
        refreshed=tuple(refreshed),
        problems=tuple(problems),
    )


def _as_recorded(one: Offered, before: Known | None) -> Offered:
    """Return that file of a version which is on record: a more wanted one that is added later, or
    that the configuration now prefers, is no change of the version's content.
    """
    same = (
        each
        for each in (one, *one.others)
        if before is not None and each.image.sha256 == before.image.sha256
    )
    return replace(next(same, one), others=())


def stale(updated: datetime | None, *, now: datetime, max_age: float | None) -> FeedError | None:
    """Return FeedStale when the feed was not written for more than `max_age` seconds."""
    if max_age is None:
        return None
    if updated is None:
        return FeedError(FeedCode.STALE, "max_age is set, but the feed does not say `updated`")
    age = (now - updated).total_seconds()
    if age <= max_age:
        return None
    return FeedError(
        FeedCode.STALE,
        f"updated {updated.isoformat()} is {age:.0f} s ago, more than max_age {max_age:.0f} s",
    )


def _seen_at(one: Offered, when: datetime | None) -> Offered:
    """Return a version with the time at which it was seen first, by the publisher's own clock.

    How old an image is decides whether sets may go to it, so a feed does not have a say in it.
    """
    image = one.image.model_copy(update={"published_at": when})
    return replace(one, image=image)


def _went_back(offer: Offer, seen: Mapping[str, datetime]) -> FeedError | None:
    for document, updated in sorted(offer.documents.items()):
        before = seen.get(document)
        if before is None or (updated is not None and updated >= before):
            continue
        says = "nothing" if updated is None else updated.isoformat()
        return FeedError(
            FeedCode.WENT_BACK,
            f"{document}: `updated` is {says}, but {before.isoformat()} was read before",
        )
    return None


def _from_the_future(offer: Offer, now: datetime) -> FeedError | None:
    for document, updated in sorted(offer.documents.items()):
        if updated is not None and updated > now + FUTURE_TOLERANCE:
            # Accepted, it would make every true document after it look old.
            return FeedError(
                FeedCode.MALFORMED,
                f"{document}: `updated` {updated.isoformat()} lies in the future",
            )
    return None


def _is_missing(one: Known, offer: Offer, feed: str) -> bool:
    """Say whether a version left the feed.

    What counts is the product and the version in the documents, not whether the configuration still
    maps them: a mistake in `products:` must not withdraw anything.
    """
    product, version = one.offered.product, one.image.version
    return (
        one.feed == feed
        and not one.withdrawn
        and (product, version) not in offer.present
        and product not in offer.unread
    )


def _document_of(document: str, offer: Offer) -> str:
    """Return the document that speaks for a version: its own, or the index that dropped it."""
    return document if document in offer.documents else offer.top


def _is_newer(document: str, offer: Offer, seen: Mapping[str, datetime]) -> bool:
    name = _document_of(document, offer)
    updated, before = offer.documents[name], seen.get(name)
    return updated is not None and (before is None or updated > before)


def _lost_versions(
    missing: list[Known],
    recorded: Mapping[Key, Known],
    offer: Offer,
    seen: Mapping[str, datetime],
) -> FeedError | None:
    """Return FeedWentBack when versions are gone though no newer document removed them.

    A feed that never says `updated` cannot withdraw: it may drop old versions, not its newest.
    """
    for one in missing:
        if _is_newer(one.offered.document, offer, seen):
            continue
        name = _document_of(one.offered.document, offer)
        if offer.documents[name] is None and not _is_newest(one, recorded):
            continue
        return FeedError(
            FeedCode.WENT_BACK,
            f"{one.offered.product} {one.image.version} is gone, but `updated` of {name} is not "
            "newer than before: a version is withdrawn only by a newer document",
        )
    return None


def _is_newest(one: Known, recorded: Mapping[Key, Known]) -> bool:
    return all(
        other.image.order <= one.image.order
        for other in recorded.values()
        if other.feed == one.feed
        and other.offered.product == one.offered.product
        and not other.withdrawn
    )


def _why_withdrawn(one: Known, offer: Offer, feed: str) -> str:
    name = _document_of(one.offered.document, offer)
    updated = offer.documents[name]
    when = "" if updated is None else f" of {updated.isoformat()}"
    return f"left feed {feed}: {one.offered.product} {one.image.version} is not in {name}{when}"


def _fault(before: Known, one: Offered, feed: str) -> FeedError | None:
    """Return why a version that is known already is refused; None when it is the same."""
    old, new = before.image, one.image
    same_content = (old.sha256, old.size) == (new.sha256, new.size)
    if before.feed != feed:
        if same_content and not before.withdrawn:
            return None
        if same_content:
            return _returned(before)
        return FeedError(
            FeedCode.CONFLICT,
            f"feed {before.feed} published this version with sha256 {old.sha256}, feed {feed} "
            f"offers {new.sha256}: the first is kept",
        )
    if not same_content:
        return FeedError(
            FeedCode.CONTENT_CHANGED,
            f"content changed in place: sha256 {old.sha256}, {old.size} bytes was published, feed "
            f"{feed} now offers {new.sha256}, {new.size} bytes; publish it as a new version",
        )
    if before.offered.location != one.location:
        return FeedError(
            FeedCode.CONTENT_CHANGED,
            f"path changed in place: {before.offered.location} was published, feed {feed} now "
            f"offers {one.location}; publish it as a new version",
        )
    return _returned(before) if before.withdrawn else None


def _returned(before: Known) -> FeedError:
    return FeedError(
        FeedCode.RETURNED,
        f"feed {before.feed} withdrew this version before; it stays withdrawn: publish its content "
        "as a new version",
    )
