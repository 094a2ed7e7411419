"""Fetching files: streamed, measured and hashed on the way; secrets in URLs are never shown.

A file that was begun is gone on with: HTTP ranges, under the validator that the server gave with
the first bytes. Who knows the digest need not trust that: a file that came in pieces and has
another digest is worth one more try in one piece.
"""

import asyncio
import hashlib
import os
import re
import stat
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import aiohttp
import structlog

from instance_agent.space import is_full

log = structlog.get_logger()

_CHUNK = 1024 * 1024
_PROGRESS = 1024 * 1024  # bytes: a try that brought so many was not in vain
_LONGEST_PAUSE = 30.0  # seconds
_SLOWEST = 1024  # bytes a second: what comes more slowly would keep a host waiting for days
_CONNECT = 10.0  # seconds
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class DownloadFailed(Exception):
    """The file could not be had; the message names the URL without its secrets."""


class AccessDenied(DownloadFailed):
    """The server refused the credentials, or they are past their expiry (M40)."""


class TooLarge(DownloadFailed):
    """The file is larger than allowed."""


class NotWritten(DownloadFailed):
    """This host could not keep it; `full` says whether its disk is full."""

    def __init__(self, message: str, *, full: bool) -> None:
        super().__init__(message)
        self.full = full


class _Passing(DownloadFailed):
    """It may work when it is tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """What came."""

    sha256: str
    size: int  # bytes
    in_pieces: bool  # parts of it may be of different files, should the server's have changed


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


class _Pace:
    """Refuses a server that gives just enough not to be idle; `patience` seconds at a time."""

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._begin()

    def _begin(self) -> None:
        self._since = time.monotonic()
        self._bytes = 0

    def took(self, size: int) -> None:
        """Count what came. Raises _Passing where that is too little for the time it took."""
        self._bytes += size
        passed = time.monotonic() - self._since
        if passed < self._patience:
            return
        if self._bytes < _SLOWEST * passed:
            raise _Passing(
                f"{public_url(self._url)} gave {self._bytes} bytes in {passed:.1f} s, less than "
                f"{_SLOWEST} a second"
            )
        self._begin()


class _Sink:
    """A file being written, with its digest; refuses to grow beyond the limit.

    What is already there counts, when it is gone on with; `validator` is then what its server
    called that content: an ETag or a date, kept beside it.
    """

    def __init__(self, path: Path, limit: int, url: str, resume: bool) -> None:
        self._validator_file = path.with_name(f"{path.name}.validator")
        self._limit = limit
        self._url = url
        self._hash = hashlib.sha256()
        self.size = 0
        self.in_pieces = False
        self.validator = ""
        going_on = resume and path.exists()
        try:
            self._file: IO[bytes] = path.open("r+b" if going_on else "w+b")
        except OSError as error:
            raise self._not_written(error) from error
        if going_on:
            self._take_up()
        else:
            self._validator_file.unlink(missing_ok=True)

    def _take_up(self) -> None:
        while chunk := self._file.read(_CHUNK):
            self._hash.update(chunk)
            self.size += len(chunk)
        self.in_pieces = self.size > 0
        if self._validator_file.exists():
            self.validator = self._validator_file.read_text()
        if self.size > self._limit:
            self.restart("")

    def restart(self, validator: str) -> None:
        """Begin with the first byte, of what the server calls `validator`."""
        try:
            if self.size:
                self._file.seek(0)
                self._file.truncate()
            self._validator_file.unlink(missing_ok=True)
            if validator:
                self._validator_file.write_text(validator)
        except OSError as error:
            raise self._not_written(error) from error
        self._hash = hashlib.sha256()
        self.size = 0
        self.in_pieces = False
        self.validator = validator

    def refuse_size(self, size: int) -> None:
        """Raise TooLarge where the file has so many bytes, or at least as many."""
        if size > self._limit:
            raise TooLarge(f"{public_url(self._url)} is larger than {self._limit} bytes")

    def write(self, chunk: bytes) -> None:
        self.refuse_size(self.size + len(chunk))
        try:
            self._file.write(chunk)
            self._file.flush()  # what came is there to go on with, should this process be killed
        except OSError as error:
            raise self._not_written(error) from error
        self.size += len(chunk)
        self._hash.update(chunk)

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise self._not_written(error) from error

    def result(self) -> Downloaded:
        return Downloaded(sha256=self._hash.hexdigest(), size=self.size, in_pieces=self.in_pieces)

    def _not_written(self, error: OSError) -> NotWritten:
        why = error.strerror or type(error).__name__
        return NotWritten(f"{public_url(self._url)} cannot be kept: {why}", full=is_full(error))


async def download(
    url: str,
    path: Path,
    *,
    limit: int,
    patience: float,
    size: int | None = None,
    resume: bool = False,
    tries: int = 1,
    pause: float = 0.5,
) -> Downloaded:
    """Write what `url` gives to `path`.

    `http`, `https`, and `file` for a regular file on this host. `patience` is in seconds without a
    byte, or with less than a KiB for each; `size`, where known, the bytes that it must have. With
    `resume`, what is at `path` is gone on with. Trouble that may pass is tried again, `tries` times
    without much progress, after `pause` seconds and twice as long each time. Raises DownloadFailed,
    AccessDenied for 401 and 403, TooLarge above `limit` bytes, NotWritten. What came by then stays
    at `path`.
    """
    match urlsplit(url).scheme:
        case "http" | "https":
            sink = await asyncio.to_thread(_Sink, path, limit, url, resume)
            try:
                await _http(url, sink, size=size, patience=patience, tries=tries, pause=pause)
            finally:
                sink.close()
            return sink.result()
        case "file":
            return await asyncio.to_thread(_file, url, path, limit)
        case other:
            raise DownloadFailed(
                f"{public_url(url)}: scheme {other!r} is none of http, https, file"
            )


async def _http(
    url: str, sink: _Sink, *, size: int | None, patience: float, tries: int, pause: float
) -> None:
    times = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT, sock_read=patience)
    plain = {"Accept-Encoding": "identity"}  # the digest is of the file, not of a transfer
    async with aiohttp.ClientSession(
        timeout=times, auto_decompress=False, headers=plain
    ) as session:
        failures = 0
        while sink.size != size:
            before = sink.size
            try:
                await _receive(session, url, sink, size, patience)
                return
            except _Passing as error:
                failures = 1 if sink.size - before >= _PROGRESS else failures + 1
                if failures >= tries:
                    raise
                wait = min(pause * 2 ** (failures - 1), _LONGEST_PAUSE)
                log.info("download_tried_again", why=str(error), bytes=sink.size, seconds=wait)
            await asyncio.sleep(wait)


async def _receive(
    session: aiohttp.ClientSession, url: str, sink: _Sink, size: int | None, patience: float
) -> None:
    """Ask once for what is missing, and write what comes."""
    headers = {}
    if sink.size:
        headers["Range"] = f"bytes={sink.size}-"
        if sink.validator:
            headers["If-Range"] = sink.validator
    try:
        async with asyncio.timeout(_CONNECT + patience):
            asked = await session.get(url, headers=headers)
        async with asked as response:
            _take_answer(response, url, sink, size)
            pace = _Pace(url, patience)
            async for chunk in response.content.iter_chunked(_CHUNK):
                sink.write(chunk)
                pace.took(len(chunk))
            if size is not None and sink.size < size and _ends_by_close(response):
                raise _Passing(f"{public_url(url)} was cut off")
    except (aiohttp.InvalidURL, aiohttp.ClientSSLError, aiohttp.TooManyRedirects) as error:
        raise DownloadFailed(_cannot(url, error)) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise _Passing(_cannot(url, error)) from None
    except ValueError as error:
        raise DownloadFailed(_cannot(url, error)) from None


def _cannot(url: str, error: Exception) -> str:
    # Its own text may hold the whole URL with its token.
    reason = error.strerror if isinstance(error, OSError) and error.strerror else ""
    return f"{public_url(url)} cannot be fetched: {reason or type(error).__name__}"


def _take_answer(response: aiohttp.ClientResponse, url: str, sink: _Sink, size: int | None) -> None:
    """Make the sink ready for what follows. Raises DownloadFailed where nothing useful does."""
    if response.status in (401, 403):
        raise AccessDenied(f"{public_url(url)} answered {response.status}")
    if response.status == 206 and sink.size:
        if not _goes_on(response, sink.size, size):
            sink.restart("")
            raise _Passing(f"{public_url(url)} answered with another part than was asked for")
        sink.refuse_size(sink.size + (response.content_length or 0))
        sink.in_pieces = True
    elif response.status == 200:  # also of a server that knows no ranges, or whose file changed
        sink.refuse_size(response.content_length or 0)
        sink.restart(_validator(response))
    elif response.status == 416:  # its file is shorter than what there is already
        sink.restart("")
        raise _Passing(f"{public_url(url)} answered 416")
    elif response.status in _PASSING:
        raise _Passing(f"{public_url(url)} answered {response.status}")
    else:
        raise DownloadFailed(f"{public_url(url)} answered {response.status}")


def _goes_on(response: aiohttp.ClientResponse, start: int, size: int | None) -> bool:
    """Say whether what follows begins with byte `start` of a file that has the right size."""
    told = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if told is None or int(told[1]) != start:
        return False
    return size is None or told[2] in ("*", str(size))


def _validator(response: aiohttp.ClientResponse) -> str:
    """Return what names this very content: a strong ETag, else the date (RFC 9110, If-Range)."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _ends_by_close(response: aiohttp.ClientResponse) -> bool:
    """Say whether only the end of the connection says where the body ends."""
    chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    return response.content_length is None and not chunked


def _file(url: str, path: Path, limit: int) -> Downloaded:
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
        sink = _Sink(path, limit, url, resume=False)
        try:
            while chunk := file.read(_CHUNK):
                sink.write(chunk)
        finally:
            sink.close()
    return sink.result()
