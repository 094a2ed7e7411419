"""Reading of one document: over HTTP(S) or from a file, within a size and a time."""

import asyncio
import os
import stat
import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import unquote, urljoin, urlsplit

import aiohttp

from image_publisher.domain.feed import FeedCode, FeedError

MAX_REDIRECTS = 5
_CHUNK = 64 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A document as it came, with what the next conditional request needs."""

    content: bytes
    etag: str | None = None
    last_modified: str | None = None


class Missing(FeedError):
    """The server answered that there is no such document."""


class Fetcher:
    """Reads the documents of one feed; `timeout` is in seconds, for one document."""

    def __init__(self, session: aiohttp.ClientSession, *, timeout: float, max_bytes: int) -> None:
        self._session = session
        self._timeout = timeout
        self._max_bytes = max_bytes

    async def get(self, url: str, validators: Mapping[str, str] | None = None) -> Body | None:
        """Return the document; None when it is the one that `validators` stand for.

        Raises FeedError: unreachable, truncated, too large, or redirected to where it must not go.
        """
        try:
            async with asyncio.timeout(self._timeout):
                if urlsplit(url).scheme == "file":
                    return await asyncio.to_thread(read_file, url, self._max_bytes)
                return await self._get_http(url, validators or {})
        except TimeoutError as error:
            raise FeedError(
                FeedCode.UNREACHABLE, f"{url}: took longer than {self._timeout:g} s"
            ) from error
        except aiohttp.ClientPayloadError as error:
            raise FeedError(FeedCode.TRUNCATED, f"{url}: was cut off: {error}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            fault = str(error) or type(error).__name__
            raise FeedError(FeedCode.UNREACHABLE, f"{url}: {fault}") from error

    async def _get_http(self, url: str, validators: Mapping[str, str]) -> Body | None:
        headers = {"Accept-Encoding": "gzip"}
        if "etag" in validators:
            headers["If-None-Match"] = validators["etag"]
        if "last_modified" in validators:
            headers["If-Modified-Since"] = validators["last_modified"]
        address = url
        for _ in range(MAX_REDIRECTS + 1):
            async with self._session.get(
                address, headers=headers, allow_redirects=False
            ) as response:
                if response.status in _REDIRECTS:
                    address = redirected(address, response.headers.get("Location", ""))
                    continue
                if response.status == 304 and validators:
                    return None
                check_status(url, response.status)
                content = await self._body(url, response)
                if is_fresh(response.headers):
                    return Body(content=content)
                return Body(
                    content=content,
                    etag=response.headers.get("ETag"),
                    last_modified=response.headers.get("Last-Modified"),
                )
        raise FeedError(FeedCode.UNREACHABLE, f"{url}: more than {MAX_REDIRECTS} redirects")

    async def _body(self, url: str, response: aiohttp.ClientResponse) -> bytes:
        chunks = response.content.iter_chunked(_CHUNK)
        match response.headers.get("Content-Encoding", "identity").lower():
            case "identity":
                return await self._collect(url, chunks)
            case "gzip":
                return await self._collect(url, self._unzipped(url, chunks))
            case encoding:
                raise FeedError(FeedCode.MALFORMED, f"{url}: unknown encoding {encoding!r}")

    async def _collect(self, url: str, chunks: AsyncIterator[bytes]) -> bytes:
        content = bytearray()
        async for chunk in chunks:
            content += chunk
            if len(content) > self._max_bytes:
                raise too_large(url, self._max_bytes)
        return bytes(content)

    async def _unzipped(self, url: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        # Not aiohttp's own: a few kilobytes may unfold to gigabytes in one step of it.
        unzip = zlib.decompressobj(wbits=31)
        try:
            async for chunk in chunks:
                yield unzip.decompress(chunk, _CHUNK)
                while unzip.unconsumed_tail:
                    yield unzip.decompress(unzip.unconsumed_tail, _CHUNK)
        except zlib.error as error:
            raise FeedError(FeedCode.MALFORMED, f"{url}: is not gzip: {error}") from error
        if not unzip.eof:
            raise FeedError(FeedCode.TRUNCATED, f"{url}: its gzip data was cut off")


def too_large(url: str, limit: int) -> FeedError:
    """Return the error of a document above the feed's limit."""
    return FeedError(FeedCode.TOO_LARGE, f"{url}: is larger than the feed's max_bytes of {limit}")


def check_status(url: str, status: int) -> None:
    """Raise FeedError for an answer without the document."""
    if status in (404, 410):
        raise Missing(FeedCode.UNREACHABLE, f"{url}: HTTP {status}: there is no such document")
    if status != 200:
        raise FeedError(FeedCode.UNREACHABLE, f"{url}: HTTP {status}")


def is_fresh(headers: Mapping[str, str]) -> bool:
    """Say whether a document is so young that its validators may come to stand for two contents.

    Last-Modified counts whole seconds, and many servers make the ETag from it: what is written
    twice within a second looks the same (RFC 9110, 8.8.2.2).
    """
    if "Last-Modified" not in headers:
        return False
    try:
        written = parsedate_to_datetime(headers["Last-Modified"])
        return parsedate_to_datetime(headers["Date"]) - written < timedelta(seconds=2)
    except (KeyError, ValueError, TypeError):
        return True


def redirected(address: str, location: str) -> str:
    """Return where a redirect leads. Raises FeedError unless it keeps to http(s), never weaker."""
    target = urljoin(address, location)
    before, after = urlsplit(address).scheme, urlsplit(target).scheme
    if not location or (before, after) not in {
        ("http", "http"),
        ("http", "https"),
        ("https", "https"),
    }:
        raise FeedError(
            FeedCode.PATH_UNSAFE, f"{address}: redirects to {location!r}, which is not followed"
        )
    return target


def local_path(url: str) -> str:
    """Return the path that a file:// address names. Raises FeedError for another host's."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise FeedError(FeedCode.UNREACHABLE, f"{url}: write file:/// with three slashes")
    return unquote(parts.path)


def read_file(url: str, max_bytes: int) -> Body:
    """Return a file's content. Raises FeedError, or OSError where it cannot be read."""
    try:
        handle = os.open(local_path(url), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Missing(FeedCode.UNREACHABLE, f"{url}: there is no such file") from error
    with open(handle, "rb") as file:
        # A pipe or a device has no end.
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FeedError(FeedCode.UNREACHABLE, f"{url}: is not a file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise too_large(url, max_bytes)
    return Body(content=content)


def size_fault(url: str, size: int) -> FeedError | None:
    """Return an error when a file:// image lies here and is not `size` bytes long.

    Only a cheap first look: the agent that fetches the image verifies its sha256.
    """
    if urlsplit(url).scheme != "file":
        return None
    try:
        found = os.stat(local_path(url)).st_size
    except (OSError, ValueError):
        return None  # it may lie on the agents' hosts only
    if found == size:
        return None
    return FeedError(FeedCode.SIZE_MISMATCH, f"{url}: has {found} bytes, the feed says {size}")
