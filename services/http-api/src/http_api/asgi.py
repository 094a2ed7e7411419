"""What happens to each request before and after its route: path, token, log line, last resort."""

import hmac
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from rollcall_contracts.model import Failure
from rollcall_kit.database import DATABASE_AWAY
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from http_api import accounts, resources, tokens
from http_api.domain.access import OWNER, Principal, is_open, needed
from http_api.domain.paths import normal_path
from http_api.domain.requests import unacceptable
from http_api.errors import error_response, refuse
from http_api.external import Provider, ProviderAwayError, ProviderConfig, read_mapping
from http_api.metrics import http_requests, http_seconds
from http_api.settings import Settings
from http_api.tokens import TokenError
from http_api.writes import Server

log = structlog.get_logger()

_GONE = 499  # in the log alone: the client went away before its request was all here
_METHODS = frozenset({"GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS"})


def external_provider(settings: Settings) -> Provider | None:
    """Return the external provider, where there is one. Raises ModelError for its roles."""
    if not settings.openid_issuer:
        return None
    return Provider(
        ProviderConfig(
            issuer=settings.openid_issuer,
            audience=settings.openid_audience,
            claim=settings.openid_claim,
            grants=read_mapping(settings.openid_roles),
            ca=settings.openid_ca,
        )
    )


class Gate:
    """Lets a request in when it may, and writes down how it ended.

    Plain ASGI: Starlette's own base class would hold up streams and hide disconnects.
    """

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server
        self._provider = external_provider(server.settings)
        settings = server.settings
        self._token = settings.api_token.get_secret_value().encode()
        self._metrics_open = settings.api_metrics_open
        self._turns = Turns(settings.api_max_requests)

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
            bad = unacceptable(
                *(scope["http_version"], scope["raw_path"], scope["query_string"]),
                scope["headers"],
            )
            refusal = await self._refusal(scope) if bad is None else _end(bad)
            if refusal is not None:
                await refusal(scope, receive, send_and_note)
            else:
                with self._turns.take(scope) as is_free:
                    answer = self._app if is_free else _TOO_MANY
                    await answer(scope, receive, send_and_note)
        except ClientDisconnect:
            status = status or _GONE
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

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return why a request is not let in; else note who asks, for the routes."""
        path = scope["path"]
        if is_open(path) or (path == "/metrics" and self._metrics_open):
            return None
        try:
            principal = await self._principal(Headers(scope=scope).get("authorization", ""))
        except _Unknown as unknown:
            log.warning(
                "call_refused",
                who="nobody",
                method=scope["method"],
                path=path,
                why=unknown.failure.code,
            )
            return error_response(401, unknown.failure, headers={"WWW-Authenticate": "Bearer"})
        except ProviderAwayError as error:
            failure = Failure(code="ServiceUnavailable", message=str(error))
            return error_response(503, failure, headers={"Retry-After": "10"})
        except DATABASE_AWAY as error:
            log.warning("database_unavailable", error=str(error) or type(error).__name__)
            failure = Failure(code="ServiceUnavailable", message="The database does not answer.")
            return error_response(503, failure, headers={"Retry-After": "1"})
        scope.setdefault("state", {})["principal"] = principal
        need = needed(scope["method"], path)
        if principal.may(need):
            return None
        return error_response(403, refuse(principal, scope["method"], path))

    async def _principal(self, header: str) -> Principal:
        """Return whose token a request carries. Raises _Unknown, ProviderAwayError."""
        scheme, _, given = header.partition(" ")
        token = given.strip()
        if scheme.lower() != "bearer" or not token:
            raise _Unknown(
                "AuthenticationFailed",
                "Authentication failed: send the header 'Authorization: Bearer <token>'.",
            )
        if hmac.compare_digest(token.encode(), self._token):
            return OWNER
        if token.count(".") != 2:
            raise _Unknown("InvalidAuthenticationToken", "The access token is not valid here.")
        try:
            provider = self._provider
            if provider is not None and tokens.claimed_issuer(token) == provider.config.issuer:
                return await provider.principal(token)
            return await self._account(token)
        except TokenError as error:
            raise _Unknown("InvalidAuthenticationToken", str(error)) from error

    async def _account(self, token: str) -> Principal:
        """Return the account of a token of this installation's own. Raises TokenError."""
        async with self._server.context.database.acquire() as connection:
            tenant, _ = await resources.directory(connection)
            now = self._server.context.now()
            bearer = await tokens.bearer(connection, token, now, tenant=tenant)
            found = await accounts.principal(connection, bearer.client_id, bearer.issued_at)
        if found is None:
            raise TokenError("The account was removed, or has another secret: log in again.")
        return found


class Turns:
    """How many requests of one bearer are worked on at once, so that none keeps all others out.

    Streams of events last, so they are counted by themselves.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[tuple[str, bool]] = Counter()

    @contextmanager
    def take(self, scope: Scope) -> Iterator[bool]:
        """Take a turn for as long as the context lasts; False: there is none left."""
        principal: Principal | None = scope.get("state", {}).get("principal")
        if principal is None:  # of an open path: nothing is known of who asks
            yield True
            return
        key = (principal.id, scope["path"].endswith("/events/stream"))
        if self._taken[key] >= self._limit:
            yield False
            return
        self._taken[key] += 1
        try:
            yield True
        finally:
            self._taken[key] -= 1
            if not self._taken[key]:
                del self._taken[key]


_TOO_MANY = error_response(
    429,
    Failure(
        code="TooManyRequests",
        message="Too many requests of this client are worked on just now; send it again later.",
    ),
    headers={"Retry-After": "1"},
)


def _end(failure: Failure) -> Response:
    """Return an answer after which nothing more is read from the connection."""
    return error_response(400, failure, headers={"Connection": "close"})


class _Unknown(Exception):
    """Nobody knows who asks."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(code=code, message=message)


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
