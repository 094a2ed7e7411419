"""Scale sets: write, read, list, delete (M51)."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from http_api import queries, store
from http_api.domain.present.instances import set_view_json
from http_api.domain.present.scale_sets import (
    StoredScaleSet,
    scale_set_json,
)
from http_api.domain.resource_ids import SCALE_SETS
from http_api.routes.common import (
    GROUP,
    SET,
    SUBSCRIPTION,
    JsonBody,
    Pool,
    ScaleSet,
    ScaleSetPlace,
    ServerOf,
    SkipToken,
    need_api_version,
    page,
)
from http_api.routes.status import accepted, operation_headers
from http_api.writes import Server, Written, delete_scale_set, write_scale_set

router = APIRouter(tags=["scale sets"], dependencies=[Depends(need_api_version)])


@router.put(SET)
async def put(
    request: Request, place: ScaleSetPlace, body: JsonBody, server: ServerOf, pool: Pool
) -> Response:
    """Create a scale set, or change what the body names. 202 would break every SDK."""
    written = await write_scale_set(server, place, body, patch=False)
    return await _written(request, pool, server, written)


@router.patch(SET)
async def patch(
    request: Request, place: ScaleSetPlace, body: JsonBody, server: ServerOf, pool: Pool
) -> Response:
    """Change a scale set by a JSON merge patch."""
    return await _written(
        request, pool, server, await write_scale_set(server, place, body, patch=True)
    )


@router.get(SET)
async def get(scale_set: ScaleSet, pool: Pool) -> Response:
    """Return a scale set."""
    return JSONResponse(await _shown(pool, scale_set))


@router.delete(SET)
async def delete(request: Request, place: ScaleSetPlace, server: ServerOf) -> Response:
    """Delete a scale set with its instances; 204 if there is none."""
    return accepted(request, server, await delete_scale_set(server, place))


@router.get(SET + "/instanceView")
async def get_view(scale_set: ScaleSet, pool: Pool, server: ServerOf) -> Response:
    """Return how many of the instances are in which state."""
    async with pool.acquire() as connection:
        counts = await queries.instance_counts(connection, scale_set.id)
        states = await queries.fleet_states(connection, [scale_set.id])
    state = states[scale_set.id].provisioning(scale_set.capacity)
    return JSONResponse(set_view_json(counts, state, server.context.now()))


@router.get(f"{SUBSCRIPTION}/providers/{SCALE_SETS}")
@router.get(f"{GROUP}/providers/{SCALE_SETS}")
async def list_all(
    request: Request,
    pool: Pool,
    server: ServerOf,
    subscription: str,
    group: str | None = None,
    skip_token: SkipToken = "",
) -> Response:
    """Return the scale sets of a subscription or of a group."""
    limit = server.settings.api_page_size
    async with pool.acquire() as connection:
        found = await store.scale_sets(
            connection, subscription=subscription, group=group, after=skip_token, limit=limit + 1
        )
        shown = found[:limit]
        states = await queries.fleet_states(connection, [each.id for each in shown])
    token = shown[-1].id.lower() if len(found) > limit else None
    return JSONResponse(
        page(request, [scale_set_json(each, states[each.id]) for each in shown], token)
    )


async def _shown(pool: Pool, stored: StoredScaleSet) -> dict[str, Any]:
    async with pool.acquire() as connection:
        states = await queries.fleet_states(connection, [stored.id])
    return scale_set_json(stored, states[stored.id])


async def _written(request: Request, pool: Pool, server: Server, written: Written) -> Response:
    """Return what a write made, and where a client asks whether it is so already."""
    async with pool.acquire() as connection:
        states = await queries.fleet_states(connection, [written.stored.id])
    return JSONResponse(
        scale_set_json(
            written.stored,
            states[written.stored.id],
            provisioning="Creating" if written.created else "Updating",
        ),
        status_code=201 if written.created else 200,
        headers=operation_headers(request, server, written.operation, location=False),
    )
