"""All SQL of image-publisher, as functions on a connection."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rollcall_contracts.model import Failure, Image
from rollcall_kit.outbox import Connection

from image_publisher.domain.compare import Withdrawal
from image_publisher.domain.feed import Known, Offered


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """What is remembered of a feed; `polls` tells whether another publisher polled meanwhile."""

    polls: int
    documents: Mapping[str, datetime]
    validators: Mapping[str, Any]
    problems: tuple[Failure, ...]


async def read_feed(connection: Connection, feed: str, url: str) -> FeedState:
    """Return a feed's state; the row is made where there is none."""
    await connection.execute(
        """
        INSERT INTO feeds (feed, url) VALUES ($1, $2)
        ON CONFLICT (feed) DO UPDATE SET url = $2 WHERE feeds.url <> $2
        """,
        feed,
        url,
    )
    return _state(await connection.fetchrow("SELECT * FROM feeds WHERE feed = $1", feed))


async def lock_feed(connection: Connection, feed: str) -> FeedState:
    """Return a feed's state, with its row locked until the transaction ends."""
    return _state(await connection.fetchrow("SELECT * FROM feeds WHERE feed = $1 FOR UPDATE", feed))


def _state(row: Any) -> FeedState:
    return FeedState(
        polls=row["polls"],
        documents={
            name: datetime.fromisoformat(time)
            for name, time in json.loads(row["documents"]).items()
        },
        validators=json.loads(row["validators"]),
        problems=tuple(Failure.model_validate(one) for one in json.loads(row["problems"])),
    )


async def known_images(
    connection: Connection, feed: str, streams: Iterable[tuple[str, str, str]]
) -> list[Known]:
    """Return the feed's own versions, and every feed's versions of these streams."""
    rows = await connection.fetch(
        """
        SELECT image, feed, product, document, location, withdrawn_at FROM images
        WHERE feed = $1 OR stream = ANY($2::text[])
        """,
        feed,
        sorted({"/".join(stream) for stream in streams}),
    )
    return [
        Known(
            offered=Offered(
                image=Image.model_validate_json(row["image"]),
                product=row["product"],
                document=row["document"],
                location=row["location"],
            ),
            feed=row["feed"],
            withdrawn=row["withdrawn_at"] is not None,
        )
        for row in rows
    ]


async def insert_image(connection: Connection, one: Offered, feed: str, now: datetime) -> bool:
    """Record a new version; False when another feed's transaction has recorded it meanwhile."""
    inserted = await connection.fetchval(
        """
        INSERT INTO images (stream, version, image, feed, product, document, location, published_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING RETURNING true
        """,
        "/".join(one.image.stream),
        one.image.version,
        one.image.model_dump_json(),
        feed,
        one.product,
        one.document,
        one.location,
        now,
    )
    return bool(inserted)


async def refresh_image(connection: Connection, one: Offered) -> None:
    """Record a version's new address and flags; its content is the same."""
    await connection.execute(
        """
        UPDATE images SET image = $3, product = $4, document = $5
        WHERE stream = $1 AND version = $2 AND withdrawn_at IS NULL
        """,
        "/".join(one.image.stream),
        one.image.version,
        one.image.model_dump_json(),
        one.product,
        one.document,
    )


async def withdraw_image(connection: Connection, one: Withdrawal, now: datetime) -> None:
    """Mark a version as withdrawn, for good."""
    await connection.execute(
        """
        UPDATE images SET withdrawn_at = $3, withdrawn_reason = $4
        WHERE stream = $1 AND version = $2 AND withdrawn_at IS NULL
        """,
        "/".join(one.known.image.stream),
        one.known.image.version,
        now,
        one.reason,
    )


async def save_poll(
    connection: Connection, feed: str, problems: Sequence[Failure], now: datetime
) -> None:
    """Record that the feed was polled, and what is wrong with it now."""
    await connection.execute(
        """
        UPDATE feeds SET polls = polls + 1, checked_at = $2, problems = $3, error = $4
        WHERE feed = $1
        """,
        feed,
        now,
        json.dumps([problem.model_dump() for problem in problems]),
        problems[0].model_dump_json() if problems else None,
    )


async def save_accepted(
    connection: Connection,
    feed: str,
    *,
    updated: datetime | None,
    documents: Mapping[str, datetime],
    validators: Mapping[str, Any],
    now: datetime,
) -> None:
    """Record what was accepted: times that must not go back, and what to ask with next time."""
    await connection.execute(
        """
        UPDATE feeds SET updated_at = $2, feed_updated = $3, documents = $4, validators = $5
        WHERE feed = $1
        """,
        feed,
        now,
        updated.isoformat() if updated else None,
        json.dumps({name: time.isoformat() for name, time in documents.items()}),
        json.dumps(validators),
    )


async def touch_accepted(connection: Connection, feed: str, now: datetime) -> None:
    """Record that the feed was confirmed to be what was accepted last."""
    await connection.execute("UPDATE feeds SET updated_at = $2 WHERE feed = $1", feed, now)


async def count_error(connection: Connection, feed: str, problem: Failure, now: datetime) -> None:
    """Count one more of this error."""
    await connection.execute(
        """
        INSERT INTO feed_errors AS e (feed, code, count, last_at, last_message)
        VALUES ($1, $2, 1, $3, $4)
        ON CONFLICT (feed, code) DO UPDATE
        SET count = e.count + 1, last_at = $3, last_message = $4
        """,
        feed,
        problem.code,
        now,
        problem.message,
    )
