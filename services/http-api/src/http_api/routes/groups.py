"""Resource groups, and lists of resources of any type."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from rollcall_kit.outbox import Connection

from http_api import resources, store
from http_api.domain.conditions import Conditions
from http_api.domain.documents import Reader
from http_api.domain.merging import merge_patch, without
from http_api.domain.present.scale_sets import Stored, group_json
from http_api.domain.resource_filter import parse_resource_filter, parse_tag_filter
from http_api.domain.resource_ids import group_id
from http_api.domain.secrets import redacted
from http_api.domain.shape import RESOURCE, canonical
from http_api.errors import ApiError, need
from http_api.routes.common import (
    GROUP,
    SUBSCRIPTION,
    Caller,
    FilterText,
    JsonBody,
    Pool,
    Scopes,
    ServerOf,
    SkipToken,
    Top,
    When,
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
        raise _not_found(group)
    return found[0]


def _not_found(group: str) -> ApiError:
    return ApiError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


Group = Annotated[Stored, Depends(existing_group)]


@router.put(GROUP)
async def put(
    subscription: str, group: str, body: JsonBody, server: ServerOf, when: When
) -> Response:
    """Make a resource group, or change its tags."""
    given = _given(body)
    reader = Reader(given)
    if reader.text("location") is None and not reader.faults:
        reader.fault("location", "a resource group needs a location")
    reader.finish()
    stored, created = await _write(server, subscription, group, lambda _: given, when)
    return _shown(stored, status=201 if created else 200)


@router.patch(GROUP)
async def patch(
    subscription: str, group: str, body: JsonBody, server: ServerOf, when: When
) -> Response:
    """Change a resource group's tags; its location is left as it is. Raises ApiError 404."""
    changes = without(_given(body), ("location",))  # a group stays where it is

    def change(old: Stored | None) -> Mapping[str, Any]:
        if old is None:
            raise _not_found(group)
        merged: Mapping[str, Any] = merge_patch(old.model, changes)
        return merged

    stored, _ = await _write(server, subscription, group, change, when)
    return _shown(stored)


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a body, its known names spelled as Azure does."""
    given: dict[str, Any] = redacted(without(canonical(body, RESOURCE), _READ_ONLY))
    return given


def _shown(stored: Stored, status: int = 200) -> Response:
    return JSONResponse(group_json(stored), status_code=status, headers={"ETag": stored.etag})


async def _write(
    server: Server,
    subscription: str,
    group: str,
    change: Callable[[Stored | None], Mapping[str, Any]],
    when: Conditions,
) -> tuple[Stored, bool]:
    """Change a group's model; return the group, and whether there was none.

    What is there is read under the lock: of two changes at once, none is lost.
    """
    id = group_id(subscription, group)

    async def work(connection: Connection) -> tuple[tuple[Stored, bool], list[Any]]:
        await store.lock_models(connection)
        known = await resources.groups(
            connection, subscription, location=server.config.location, name=group
        )
        old = known[0] if known else None
        need(when, None if old is None else old.etag)
        now = server.context.now()
        stored = Stored(id=id if old is None else old.id, model=change(old), created_at=now)
        await resources.save_group(connection, stored, now)
        return (stored, old is None), []

    return await server.transact(work)


@router.get(GROUP)
async def get(existing: Group) -> Response:
    """Return a resource group; one is there as soon as a resource is in it."""
    return _shown(existing)


@router.head(GROUP)
async def head(subscription: str, group: str, pool: Pool, server: ServerOf) -> Response:
    """Say whether a resource group exists: 204 or 404, without a body."""
    async with pool.acquire() as connection:
        found = await resources.groups(
            connection, subscription, location=server.config.location, name=group
        )
    return Response(status_code=204 if found else 404)


@router.delete(GROUP)
async def delete(
    request: Request, subscription: str, group: str, server: ServerOf, when: When
) -> Response:
    """Delete a resource group with everything in it. Raises ApiError 404."""
    operation = await delete_group(server, subscription, group, when)
    if operation is None:
        raise _not_found(group)
    return accepted(request, server, operation)


@router.get(SUBSCRIPTION + "/resourceGroups")
async def list_all(
    subscription: str, pool: Pool, server: ServerOf, principal: Caller, filter: FilterText = ""
) -> Response:
    """Return the resource groups of a subscription that the client may see, or see a part of.

    `$filter` by a tag: `tagName eq '…'`, with `and tagValue eq '…'` too.
    """
    wanted = parse_tag_filter(filter)
    async with pool.acquire() as connection:
        found = await resources.groups(connection, subscription, location=server.config.location)
    shown = [
        group_json(each)
        for each in found
        if principal.sees(each.id) and wanted(each.model.get("tags"))
    ]
    return JSONResponse({"value": shown})


@router.get(SUBSCRIPTION + "/resources")
@router.get(GROUP + "/resources")
async def list_resources(
    request: Request,
    subscription: str,
    pool: Pool,
    server: ServerOf,
    scopes: Scopes,
    filter: FilterText = "",
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
