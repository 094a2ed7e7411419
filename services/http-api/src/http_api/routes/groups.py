"""Resource groups, and lists of resources of any type."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from rollcall_kit.outbox import Connection

from http_api import resources
from http_api.domain.access import Principal
from http_api.domain.documents import Reader
from http_api.domain.merging import merge_patch, without
from http_api.domain.present.scale_sets import Stored, group_json
from http_api.domain.resource_filter import parse_resource_filter
from http_api.domain.resource_ids import group_id
from http_api.domain.secrets import redacted
from http_api.errors import ApiError
from http_api.routes.common import (
    GROUP,
    SUBSCRIPTION,
    JsonBody,
    Pool,
    Scopes,
    ServerOf,
    SkipToken,
    Top,
    need_api_version,
    page,
)
from http_api.routes.status import accepted
from http_api.writes import Server, delete_group

router = APIRouter(tags=["resource groups"], dependencies=[Depends(need_api_version)])
_READ_ONLY = ("id", "name", "type", "properties")


async def existing_group(subscription: str, group: str, pool: Pool, server: ServerOf) -> Stored:
    """Return the resource group in the path. Raises ApiError 404."""
    group_id(subscription, group)
    async with pool.acquire() as connection:
        found = await resources.groups(
            connection, subscription, location=server.config.location, name=group
        )
    if not found:
        raise ApiError(
            404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found."
        )
    return found[0]


Group = Annotated[Stored, Depends(existing_group)]


@router.put(GROUP)
async def put(subscription: str, group: str, body: JsonBody, server: ServerOf) -> Response:
    """Make a resource group, or change its tags."""
    reader = Reader(body)
    if reader.text("location") is None and not reader.faults:
        reader.fault("location", "a resource group needs a location")
    reader.finish()
    stored, created = await _write(server, subscription, group, redacted(without(body, _READ_ONLY)))
    return JSONResponse(group_json(stored), status_code=201 if created else 200)


@router.patch(GROUP)
async def patch(
    existing: Group, subscription: str, group: str, body: JsonBody, server: ServerOf
) -> Response:
    """Change a resource group's tags; its location is left as it is."""
    asked = redacted(without(body, (*_READ_ONLY, "location")))  # a group stays where it is
    model = merge_patch(existing.model, asked)
    stored, _ = await _write(server, subscription, group, model)
    return JSONResponse(group_json(stored))


async def _write(
    server: Server, subscription: str, group: str, model: dict[str, Any]
) -> tuple[Stored, bool]:
    id = group_id(subscription, group)

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Any]]:
        known = await resources.groups(
            connection, subscription, location=server.config.location, name=group
        )
        now = server.context.now()
        stored = Stored(id=known[0].id if known else id, model=model, created_at=now)
        await resources.save_group(connection, stored, now)
        return (stored, not known), []

    return await server.transact(work)


@router.get(GROUP)
async def get(existing: Group) -> Response:
    """Return a resource group; one is there as soon as a resource is in it."""
    return JSONResponse(group_json(existing))


@router.head(GROUP)
async def head(subscription: str, group: str, pool: Pool, server: ServerOf) -> Response:
    """Say whether a resource group exists: 204 or 404, without a body."""
    async with pool.acquire() as connection:
        found = await resources.groups(
            connection, subscription, location=server.config.location, name=group
        )
    return Response(status_code=204 if found else 404)


@router.delete(GROUP)
async def delete(request: Request, subscription: str, group: str, server: ServerOf) -> Response:
    """Delete a resource group with everything in it. Raises ApiError 404."""
    operation = await delete_group(server, subscription, group)
    if operation is None:
        raise ApiError(
            404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found."
        )
    return accepted(request, server, operation)


@router.get(SUBSCRIPTION + "/resourceGroups")
async def list_all(request: Request, subscription: str, pool: Pool, server: ServerOf) -> Response:
    """Return the resource groups of a subscription that the client may see, or see a part of."""
    principal: Principal = request.state.principal
    async with pool.acquire() as connection:
        found = await resources.groups(connection, subscription, location=server.config.location)
    shown = [group_json(each) for each in found if principal.sees(each.id)]
    return JSONResponse({"value": shown})


@router.get(SUBSCRIPTION + "/resources")
@router.get(GROUP + "/resources")
async def list_resources(
    request: Request,
    subscription: str,
    pool: Pool,
    server: ServerOf,
    scopes: Scopes,
    filter: Annotated[str, Query(alias="$filter")] = "",
    top: Top = None,
    skip_token: SkipToken = "",
) -> Response:
    """Return the resources of a subscription or a group; `$filter` by type, group and name."""
    wanted = parse_resource_filter(filter)
    in_path = request.path_params.get("group")
    limit = min(top or server.settings.api_page_size, server.settings.api_page_size)
    async with pool.acquire() as connection:
        found = await resources.listed(
            connection,
            subscription,
            groups=wanted["resourcegroup"] + ([] if in_path is None else [in_path]),
            types=wanted["resourcetype"],
            names=wanted["name"],
            after=skip_token,
            limit=limit + 1,
            scopes=scopes,
        )
    value = [
        {
            "id": each.id,
            "name": each.id.rpartition("/")[2],
            "type": each.type,
            "location": each.location,
            **({} if each.tags is None else {"tags": each.tags}),
        }
        for each in found[:limit]
    ]
    return JSONResponse(page(request, value, found[limit - 1].key if len(found) > limit else None))
