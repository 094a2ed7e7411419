"""One poll of one feed: read, compare, and record in one transaction; and the loop around it.

Several publishers may poll the same feed. The feed's row says how many polls were recorded; a poll
that began before another one's end finds a higher number and is dropped, so that an old answer is
never compared with newer knowledge, and each version is published by exactly one transaction.
"""

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import asyncpg
import structlog
from rollcall_contracts.events import Event
from rollcall_kit.config import FeedConfig
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.outbox import Connection
from rollcall_kit.service import Context

from image_publisher import store
from image_publisher.documents import Documents
from image_publisher.domain.feed import FeedCode, FeedError, Offer, image_target
from image_publisher.fetch import Fetcher
from image_publisher.formats import READERS, check_files
from image_publisher.metrics import feed_errors, feed_up
from image_publisher.record import Outcome, Reading, judge, record, tell
from image_publisher.signature import read_keyring

log = structlog.get_logger()

MIN_PAUSE = 0.1  # seconds; a jitter of 1 may give no pause at all


async def poll_forever(context: Context, *, feed: FeedConfig) -> None:
    """Poll until the service stops; whatever goes wrong is reported and the next poll comes."""
    timeout = aiohttp.ClientTimeout(total=None)  # Fetcher has its own, for files too
    async with aiohttp.ClientSession(
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "rollcall-image-publisher"},
    ) as session:
        fetcher = Fetcher(session, timeout=feed.timeout, max_bytes=feed.max_bytes)
        while not context.stopping.is_set():
            await poll_safely(context, feed, fetcher)
            pause = feed.interval * random.uniform(1 - feed.jitter, 1 + feed.jitter)
            pause = max(pause, MIN_PAUSE)
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
        now = context.now()
        verdict = await judge(connection, feed, reading, current, now)
        outcome, events = await record(connection, feed, reading, verdict, current, now)
        return events

    await context.transact(work)
    if outcome is not None:
        tell(feed, outcome)
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
