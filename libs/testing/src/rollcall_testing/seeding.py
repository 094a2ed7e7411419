"""Put scale sets and images into a database, as http-api and image-publisher do."""

from datetime import UTC, datetime

import asyncpg
from rollcall_contracts import events as e
from rollcall_contracts.model import Image, ScaleSetSpec
from rollcall_kit.database import migrate, migrations_of
from rollcall_kit.outbox import append


async def prepare(pool: asyncpg.Pool) -> None:
    """Make the tables of the kit, the image-publisher and the orchestrator."""
    owners = ("rollcall_kit", "image_publisher", "orchestrator")
    await migrate(pool, [migrations_of(owner) for owner in owners])


async def publish_image(pool: asyncpg.Pool, image: Image) -> None:
    """Record an image and log its publication, in one transaction."""
    now = datetime.now(UTC)
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(
            """
            INSERT INTO images (stream, version, image, feed, product, document, location,
                                published_at)
            VALUES ($1, $2, $3, 'test', 'test', 'test', 'test', $4)
            """,
            "/".join(image.stream),
            image.version,
            image.model_dump_json(),
            now,
        )
        published = e.ImagePublished(image=image)
        await append(connection, [published], source="image-publisher", now=now)


async def change_set(pool: asyncpg.Pool, spec: ScaleSetSpec) -> None:
    """Log a new model of a scale set."""
    changed = e.ScaleSetChanged(scale_set=spec.scale_set, spec=spec)
    async with pool.acquire() as connection, connection.transaction():
        await append(connection, [changed], source="http-api", now=datetime.now(UTC))
