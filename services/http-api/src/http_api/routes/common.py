"""What the routes share: the server, resource ids from paths, api-version, bodies, pages."""

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import asyncpg
from fastapi import Depends, Query, Request

from http_api import store
from http_api.domain.access import Principal
from http_api.domain.api_versions import OLDEST
from http_api.domain.conditions import Conditions
from http_api.domain.documents import parse_body
from http_api.domain.filters import forms_of, refused_filter
from http_api.domain.present.scale_sets import StoredScaleSet
from http_api.domain.resource_ids import LOAD_BALANCERS, SCALE_SETS, ResourceId, resource_id
from http_api.errors import ApiError, not_found
from http_api.urls import base_url
from http_api.writes import Server

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"
LOCATION = "/providers/Microsoft.Compute/locations/{location}"
SET = GROUP + f"/providers/{SCALE_SETS}" + "/{name}"
BALANCER = GROUP + f"/providers/{LOAD_BALANCERS}" + "/{name}"

_VERSION = re.compile(r"(\d{4}-\d{2}-\d{2})(-[a-z]+)?", re.ASCII)


def server_of(request: Request) -> Server:
    """Return what routes may use."""
    server: Server = request.app.state.server
    return server


def pool_of(request: Request) -> asyncpg.Pool:
    """Return the database's connection pool."""
    return server_of(request).context.database


def need_api_version(request: Request) -> str:
    """Return the api-version; refuse a request without one, as Azure does.

    Clients move ahead of servers: a version newer than any known here is no reason to refuse.
    """
    given = next((v for k, v in request.query_params.items() if k.lower() == "api-version"), "")
    if not given:
        raise ApiError(
            400,
            "MissingApiVersionParameter",
            "The api-version query parameter (?api-version=) is required for all requests.",
        )
    match = _VERSION.fullmatch(given.lower())
    try:
        date.fromisoformat(match[1] if match else "")
    except ValueError as error:
        raise ApiError(
            400,
            "InvalidApiVersionParameter",
            f"The api-version '{given[:40]}' is invalid. It is a date such as 2018-10-01.",
        ) from error
    if given < OLDEST and SCALE_SETS in request.url.path:
        raise ApiError(
            400,
            "NoRegisteredProviderFound",
            f"No registered resource provider was found for '{SCALE_SETS}' and API version "
            f"'{given}'. The supported api-versions begin with {OLDEST}.",
        )
    return given.lower()


def conditions_of(request: Request) -> Conditions:
    """Return what the request asks about the resource's etag; one from inside may have a name."""
    return Conditions(
        if_match=request.headers.get("if-match", ""),
        if_none_match=request.headers.get("if-none-match", ""),
        once=getattr(request.state, "once", None),
    )


def scale_set_place(subscription: str, group: str, name: str) -> ResourceId:
    """Return the id of the scale set in the path."""
    return resource_id(subscription=subscription, group=group, type=SCALE_SETS, name=name)


def balancer_place(subscription: str, group: str, name: str) -> ResourceId:
    """Return the id of the load balancer in the path."""
    return resource_id(subscription=subscription, group=group, type=LOAD_BALANCERS, name=name)


def principal_of(request: Request) -> Principal:
    """Return who asks."""
    principal: Principal = request.state.principal
    return principal


Caller = Annotated[Principal, Depends(principal_of)]


def scopes_of(principal: Caller) -> tuple[str, ...] | None:
    """Return the scopes whose resources the client may be shown; None: all."""
    return principal.scopes


Scopes = Annotated[tuple[str, ...] | None, Depends(scopes_of)]
Pool = Annotated[asyncpg.Pool, Depends(pool_of)]
ApiVersion = Annotated[str, Depends(need_api_version)]
When = Annotated[Conditions, Depends(conditions_of)]
ServerOf = Annotated[Server, Depends(server_of)]
ScaleSetPlace = Annotated[ResourceId, Depends(scale_set_place)]
BalancerPlace = Annotated[ResourceId, Depends(balancer_place)]


async def existing_scale_set(pool: Pool, place: ScaleSetPlace) -> StoredScaleSet:
    """Return the scale set in the path. Raises ApiError 404."""
    async with pool.acquire() as connection:
        found = await store.scale_set(connection, place.key)
    if found is None:
        raise not_found(SCALE_SETS, place.name, place.group)
    return found


ScaleSet = Annotated[StoredScaleSet, Depends(existing_scale_set)]
Top = Annotated[int | None, Query(alias="$top", ge=1, le=1000)]
FilterText = Annotated[str, Query(alias="$filter")]
SkipToken = Annotated[str, Query(alias="$skiptoken", max_length=500, pattern=r"^[^\x00]*$")]


async def raw_body(request: Request, server: ServerOf) -> bytes:
    """Return the request's body. Raises ApiError 413, and 415 for one that is packed."""
    limit = server.settings.api_max_body
    too_large = ApiError(413, "RequestEntityTooLarge", f"The body is larger than {limit} bytes.")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise ApiError(
            415,
            "UnsupportedMediaType",
            f"The Content-Encoding '{encoding[:40]}' is not taken: send the body as it is.",
        )
    if int(request.headers.get("content-length", 0)) > limit:  # digits, or it had not come here
        raise too_large
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit:
            raise too_large
    return bytes(raw)


RawBody = Annotated[bytes, Depends(raw_body)]


def json_body(raw: RawBody) -> dict[str, Any]:
    """Return the request's JSON object. Raises ModelError."""
    return parse_body(raw)


def optional_body(raw: RawBody) -> dict[str, Any]:
    """Return the request's JSON object; no body at all is an empty one. Raises ModelError."""
    return parse_body(raw) if raw.strip() else {}


JsonBody = Annotated[dict[str, Any], Depends(json_body)]
OptionalBody = Annotated[dict[str, Any], Depends(optional_body)]


def no_filter(filter: FilterText = "") -> None:
    """Refuse any `$filter` of a list that knows none. Raises ModelError."""
    if forms_of(filter):
        raise refused_filter("this list takes no $filter")


NoFilter = Depends(no_filter)


def page(request: Request, value: Sequence[Any], token: str | None) -> Mapping[str, Any]:
    """Return a list, with the absolute URL of what follows if there is more."""
    document: dict[str, Any] = {"value": value}
    if token is not None:
        kept = {k: v for k, v in request.query_params.items() if k != "$skiptoken"}
        query = urlencode({**kept, "$skiptoken": token}, safe="$'/", quote_via=quote)
        document["nextLink"] = f"{base_url(request)}{quote(request.url.path)}?{query}"
    return document
