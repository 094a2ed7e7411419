"""What clients ask first: subscriptions, tenants, locations and resource providers."""

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from http_api import resources
from http_api.domain.access import Principal
from http_api.domain.present.catalog import (
    TYPES,
    location_json,
    provider_json,
    subscription_json,
    tenant_json,
)
from http_api.errors import ApiError
from http_api.routes.common import SUBSCRIPTION, Pool, ServerOf, need_api_version

router = APIRouter(tags=["subscriptions"], dependencies=[Depends(need_api_version)])


@router.get("/subscriptions")
async def subscriptions(request: Request, pool: Pool) -> Response:
    """Return the subscriptions that the client may see: the own one, and those in use."""
    principal: Principal = request.state.principal
    async with pool.acquire() as connection:
        tenant, _ = await resources.directory(connection)
        found = await resources.subscriptions(connection)
    shown = [
        subscription_json(each, tenant)
        for each in found
        if principal.sees(f"/subscriptions/{each}")
    ]
    return JSONResponse({"value": shown})


@router.get(SUBSCRIPTION)
async def subscription(subscription: str, pool: Pool) -> Response:
    """Return a subscription: each one exists, and costs nothing."""
    async with pool.acquire() as connection:
        tenant, _ = await resources.directory(connection)
    return JSONResponse(subscription_json(subscription, tenant))


@router.get("/tenants")
async def tenants(pool: Pool) -> Response:
    """Return the one tenant."""
    async with pool.acquire() as connection:
        tenant, _ = await resources.directory(connection)
    return JSONResponse({"value": [tenant_json(tenant)]})


@router.get(SUBSCRIPTION + "/locations")
async def locations(subscription: str, server: ServerOf) -> Response:
    """Return the installation's one location."""
    return JSONResponse({"value": [location_json(subscription, server.config.location)]})


@router.get(SUBSCRIPTION + "/providers")
async def providers(subscription: str, server: ServerOf) -> Response:
    """Return the resource providers."""
    location = server.config.location
    return JSONResponse({"value": [provider_json(subscription, each, location) for each in TYPES]})


@router.get(SUBSCRIPTION + "/providers/{namespace}")
async def provider(subscription: str, namespace: str, server: ServerOf) -> Response:
    """Return one resource provider."""
    return JSONResponse(_provider(subscription, namespace, server.config.location))


@router.post(SUBSCRIPTION + "/providers/{namespace}/register")
@router.post(SUBSCRIPTION + "/providers/{namespace}/unregister")
async def register(subscription: str, namespace: str, server: ServerOf) -> Response:
    """Return one resource provider, which is always registered."""
    return JSONResponse(_provider(subscription, namespace, server.config.location))


@router.get("/providers/{namespace}/operations")
async def operations(namespace: str) -> Response:
    """Return what can be done with a provider's resources, by type."""
    name = _known(namespace)
    verbs = ("read", "write", "delete")
    return JSONResponse(
        {
            "value": [
                {
                    "name": f"{name}/{kind}/{verb}",
                    "isDataAction": False,
                    "display": {"provider": name, "resource": kind, "operation": verb},
                }
                for kind in TYPES[name]
                for verb in verbs
            ]
        }
    )


def _provider(subscription: str, namespace: str, location: str) -> dict[str, Any]:
    return provider_json(subscription, _known(namespace), location)


def _known(namespace: str) -> str:
    for name in TYPES:
        if name.lower() == namespace.lower():
            return name
    raise ApiError(
        404,
        "InvalidResourceNamespace",
        f"The resource namespace '{namespace}' is invalid: here are {', '.join(TYPES)}.",
    )
