"""Versions that sets keep off, because they faulted or were rolled back somewhere."""

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event, ImageReleased
from rollcall_contracts.model import Image
from rollcall_kit.outbox import Connection

from http_api import queries
from http_api.domain.asking import read_wish
from http_api.domain.present.images import hold_json
from http_api.errors import ApiError
from http_api.routes.common import OptionalBody, Pool, ServerOf

router = APIRouter(tags=["images"], prefix="/rollcall/holds")


@router.get("")
async def list_all(pool: Pool) -> Response:
    """Return the versions that are held, the newest hold first."""
    async with pool.acquire() as connection:
        return JSONResponse(
            {"value": [hold_json(hold) for hold in await queries.holds(connection)]}
        )


@router.post("/{publisher}/{offer}/{sku}/{version}/release")
async def release(
    publisher: str, offer: str, sku: str, version: str, body: OptionalBody, server: ServerOf
) -> Response:
    """Clear a version: sets may go to it again, also the one where it did not succeed."""
    wish = read_wish(body)

    async def work(connection: Connection) -> tuple[None, list[Event]]:
        stream = "/".join((publisher, offer, sku)).lower()
        for hold in await queries.holds(connection, stream):
            if hold.version.lower() == version.lower():
                image = Image.model_validate(hold.image)
                return None, [ImageReleased(image=image, reason=wish.reason)]
        raise ApiError(
            404,
            "HoldNotFound",
            f"The version {publisher}:{offer}:{sku}:{version} is not held. GET /rollcall/holds "
            "lists those that are.",
        )

    await server.transact(work)
    return Response(status_code=202)
