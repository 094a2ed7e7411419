"""Fetching files: streamed, measured and hashed on the way; secrets in URLs are never shown."""

import asyncio
import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import aiohttp

_CHUNK = 1024 * 1024


class DownloadFailed(Exception):
    """The file could not be had; the message names the URL without its secrets."""


class AccessDenied(DownloadFailed):
    """The server refused the credentials, or they are past their expiry (M40)."""


class TooLarge(DownloadFailed):
    """The file is larger than allowed."""


def public_url(url: str) -> str:
    """Return the URL without user, password, query and fragment: what may be logged and told."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def expired(url: str, now: datetime) -> bool:
    """Say whether the URL is a shared access signature whose expiry (`se`) has passed."""
    query = parse_qs(urlsplit(url).query)
    if "sig" not in query and "sv" not in query:
        return False
    try:
        expiry = datetime.fromisoformat(query["se"][-1])
    except (KeyError, ValueError):
        return False  # the server will say what it thinks of it
    return expiry.replace(tzinfo=expiry.tzinfo or UTC) <= now


class _Sink:
    """A file being written, with its digest; refuses to grow beyond the limit."""

    def __init__(self, path: Path, limit: int, url: str) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._hash = hashlib.sha256()
        self._limit = limit
        self._url = url
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._limit:
            raise TooLarge(f"{public_url(self._url)} is larger than {self._limit} bytes")
        self._hash.update(chunk)
        self._file.write(chunk)

    def close(self) -> str:
        self._file.close()
        return self._hash.hexdigest()


async def download(url: str, path: Path, *, limit: int, patience: float) -> tuple[str, int]:
    """Write what `url` gives to `path`; returns its SHA-256 and its size in bytes.

    `http`, `https`, and `file` for a regular file on this host. `patience` is in seconds without a
    byte. Raises DownloadFailed, AccessDenied for 401 and 403, TooLarge above `limit` bytes.
    """
    match urlsplit(url).scheme:
        case "http" | "https":
            return await _http(url, path, limit=limit, patience=patience)
        case "file":
            return await asyncio.to_thread(_file, url, path, limit)
        case other:
            raise DownloadFailed(
                f"{public_url(url)}: scheme {other!r} is none of http, https, file"
            )


async def _http(url: str, path: Path, *, limit: int, patience: float) -> tuple[str, int]:
    times = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=patience)
    sink = _Sink(path, limit, url)
    try:
        async with (
            aiohttp.ClientSession(timeout=times, auto_decompress=False) as session,
            session.get(url) as response,
        ):
            if response.status in (401, 403):
                raise AccessDenied(f"{public_url(url)} answered {response.status}")
            if response.status != 200:
                raise DownloadFailed(f"{public_url(url)} answered {response.status}")
            async for chunk in response.content.iter_chunked(_CHUNK):
                sink.write(chunk)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        # Its own text may hold the whole URL with its token.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
        raise DownloadFailed(
            f"{public_url(url)} cannot be fetched: {reason or type(error).__name__}"
        ) from None
    finally:
        digest = sink.close()
    return digest, sink.size


def _file(url: str, path: Path, limit: int) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise DownloadFailed(f"{public_url(url)}: file:// means this host; write file:///path")
    source = unquote(parts.path)
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"{source} cannot be read: {error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DownloadFailed(f"{source} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        sink = _Sink(path, limit, url)
        try:
            while chunk := file.read(_CHUNK):
                sink.write(chunk)
        finally:
            digest = sink.close()
    return digest, sink.size
