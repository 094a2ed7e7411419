"""What happens to each request before and after its route: path, token, log line, last resort."""

import hmac
import time
import uuid

import structlog
from rollcall_contracts.model import Failure
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from http_api.domain.paths import normal_path
from http_api.errors import error_response
from http_api.metrics import http_requests, http_seconds
from http_api.settings import Settings

log = structlog.get_logger()

_METHODS = frozenset({"GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS"})


class Gate:
    """Lets a request in when it may, and writes down how it ended.

    Plain ASGI: Starlette's own base class would hold up streams and hide disconnects.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.api_token.get_secret_value().encode()
        self._open = {"/healthz", "/readyz"} | (
            {"/metrics"} if settings.api_metrics_open else set()
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": normal_path(scope["path"])}
        started = time.perf_counter()
        request_id = str(uuid.uuid4())
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-ms-request-id"] = request_id
            await send(message)

        try:
            refusal = self._refusal(scope)
            if "\0" in scope["path"]:  # no name has one, and Postgres takes none
                failure = Failure(code="InvalidResourceName", message="The path contains NUL.")
                await error_response(400, failure)(scope, receive, send_and_note)
            elif refusal is not None:
                await error_response(401, refusal, headers={"WWW-Authenticate": "Bearer"})(
                    scope, receive, send_and_note
                )
            else:
                await self._app(scope, receive, send_and_note)
        except Exception:
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            if status:  # too late to answer: the client must see that the answer is cut off
                raise
            failure = Failure(
                code="InternalServerError",
                message=f"Something went wrong here; the log has it under {request_id}.",
            )
            await error_response(500, failure)(scope, receive, send_and_note)
        finally:
            _note(scope, request_id, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Failure | None:
        if scope["path"] in self._open:
            return None
        header = Headers(scope=scope).get("authorization", "")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return Failure(
                code="AuthenticationFailed",
                message="Authentication failed: send the header 'Authorization: Bearer <token>'.",
            )
        if not hmac.compare_digest(token.strip().encode(), self._token):
            return Failure(
                code="InvalidAuthenticationToken", message="The access token is not valid here."
            )
        return None


def _note(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "")  # empty: nothing matched, or no token
    method = scope["method"] if scope["method"] in _METHODS else "other"
    http_requests.labels(method, route, str(status)).inc()
    http_seconds.labels(method, route).observe(seconds)
    level = "debug" if scope["path"] in ("/healthz", "/readyz", "/metrics") else "info"
    getattr(log, level)(
        "request_handled",
        method=scope["method"],
        path=scope["path"],  # without the query: it may carry what is nobody's business
        status=status,
        milliseconds=round(seconds * 1000, 1),
        request_id=request_id,
        client_request_id=Headers(scope=scope).get("x-ms-client-request-id"),
    )
