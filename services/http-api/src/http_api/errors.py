"""Errors as ARM answers them: `{"error": {"code", "message", "target", "details"}}`."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from rollcall_contracts.model import Failure
from rollcall_kit.database import DATABASE_AWAY
from starlette.exceptions import HTTPException
from starlette.routing import Match

from http_api.domain.access import Principal, action_of, needed
from http_api.domain.conditions import Conditions
from http_api.domain.documents import ModelError

log = structlog.get_logger()

_HTTP_CODES = {404: "NotFound", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge"}
_AGAIN = {"Retry-After": "1"}  # seconds


class ApiError(Exception):
    """A request is answered with an error; the message says what is wrong and what to do."""

    def __init__(self, status: int, code: str, message: str, *, target: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.failure = Failure(code=code, message=message, target=target)


def not_found(type: str, name: str, group: str) -> ApiError:
    """Return Azure's answer for a resource that does not exist."""
    return ApiError(
        404,
        "ResourceNotFound",
        f"The Resource '{type}/{name}' under resource group '{group}' was not found.",
    )


def need(conditions: Conditions, etag: str | None) -> None:
    """Raise ApiError 412 where a request's conditions are not met."""
    refusal = conditions.refusal(etag)
    if refusal is not None:
        raise ApiError(412, "PreconditionFailed", f"The precondition is not met: {refusal}.")


def refuse(principal: Principal, method: str, path: str) -> Failure:
    """Write down that a call is refused; return what its caller is told, in Azure's words."""
    role = needed(method, path).role
    word = role.word if role is not None else ""
    action = action_of(method, path)
    log.warning(
        "call_refused",
        who=principal.name,
        client_id=principal.id,
        method=method,
        path=path,
        action=action.name,
        scope=action.scope,
        needs=word,
    )
    return Failure(
        code="AuthorizationFailed",
        message=f"The client '{principal.name}' with object id '{principal.id}' does not have "
        f"authorization to perform action '{action.name}' over scope '{action.scope}' or the "
        f"scope is invalid: it needs the role {word} there. If access was recently granted, "
        "please try again.",
    )


def need_linked(principal: Principal, id: str, linked: str) -> None:
    """Raise ApiError 403 where somebody may write a resource, but not look at what it names.

    Whether that exists is not said: so nobody learns it, or uses what belongs to others.
    """
    if principal.may(needed("GET", linked)):
        return
    action, other = action_of("PUT", id), action_of("GET", linked)
    log.warning(
        "call_refused",
        who=principal.name,
        client_id=principal.id,
        method="GET",
        path=linked,
        action=other.name,
        scope=other.scope,
        needs="reader",
    )
    raise ApiError(
        403,
        "LinkedAuthorizationFailed",
        f"The client '{principal.name}' with object id '{principal.id}' has permission to perform "
        f"action '{action.name}' on scope '{action.scope}'; however, it does not have permission "
        f"to perform action '{other.name}' on the linked scope(s) '{other.scope}' or the linked "
        "scope(s) are invalid: it needs the role reader there.",
        target=linked,
    )


def error_response(
    status: int,
    failure: Failure,
    *,
    details: Sequence[Failure] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an error in ARM's shape; `target` and `details` only where there are any."""
    error: dict[str, Any] = failure.model_dump(exclude_none=True)
    if details:
        error["details"] = [detail.model_dump(exclude_none=True) for detail in details]
    return JSONResponse({"error": error}, status_code=status, headers=dict(headers or {}))


def add_handlers(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Give the app an answer in ARM's shape for everything that its routes may raise."""

    @app.exception_handler(ApiError)
    async def on_api_error(_request: Request, error: ApiError) -> JSONResponse:
        headers = _AGAIN if error.status == 503 else {}
        return error_response(error.status, error.failure, headers=headers)

    @app.exception_handler(ModelError)
    async def on_model_error(_request: Request, error: ModelError) -> JSONResponse:
        if len(error.faults) == 1:
            return error_response(400, error.faults[0])
        summary = Failure(
            code="MultipleErrorsOccurred",
            message=f"The request has {len(error.faults)} errors; see details.",
        )
        return error_response(400, summary, details=error.faults)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = _HTTP_CODES.get(error.status_code, "BadRequest")
        message = (
            f"There is nothing at {request.url.path}."
            if error.status_code == 404
            else f"{request.method} is not possible at {request.url.path}."
            if error.status_code == 405
            else str(error.detail)
        )
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods(request, routers))
        return error_response(
            error.status_code, Failure(code=code, message=message), headers=headers
        )

    @app.exception_handler(RequestValidationError)
    async def on_parameters(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [
            Failure(
                code="InvalidParameter",
                message=f"{fault['loc'][-1]}: {fault['msg']}",
                target=str(fault["loc"][-1]),
            )
            for fault in error.errors()
        ]
        return error_response(400, faults[0], details=faults[1:])

    async def on_database_away(_request: Request, error: Exception) -> JSONResponse:
        log.warning("database_unavailable", error=str(error) or type(error).__name__)
        return _unavailable("The database does not answer just now; try again.")

    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, on_database_away)

    @app.exception_handler(asyncpg.UndefinedTableError)
    @app.exception_handler(asyncpg.UndefinedColumnError)  # the service is older than this one
    async def on_missing_view(_request: Request, error: Exception) -> JSONResponse:
        log.warning("view_missing", error=str(error))
        return _unavailable("A service has not set up its tables yet; see /readyz.")


def _methods(request: Request, routers: Sequence[APIRouter]) -> list[str]:
    """Return what is possible at a path: Starlette itself names only its first route's methods."""
    found: set[str] = set()
    for route in (route for router in routers for route in router.routes):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _unavailable(message: str) -> JSONResponse:
    return error_response(503, Failure(code="ServiceUnavailable", message=message), headers=_AGAIN)
