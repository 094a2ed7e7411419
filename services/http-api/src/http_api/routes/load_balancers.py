"""Load balancers, which exist here for their probes (M31)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from http_api import store
from http_api.domain.present.scale_sets import CHILDREN, Stored, load_balancer_json
from http_api.domain.resource_ids import LOAD_BALANCERS
from http_api.errors import not_found
from http_api.routes.common import (
    BALANCER,
    GROUP,
    SUBSCRIPTION,
    BalancerPlace,
    JsonBody,
    Pool,
    Scopes,
    ServerOf,
    SkipToken,
    When,
    need_api_version,
    page,
)
from http_api.routes.status import accepted
from http_api.writes import delete_load_balancer, write_load_balancer

router = APIRouter(tags=["load balancers"], dependencies=[Depends(need_api_version)])


async def existing_balancer(place: BalancerPlace, pool: Pool) -> Stored:
    """Return the load balancer in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await store.load_balancer(connection, place.key)
    if found is None:
        raise not_found(LOAD_BALANCERS, place.name, place.group)
    return found


Balancer = Annotated[Stored, Depends(existing_balancer)]


@router.put(BALANCER)
async def put(place: BalancerPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Create a load balancer, or change what the body names."""
    stored, created = await write_load_balancer(server, place, body, patch=False, when=when)
    return JSONResponse(load_balancer_json(stored), status_code=201 if created else 200)


@router.patch(BALANCER)
async def patch(place: BalancerPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Change a load balancer by a JSON merge patch."""
    stored, _ = await write_load_balancer(server, place, body, patch=True, when=when)
    return JSONResponse(load_balancer_json(stored))


@router.get(BALANCER)
async def get(balancer: Balancer) -> Response:
    """Return a load balancer."""
    return JSONResponse(load_balancer_json(balancer), headers={"ETag": balancer.etag})


@router.get(BALANCER + "/{kind}")
async def list_parts(balancer: Balancer, kind: str) -> Response:
    """Return a load balancer's probes, rules or other parts."""
    return JSONResponse({"value": _parts(balancer, kind)})


@router.get(BALANCER + "/{kind}/{part}")
async def get_part(balancer: Balancer, kind: str, part: str) -> Response:
    """Return one part of a load balancer."""
    for found in _parts(balancer, kind):
        if str(found.get("name")).lower() == part.lower():
            return JSONResponse(found)
    raise not_found(f"{LOAD_BALANCERS}/{balancer.name}/{kind}", part, balancer.id.split("/")[4])


def _parts(balancer: Stored, kind: str) -> list[Any]:
    names = {each.lower(): each for each in CHILDREN[LOAD_BALANCERS.lower()]}
    if kind.lower() not in names:
        raise HTTPException(404)
    properties = load_balancer_json(balancer)["properties"]
    return list(properties.get(names[kind.lower()]) or [])


@router.delete(BALANCER)
async def delete(request: Request, place: BalancerPlace, server: ServerOf) -> Response:
    """Delete a load balancer that no scale set uses; 204 if there is none."""
    return accepted(request, server, await delete_load_balancer(server, place))


@router.get(f"{SUBSCRIPTION}/providers/{LOAD_BALANCERS}")
@router.get(f"{GROUP}/providers/{LOAD_BALANCERS}")
async def list_all(
    request: Request,
    pool: Pool,
    server: ServerOf,
    subscription: str,
    scopes: Scopes,
    group: str | None = None,
    skip_token: SkipToken = "",
) -> Response:
    """Return the load balancers of a subscription or of a group."""
    limit = server.settings.api_page_size
    async with pool.acquire() as connection:
        found = await store.load_balancers(
            connection,
            subscription=subscription,
            group=group,
            after=skip_token,
            limit=limit + 1,
            scopes=scopes,
        )
    token = found[limit - 1].id.lower() if len(found) > limit else None
    return JSONResponse(page(request, [load_balancer_json(each) for each in found[:limit]], token))
