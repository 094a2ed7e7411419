"""One poll of one feed: read, compare, and record in one transaction; and the loop around it.

Several publishers may poll the same feed. The feed's row says how many polls were recorded; a poll
that began before another one's end finds a higher number and is dropped, so that an old answer is
never compared with newer knowledge, and each version is published by exactly one transaction.
"""

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import aiohttp
import asyncpg
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
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.outbox import Connection
from rollcall_kit.service import Context

from image_publisher import store
from image_publisher.documents import Documents
from image_publisher.domain.compare import Verdict, compare, stale
from image_publisher.domain.feed import FeedCode, FeedError, Offer, image_target
from image_publisher.domain.json_list import DOCUMENT
from image_publisher.domain.simplestreams import INDEX
from image_publisher.fetch import Fetcher
from image_publisher.formats import READERS, check_files
from image_publisher.metrics import (
    feed_errors,
    feed_polls,
    feed_up,
    images_published,
    images_withdrawn,
)
from image_publisher.signature import read_keyring

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


async def poll_forever(context: Context, *, feed: FeedConfig) -> None:
    """Poll until the service stops; whatever goes wrong is reported and the next poll comes."""
    timeout = aiohttp.ClientTimeout(total=None)  # Fetcher has its own, for files too
    async with aiohttp.ClientSession(
        timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        fetcher = Fetcher(session, timeout=feed.timeout, max_bytes=feed.max_bytes)
        while not context.stopping.is_set():
            await poll_safely(context, feed, fetcher)
            pause = feed.interval * random.uniform(1 - feed.jitter, 1 + feed.jitter)
            try:
                async with asyncio.timeout(pause):
                    await context.stopping.wait()
            except TimeoutError:
                continue


async def poll_safely(context: Context, feed: FeedConfig, fetcher: Fetcher) -> None:
    """Poll once; an error of the database or of this code is logged and disturbs no other feed."""
    try:
        await poll(context, feed, fetcher)
    except (*DATABASE_AWAY, asyncpg.PostgresError) as error:
        log.warning("feed_not_recorded", feed=feed.name, error=str(error) or type(error).__name__)
    except Exception:
        feed_up.labels(feed.name).set(0)
        feed_errors.labels(feed.name, FeedCode.POLL_FAILED.value).inc()
        log.exception("feed_poll_failed", feed=feed.name, code=FeedCode.POLL_FAILED.value)


async def poll(context: Context, feed: FeedConfig, fetcher: Fetcher) -> Outcome | None:
    """Poll once; None when another publisher's poll was recorded meanwhile."""
    async with context.database.acquire() as connection:
        state = await store.read_feed(connection, feed.name, feed.url)
    reading = await read(feed, fetcher, state)
    outcome: Outcome | None = None

    async def work(connection: Connection) -> Sequence[Event]:
        nonlocal outcome
        current = await store.lock_feed(connection, feed.name)
        if current.polls != state.polls:
            outcome = None
            return []
        verdict = await _judge(connection, feed, reading, current, context.now())
        outcome, events = await _record(connection, feed, reading, verdict, current, context.now())
        return events

    await context.transact(work)
    if outcome is not None:
        _tell(feed, outcome)
    return outcome


async def read(feed: FeedConfig, fetcher: Fetcher, state: store.FeedState) -> Reading:
    """Read the feed's documents; an error is part of the answer."""
    try:
        keyring = None
        if feed.keyring is not None:
            keyring = await asyncio.to_thread(read_keyring, feed.keyring)
        fingerprint = _fingerprint(feed, keyring)
        documents = Documents(fetcher, keyring=keyring, max_bytes=feed.max_bytes)
        known: Mapping[str, Any] = state.validators
        if known.get("fingerprint") == fingerprint and await documents.unchanged(
            known.get("documents", {})
        ):
            return Reading(fingerprint=fingerprint)
        offer = await READERS[feed.type](feed, documents)
    except FeedError as error:
        return Reading(error=error.failure(f"feeds/{feed.name}"))
    wrong_size = dict(await asyncio.to_thread(check_files, offer))
    return Reading(
        offer=_refuse(offer, wrong_size),
        fingerprint=fingerprint,
        validators=documents.validators(),
    )


def _fingerprint(feed: FeedConfig, keyring: bytes | None) -> str:
    """Return a hash of all that a reading depends on beside the documents themselves."""
    return hashlib.sha256(feed.model_dump_json().encode() + (keyring or b"")).hexdigest()


def _refuse(offer: Offer, faults: Mapping[str, FeedError]) -> Offer:
    """Return the offer without the images whose address has a fault."""
    if not faults:
        return offer
    refused = [
        faults[one.image.url].failure(image_target(one.image))
        for one in offer.offered
        if one.image.url in faults
    ]
    kept = tuple(one for one in offer.offered if one.image.url not in faults)
    return replace(offer, offered=kept, refused=(*offer.refused, *refused))


async def _judge(
    connection: Connection,
    feed: FeedConfig,
    reading: Reading,
    state: store.FeedState,
    now: datetime,
) -> Verdict:
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


async def _record(
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


def _tell(feed: FeedConfig, outcome: Outcome) -> None:
    """Log and count what was committed; a problem that goes on is logged with each poll."""
    verdict = outcome.verdict
    feed_polls.labels(feed.name).inc()
    feed_up.labels(feed.name).set(1 if verdict.accepted else 0)
    for problem in verdict.problems:
        feed_errors.labels(feed.name, problem.code).inc()
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
