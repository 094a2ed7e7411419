"""Requests from inside: a deployment's resources are written by the same handlers as a client's.

So each resource gets the same checks, the same defaults and the same answer as its own PUT, and
whoever deploys may do no more than by hand.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, FastAPI
from starlette.datastructures import Headers
from starlette.types import Message

from http_api.domain.access import Principal, needed
from http_api.domain.paths import normal_path
from http_api.errors import add_handlers, refuse
from http_api.writes import Server

_HOST = b"inside"  # clients never see it


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request from inside came to."""

    status: int
    headers: Mapping[str, str]
    document: Any

    @property
    def error(self) -> dict[str, Any]:
        """Return the error, as ARM writes it."""
        found = self.document.get("error") if isinstance(self.document, dict) else None
        if isinstance(found, dict):
            return found
        return {"code": "Unknown", "message": f"The answer was {self.status}."}

    @property
    def asks(self) -> str | None:
        """Return the path where to ask for the end of what was begun, if it was not done."""
        url = self.headers.get("azure-asyncoperation") or self.headers.get("location")
        if not url:
            return None
        parts = urlsplit(url)
        return f"{parts.path}?{parts.query}"


class Inside:
    """The routes without the gate before them."""

    def __init__(self, server: Server, routers: Sequence[APIRouter]) -> None:
        self._app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
        self._app.state.server = server
        self._app.state.inside = self
        add_handlers(self._app, routers)
        for router in routers:
            self._app.include_router(router)

    async def ask(
        self,
        method: str,
        path: str,
        principal: Principal,
        *,
        version: str = "",
        body: Any = None,
        once: str | None = None,
    ) -> Answer:
        """Return the answer to a request; 403 for what the principal may not do.

        `path` may carry a query of its own, which then names the api-version. A write of a scale
        set that was done under the name `once` is not done again: it has the same operation.
        """
        path, _, query = path.partition("?")
        path = normal_path(path)
        if not principal.may(needed(method, path)):
            error = refuse(principal, method, path).model_dump(exclude_none=True)
            return Answer(status=403, headers={}, document={"error": error})
        raw = b"" if body is None else json.dumps(body).encode()
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        await self._app(
            {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": method,
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "root_path": "",
                "query_string": (query or urlencode({"api-version": version})).encode(),
                "headers": [(b"host", _HOST), (b"content-type", b"application/json")],
                "client": None,
                "server": (_HOST.decode(), 80),
                "state": {"principal": principal, "once": once},
            },
            receive,
            send,
        )
        start = next(each for each in messages if each["type"] == "http.response.start")
        text = b"".join(
            each.get("body", b"") for each in messages if each["type"] == "http.response.body"
        )
        return Answer(
            status=start["status"],
            headers=dict(Headers(raw=start["headers"]).items()),
            document=json.loads(text) if text else None,
        )
