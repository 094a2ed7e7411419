"""Scale sets: write, read, list, delete (M51)."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from http_api import queries, store
from http_api.domain.api_versions import for_older, from_older
from http_api.domain.present.instances import set_view_json
from http_api.domain.present.scale_sets import (
    StoredScaleSet,
    scale_set_json,
    sku_json,
)
from http_api.domain.resource_ids import SCALE_SETS
from http_api.routes.common import (
    GROUP,
    LOCATION,
    SET,
    SUBSCRIPTION,
    ApiVersion,
    Caller,
    JsonBody,
    NoFilter,
    Pool,
    ScaleSet,
    ScaleSetPlace,
    Scopes,
    ServerOf,
    SkipToken,
    When,
    need_api_version,
    page,
)
from http_api.routes.status import accepted, operation_headers
from http_api.writes import Server, Written, delete_scale_set, write_scale_set

router = APIRouter(tags=["scale sets"], dependencies=[Depends(need_api_version)])


@router.put(SET)
async def put(
    request: Request,
    place: ScaleSetPlace,
    body: JsonBody,
    server: ServerOf,
    when: When,
    version: ApiVersion,
    principal: Caller,
) -> Response:
    """Create a scale set, or change what the body names. 202 would break every SDK."""
    body = from_older(body, version)
    written = await write_scale_set(
        server, place, body, patch=False, principal=principal, when=when
    )
    return await _written(request, server, written, version)


@router.patch(SET)
async def patch(
    request: Request,
    place: ScaleSetPlace,
    body: JsonBody,
    server: ServerOf,
    when: When,
    version: ApiVersion,
    principal: Caller,
) -> Response:
    """Change a scale set by a JSON merge patch."""
    body = from_older(body, version)
    written = await write_scale_set(server, place, body, patch=True, principal=principal, when=when)
    return await _written(request, server, written, version)


@router.get(SET)
async def get(scale_set: ScaleSet, pool: Pool, version: ApiVersion) -> Response:
    """Return a scale set."""
    shown = for_older(await _shown(pool, scale_set), version)
    return JSONResponse(shown, headers={"ETag": scale_set.etag})


@router.delete(SET)
async def delete(request: Request, place: ScaleSetPlace, server: ServerOf, when: When) -> Response:
    """Delete a scale set with its instances; 204 if there is none."""
    return accepted(request, server, await delete_scale_set(server, place, when))


@router.get(SET + "/skus")
async def list_skus(scale_set: ScaleSet) -> Response:
    """Return the one size that the set has: Rollcall does not act on sizes."""
    return JSONResponse({"value": [sku_json(scale_set)]})


@router.get(SET + "/instanceView")
async def get_view(scale_set: ScaleSet, pool: Pool, server: ServerOf) -> Response:
    """Return how many of the instances are in which state."""
    async with pool.acquire() as connection:
        counts = await queries.instance_counts(connection, scale_set.id)
        alike = await queries.alike(connection, scale_set.id)
        states = await queries.fleet_states(connection, [scale_set.id])
    state = states[scale_set.id].provisioning(scale_set.capacity)
    return JSONResponse(set_view_json(scale_set, counts, alike, state, server.context.now()))


@router.get(f"{SUBSCRIPTION}/providers/{SCALE_SETS}", dependencies=[NoFilter])
@router.get(f"{GROUP}/providers/{SCALE_SETS}", dependencies=[NoFilter])
@router.get(SUBSCRIPTION + LOCATION + "/virtualMachineScaleSets", dependencies=[NoFilter])
async def list_all(
    request: Request,
    pool: Pool,
    server: ServerOf,
    subscription: str,
    version: ApiVersion,
    scopes: Scopes,
    skip_token: SkipToken = "",
) -> Response:
    """Return the scale sets of a subscription, of a group or of a location."""
    group, location = (request.path_params.get(name) for name in ("group", "location"))
    limit = server.settings.api_page_size
    async with pool.acquire() as connection:
        found = await store.scale_sets(
            connection,
            subscription=subscription,
            group=group,
            location=location,
            after=skip_token,
            limit=limit + 1,
            scopes=scopes,
        )
        shown = found[:limit]
        states = await queries.fleet_states(connection, [each.id for each in shown])
    token = shown[-1].id.lower() if len(found) > limit else None
    return JSONResponse(
        page(
            request,
            [for_older(scale_set_json(each, states[each.id]), version) for each in shown],
            token,
        )
    )


async def _shown(pool: Pool, stored: StoredScaleSet) -> dict[str, Any]:
    async with pool.acquire() as connection:
        states = await queries.fleet_states(connection, [stored.id])
    return scale_set_json(stored, states[stored.id])


async def _written(request: Request, server: Server, written: Written, version: str) -> Response:
    """Return what a write made, and where a client asks whether it is so already."""
    stored = written.stored
    async with server.context.database.acquire() as connection:
        states = await queries.fleet_states(connection, [stored.id])
    shown = scale_set_json(
        stored, states[stored.id], provisioning="Creating" if written.created else "Updating"
    )
    return JSONResponse(
        for_older(shown, version),
        status_code=201 if written.created else 200,
        headers={
            **operation_headers(request, server, written.operation, location=False),
            "ETag": stored.etag,
        },
    )
