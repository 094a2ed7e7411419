"""What no request may have, whatever its route: told before anything looks at it."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from rollcall_contracts.model import Failure

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ENCODED_SLASH = re.compile(rb"%(2f|5c)", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?", re.ASCII)


def unacceptable(
    version: str, raw_path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> Failure | None:
    """Return what is wrong with a request's address or framing; None: nothing.

    Proxies and databases differ in what they make of such requests, and no client means one: text
    that is no UTF-8, control characters (Postgres takes no NUL), slashes that are hidden from a
    proxy, dots that one would resolve, and a body whose end is told in two ways.
    """
    if version not in ("1.0", "1.1"):
        return _bad("InvalidHttpRequest", f"HTTP/{version} is not spoken here, but HTTP/1.1.")
    try:
        path = unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        return _bad("InvalidResourceName", "The path is not UTF-8.")
    if _CONTROL.search(path):
        what = "NUL" if "\0" in path else "a control character"
        return _bad("InvalidResourceName", f"The path contains {what}.")
    if _ENCODED_SLASH.search(raw_path):
        return _bad("InvalidResourceName", "The path contains an encoded slash: no name has one.")
    if {".", ".."} & set(path.split("/")):
        return _bad("InvalidResourceName", "The path contains '.' or '..' where a name should be.")
    try:
        text = unquote_to_bytes(query.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        return _bad("InvalidParameter", "The query is not UTF-8.")
    if "\0" in text:
        return _bad("InvalidParameter", "The query contains NUL.")
    return _of_headers(headers)


def _of_headers(headers: Iterable[tuple[bytes, bytes]]) -> Failure | None:
    names: set[bytes] = set()
    for name, value in headers:
        names.add(name)
        host = value.decode("latin-1")
        if name == b"host" and host and not _HOST.fullmatch(host):
            return _bad("InvalidHostName", "The header Host is no name or address with a port.")
    if {b"transfer-encoding", b"content-length"} <= names:
        return _bad(
            "InvalidHttpRequest", "Send Content-Length or Transfer-Encoding, but not both of them."
        )
    return None


def _bad(code: str, message: str) -> Failure:
    return Failure(code=code, message=message)
