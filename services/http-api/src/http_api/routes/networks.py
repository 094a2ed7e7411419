"""Virtual networks and the like: kept and given back, for models and templates that name them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event
from rollcall_kit.outbox import Connection

from http_api import progress, resources, store
from http_api.domain import parts
from http_api.domain.conditions import Conditions
from http_api.domain.merging import merge_patch
from http_api.domain.operations import Kind, Operation
from http_api.domain.parts import find_part, read_part, read_resource, with_part
from http_api.domain.present.catalog import KEPT_TYPES
from http_api.domain.present.scale_sets import Stored, kept_json
from http_api.domain.resource_ids import ResourceId, resource_id
from http_api.errors import need, not_found
from http_api.routes.common import (
    GROUP,
    SUBSCRIPTION,
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

router = APIRouter(tags=["networks"], dependencies=[Depends(need_api_version)])
KIND = "/providers/Microsoft.Network/{kind}"
KEPT = GROUP + KIND + "/{name}"
PARTS = KEPT + "/{part_kind}"
PART = PARTS + "/{part}"


def type_of(kind: str) -> str:
    """Return a type that is kept. Raises HTTPException 404 for any other."""
    for known in KEPT_TYPES:
        if known.lower() == kind.lower():
            return f"Microsoft.Network/{known}"
    raise HTTPException(404)


KeptType = Annotated[str, Depends(type_of)]


def kept_place(subscription: str, group: str, type: KeptType, name: str) -> ResourceId:
    """Return the id of the resource in the path."""
    return resource_id(subscription=subscription, group=group, type=type, name=name)


KeptPlace = Annotated[ResourceId, Depends(kept_place)]


async def existing_resource(pool: Pool, place: KeptPlace) -> Stored:
    """Return the resource in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await resources.resource(connection, place.key)
    if found is None:
        raise not_found(place.type, place.name, place.group)
    return found


Kept = Annotated[Stored, Depends(existing_resource)]


def kind_of_part(type: KeptType, part_kind: str) -> str:
    """Return the kind of parts in the path. Raises HTTPException 404 where there is none such."""
    found = parts.part_kind(type, part_kind)
    if found is None:
        raise HTTPException(404)
    return found


PartKind = Annotated[str, Depends(kind_of_part)]


@router.put(KEPT)
async def put(place: KeptPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Keep a resource as it is given."""
    model = read_resource(body, place.type)

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Event]]:
        await store.lock_models(connection)
        old = await resources.resource(connection, place.key)
        need(when, None if old is None else old.etag)
        now = server.context.now()
        stored = Stored(
            id=old.id if old else place.id,
            model={"location": server.config.location, **model},
            created_at=old.created_at if old else now,
        )
        await resources.save_resource(connection, place, stored, now)
        return (stored, old is None), []

    stored, created = await server.transact(work)
    return JSONResponse(
        kept_json(stored, place.type),
        status_code=201 if created else 200,
        headers={"ETag": stored.etag},
    )


@router.patch(KEPT)
async def patch(place: KeptPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Change a kept resource by a JSON merge patch."""
    changes = read_resource(body, place.type)

    async def work(connection: Connection) -> tuple[Stored, list[Event]]:
        await store.lock_models(connection)
        old = await resources.resource(connection, place.key)
        if old is None:
            raise not_found(place.type, place.name, place.group)
        need(when, old.etag)
        stored = replace(old, model=merge_patch(old.model, changes))
        await resources.save_resource(connection, place, stored, server.context.now())
        return stored, []

    stored = await server.transact(work)
    return JSONResponse(kept_json(stored, place.type), headers={"ETag": stored.etag})


@router.get(KEPT)
async def get(place: KeptPlace, kept: Kept) -> Response:
    """Return a kept resource."""
    return JSONResponse(kept_json(kept, place.type), headers={"ETag": kept.etag})


@router.delete(KEPT)
async def delete(request: Request, place: KeptPlace, server: ServerOf, when: When) -> Response:
    """Forget a kept resource; 204 if there is none."""

    async def work(connection: Connection) -> tuple[Operation | None, list[Event]]:
        await store.lock_models(connection)
        old = await resources.resource(connection, place.key)
        need(when, None if old is None else old.etag)
        if not await resources.delete_resource(connection, place.key):
            return None, []
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, place.id, asked, now), []

    return accepted(request, server, await server.transact(work))


@router.get(SUBSCRIPTION + KIND, dependencies=[NoFilter])
@router.get(GROUP + KIND, dependencies=[NoFilter])
async def list_all(
    request: Request,
    type: KeptType,
    pool: Pool,
    server: ServerOf,
    subscription: str,
    scopes: Scopes,
    skip_token: SkipToken = "",
) -> Response:
    """Return the kept resources of a type."""
    limit = server.settings.api_page_size
    async with pool.acquire() as connection:
        found = await resources.resources(
            connection,
            type,
            subscription=subscription,
            group=request.path_params.get("group"),
            after=skip_token,
            limit=limit + 1,
            scopes=scopes,
        )
    token = found[limit - 1].id.lower() if len(found) > limit else None
    return JSONResponse(page(request, [kept_json(each, type) for each in found[:limit]], token))


@router.get(PARTS)
async def list_parts(place: KeptPlace, kept: Kept, kind: PartKind) -> Response:
    """Return a resource's parts, such as a network's subnets."""
    return JSONResponse({"value": kept_json(kept, place.type)["properties"][kind]})


@router.get(PART)
async def get_part(place: KeptPlace, kept: Kept, kind: PartKind, part: str) -> Response:
    """Return one part of a resource."""
    shown = find_part(kept_json(kept, place.type)["properties"][kind], part)
    if shown is None:
        raise not_found(f"{place.type}/{place.name}/{kind}", part, place.group)
    return JSONResponse(shown)


@router.put(PART)
async def put_part(
    place: KeptPlace, kind: PartKind, part: str, body: JsonBody, server: ServerOf, when: When
) -> Response:
    """Keep one part of a resource, such as a subnet. Raises ApiError 404 without the resource."""
    item = read_part(body, part)
    stored, created = await _change_parts(server, place, kind, part, item, when)
    shown = find_part(kept_json(stored, place.type)["properties"][kind], part)
    return JSONResponse(shown, status_code=201 if created else 200)


@router.delete(PART)
async def delete_part(
    request: Request,
    place: KeptPlace,
    kind: PartKind,
    part: str,
    server: ServerOf,
    when: When,
) -> Response:
    """Forget one part of a resource; 204 if there is none."""
    stored, was_missing = await _change_parts(server, place, kind, part, None, when)
    if was_missing:
        return Response(status_code=204)

    async def work(connection: Connection) -> tuple[Operation, list[Event]]:
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, stored.id, asked, now), []

    return accepted(request, server, await server.transact(work))


async def _change_parts(
    server: ServerOf,
    place: ResourceId,
    kind: str,
    part: str,
    item: Mapping[str, Any] | None,
    when: Conditions,
) -> tuple[Stored, bool]:
    """Put a part in, or take it out; return the resource, and whether the part was missing."""

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Event]]:
        await store.lock_models(connection)
        old = await resources.resource(connection, place.key)
        if old is None:
            raise not_found(place.type, place.name, place.group)
        known = find_part((old.model.get("properties") or {}).get(kind), part)
        need(when, None if known is None else old.etag)  # a part has the etag of its resource
        stored = replace(old, model=with_part(old.model, kind, part, item))
        await resources.save_resource(connection, place, stored, server.context.now())
        return (stored, known is None), []

    return await server.transact(work)
