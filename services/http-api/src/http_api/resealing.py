"""Sealing what is stored with a new key, while the old one still opens it."""

import asyncio

import structlog
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.outbox import Connection
from rollcall_kit.secrets import SealError, resealed

from http_api import store
from http_api.domain.documents import ModelError
from http_api.writes import Server, reseal_scale_set

log = structlog.get_logger()

AGAIN = 5  # seconds until another try while the database is away
# Beside the models: what only http-api opens. The name of each table, its text, and its key.
_TEXTS = (("signing_keys", "sealed_private_key", "kid"), ("deployments", "sealed", "key"))


async def reseal(server: Server) -> None:
    """Seal with the first key of `ROLLCALL_SECRETS_KEY` all that another of them has sealed.

    Each text in a transaction of its own: what is cut off goes on at the next start. A line in the
    log says when the old keys are not needed any more.
    """
    if "," not in server.settings.secrets_key:
        return
    while True:
        try:
            changed, left = await _once(server)
        except DATABASE_AWAY as error:
            log.warning("database_unavailable", error=str(error) or type(error).__name__)
            await asyncio.sleep(AGAIN)
            continue
        log.info("secrets_resealed", changed=changed, left=left)
        return


async def _once(server: Server) -> tuple[int, list[str]]:
    """Return how many were sealed anew, and what could not be."""
    changed = 0
    left: list[str] = []
    async with server.context.database.acquire() as connection:
        sets = await store.scale_set_ids(connection)
        for table, text, key in _TEXTS:
            changed += await _texts(server, connection, (table, text, key), left)
    for id in sets:
        try:
            changed += await reseal_scale_set(server, id.lower())
        except (SealError, ModelError) as error:
            log.warning("secret_not_resealed", scale_set=id, error=str(error))
            left.append(id)
    return changed, left


async def _texts(
    server: Server, connection: Connection, place: tuple[str, str, str], left: list[str]
) -> int:
    table, text, key = place
    changed = 0
    for row in await connection.fetch(f"SELECT {key} AS key, {text} AS text FROM {table}"):
        try:
            sealed = resealed(server.settings.secrets_key, row["text"])
        except SealError as error:
            log.warning("secret_not_resealed", table=table, key=row["key"], error=str(error))
            left.append(row["key"])
            continue
        if sealed != row["text"]:
            changed += 1
            await connection.execute(
                f"UPDATE {table} SET {text} = $3 WHERE {key} = $1 AND {text} = $2",
                row["key"],
                row["text"],
                sealed,
            )
    return changed
