"""What a reading leads to, in one transaction: the verdict, its rows, and its events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import structlog
from rollcall_contracts.events import (
    Event,
    FeedRecovered,
    FeedRejected,
    ImagePublished,
    ImageWithdrawn,
)
from rollcall_contracts.model import Failure
from rollcall_kit.config import FeedConfig
from rollcall_kit.outbox import Connection

from image_publisher import store
from image_publisher.domain.compare import Verdict, compare, stale
from image_publisher.domain.feed import Offer, image_target
from image_publisher.domain.json_list import DOCUMENT
from image_publisher.domain.simplestreams import INDEX
from image_publisher.metrics import (
    feed_errors,
    feed_polls,
    feed_up,
    images_published,
    images_withdrawn,
)

log = structlog.get_logger()

MAX_PROBLEMS = 50  # kept and told one by one; a feed with more is broken in one way, not in fifty


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a poll brought: an offer; or that nothing changed; or why it could not be read."""

    offer: Offer | None = None
    error: Failure | None = None
    fingerprint: str = ""
    validators: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a poll led to, for the log and the metrics; told when it is committed."""

    verdict: Verdict
    started: tuple[Failure, ...] = ()  # problems that were not there before
    recovered: bool = False


async def judge(
    connection: Connection,
    feed: FeedConfig,
    reading: Reading,
    state: store.FeedState,
    now: datetime,
) -> Verdict:
    """Return what the reading changes; the feed's row must be locked."""
    if reading.error is not None:
        return Verdict(accepted=False, problems=(reading.error,))
    if reading.offer is None:
        return _unchanged(feed, state, now)
    known = await store.known_images(
        connection, feed.name, (one.image.stream for one in reading.offer.offered)
    )
    return compare(
        known,
        reading.offer,
        feed=feed.name,
        seen=state.documents,
        now=now,
        max_age=feed.max_age,
    )


def _unchanged(feed: FeedConfig, state: store.FeedState, now: datetime) -> Verdict:
    """Judge a feed whose server says that it is as before: it may have become stale."""
    newest = state.documents.get(INDEX) or state.documents.get(DOCUMENT)
    alarm = stale(newest, now=now, max_age=feed.max_age)
    if alarm is not None:
        return Verdict(accepted=False, problems=(alarm.failure(f"feeds/{feed.name}"),))
    kept = state.validators.get("problems", ())
    return Verdict(accepted=True, problems=tuple(Failure.model_validate(one) for one in kept))


async def record(
    connection: Connection,
    feed: FeedConfig,
    reading: Reading,
    verdict: Verdict,
    state: store.FeedState,
    now: datetime,
) -> tuple[Outcome, list[Event]]:
    """Write what the verdict says; return the events that follow from it."""
    # In one order for all publishers: two feeds that insert the same versions cannot deadlock.
    ordered = sorted(verdict.published, key=lambda one: (one.image.stream, one.image.version))
    inserted = {
        (one.image.stream, one.image.version)
        for one in ordered
        if await store.insert_image(connection, one, feed.name, now)
    }
    published = tuple(
        one for one in verdict.published if (one.image.stream, one.image.version) in inserted
    )
    for changed in verdict.refreshed:
        await store.refresh_image(connection, changed)
    for withdrawal in verdict.withdrawn:
        await store.withdraw_image(connection, withdrawal, now)
    problems = verdict.problems[:MAX_PROBLEMS]
    for problem in problems:
        await store.count_error(connection, feed.name, problem, now)
    await store.save_poll(connection, feed.name, problems, now)
    if verdict.accepted and reading.offer is None:
        await store.touch_accepted(connection, feed.name, now)
    elif verdict.accepted and reading.offer is not None:
        # Where another feed was faster with a version, the next poll compares in full again.
        settled = len(published) == len(verdict.published)
        validators = {
            "fingerprint": reading.fingerprint,
            "documents": reading.validators,
            "problems": [problem.model_dump() for problem in problems],
        }
        times = {name: time for name, time in reading.offer.documents.items() if time is not None}
        await store.save_accepted(
            connection,
            feed.name,
            updated=reading.offer.updated,
            documents={**state.documents, **times},
            validators=validators if settled else {},
            now=now,
        )
    before = {(problem.code, problem.target) for problem in state.problems}
    outcome = Outcome(
        verdict=replace(verdict, published=published),
        started=tuple(one for one in problems if (one.code, one.target) not in before),
        recovered=bool(state.problems) and not problems,
    )
    return outcome, _events(feed, outcome)


def _events(feed: FeedConfig, outcome: Outcome) -> list[Event]:
    """Return the events: withdrawals first, so that nobody starts what is about to stop."""
    events: list[Event] = [
        ImageWithdrawn(image=one.known.image, reason=one.reason)
        for one in outcome.verdict.withdrawn
    ]
    events += [
        ImagePublished(image=one.image, reason=f"new in feed {feed.name}: {one.product}")
        for one in outcome.verdict.published
    ]
    events += [
        FeedRejected(feed=feed.name, error=problem, reason=problem.message)
        for problem in outcome.started
    ]
    if outcome.recovered:
        events.append(FeedRecovered(feed=feed.name, reason="read without errors"))
    return events


def tell(feed: FeedConfig, outcome: Outcome) -> None:
    """Log and count what was committed; a problem that goes on is logged with each poll."""
    verdict = outcome.verdict
    feed_polls.labels(feed.name).inc()
    feed_up.labels(feed.name).set(1 if verdict.accepted else 0)
    for problem in verdict.problems:
        feed_errors.labels(feed.name, problem.code).inc()
    if len(verdict.problems) > MAX_PROBLEMS:
        log.warning("feed_problems_omitted", feed=feed.name, found=len(verdict.problems))
    for problem in verdict.problems[:MAX_PROBLEMS]:
        log.warning(
            "feed_rejected",
            feed=feed.name,
            code=problem.code,
            message=problem.message,
            target=problem.target,
        )
    if outcome.recovered:
        log.info("feed_recovered", feed=feed.name)
    for one in verdict.published:
        images_published.labels(feed.name).inc()
        log.info("image_published", feed=feed.name, image=image_target(one.image))
    for changed in verdict.refreshed:
        log.info("image_refreshed", feed=feed.name, image=image_target(changed.image))
    for withdrawal in verdict.withdrawn:
        images_withdrawn.labels(feed.name).inc()
        target = image_target(withdrawal.known.image)
        log.warning("image_withdrawn", feed=feed.name, image=target, reason=withdrawal.reason)
