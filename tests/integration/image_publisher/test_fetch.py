"""Fetching, from a real server on loopback and from real files."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from image_publisher.domain.feed import FeedCode, FeedError
from image_publisher.fetch import Fetcher, size_fault

LIMIT = 1000


class Server:
    """A web server whose answer a test sets."""

    def __init__(self) -> None:
        self.url = ""
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.missing
        self.requests: list[web.BaseRequest] = []

    async def missing(self, _: web.Request) -> web.StreamResponse:
        return web.Response(status=404)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.answer(request)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Fetcher(session, timeout=5, max_bytes=LIMIT)


async def refused(fetcher: Fetcher, url: str) -> FeedError:
    with pytest.raises(FeedError) as caught:
        await fetcher.get(url)
    return caught.value


def gives(body: bytes, status: int = 200, **headers: str) -> Callable[..., Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers=names)

    return answer


async def test_a_document_comes_with_its_validators(server: Server, fetcher: Fetcher) -> None:
    server.answer = gives(b"hello", ETag='"1"', Last_Modified="Tue, 24 Feb 2015 14:14:24 GMT")
    body = await fetcher.get(f"{server.url}/a%20b")
    assert body is not None
    assert (body.content, body.etag) == (b"hello", '"1"')
    assert body.last_modified == "Tue, 24 Feb 2015 14:14:24 GMT"
    assert server.requests[0].path == "/a b"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Tue, 24 Feb 2015 14:14:22 GMT", True),
        ("Tue, 24 Feb 2015 14:14:23 GMT", False),
        ("Tue, 24 Feb 2015 14:14:24 GMT", False),
        ("just now", False),
    ],
)
async def test_a_document_of_this_second_has_no_validators(
    server: Server, fetcher: Fetcher, written: str, kept: bool
) -> None:
    now = "Tue, 24 Feb 2015 14:14:24 GMT"
    server.answer = gives(b"x", ETag='"1"', Last_Modified=written, Date=now)
    body = await fetcher.get(server.url)
    assert body is not None
    assert (body.etag, body.last_modified) == (('"1"', written) if kept else (None, None))


async def test_a_document_that_did_not_change_is_not_sent(server: Server, fetcher: Fetcher) -> None:
    async def answer(request: web.Request) -> web.Response:
        same = request.headers.get("If-None-Match") == '"1"'
        return web.Response(status=304 if same else 200)

    server.answer = answer
    assert await fetcher.get(server.url, {"etag": '"1"', "last_modified": "x"}) is None
    assert server.requests[0].headers["If-Modified-Since"] == "x"
    assert await fetcher.get(server.url, {"etag": '"2"'}) is not None


async def test_a_compressed_document_is_unpacked(server: Server, fetcher: Fetcher) -> None:
    server.answer = gives(gzip.compress(b"x" * LIMIT), Content_Encoding="gzip")
    body = await fetcher.get(server.url)
    assert body is not None
    assert body.content == b"x" * LIMIT


@pytest.mark.parametrize("size", [LIMIT + 1, 50_000_000])
async def test_a_document_that_unpacks_too_large_is_refused(
    server: Server, fetcher: Fetcher, size: int
) -> None:
    server.answer = gives(gzip.compress(b"x" * size), Content_Encoding="gzip")
    assert (await refused(fetcher, server.url)).code is FeedCode.TOO_LARGE


async def test_an_endless_document_is_refused(server: Server, fetcher: Fetcher) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 100)

    server.answer = answer
    assert (await refused(fetcher, server.url)).code is FeedCode.TOO_LARGE


async def test_a_document_that_is_cut_off_is_refused(server: Server, fetcher: Fetcher) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"x" * 50)
        assert request.transport is not None
        request.transport.close()
        return response

    server.answer = answer
    assert (await refused(fetcher, server.url)).code is FeedCode.TRUNCATED
    server.answer = gives(gzip.compress(b"x" * 900)[:-12], Content_Encoding="gzip")
    assert (await refused(fetcher, server.url)).code is FeedCode.TRUNCATED


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", b"not gzip at all"), ("br", b"x"), ("deflate", b"x")]
)
async def test_a_document_that_cannot_be_unpacked_is_refused(
    server: Server, fetcher: Fetcher, encoding: str, body: bytes
) -> None:
    server.answer = gives(body, Content_Encoding=encoding)
    assert (await refused(fetcher, server.url)).code is FeedCode.MALFORMED


@pytest.mark.parametrize("status", [204, 206, 304, 401, 403, 404, 410, 500, 503])
async def test_an_answer_without_document_is_named(
    server: Server, fetcher: Fetcher, status: int
) -> None:
    server.answer = gives(b"", status)
    error = await refused(fetcher, server.url)
    assert error.code is FeedCode.UNREACHABLE
    assert f"HTTP {status}" in error.message


async def test_a_slow_server_is_given_up(server: Server) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.Event().wait()
        return response

    server.answer = answer
    async with aiohttp.ClientSession() as session:
        error = await refused(Fetcher(session, timeout=0.3, max_bytes=LIMIT), server.url)
    assert error.code is FeedCode.UNREACHABLE
    assert "longer than 0.3 s" in error.message


async def test_a_server_that_is_down_is_named(fetcher: Fetcher) -> None:
    error = await refused(fetcher, "http://127.0.0.1:1/x")
    assert error.code is FeedCode.UNREACHABLE


async def test_a_redirect_on_the_web_is_followed(server: Server, fetcher: Fetcher) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/old":
            return web.Response(status=302, headers={"Location": "/new"})
        return web.Response(body=request.path.encode())

    server.answer = answer
    body = await fetcher.get(f"{server.url}/old")
    assert body is not None
    assert body.content == b"/new"


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", ""])
async def test_a_redirect_elsewhere_is_refused(
    server: Server, fetcher: Fetcher, target: str
) -> None:
    server.answer = gives(b"", 302, Location=target)
    assert (await refused(fetcher, server.url)).code is FeedCode.PATH_UNSAFE


async def test_redirects_without_end_are_given_up(server: Server, fetcher: Fetcher) -> None:
    server.answer = gives(b"", 302, Location="/again")
    error = await refused(fetcher, server.url)
    assert error.code is FeedCode.UNREACHABLE
    assert len(server.requests) == 6


async def test_a_file_is_read(fetcher: Fetcher, tmp_path: Path) -> None:
    path = tmp_path / "a b.json"
    path.write_bytes(b"hello")
    body = await fetcher.get(path.as_uri())
    assert body is not None
    assert body.content == b"hello"


async def test_a_file_that_cannot_be_read_is_named(fetcher: Fetcher, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * (LIMIT + 1))
    expected = {
        "none": FeedCode.UNREACHABLE,
        "pipe": FeedCode.UNREACHABLE,
        "": FeedCode.UNREACHABLE,
        "large": FeedCode.TOO_LARGE,
    }
    for name, code in expected.items():
        assert (await refused(fetcher, (tmp_path / name).as_uri())).code is code
    assert (await refused(fetcher, "file://host/x")).code is FeedCode.UNREACHABLE


def test_an_image_file_of_another_size_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.tar.gz"
    file.write_bytes(b"hello")
    assert size_fault(file.as_uri(), 5) is None
    fault = size_fault(file.as_uri(), 6)
    assert fault is not None
    assert fault.code is FeedCode.SIZE_MISMATCH
    assert size_fault((tmp_path / "not-here").as_uri(), 6) is None
    assert size_fault("http://127.0.0.1:1/a", 6) is None
