"""Autoscale settings, which many templates have: kept and given back, nothing acts on them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from http_api.domain.deployments import AUTOSCALE
from http_api.domain.present.scale_sets import Stored
from http_api.domain.resource_ids import ResourceId, resource_id
from http_api.routes import networks
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
)

router = APIRouter(tags=["autoscale"], dependencies=[Depends(need_api_version)])
SETTINGS = f"/providers/{AUTOSCALE}"
SETTING = GROUP + SETTINGS + "/{name}"


def setting_place(subscription: str, group: str, name: str) -> ResourceId:
    """Return the id of the settings in the path."""
    return resource_id(subscription=subscription, group=group, type=AUTOSCALE, name=name)


Place = Annotated[ResourceId, Depends(setting_place)]


async def existing_setting(pool: Pool, place: Place) -> Stored:
    """Return the settings in the path. Raises ApiError 404."""
    return await networks.existing_resource(pool, place)


Setting = Annotated[Stored, Depends(existing_setting)]


@router.put(SETTING)
async def put(place: Place, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Keep autoscale settings as they are given."""
    return await networks.put(place, body, server, when)


@router.patch(SETTING)
async def patch(place: Place, body: JsonBody, server: ServerOf, when: When) -> Response:
    """Change autoscale settings by a JSON merge patch."""
    return await networks.patch(place, body, server, when)


@router.get(SETTING)
async def get(place: Place, setting: Setting) -> Response:
    """Return autoscale settings."""
    return await networks.get(place, setting)


@router.delete(SETTING)
async def delete(request: Request, place: Place, server: ServerOf, when: When) -> Response:
    """Forget autoscale settings; 204 if there are none."""
    return await networks.delete(request, place, server, when)


@router.get(SUBSCRIPTION + SETTINGS, dependencies=[NoFilter])
@router.get(GROUP + SETTINGS, dependencies=[NoFilter])
async def list_all(
    request: Request,
    pool: Pool,
    server: ServerOf,
    subscription: str,
    scopes: Scopes,
    skip_token: SkipToken = "",
) -> JSONResponse:
    """Return the autoscale settings of a subscription or a group."""
    found = await networks.list_all(
        request, AUTOSCALE, pool, server, subscription, scopes, skip_token
    )
    assert isinstance(found, JSONResponse)
    return found
