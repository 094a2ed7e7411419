"""Long-running operations: where clients ask how far they are, and the headers that say so."""

import hashlib
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from rollcall_contracts.model import Failure

from http_api import progress
from http_api.domain.access import Principal, needed
from http_api.domain.operations import Operation, Status, operation_json
from http_api.errors import ApiError, error_response
from http_api.routes.common import LOCATION, SUBSCRIPTION, Pool, RawBody, ServerOf, need_api_version
from http_api.urls import base_url
from http_api.writes import Server

router = APIRouter(tags=["operations"], dependencies=[Depends(need_api_version)])
RETRY_AFTER = {"Retry-After": "1"}  # seconds; without it, or with 0, clients wait for 30


def what_is_asked(request: Request, raw: RawBody) -> progress.Asked:
    """Return what tells a repeated request from a new one: clients give each an id of its own."""
    given = request.headers.get("x-ms-client-request-id", "").strip()
    action = request.url.path.rpartition("/")[2]
    if not given:
        return progress.Asked(action=action)
    digest = hashlib.sha256(f"{given}\n{request.url.path}\n".encode() + raw).hexdigest()
    return progress.Asked(action=action, client_request=digest)


Asking = Annotated[progress.Asked, Depends(what_is_asked)]


def operation_headers(
    request: Request, server: Server, operation: Operation, *, location: bool = True
) -> dict[str, str]:
    """Return where to ask; `Location`, which clients follow at the end, only where no body was."""
    subscription = operation.resource.split("/")[2]
    place = LOCATION.format(location=quote(server.config.location, safe=""))
    version = next((v for k, v in request.query_params.items() if k.lower() == "api-version"), "")
    base = f"{base_url(request)}/subscriptions/{subscription}{place}"
    query = f"{operation.id}?api-version={quote(version)}"
    headers = {**RETRY_AFTER, "Azure-AsyncOperation": f"{base}/operations/{query}"}
    if location:
        headers["Location"] = f"{base}/operationResults/{query}"
    return headers


def accepted(request: Request, server: Server, operation: Operation | None) -> Response:
    """Return 202 with where to ask; 204 where there was nothing to do."""
    if operation is None:
        return Response(status_code=204)
    return Response(status_code=202, headers=operation_headers(request, server, operation))


async def existing_operation(
    request: Request, subscription: str, operation_id: str, pool: Pool, server: ServerOf
) -> Operation:
    """Return the operation in the path as it is now.

    Raises ApiError 404, also to whom its resource is not shown: they do not learn that it exists.
    """
    async with pool.acquire() as connection:
        found = await progress.find(connection, operation_id, server.context.now())
    principal: Principal = request.state.principal
    if (
        found is None
        or found.resource.split("/")[2].lower() != subscription.lower()
        or not principal.may(needed("GET", found.resource))
    ):
        raise ApiError(
            404,
            "OperationNotFound",
            f"There is no operation {operation_id}: operations are kept for "
            f"{progress.KEPT.days} days.",
        )
    return found


Known = Annotated[Operation, Depends(existing_operation)]


@router.get(SUBSCRIPTION + LOCATION + "/operations/{operation_id}")
async def get(request: Request, operation: Known) -> Response:
    """Return an operation's status document."""
    headers = RETRY_AFTER if operation.status is Status.IN_PROGRESS else {}
    return JSONResponse(operation_json(operation, request.url.path), headers=headers)


@router.get(SUBSCRIPTION + LOCATION + "/operationResults/{operation_id}")
async def get_result(request: Request, operation: Known, server: ServerOf) -> Response:
    """Return 202 until the operation has ended, then nothing, or its error."""
    match operation.status:
        case Status.IN_PROGRESS:
            return accepted(request, server, operation)
        case Status.SUCCEEDED:
            return Response(status_code=204)
    return error_response(
        409, Failure.model_validate(operation.error or {"code": operation.status, "message": ""})
    )
