"""Asking a service of the stack, or a given server, how it is."""

import asyncio
import ssl
from urllib.parse import urlsplit

from rollcall_embedded.process import LOOPBACK, EmbeddedError

PATIENCE = 5.0  # seconds for a given server to answer
DEFAULT_PORTS = {"postgresql": 5432, "postgres": 5432, "amqp": 5672, "amqps": 5671}


async def http_get(port: int, path: str, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Return status and body of a page on loopback; status 0 while nothing answers in a second."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=tls)
            try:
                request = f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\nConnection: close\r\n\r\n"
                writer.write(request.encode())
                answer = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0, ""
    head, _, body = answer.partition("\r\n\r\n")
    words = head.split(maxsplit=2)
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), body


async def is_ready(port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Say whether the http-api on this port can do its work."""
    return (await http_get(port, "/readyz", tls))[0] == 200


async def reaches_broker(metrics_port: int) -> bool:
    """Say whether the service with these metrics has its connection to the broker."""
    _, body = await http_get(metrics_port, "/metrics")
    return any(line.startswith("rollcall_broker_connected 1") for line in body.splitlines())


async def answers(name: str, url: str) -> None:
    """Connect once to a server that was given. Raises EmbeddedError, naming what is wrong where."""
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    where = f"{parts.hostname}:{port}"  # without the password
    if parts.hostname is None or port is None:
        raise EmbeddedError(f"{name} is not the URL of a server: give scheme://user:password@host")
    try:
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {PATIENCE:g} s"
        raise EmbeddedError(f"{name}: nothing answers at {where} ({why})") from error
    writer.close()
