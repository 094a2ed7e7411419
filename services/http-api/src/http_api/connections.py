"""Connections of clients: how long they may take to send a request, how many there may be.

uvicorn by itself waits for the rest of a request for ever, and answers what is no HTTP with a text
that does not say what is wrong. Whoever opens connections and sends little on each would have all
of them; here, when they run out, the one that has waited longest for the rest of its request goes.
"""

import asyncio
import json
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

log = structlog.get_logger()

MAX_HEAD = 32 * 1024  # bytes of a request's first line and headers
_INCOMPLETE = (h11.IDLE, h11.SEND_BODY)  # states of a client whose request is not all here


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What connections of one server may do, and those that are waiting just now."""

    seconds: float  # for the head of a request, and again for its body
    connections: int
    # In the order in which they began to wait for a request.
    waiting: dict["LimitedProtocol", None] = field(default_factory=dict)


def limited(limits: Limits) -> type[asyncio.Protocol]:
    """Return the protocol that uvicorn is to use."""
    return type("LimitedProtocol", (LimitedProtocol,), {"limits": limits})


def give_up_on_silent_readers(listener: socket.socket, seconds: float) -> None:
    """Have the system end connections whose client does not take what it is sent, or is gone."""
    if sys.platform == "linux":  # elsewhere it keeps the system's own patience
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class LimitedProtocol(H11Protocol):
    """One connection. A request's head, and then its body, must be here in time."""

    limits: Limits

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*values, **named)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait; where there are too many, one that waits has to go."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            oldest = next(iter(self.limits.waiting), self)
            log.warning("connection_dropped", why="too many", peer=oldest.peer)
            oldest.drop()
        if not self.transport.is_closing():
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        before = self.conn.their_state
        super().data_received(data)
        if self.conn.their_state not in _INCOMPLETE or self.transport.is_closing():
            self._rest()
        elif self._deadline is None or self.conn.their_state is not before:
            self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request; while there is nothing of it, uvicorn does."""
        super().on_response_complete()
        if self.transport.is_closing():
            self._rest()
        elif self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self._rest()
            self.limits.waiting[self] = None
        elif self.conn.their_state in _INCOMPLETE and self._deadline is None:
            self._wait()

    @property
    def peer(self) -> str:
        """Return the address of the client."""
        return self.client[0] if self.client else ""

    def drop(self) -> None:
        """End the connection at once."""
        self._rest()
        self.transport.abort()

    def _wait(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(self.limits.seconds, self._is_late)
        self.limits.waiting.setdefault(self, None)

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.limits.waiting.pop(self, None)

    def _is_late(self) -> None:
        self._deadline = None
        is_begun = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0])
        if not is_begun:  # nobody asked anything: there is nothing to answer
            self.drop()
            return
        part = "body" if self.conn.their_state is h11.SEND_BODY else "head"
        self._refuse(
            408,
            "RequestTimeout",
            f"The {part} of the request was not here within {self.limits.seconds:g} seconds.",
        )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, or a body that breaks off in the middle of a chunk."""
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            text = f"The first line and the headers are longer than {MAX_HEAD} bytes."
            self._refuse(431, "RequestHeaderFieldsTooLarge", text)
        else:
            self._refuse(400, "InvalidHttpRequest", f"This is no HTTP request: {error or msg}.")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error, where nothing was answered yet, and end the connection."""
        log.warning("request_not_received", code=code, why=message, peer=self.peer)
        self._rest()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its route learns that there is nobody any more
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        body = json.dumps({"error": {"code": code, "message": message}}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        events: tuple[h11.Event, ...] = (
            h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status]),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
