"""The event log over HTTP: pages of it, and a stream that can be taken up again."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from rollcall_kit.database import DATABASE_AWAY

from http_api import installation
from http_api.domain.access import Principal, needed
from http_api.errors import ApiError, refuse
from http_api.routes.common import Pool, ServerOf
from http_api.urls import base_url
from http_api.writes import Server

router = APIRouter(tags=["events"], prefix="/rollcall/events")
IMAGES = "images"  # the stream that everybody who may look at anything may read
POLL = 0.2  # seconds between looks at the log, while a stream waits for more
STREAM_PAGE = 200
RETRY = 1000  # milliseconds after which a client that lost its stream asks again

ScaleSetId = Annotated[str, Query(alias="scaleSet", max_length=1000, pattern=r"^[^\x00]*$")]
Stream = Annotated[str, Query(max_length=1000, pattern=r"^[^\x00]*$")]
After = Annotated[int | None, Query(ge=0, lt=2**63)]
Limit = Annotated[int, Query(ge=1, le=1000)]


def stream_name(request: Request, scale_set: ScaleSetId = "", stream: Stream = "") -> str:
    """Return the log's stream: a set's id in lower case, or `images`.

    Raises ApiError 400 for none, 403 for a set that the client may not look at.
    """
    name = (scale_set or stream).lower().rstrip("/")
    if not name:
        raise ApiError(
            400,
            "InvalidParameter",
            "Say which events: scaleSet=<resource id>, or stream=images.",
            target="scaleSet",
        )
    principal: Principal = request.state.principal
    if name != IMAGES and not principal.may(needed("GET", name)):
        failure = refuse(principal, "GET", name)
        raise ApiError(403, failure.code, failure.message)
    return name


StreamName = Annotated[str, Depends(stream_name)]


def cloud_event(row: Mapping[str, Any]) -> str:
    """Return an entry as a CloudEvent in JSON, on one line.

    `data` is the entry's exact text, which is what its hash was made from.
    """
    attributes = {
        "specversion": "1.0",
        "id": str(row["id"]),
        "source": row["source"],
        "type": row["type"],
        "subject": row["subject"],
        "time": row["time"].isoformat(),
        "datacontenttype": "application/json",
        "stream": row["stream"],
        "sequence": str(row["sequence"]),
        "previoushash": row["previous_hash"],
        "hash": row["hash"],
    }
    if row["correlation_id"] is not None:
        attributes["correlationid"] = row["correlation_id"]
    return f'{json.dumps(attributes)[:-1]}, "data": {row["body"]}}}'


def log_page(request: Request, rows: Sequence[Mapping[str, Any]], limit: int) -> Response:
    """Return at most `limit` entries, with the URL of what follows where there are more rows."""
    shown = rows[:limit]
    link = ""
    if len(rows) > limit:
        query = urlencode({**request.query_params, "after": shown[-1]["sequence"]}, safe="/")
        url = f"{base_url(request)}{quote(request.url.path)}?{query}"
        link = f', "nextLink": {json.dumps(url)}'
    value = ", ".join(cloud_event(row) for row in shown)
    return Response(f'{{"value": [{value}]{link}}}', media_type="application/json")


@router.get("")
async def list_events(
    request: Request,
    pool: Pool,
    name: StreamName,
    after: After = None,
    limit: Limit = 200,
) -> Response:
    """Return a page of the log after a sequence number, oldest first."""
    async with pool.acquire() as connection:
        rows = await installation.events(connection, name, after=after or 0, limit=limit + 1)
    return log_page(request, rows, limit)


@router.get("/stream")
async def stream_events(
    pool: Pool,
    server: ServerOf,
    name: StreamName,
    after: After = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Stream the log as server-sent events; an event's id is its sequence number.

    `Last-Event-ID` takes a stream up where it broke, and comes before `after`; with neither, it
    begins with what happens from now on. `after=0` begins at the beginning.
    """
    if last_event_id is not None:
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):
            raise ApiError(
                400,
                "InvalidParameter",
                "Last-Event-ID must be the sequence number of the last event received.",
                target="Last-Event-ID",
            )
        after = int(last_event_id)
    if after is None:  # known before the answer begins: what the client does next is not missed
        async with pool.acquire() as connection:
            after = await installation.last_sequence(connection, name)
    return StreamingResponse(
        _frames(server, name, after),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _frames(server: Server, stream: str, after: int) -> AsyncIterator[str]:
    """Yield frames until the service stops; a client that goes away cancels this.

    The log itself is looked at again and again, not the broker: nothing can be lost on the way.
    """
    yield f"retry: {RETRY}\n\n"
    clock = asyncio.get_running_loop().time
    spoke_at = clock()
    while not server.context.stopping.is_set():
        try:
            async with server.context.database.acquire() as connection:
                rows = await installation.events(connection, stream, after=after, limit=STREAM_PAGE)
        except DATABASE_AWAY:
            return  # the client takes it up again by Last-Event-ID, once the database is back
        for row in rows:
            after = row["sequence"]
            yield f"id: {after}\nevent: {row['type']}\ndata: {cloud_event(row)}\n\n"
        if rows:
            spoke_at = clock()
        elif clock() - spoke_at > server.settings.api_keepalive:
            yield ": still here\n\n"
            spoke_at = clock()
        if len(rows) < STREAM_PAGE:
            await _pause(server.context.stopping)


async def _pause(stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(POLL):
            await stopping.wait()
    except TimeoutError:
        return
