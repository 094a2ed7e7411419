"""Logging in as Azure has it: what `az cloud register` and azure-identity ask, without a token."""

import base64
import binascii
import math
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from http_api import resources, tokens
from http_api.errors import ApiError
from http_api.logins import HeldError, Logins
from http_api.routes.common import Pool, RawBody, ServerOf
from http_api.urls import base_url

log = structlog.get_logger()
router = APIRouter(tags=["login"])
# Besides the tenant's own id; clients need no instance discovery for adfs.
_ADFS = "adfs"
_TENANTS = (_ADFS, "common", "organizations")
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@router.get("/metadata/endpoints")
async def endpoints(
    request: Request, pool: Pool, version: Annotated[str, Query(alias="api-version")] = ""
) -> Response:
    """Return where everything is: what `az cloud register` reads."""
    base = base_url(request)
    async with pool.acquire() as connection:
        tenant, _ = await resources.directory(connection)
    document: dict[str, Any] = {
        "name": "Rollcall",
        "portal": base,
        "authentication": {
            "loginEndpoint": f"{base}/adfs",
            "audiences": [f"{base}/"],
            "tenant": tenant,
            "identityProvider": "ADFS",
        },
        "resourceManager": base,
        "graph": base,
        "graphAudience": f"{base}/",
        "activeDirectoryDataLake": base,
        "batch": f"{base}/",
        "media": base,
        "gallery": base,
        "sqlManagement": base,
        "suffixes": {},
    }
    if version and version < "2018-05-01":
        document["galleryEndpoint"] = document["graphEndpoint"] = base
        document["portalEndpoint"] = base
    # Between these versions it was a list of clouds.
    is_list = "2018-05-01" <= version < "2022-09-01"
    return JSONResponse([document] if is_list else document)


async def tenant_of(tenant: str, pool: Pool) -> str:
    """Return the installation's tenant. Raises ApiError for any other."""
    async with pool.acquire() as connection:
        own, _ = await resources.directory(connection)
    if tenant.lower() not in (own, *_TENANTS):
        raise ApiError(
            400,
            "invalid_tenant",
            f"AADSTS90002: Tenant '{tenant}' not found. The tenant of this installation is {own}.",
        )
    return own


Tenant = Annotated[str, Depends(tenant_of)]


@router.get("/{tenant}/.well-known/openid-configuration")
@router.get("/{tenant}/v2.0/.well-known/openid-configuration")
async def openid_configuration(request: Request, tenant: str, own: Tenant) -> Response:
    """Return where to log in (OpenID Connect discovery)."""
    base = f"{base_url(request)}/{tenant}"
    version = "/v2.0" if "/v2.0/" in request.url.path else ""
    return JSONResponse(
        {
            "issuer": f"{base}{version}",
            "authorization_endpoint": f"{base}/oauth2{version}/authorize",
            "token_endpoint": f"{base}/oauth2{version}/token",
            "jwks_uri": f"{base}/discovery{version}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "tenant_region_scope": None,
        }
    )


@router.get("/{tenant}/discovery/keys")
@router.get("/{tenant}/discovery/v2.0/keys")
async def keys(own: Tenant, pool: Pool, server: ServerOf) -> Response:
    """Return the public keys of tokens."""
    async with pool.acquire() as connection:
        return JSONResponse(await tokens.key_set(connection, server.context.now()))


@router.post("/{tenant}/oauth2/token")
@router.post("/{tenant}/oauth2/v2.0/token")
async def token(
    request: Request, tenant: str, own: Tenant, raw: RawBody, pool: Pool, server: ServerOf
) -> Response:
    """Return a token for an account's id and secret (OAuth 2.0 client credentials)."""
    form = {
        name: values[-1]
        for name, values in parse_qs(raw.decode(errors="replace"), keep_blank_values=True).items()
    }
    if form.get("grant_type") != "client_credentials":
        return _refused(
            400,
            "unsupported_grant_type",
            "AADSTS70003: only the grant type client_credentials is supported.",
        )
    client_id, secret = _credentials(request, form)
    address = request.client.host if request.client else ""
    logins: Logins = request.app.state.logins
    try:
        is_right = await logins.check(pool, client_id, secret, address)
    except HeldError as held:
        log.warning("login_refused", client_id=client_id[:64], address=address, why="held")
        return _held(held)
    if not is_right:
        log.warning("login_refused", client_id=client_id[:64], address=address, why="wrong")
        return _refused(
            401, "invalid_client", "AADSTS7000215: Invalid client id or secret provided."
        )
    async with pool.acquire() as connection:
        now = server.context.now()
        base = base_url(request)
        audience = form.get("resource") or form.get("scope", "").removesuffix("/.default")
        async with connection.transaction():
            issued = await tokens.issue(
                connection,
                server.settings.secrets_key,
                now,
                tenant=own,
                client_id=client_id.lower(),
                issuer=f"{base}/{tenant}",
                audience=audience or f"{base}/",
            )
    seconds = int(tokens.LIFETIME.total_seconds())
    answer: dict[str, Any] = {
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": issued,
    }
    if "/v2.0/" not in request.url.path:  # the older endpoint has texts, and says more
        times = {"expires_on": now.timestamp() + seconds, "not_before": now.timestamp()}
        answer |= {name: str(int(time)) for name, time in times.items()}
        if tenant.lower() != _ADFS:  # whose clients reckon with the number
            answer |= {"expires_in": str(seconds), "ext_expires_in": str(seconds)}
        answer["resource"] = audience
    return JSONResponse(answer, headers=_NO_STORE)


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    scheme, _, basic = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            id, _, secret = base64.b64decode(basic, validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            return "", ""
        return unquote(id), unquote(secret)
    return form.get("client_id", ""), form.get("client_secret", "")


def _refused(
    status: int, error: str, description: str, headers: Mapping[str, str] = _NO_STORE
) -> Response:
    """Return an error in OAuth's shape, not ARM's."""
    return JSONResponse(
        {"error": error, "error_description": description},
        status_code=status,
        headers=dict(headers),
    )


def _held(held: HeldError) -> Response:
    seconds = math.ceil(held.seconds)
    return _refused(
        429,
        "temporarily_unavailable",
        "AADSTS50196: Wrong secrets were sent from this address too often. The next one is looked "
        f"at in {seconds} seconds.",
        {**_NO_STORE, "Retry-After": str(seconds)},
    )
