"""The image cache against a real HTTP server and real files."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from instance_agent.failures import OperationFailed
from instance_agent.images import ImageCache
from instance_agent.metrics import image_failures
from rollcall_contracts.model import FailureCode, Image
from structlog.testing import capture_logs

CONTENT = b"image" * 100_000


class Server:
    """Gives `content` under every path but /missing, and counts the requests."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.requests = 0
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        await asyncio.sleep(0.02)
        if request.path == "/missing":
            return web.Response(status=404)
        if request.path == "/cut":
            response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))})
            await response.prepare(request)
            await response.write(CONTENT[:1000])
            assert request.transport is not None
            request.transport.close()
            return response
        return web.Response(body=self.content)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/{tail:.*}", server.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def image(url: str, content: bytes = CONTENT, more: dict[str, object] | None = None) -> Image:
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **(more or {})}
    return Image.model_validate(
        {"publisher": "P", "offer": "O", "sku": "S", "version": "1", "url": url, **facts}
    )


async def keep(file: Path, folder: Path) -> None:
    await asyncio.to_thread(file.rename, folder / "file")


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache", keep, max_bytes=1_000_000, timeout=2, keep=2)


def left(tmp_path: Path) -> list[str]:
    return sorted(os.listdir(tmp_path / "cache"))


async def test_one_download_serves_all(cache: ImageCache, server: Server, tmp_path: Path) -> None:
    wanted = image(f"{server.url}/image")
    places = await asyncio.gather(*(cache.fetch(wanted) for _ in range(10)))
    assert server.requests == 1
    assert (places[0] / "file").read_bytes() == CONTENT
    assert left(tmp_path) == [wanted.sha256]


FAULTS: dict[str, tuple[str, dict[str, object], FailureCode]] = {
    "not found": ("/missing?token=SECRET", {}, FailureCode.IMAGE_UNAVAILABLE),
    "cut off": ("/cut?token=SECRET", {}, FailureCode.IMAGE_UNAVAILABLE),
    "other content": ("/x?token=SECRET", {"sha256": "0" * 64}, FailureCode.IMAGE_VERIFICATION),
    "too short": ("/x?token=SECRET", {"size": 900_000}, FailureCode.IMAGE_VERIFICATION),
    "too long": ("/x?token=SECRET", {"size": 1000}, FailureCode.IMAGE_VERIFICATION),
    "too large": ("/x?token=SECRET", {"size": 2_000_000}, FailureCode.IMAGE_TOO_LARGE),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_bad_download_leaves_nothing_and_names_its_fault(
    cache: ImageCache, server: Server, tmp_path: Path, name: str
) -> None:
    path, facts, code = FAULTS[name]
    counted = image_failures.labels(code)._value.get()
    with pytest.raises(OperationFailed) as caught, capture_logs() as logs:
        await cache.fetch(image(server.url + path, more=facts))
    (line,) = logs
    assert (line["event"], line["code"], line["image"]) == ("image_refused", code, "P/O/S/1")
    assert line["message"] == caught.value.failure.message
    assert image_failures.labels(code)._value.get() == counted + 1
    failure = caught.value.failure
    assert (failure.code, failure.target) == (code, server.url + path.partition("?")[0])
    assert "SECRET" not in failure.model_dump_json()
    assert left(tmp_path) == []


async def test_a_server_that_is_not_there_is_unavailable(cache: ImageCache) -> None:
    with pytest.raises(OperationFailed) as caught:
        await cache.fetch(image("http://127.0.0.1:1/image?token=SECRET"))
    assert caught.value.failure.code == FailureCode.IMAGE_UNAVAILABLE
    assert "SECRET" not in str(caught.value)


async def test_a_host_that_cannot_keep_the_image_says_why(server: Server, tmp_path: Path) -> None:
    async def full(file: Path, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    cache = ImageCache(tmp_path / "cache", full, max_bytes=1_000_000, timeout=2, keep=2)
    with pytest.raises(OperationFailed, match="No space left on device") as caught:
        await cache.fetch(image(f"{server.url}/image?token=SECRET"))
    assert caught.value.failure.code == FailureCode.DRIVER
    assert "SECRET" not in caught.value.failure.model_dump_json()
    assert left(tmp_path) == []


async def test_a_failed_fetch_is_tried_again(
    cache: ImageCache, server: Server, tmp_path: Path
) -> None:
    server.content = b"wrong"
    wanted = image(f"{server.url}/image")
    with pytest.raises(OperationFailed):
        await cache.fetch(wanted)
    server.content = CONTENT
    assert (await cache.fetch(wanted)).name == wanted.sha256


async def test_a_file_url_must_name_a_regular_file(cache: ImageCache, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for url in (f"file://{tmp_path}", f"file://{pipe}", "file:///dev/zero", "file:///nowhere"):
        with pytest.raises(OperationFailed) as caught:
            await cache.fetch(image(url))
        assert caught.value.failure.code == FailureCode.IMAGE_UNAVAILABLE
    with pytest.raises(OperationFailed, match="file:///path"):
        await cache.fetch(image("file://elsewhere/image"))
    with pytest.raises(OperationFailed, match="none of http, https, file"):
        await cache.fetch(image("ftp://host/image"))
    (tmp_path / "an image").write_bytes(CONTENT)
    assert await cache.fetch(image(f"file://{tmp_path}/an%20image"))


async def test_the_least_recently_used_images_go(
    cache: ImageCache, server: Server, tmp_path: Path
) -> None:
    images = []
    for number in range(4):
        server.content = bytes([number]) * 1000
        images.append(image(f"{server.url}/{number}", server.content))
    server.content = bytes([0]) * 1000
    with cache.hold(images[0]):
        for number, each in enumerate(images):
            server.content = bytes([number]) * 1000
            place = await cache.fetch(each)
            os.utime(place, (number, number))
        kept = {images[0].sha256, images[2].sha256, images[3].sha256}
        assert set(left(tmp_path)) == kept  # the held one, and the newest two


async def test_what_a_killed_fetch_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "cache" / ".part-abc" / "content").mkdir(parents=True)
    ImageCache(tmp_path / "cache", keep, max_bytes=1, timeout=1, keep=1)
    assert left(tmp_path) == []
