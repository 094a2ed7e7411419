"""Extensions of a scale set as resources of their own: parts of its model."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from http_api.domain.extensions import with_extension, without_extension
from http_api.domain.present.scale_sets import StoredScaleSet, extensions_json
from http_api.domain.resource_ids import SCALE_SETS
from http_api.errors import not_found
from http_api.routes.common import (
    SET,
    JsonBody,
    ScaleSet,
    ScaleSetPlace,
    ServerOf,
    need_api_version,
)
from http_api.routes.status import accepted, operation_headers
from http_api.writes import Server, write_scale_set

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
    return JSONResponse(found)


@router.put(EXTENSION)
async def put(
    request: Request,
    scale_set: ScaleSet,
    place: ScaleSetPlace,
    extension: str,
    body: JsonBody,
    server: ServerOf,
) -> Response:
    """Add an extension to the model, or replace it there; instances get it with the model."""
    return await _write(request, server, place, extension, body, patch=False)


@router.patch(EXTENSION)
async def patch(
    request: Request,
    scale_set: ScaleSet,
    place: ScaleSetPlace,
    extension: str,
    body: JsonBody,
    server: ServerOf,
) -> Response:
    """Change an extension of the model by a JSON merge patch."""
    if find(scale_set, extension) is None:
        raise _not_found(scale_set, extension)
    return await _write(request, server, place, extension, body, patch=True)


@router.delete(EXTENSION)
async def delete(
    request: Request, scale_set: ScaleSet, place: ScaleSetPlace, extension: str, server: ServerOf
) -> Response:
    """Take an extension out of the model; 204 where there is none of that name."""
    if find(scale_set, extension) is None:
        return Response(status_code=204)
    edit: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    edit = lambda model: without_extension(model, extension)  # noqa: E731  # typed for mypy
    written = await write_scale_set(server, place, edit, patch=True)
    return accepted(request, server, written.operation)


async def _write(
    request: Request,
    server: Server,
    place: ScaleSetPlace,
    name: str,
    body: Mapping[str, Any],
    *,
    patch: bool,
) -> Response:
    known = False

    def edit(model: Mapping[str, Any]) -> Mapping[str, Any]:
        nonlocal known
        changed, known = with_extension(model, name, body, patch=patch)
        return changed

    written = await write_scale_set(server, place, edit, patch=True)
    shown = find(written.stored, name) or {}
    shown = {
        **shown,
        "properties": {**shown.get("properties", {}), "provisioningState": "Updating"},
    }
    return JSONResponse(
        shown,
        status_code=200 if known else 201,
        headers=operation_headers(request, server, written.operation, location=False),
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
