"""Run by test_images_kill.py: an agent's cache, killed before each change of a file in turn.

`killed_cache.py FOLDER`. For each point: a child fetches images into a cache that has room for
some of them, and kills itself (SIGKILL) as it is about to make the POINT-th change below the
cache; a second child fetches them again. What is found then is printed, one line of JSON.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from instance_agent.images import CacheOptions, ImageCache
from instance_agent.shelf import Shelf
from rollcall_contracts.model import Image

NEEDED, OTHERS = 0, (1, 2, 3)
CHANGES = {
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.utime",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
}


def kill_at(point: int, folder: Path) -> None:
    """End this process before the `point`-th change."""
    seen = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        writes = event == "open" and (arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not writes and event not in CHANGES:
            return
        place = os.fsdecode(arguments[0])
        if str(folder) not in place and os.path.isabs(place):
            return  # a name alone is one in a folder that is being removed
        seen += 1
        if seen == point:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


async def unpack(file: Path, folder: Path) -> None:
    """Make what a driver makes: more than one file, so that half of it is no whole."""
    content = file.read_bytes()  # noqa: ASYNC240 (there is nobody else to wait for it)
    (folder / "tree").mkdir()
    (folder / "tree" / "first").write_bytes(content[:50_000])
    (folder / "second").write_bytes(content[50_000:])


def image(base: Path, number: int) -> Image:
    content = bytes([number]) * 100_000
    file = base / f"image-{number}"
    file.write_bytes(content)
    return Image(
        publisher="P",
        offer="O",
        sku="S",
        version=str(number),
        url=f"file://{file}",
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )


def open_cache(folder: Path) -> ImageCache:
    shelf = Shelf(folder, driver="test", agent="a")
    options = CacheOptions(
        max_image_bytes=10**6, max_unpacked_bytes=10**6, limit=260_000, patience=10
    )
    return ImageCache(shelf, unpack, options)


async def fetch_all(base: Path, folder: Path, images: list[Image]) -> list[bool]:
    """Fetch each image, the first one for an instance; says of each whether it is right."""
    cache = open_cache(folder)
    cache.keep_all_uses({"instance": frozenset({"000001-1"})})
    cache.use(images[NEEDED], "instance", "000001-1")
    right = []
    for wanted in images:
        place = await cache.fetch(wanted)
        content = (place / "tree" / "first").read_bytes() + (place / "second").read_bytes()
        right.append(hashlib.sha256(content).hexdigest() == wanted.sha256)
    return right


def in_child(run: Any) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    base = Path(sys.argv[1])
    images = [image(base, number) for number in (NEEDED, *OTHERS)]

    def first(folder: Path, point: int) -> None:
        kill_at(point, folder)
        asyncio.run(fetch_all(base, folder, images))

    def again(folder: Path) -> None:
        needed = f"test-{images[NEEDED].sha256}"
        before = (folder / needed).is_dir()
        inode = (folder / needed / "content" / "second").stat().st_ino if before else 0
        right = asyncio.run(fetch_all(base, folder, images))
        kept = (folder / needed / "content" / "second").stat().st_ino == inode
        found = {
            "right": right,
            "needed_kept": kept or not before,
            "left": sorted(each.name for each in folder.iterdir()),
            "bytes": sum(
                path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()
            ),
            "keys": [f"test-{each.sha256}" for each in images],
        }
        sys.stdout.write(json.dumps(found) + "\n")

    point = 1
    while True:
        folder = base / f"cache-{point}"
        killed = in_child(lambda folder=folder, point=point: first(folder, point))
        if killed == 0:
            return  # there is no such point: all were tried
        assert killed == -signal.SIGKILL, killed
        assert in_child(lambda folder=folder: again(folder)) == 0
        point += 1


if __name__ == "__main__":
    main()
