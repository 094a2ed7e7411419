"""The address by which a client reached us: the URLs that it is given must begin with it."""

import re

from starlette.requests import Request

_HOST = re.compile(r"[A-Za-z0-9.-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", re.ASCII)
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)


def base_url(request: Request) -> str:
    """Return scheme, host and path prefix, without a slash at the end.

    A proxy says by X-Forwarded-Proto, -Host and -Prefix what its client used. Whoever sends these
    only sends itself elsewhere.
    """
    scheme = _forwarded(request, "proto").lower()
    if scheme not in ("http", "https"):
        scheme = request.url.scheme
    host = _forwarded(request, "host")
    if not _HOST.fullmatch(host):
        host = request.url.netloc
    prefix = _forwarded(request, "prefix").rstrip("/")
    return f"{scheme}://{host}{prefix if _PREFIX.fullmatch(prefix) else ''}"


def _forwarded(request: Request, name: str) -> str:
    """Return a header's first value: the proxy nearest to the client wrote it."""
    return request.headers.get(f"x-forwarded-{name}", "").split(",")[0].strip()
