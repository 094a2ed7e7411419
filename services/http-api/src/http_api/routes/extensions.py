"""Extensions of a scale set as resources of their own: parts of its model."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from http_api.domain.access import Principal
from http_api.domain.conditions import Conditions
from http_api.domain.extensions import with_extension, without_extension
from http_api.domain.present.scale_sets import StoredScaleSet, extensions_json
from http_api.domain.resource_ids import SCALE_SETS
from http_api.errors import need, not_found
from http_api.routes.common import (
    SET,
    Caller,
    JsonBody,
    ScaleSet,
    ScaleSetPlace,
    ServerOf,
    When,
    need_api_version,
)
from http_api.routes.status import accepted, operation_headers
from http_api.writes import Edit, Server, Written, write_scale_set

router = APIRouter(tags=["scale sets"], dependencies=[Depends(need_api_version)])
EXTENSION = SET + "/extensions/{extension}"


@router.get(SET + "/extensions")
async def list_extensions(scale_set: ScaleSet) -> Response:
    """Return the extensions of the model, without their protected settings."""
    return JSONResponse({"value": extensions_json(scale_set)})


@router.get(EXTENSION)
async def get_extension(scale_set: ScaleSet, extension: str) -> Response:
    """Return one extension of the model."""
    found = find(scale_set, extension)
    if found is None:
        raise _not_found(scale_set, extension)
    return JSONResponse(found, headers={"ETag": scale_set.etag})


@router.put(EXTENSION)
async def put(
    request: Request,
    scale_set: ScaleSet,
    place: ScaleSetPlace,
    extension: str,
    body: JsonBody,
    server: ServerOf,
    principal: Caller,
    when: When,
) -> Response:
    """Add an extension to the model, or replace it there; instances get it with the model."""
    known = False

    def edit(stored: StoredScaleSet) -> Mapping[str, Any]:
        nonlocal known
        known = _is_known(stored, extension, when)
        return with_extension(stored.model, extension, body, patch=False)

    written = await _edit(server, place, edit, principal, when)
    return _written(request, server, written, extension, status=200 if known else 201)


@router.patch(EXTENSION)
async def patch(
    request: Request,
    scale_set: ScaleSet,
    place: ScaleSetPlace,
    extension: str,
    body: JsonBody,
    server: ServerOf,
    principal: Caller,
    when: When,
) -> Response:
    """Change an extension of the model by a JSON merge patch."""

    def edit(stored: StoredScaleSet) -> Mapping[str, Any]:
        if not _is_known(stored, extension, when):
            raise _not_found(stored, extension)
        return with_extension(stored.model, extension, body, patch=True)

    written = await _edit(server, place, edit, principal, when)
    return _written(request, server, written, extension, status=200)


@router.delete(EXTENSION)
async def delete(
    request: Request,
    scale_set: ScaleSet,
    place: ScaleSetPlace,
    extension: str,
    server: ServerOf,
    principal: Caller,
    when: When,
) -> Response:
    """Take an extension out of the model; 204 where there is none of that name."""

    def edit(stored: StoredScaleSet) -> Mapping[str, Any]:
        if not _is_known(stored, extension, when):
            raise _NoneSuch
        return without_extension(stored.model, extension)

    try:
        written = await _edit(server, place, edit, principal, when)
    except _NoneSuch:
        return Response(status_code=204)
    return accepted(request, server, written.operation)


async def _edit(
    server: Server, place: ScaleSetPlace, edit: Edit, principal: Principal, when: Conditions
) -> Written:
    """Change the set's model; the etag is asked about by the edit, which knows the extension."""
    return await write_scale_set(
        server, place, edit, patch=True, principal=principal, when=Conditions(once=when.once)
    )


class _NoneSuch(Exception):
    """There is no extension to delete, and nothing is written."""


def _is_known(stored: StoredScaleSet, name: str, when: Conditions) -> bool:
    """Say whether the set has the extension, whose etag is the set's. Raises ApiError 412."""
    known = find(stored, name) is not None
    need(when, stored.etag if known else None)
    return known


def _written(
    request: Request, server: Server, written: Written, name: str, *, status: int
) -> Response:
    shown = find(written.stored, name) or {}
    shown = {
        **shown,
        "properties": {**shown.get("properties", {}), "provisioningState": "Updating"},
    }
    return JSONResponse(
        shown,
        status_code=status,
        headers={
            **operation_headers(request, server, written.operation, location=False),
            "ETag": written.stored.etag,
        },
    )


def find(scale_set: StoredScaleSet, name: str) -> dict[str, Any] | None:
    """Return an extension of the model as a resource."""
    for found in extensions_json(scale_set):
        if found["name"].lower() == name.lower():
            return found
    return None


def _not_found(scale_set: StoredScaleSet, extension: str) -> Exception:
    group = scale_set.id.split("/")[4]
    return not_found(f"{SCALE_SETS}/{scale_set.name}/extensions", extension, group)
