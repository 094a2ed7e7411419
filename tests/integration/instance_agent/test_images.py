"""The image cache against a real HTTP server, real files, and other processes on the host."""

import asyncio
import dataclasses
import errno
import gzip
import hashlib
import lzma
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from aiohttp import web
from instance_agent.failures import OperationFailed
from instance_agent.images import CacheOptions, ImageCache, Import
from instance_agent.metrics import evictions, image_failures
from instance_agent.shelf import Shelf
from instance_agent.space import Room, free_bytes
from rollcall_contracts.model import FailureCode, Image
from rollcall_testing import eventually
from structlog.testing import capture_logs

CONTENT = b"image" * 100_000
OWN = (".locks", ".uses")  # the cache's own folders


class Server:
    """Gives `content` under every path but /missing, and counts the requests."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.requests = 0
        self.ranges: list[str | None] = []
        self.hang_after: int | None = None
        self.url = ""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.ranges.append(request.headers.get("Range"))
        await asyncio.sleep(0.02)
        if request.path == "/missing":
            return web.Response(status=404)
        if request.path == "/cut":
            assert request.transport is not None
            if self.requests > 1:
                request.transport.close()
                return web.Response()
            response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))})
            await response.prepare(request)
            await response.write(CONTENT[:1000])
            request.transport.close()
            return response
        if self.hang_after is not None:
            response = web.StreamResponse(headers={"Content-Length": str(len(CONTENT))})
            await response.prepare(request)
            await response.write(CONTENT[: self.hang_after])
            await asyncio.Event().wait()  # until the client is gone
        start = request.http_range.start or 0
        if start:
            where = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            headers = {"Content-Range": where}
            return web.Response(status=206, headers=headers, body=self.content[start:])
        return web.Response(body=self.content)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_get("/{tail:.*}", server.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # one request hangs on purpose
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


def image(url: str, content: bytes = CONTENT, more: Mapping[str, object] | None = None) -> Image:
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **(more or {})}
    return Image.model_validate(
        {"publisher": "P", "offer": "O", "sku": "S", "version": "1", "url": url, **facts}
    )


async def keep(file: Path, folder: Path) -> None:
    await asyncio.to_thread(file.rename, folder / "file")


def cache_in(
    folder: Path,
    import_image: Import = keep,
    *,
    agent: str = "a",
    limit: int = 10**9,
    full_check: bool = False,
) -> ImageCache:
    shelf = Shelf(folder, driver="test", agent=agent)
    options = CacheOptions(
        max_image_bytes=1_000_000,
        max_unpacked_bytes=1_000_000,
        limit=limit,
        patience=10,
        tries=2,
        pause=0.01,
        full_check=full_check,
    )
    return ImageCache(shelf, import_image, options)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return cache_in(tmp_path / "cache")


def left(tmp_path: Path) -> list[str]:
    return sorted(each.name for each in (tmp_path / "cache").iterdir() if each.name not in OWN)


async def test_one_download_serves_all(cache: ImageCache, server: Server, tmp_path: Path) -> None:
    wanted = image(f"{server.url}/image")
    places = await asyncio.gather(*(cache.fetch(wanted) for _ in range(10)))
    assert server.requests == 1
    assert (places[0] / "file").read_bytes() == CONTENT
    assert left(tmp_path) == [f"test-{wanted.sha256}"]


FAULTS: dict[str, tuple[str, dict[str, object], FailureCode]] = {
    "not found": ("/missing?token=SECRET", {}, FailureCode.IMAGE_UNAVAILABLE),
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
    line = logs[-1]
    assert (line["event"], line["code"], line["image"]) == ("image_refused", code, "P/O/S/1")
    assert line["message"] == caught.value.failure.message
    assert image_failures.labels(code)._value.get() == counted + 1
    failure = caught.value.failure
    assert (failure.code, failure.target) == (code, server.url + path.partition("?")[0])
    assert "SECRET" not in failure.model_dump_json()
    assert "SECRET" not in str(logs)
    assert all(name.startswith(".part-") for name in left(tmp_path))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.name == "content"]


async def test_a_download_that_is_cut_off_goes_on_the_next_time(
    cache: ImageCache, server: Server, tmp_path: Path
) -> None:
    wanted = image(f"{server.url}/cut?token=SECRET")
    with pytest.raises(OperationFailed) as caught:
        await cache.fetch(wanted)
    assert caught.value.failure.code == FailureCode.IMAGE_UNAVAILABLE
    assert "SECRET" not in caught.value.failure.model_dump_json()
    assert left(tmp_path) == [f".part-test-{wanted.sha256}"]
    place = await cache_in(tmp_path / "cache").fetch(image(f"{server.url}/image"))
    assert (place / "file").read_bytes() == CONTENT
    assert server.ranges[-1] == "bytes=1000-"
    assert left(tmp_path) == [f"test-{wanted.sha256}"]


async def test_pieces_that_do_not_fit_are_fetched_again_in_one(
    server: Server, tmp_path: Path
) -> None:
    wanted = image(f"{server.url}/image")
    part = tmp_path / "cache" / f".part-test-{wanted.sha256}"
    part.mkdir(parents=True)
    (part / "file").write_bytes(b"x" * 1000)
    place = await cache_in(tmp_path / "cache").fetch(wanted)
    assert (place / "file").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


async def test_a_server_that_is_not_there_is_unavailable(cache: ImageCache) -> None:
    with pytest.raises(OperationFailed) as caught:
        await cache.fetch(image("http://127.0.0.1:1/image?token=SECRET"))
    assert caught.value.failure.code == FailureCode.IMAGE_UNAVAILABLE
    assert "SECRET" not in str(caught.value)


async def test_a_host_that_cannot_keep_the_image_says_why(server: Server, tmp_path: Path) -> None:
    async def full(file: Path, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    cache = cache_in(tmp_path / "cache", full)
    with pytest.raises(OperationFailed, match="No space left on device") as caught:
        await cache.fetch(image(f"{server.url}/image?token=SECRET"))
    assert caught.value.failure.code == FailureCode.DISK_FULL
    assert "500000 bytes before it is unpacked" in caught.value.failure.message
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
    assert (await cache.fetch(wanted)).parent.name == f"test-{wanted.sha256}"


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


async def fetch_bytes(cache: ImageCache, folder: Path, number: int, at: float) -> Image:
    """Fetch an image of 100 kB of its own, as if at that time."""
    content = bytes([number]) * 100_000
    (folder / str(number)).write_bytes(content)
    wanted = image(f"file://{folder}/{number}", content)
    place = await cache.fetch(wanted)
    os.utime(place.parent, (at, at))
    return wanted


async def test_the_least_recently_used_go_and_what_a_disk_is_made_from_stays(
    tmp_path: Path,
) -> None:
    cache = cache_in(tmp_path / "cache", limit=350_000)
    counted = evictions._value.get()
    first = await fetch_bytes(cache, tmp_path, 0, at=10)
    cache.use(first, "instance", "000001-1")
    with capture_logs() as logs:
        later = [
            await fetch_bytes(cache, tmp_path, number, at=10 + number) for number in range(1, 5)
        ]
    kept = [first, later[-2], later[-1]]
    assert left(tmp_path) == sorted(f"test-{each.sha256}" for each in kept)
    gone = [line for line in logs if line["event"] == "image_evicted"]
    assert [line["key"] for line in gone] == [f"test-{each.sha256}" for each in later[:2]]
    assert evictions._value.get() == counted + 2

    # A restore's disk is kept like the one in place; once neither is there, the image may go.
    cache.keep_uses("instance", frozenset({"000001-1", "000002-2"}))
    await fetch_bytes(cache, tmp_path, 5, at=30)
    assert f"test-{first.sha256}" in left(tmp_path)
    cache.keep_uses("instance", frozenset({"000002-2"}))
    await fetch_bytes(cache, tmp_path, 6, at=31)
    assert f"test-{first.sha256}" not in left(tmp_path)


async def test_what_another_agent_of_the_host_needs_stays(tmp_path: Path) -> None:
    one, other = (cache_in(tmp_path / "cache", agent=name, limit=0) for name in "ab")
    needed = await fetch_bytes(other, tmp_path, 0, at=1)
    other.use(needed, "instance", "000001-1")
    wanted = await fetch_bytes(one, tmp_path, 1, at=2)
    assert left(tmp_path) == sorted(f"test-{each.sha256}" for each in (needed, wanted))
    # An agent forgets its own instances only.
    one.keep_all_uses({})
    await fetch_bytes(one, tmp_path, 2, at=3)
    assert f"test-{needed.sha256}" in left(tmp_path)
    other.keep_all_uses({"another instance": frozenset({"000001-1"})})
    await fetch_bytes(one, tmp_path, 3, at=4)
    assert f"test-{needed.sha256}" not in left(tmp_path)


async def test_an_image_that_somebody_works_on_is_not_evicted(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "cache", limit=0)
    first = await fetch_bytes(cache, tmp_path, 0, at=1)
    shelf = Shelf(tmp_path / "cache", driver="test", agent="b")
    with shelf.try_work_on(f"test-{first.sha256}") as mine:
        assert mine
        await fetch_bytes(cache, tmp_path, 1, at=2)
        assert f"test-{first.sha256}" in left(tmp_path)
    await fetch_bytes(cache, tmp_path, 2, at=3)
    assert f"test-{first.sha256}" not in left(tmp_path)


async def test_an_image_that_was_changed_is_thrown_away_and_fetched_anew(
    server: Server, tmp_path: Path
) -> None:
    wanted = image(f"{server.url}/image")
    place = await cache_in(tmp_path / "cache").fetch(wanted)
    (place / "file").write_bytes(b"other" * 100_000)  # as long as it was
    with capture_logs() as logs:
        again = await cache_in(tmp_path / "cache").fetch(wanted)
    assert again == place
    assert (place / "file").read_bytes() == CONTENT
    assert server.requests == 2
    assert [line["event"] for line in logs][:1] == ["image_damaged"]
    assert left(tmp_path) == [f"test-{wanted.sha256}"]


@pytest.mark.parametrize("full_check", [True, False])
async def test_a_change_that_hides_is_found_by_the_full_check_alone(
    server: Server, tmp_path: Path, full_check: bool
) -> None:
    wanted = image(f"{server.url}/image")
    file = await cache_in(tmp_path / "cache").fetch(wanted) / "file"
    before = file.stat().st_mtime_ns
    file.write_bytes(b"other" * 100_000)
    os.utime(file, ns=(before, before))
    await cache_in(tmp_path / "cache", full_check=full_check).fetch(wanted)
    assert (server.requests == 2) == full_check


async def test_a_touched_image_and_one_without_facts(server: Server, tmp_path: Path) -> None:
    wanted = image(f"{server.url}/image")
    place = await cache_in(tmp_path / "cache").fetch(wanted)
    os.utime(place / "file", (1, 1))  # as a copied cache has it: the content is what it was
    await cache_in(tmp_path / "cache").fetch(wanted)
    assert server.requests == 1
    (place.parent / "facts.json").write_text("{")
    await cache_in(tmp_path / "cache").fetch(wanted)
    assert server.requests == 2
    await cache_in(tmp_path / "cache", full_check=True).fetch(wanted)
    assert server.requests == 2
    shutil.rmtree(place)
    await cache_in(tmp_path / "cache").fetch(wanted)
    assert server.requests == 3


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bytes])
async def test_the_digest_of_what_is_in_a_file_is_checked_where_the_feed_names_it(
    cache: ImageCache, server: Server, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    server.content = pack(CONTENT)
    inside = {"unpacked_sha256": hashlib.sha256(CONTENT).hexdigest()}
    wrong = {"unpacked_sha256": "0" * 64}
    with pytest.raises(OperationFailed, match=r"what is in .* its feed says 000") as caught:
        await cache.fetch(image(f"{server.url}/image?token=SECRET", server.content, wrong))
    assert caught.value.failure.code == FailureCode.IMAGE_VERIFICATION
    assert "SECRET" not in caught.value.failure.model_dump_json()
    assert left(tmp_path) == []
    assert await cache.fetch(image(f"{server.url}/image", server.content, inside))


async def test_a_host_without_room_says_so_before_it_asks_the_server(
    server: Server, tmp_path: Path
) -> None:
    cache = cache_in(tmp_path / "cache")
    cache._options = dataclasses.replace(cache._options, max_image_bytes=2**62)
    huge = image(f"{server.url}/image", more={"size": 2**61})
    with pytest.raises(OperationFailed) as caught:
        await cache.fetch(huge)
    assert caught.value.failure.code == FailureCode.DISK_FULL
    assert f"needs {2**61} bytes" in caught.value.failure.message
    assert (server.requests, left(tmp_path)) == (0, [])


def test_two_instances_do_not_count_on_the_same_bytes(tmp_path: Path) -> None:
    room = Room()
    most = free_bytes(tmp_path) * 2 // 3
    room.promise("one", tmp_path, most, "an OS disk")
    room.promise("one", tmp_path, most, "an OS disk")  # a step that is done again
    with pytest.raises(OperationFailed, match=f"of which {most} are promised") as caught:
        room.promise("two", tmp_path, most, "an OS disk")
    assert caught.value.failure.code == FailureCode.DISK_FULL
    room.release("one")
    room.promise("two", tmp_path, most, "an OS disk")


async def test_what_a_killed_agent_left_is_removed_or_gone_on_with(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    old, new = (f".part-test-{digit * 64}" for digit in "ab")
    gone = f".gone-test-{'c' * 64}-01234567"
    for name in (gone, f".gone-part-test-{'d' * 64}-01234567", old, new):
        (cache / name / "content").mkdir(parents=True)
        (cache / name / "content").chmod(0o500)
    os.utime(cache / old, (1, 1))
    cache_in(cache)
    assert left(tmp_path) == [new]


async def test_what_is_not_the_caches_own_is_never_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    folders = ("precious", ".gone-fishing", ".part-time", f"test-{'a' * 63}", "test")
    for name in folders:
        (cache / name).mkdir(parents=True)
        (cache / name / "db").write_bytes(bytes(1_000_000))
        os.utime(cache / name, (1, 1))
    (cache / "README").write_text("whose folder this is")
    (cache / f"test-{'e' * 64}").write_text("a file by the name of an image")
    (cache / f"test-{'f' * 64}").symlink_to(cache / "precious")
    before = left(tmp_path)
    wanted = await fetch_bytes(cache_in(cache, limit=0), tmp_path, 1, at=10)
    assert left(tmp_path) == sorted([*before, f"test-{wanted.sha256}"])
    assert all((cache / name / "db").stat().st_size == 1_000_000 for name in folders)


CHILD = """
import asyncio, sys
from pathlib import Path
from instance_agent.images import CacheOptions, ImageCache
from instance_agent.shelf import Shelf
from rollcall_contracts.model import Image

