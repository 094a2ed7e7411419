"""The connection pool, and numbered SQL migrations."""

import asyncio
import zlib
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable

import asyncpg
import structlog

log = structlog.get_logger()

# What an operation raises while the server restarts, or when two transactions collide.
DATABASE_AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,  # too many connections, a full disk
    asyncpg.TransactionRollbackError,
)

_LEDGER = """
CREATE TABLE IF NOT EXISTS rollcall_migrations (
    owner text NOT NULL,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (owner, name)
)
"""
_MIGRATION_LOCK = zlib.crc32(b"rollcall migrations")


async def open_pool(url: str, *, size: int = 8, patience: float = 60) -> asyncpg.Pool:
    """Return a pool of connections, waiting up to `patience` seconds for the server to answer."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await asyncpg.create_pool(url, min_size=1, max_size=size)
        except (
            OSError,
            asyncpg.CannotConnectNowError,
            asyncpg.ConnectionDoesNotExistError,
            asyncpg.TooManyConnectionsError,
        ):
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.info("database_awaited")
            await asyncio.sleep(0.5)


async def migrate(pool: asyncpg.Pool, migrations: Iterable[tuple[str, Traversable]]) -> None:
    """Apply each owner's numbered `.sql` files that were not applied yet, a transaction each.

    Several services may start at once: an advisory lock lets one of them through at a time.
    """
    async with pool.acquire() as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
        try:
            await connection.execute(_LEDGER)
            for owner, folder in migrations:
                await _migrate_owner(connection, owner, folder)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _MIGRATION_LOCK)


async def _migrate_owner(
    connection: "asyncpg.pool.PoolConnectionProxy", owner: str, folder: Traversable
) -> None:
    done = {
        row["name"]
        for row in await connection.fetch(
            "SELECT name FROM rollcall_migrations WHERE owner = $1", owner
        )
    }
    scripts = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name
    )
    for script in scripts:
        if script.name in done:
            continue
        async with connection.transaction():
            await connection.execute(script.read_text())
            await connection.execute(
                "INSERT INTO rollcall_migrations (owner, name) VALUES ($1, $2)", owner, script.name
            )
        log.info("migration_applied", owner=owner, name=script.name)


def migrations_of(package: str) -> tuple[str, Traversable]:
    """Return a package's name with its `migrations` folder, as `migrate` takes them."""
    return package, files(package) / "migrations"


async def wait_for_views(pool: asyncpg.Pool, names: Iterable[str]) -> None:
    """Wait until other services have made the views that this one reads."""
    for name in names:
        while await pool.fetchval("SELECT to_regclass($1)", name) is None:
            log.info("view_awaited", view=name)
            await asyncio.sleep(0.2)
