"""The keys that sign tokens, for the owner: looked at, and changed before their time."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from http_api import tokens
from http_api.domain.documents import Reader
from http_api.routes.common import OptionalBody, Pool, ServerOf

router = APIRouter(tags=["accounts"], prefix="/rollcall/keys")


@router.get("")
async def list_all(pool: Pool, server: ServerOf) -> Response:
    """Return the keys whose tokens count, the newest first."""
    async with pool.acquire() as connection:
        found = await tokens.signing_keys(connection, server.context.now())
    return JSONResponse({"value": [each.json() for each in found]})


@router.post("/rotate")
async def rotate(body: OptionalBody, pool: Pool, server: ServerOf) -> Response:
    """Make another key sign from now on; `{"revoke": true}` ends all tokens of those before it."""
    reader = Reader(body)
    revoke = reader.flag("revoke")
    reader.finish()
    now = server.context.now()
    async with pool.acquire() as connection, connection.transaction():
        await tokens.rotate(connection, server.settings.secrets_key, now, revoke=revoke)
        found = await tokens.signing_keys(connection, now)
    return JSONResponse({"value": [each.json() for each in found]})
