"""Virtual networks and the like: kept and given back, for models and templates that name them."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.events import Event
from rollcall_kit.outbox import Connection

from http_api import progress, resources, store
from http_api.domain.documents import Reader
from http_api.domain.merging import READ_ONLY, merge_patch, without
from http_api.domain.operations import Kind, Operation
from http_api.domain.present.catalog import KEPT_TYPES
from http_api.domain.present.scale_sets import CHILDREN, Stored, kept_json
from http_api.domain.resource_ids import ResourceId, resource_id
from http_api.domain.secrets import redacted
from http_api.errors import need, not_found
from http_api.routes.common import (
    GROUP,
    SUBSCRIPTION,
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


def _kept_model(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a body. Raises ModelError."""
    reader = Reader(body)
    if not isinstance(body.get("properties") or {}, Mapping):
        reader.fault("properties", "properties must be an object")
    reader.finish()
    kept: dict[str, Any] = redacted(without(body, READ_ONLY))
    return kept


@router.put(KEPT)
async def put(place: KeptPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Keep a resource as it is given."""
    model = _kept_model(body)

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
    return JSONResponse(kept_json(stored, place.type), status_code=201 if created else 200)


@router.patch(KEPT)
async def patch(place: KeptPlace, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Change a kept resource by a JSON merge patch."""

    async def work(connection: Connection) -> tuple[Stored, list[Event]]:
        await store.lock_models(connection)
        old = await resources.resource(connection, place.key)
        if old is None:
            raise not_found(place.type, place.name, place.group)
        need(when, old.etag)
        stored = replace(old, model=merge_patch(old.model, _kept_model(body)))
        await resources.save_resource(connection, place, stored, server.context.now())
        return stored, []

    return JSONResponse(kept_json(await server.transact(work), place.type))


@router.get(KEPT)
async def get(place: KeptPlace, kept: Kept) -> Response:
    """Return a kept resource."""
    return JSONResponse(kept_json(kept, place.type), headers={"ETag": kept.etag})


@router.delete(KEPT)
async def delete(request: Request, place: KeptPlace, server: ServerOf) -> Response:
    """Forget a kept resource; 204 if there is none."""

    async def work(connection: Connection) -> tuple[Operation | None, list[Event]]:
        if not await resources.delete_resource(connection, place.key):
            return None, []
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, place.id, asked, now), []

    return accepted(request, server, await server.transact(work))


@router.get(SUBSCRIPTION + KIND)
@router.get(GROUP + KIND)
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
async def list_parts(place: KeptPlace, kept: Kept, part_kind: str) -> Response:
    """Return a resource's parts, such as a network's subnets."""
    name = _part_kind(place, part_kind)
    return JSONResponse({"value": kept_json(kept, place.type)["properties"].get(name) or []})


@router.get(PART)
async def get_part(place: KeptPlace, kept: Kept, part_kind: str, part: str) -> Response:
    """Return one part of a resource."""
    name = _part_kind(place, part_kind)
    shown = _find(kept_json(kept, place.type)["properties"].get(name), part)
    if shown is None:
        raise not_found(f"{place.type}/{place.name}/{name}", part, place.group)
    return JSONResponse(shown)


@router.put(PART)
async def put_part(
    place: KeptPlace, part_kind: str, part: str, body: JsonBody, server: ServerOf
) -> Response:
    """Keep one part of a resource, such as a subnet. Raises ApiError 404 without the resource."""
    name = _part_kind(place, part_kind)
    item = {**redacted(without(body, READ_ONLY)), "name": part}
    stored, created = await _change_parts(server, place, name, part, item)
    shown = _find(kept_json(stored, place.type)["properties"][name], part)
    return JSONResponse(shown, status_code=201 if created else 200)


@router.delete(PART)
async def delete_part(
    request: Request, place: KeptPlace, part_kind: str, part: str, server: ServerOf
) -> Response:
    """Forget one part of a resource; 204 if there is none."""
    name = _part_kind(place, part_kind)
    stored, was_missing = await _change_parts(server, place, name, part, None)
    if was_missing:
        return Response(status_code=204)

    async def work(connection: Connection) -> tuple[Operation, list[Event]]:
        asked = progress.Asked(action="DELETE")
        now = server.context.now()
        return await progress.begin(connection, Kind.NOTHING, stored.id, asked, now), []

    return accepted(request, server, await server.transact(work))


async def _change_parts(
    server: ServerOf, place: ResourceId, kind: str, part: str, item: Mapping[str, Any] | None
) -> tuple[Stored, bool]:
    """Put a part in, or take it out; return the resource, and whether the part was missing."""

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Event]]:
        await store.lock_models(connection)
        old = await resources.resource(connection, place.key)
        if old is None:
            raise not_found(place.type, place.name, place.group)
        properties = dict(old.model.get("properties") or {})
        before = properties.get(kind)
        parts = before if isinstance(before, list) else []
        known = _find(parts, part)
        after = [each for each in parts if each is not known]
        if item is not None:
            after.append(item)
        model = {**old.model, "properties": {**properties, kind: after}}
        stored = replace(old, model=model)
        await resources.save_resource(connection, place, stored, server.context.now())
        return (stored, known is None), []

    return await server.transact(work)


def _part_kind(place: ResourceId, kind: str) -> str:
    for known in CHILDREN.get(place.type.lower(), ()):
        if known.lower() == kind.lower():
            return known
    raise HTTPException(404)


def _find(parts: Any, name: str) -> Any:
    for each in parts if isinstance(parts, list) else []:
        if isinstance(each, Mapping) and str(each.get("name")).lower() == name.lower():
            return each
    return None
