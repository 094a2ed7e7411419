"""Asking a service of the stack how it is."""

import asyncio

from rollcall_embedded.process import LOOPBACK


async def http_get(port: int, path: str) -> tuple[int, str]:
    """Return status and body of a page on loopback; status 0 while nothing answers in a second."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
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


async def is_ready(port: int) -> bool:
    """Say whether the http-api on this port can do its work."""
    return (await http_get(port, "/readyz"))[0] == 200


async def reaches_broker(metrics_port: int) -> bool:
    """Say whether the service with these metrics has its connection to the broker."""
    _, body = await http_get(metrics_port, "/metrics")
    return any(line.startswith("rollcall_broker_connected 1") for line in body.splitlines())