folder, agent, limit, *images = sys.argv[1:]

async def keep(file, folder):
    file.rename(folder / "file")

async def main():
    options = CacheOptions(
        max_image_bytes=10**9, max_unpacked_bytes=10**9, limit=int(limit), patience=60
    )
    for number, each in enumerate(images):
        image = Image.model_validate_json(each)
        cache = ImageCache(Shelf(Path(folder), driver="test", agent=agent), keep, options)
        cache.use(image, "instance", str(number))
        place = await cache.fetch(image)
        assert (place / "file").stat().st_size == image.size
        cache.keep_uses("instance", frozenset())
    print("ok")

asyncio.run(main())
"""


async def run_child(
    folder: Path, agent: str, *wanted: Image, limit: int = 10**9
) -> asyncio.subprocess.Process:
    images = [each.model_dump_json() for each in wanted]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(folder), agent, str(limit), *images),
        stdout=asyncio.subprocess.PIPE,
    )


async def test_agents_that_share_a_cache_download_once(server: Server, tmp_path: Path) -> None:
    wanted = image(f"{server.url}/image")
    agents = [await run_child(tmp_path / "cache", name, wanted) for name in "abc"]
    told = await asyncio.gather(*(agent.communicate() for agent in agents))
    assert [output.split()[-1] for output, _ in told] == [b"ok"] * 3
    assert server.requests == 1
    assert left(tmp_path) == [f"test-{wanted.sha256}"]


async def test_agents_that_evict_each_others_images_never_lose_one_in_use(tmp_path: Path) -> None:
    images = []
    for number in range(4):
        content = bytes([number]) * 100_000
        (tmp_path / str(number)).write_bytes(content)
        images.append(image(f"file://{tmp_path}/{number}", content))
    agents = []
    for name, offset in (("a", 0), ("b", 1), ("c", 2)):
        order = (images[offset:] + images[:offset]) * 8
        agents.append(await run_child(tmp_path / "cache", name, *order, limit=150_000))
    told = await asyncio.gather(*(agent.communicate() for agent in agents))
    assert [output.split()[-1] for output, _ in told] == [b"ok"] * 3
    assert not [name for name in left(tmp_path) if name.startswith(".")]


def test_an_instance_that_goes_while_uses_are_read_takes_no_other_use_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, staying = (Shelf(tmp_path, driver="test", agent=agent) for agent in "ab")
    going.use("test-1", "instance", "1")
    staying.use("test-2", "instance", "1")
    listdir = os.listdir

    def listed(folder: Path) -> list[str]:
        found = listdir(folder)
        if folder.name == "a":
            going.keep_uses("instance", frozenset())
        return found

    monkeypatch.setattr(os, "listdir", listed)
    assert going.used() == {"test-2"}


async def test_the_death_of_who_downloads_lets_the_next_one_go_on(
    server: Server, tmp_path: Path
) -> None:
    server.hang_after = 200_000
    wanted = image(f"{server.url}/image")
    first = await run_child(tmp_path / "cache", "a", wanted)
    part = tmp_path / "cache" / f".part-test-{wanted.sha256}" / "file"
    await eventually(lambda: part.exists() and part.stat().st_size == 200_000, timeout=60)
    waiting = asyncio.create_task(cache_in(tmp_path / "cache", agent="b").fetch(wanted))
    with capture_logs() as logs:
        await eventually(lambda: any(line["event"] == "image_awaited" for line in logs))
    server.hang_after = None
    first.kill()
    await first.communicate()
    assert ((await waiting) / "file").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=200000-"]
