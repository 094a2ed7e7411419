"""Load balancers, which exist here for their probes (M31)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event
from rollcall_kit.outbox import Connection

from http_api import progress, store
from http_api.domain.conditions import Conditions
from http_api.domain.operations import Kind, Operation
from http_api.domain.parts import find_part, part_kind, read_part, with_part
from http_api.domain.present.scale_sets import Stored, load_balancer_json
from http_api.domain.resource_ids import LOAD_BALANCERS, ResourceId
from http_api.errors import need, not_found
from http_api.routes.common import (
    BALANCER,
    GROUP,
    SUBSCRIPTION,
    BalancerPlace,
    JsonBody,
    NoFilter,
    Pool,
    Scopes,
    ServerOf,
    SkipToken,
    When,
    need_api_version,
    page,
)
from http_api.routes.status import accepted
from http_api.writes import Server, delete_load_balancer, write_load_balancer

router = APIRouter(tags=["load balancers"], dependencies=[Depends(need_api_version)])
RULES = "inboundNatRules"
RULE = f"{BALANCER}/{RULES}/{{rule}}"


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
    return JSONResponse(
        load_balancer_json(stored),
        status_code=201 if created else 200,
        headers={"ETag": stored.etag},
    )


@router.patch(BALANCER)
async def patch(place: BalancerPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Change a load balancer by a JSON merge patch."""
    stored, _ = await write_load_balancer(server, place, body, patch=True, when=when)
    return JSONResponse(load_balancer_json(stored), headers={"ETag": stored.etag})


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
    found = find_part(_parts(balancer, kind), part)
    if found is None:
        raise not_found(f"{LOAD_BALANCERS}/{balancer.name}/{kind}", part, balancer.id.split("/")[4])
    return JSONResponse(found)


def _parts(balancer: Stored, kind: str) -> list[Any]:
    spelled = part_kind(LOAD_BALANCERS, kind)
    if spelled is None:
        raise HTTPException(404)
    parts: list[Any] = load_balancer_json(balancer)["properties"][spelled]
    return parts


@router.put(RULE)
async def put_rule(
    place: BalancerPlace, rule: str, body: JsonBody, server: ServerOf, when: When
) -> Response:
    """Keep an inbound NAT rule, the one part that has a PUT of its own. Raises ApiError 404."""
    stored, was_missing = await _change_rules(server, place, rule, read_part(body, rule), when)
    shown = find_part(_parts(stored, RULES), rule)
    return JSONResponse(shown, status_code=201 if was_missing else 200)


@router.delete(RULE)
async def delete_rule(
    request: Request, place: BalancerPlace, rule: str, server: ServerOf, when: When
) -> Response:
    """Forget an inbound NAT rule; 204 if there is none. Raises ApiError 404."""
    stored, was_missing = await _change_rules(server, place, rule, None, when)
    if was_missing:
        return Response(status_code=204)

    async def work(connection: Connection) -> tuple[Operation, list[Event]]:
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, stored.id, asked, now), []

    return accepted(request, server, await server.transact(work))


async def _change_rules(
    server: Server, place: ResourceId, name: str, item: Mapping[str, Any] | None, when: Conditions
) -> tuple[Stored, bool]:
    """Put a rule in, or take it out; return the load balancer, and whether the rule was missing."""

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Event]]:
        await store.lock_models(connection)
        old = await store.load_balancer(connection, place.key)
        if old is None:
            raise not_found(LOAD_BALANCERS, place.name, place.group)
        was_missing = find_part(_parts(old, RULES), name) is None
        need(when, None if was_missing else old.etag)  # a part has the etag of its resource
        stored = replace(old, model=with_part(old.model, RULES, name, item))
        await store.save_load_balancer(connection, place, stored, server.context.now())
        return (stored, was_missing), []

    return await server.transact(work)


@router.delete(BALANCER)
async def delete(request: Request, place: BalancerPlace, server: ServerOf, when: When) -> Response:
    """Delete a load balancer that no scale set uses; 204 if there is none."""
    return accepted(request, server, await delete_load_balancer(server, place, when))


@router.get(f"{SUBSCRIPTION}/providers/{LOAD_BALANCERS}", dependencies=[NoFilter])
@router.get(f"{GROUP}/providers/{LOAD_BALANCERS}", dependencies=[NoFilter])
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
