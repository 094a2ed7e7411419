"""The host's image cache: each image is fetched, verified and unpacked once, whoever asks.

Once per host: agents that share the folder wait for each other. See docs/images.md.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog
from rollcall_contracts.model import FailureCode, Image

from instance_agent.decompress import unpacked_sha256
from instance_agent.domain.cache import (
    bytes_needed,
    fits,
    limit_for,
    to_evict,
    total,
)
from instance_agent.domain.qemu import compression
from instance_agent.download import (
    Downloaded,
    DownloadFailed,
    NotWritten,
    TooLarge,
    download,
    public_url,
)
from instance_agent.failures import OperationFailed
from instance_agent.metrics import cache_bytes, evictions, image_failures
from instance_agent.shelf import Shelf, remove
from instance_agent.space import free_bytes, full, is_full

log = structlog.get_logger()

Import = Callable[[Path, Path], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How the cache behaves; durations are seconds, sizes are bytes."""

    max_image_bytes: int  # of one image as its feed has it
    max_unpacked_bytes: int
    limit: int  # of all cached images; what is needed stays all the same
    patience: float  # for a download, without a byte
    tries: int = 5  # of a download, without much progress
    pause: float = 0.5  # before the second try; twice as long before each one after it
    full_check: bool = False  # read an image's content once more at its first use after a start


class ImageCache:
    """Verified images by their SHA-256; the least recently used go when they are too large."""

    def __init__(self, shelf: Shelf, import_image: Import, options: CacheOptions) -> None:
        self._shelf = shelf
        self._import = import_image
        self._options = options
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._checked: set[str] = set()  # found sound since this agent started

    def use(self, image: Image, instance: str, disk: str) -> None:
        """Keep an image from eviction while an instance has the OS disk that is made from it."""
        self._shelf.use(self._shelf.key(image.sha256), instance, disk)

    def keep_uses(self, instance: str, disks: frozenset[str]) -> None:
        """Say which OS disks an instance still has."""
        self._shelf.keep_uses(instance, disks)

    def keep_all_uses(self, kept: Mapping[str, frozenset[str]]) -> None:
        """Say which OS disks there still are, of each instance: an agent may have been killed."""
        self._shelf.keep_all_uses(kept)

    async def fetch(self, image: Image) -> Path:
        """Return the folder that the driver made from the image.

        Raises OperationFailed: ImageUnavailable, ImageVerificationFailed, ImageTooLarge,
        HostDiskFull, DriverOperationFailed where this host cannot keep it for another reason, or
        what the driver says of the content (ImageUnsafe). Each failure is logged and counted by
        its code.
        """
        try:
            return await self._cached(image)
        except OperationFailed as error:
            _tell(image, error)
            raise
        except OSError as error:
            failed = self._failure(error, image)
            _tell(image, failed)
            raise failed from error

    def _failure(self, error: Exception, image: Image) -> OperationFailed:
        """Return what a fetch fails with, with the numbers as they are now."""
        where = public_url(image.url)
        folder = self._shelf.folder
        left = f"{folder} has {free_bytes(folder)} bytes left"
        if isinstance(error, OperationFailed):
            return error
        if isinstance(error, NotWritten) and error.full:
            return full(f"{error}; {left}, the image has {image.size}: make room", where)
        if isinstance(error, NotWritten):
            return OperationFailed(FailureCode.DRIVER, str(error), where)
        if isinstance(error, DownloadFailed):
            return OperationFailed(FailureCode.IMAGE_UNAVAILABLE, str(error), where)
        if is_full(error):
            return full(
                f"the image, {image.size} bytes before it is unpacked, cannot be kept: {error}; "
                f"{left}: make room",
                where,
            )
        return OperationFailed(FailureCode.DRIVER, f"the image cannot be kept: {error}", where)

    async def _cached(self, image: Image) -> Path:
        key = self._shelf.key(image.sha256)
        async with self._locks[key], self._shelf.working_on(key):
            if not await self._is_sound(key):
                await self._fetch(image, key)
                await self._make_room(key, image, 0)
            self._shelf.touch(key)
        return self._shelf.content(key)

    async def _is_sound(self, key: str) -> bool:
        """Say whether the image is here; one that was changed is thrown away."""
        if not self._shelf.has(key):
            self._checked.discard(key)
            return False
        if key in self._checked:
            return True
        full_check = self._options.full_check
        why = await asyncio.to_thread(self._shelf.check, key, full=full_check)
        if why:
            log.warning("image_damaged", key=key, why=why)
            await asyncio.to_thread(remove, self._shelf.set_aside(key))
            return False
        self._checked.add(key)
        return True

    async def _fetch(self, image: Image, key: str) -> None:
        where = public_url(image.url)
        if image.size > self._options.max_image_bytes:
            raise OperationFailed(
                FailureCode.IMAGE_TOO_LARGE,
                f"{where} has {image.size} bytes, the limit is {self._options.max_image_bytes} "
                "(ROLLCALL_MAX_IMAGE_BYTES)",
                where,
            )
        part = await asyncio.to_thread(self._shelf.begin, key)
        file, content = part / "file", part / "content"
        try:
            have = file.stat().st_size if file.exists() else 0
            await self._make_room(key, image, bytes_needed(image.url, image.size, have))
            await self._download(image, file)
            if image.unpacked_sha256 is not None:
                await asyncio.to_thread(self._check_unpacked, image, file)
            content.mkdir()
            await self._import(file, content)
            facts = await asyncio.to_thread(self._shelf.finish, key, where)
        except (DownloadFailed, OperationFailed, OSError) as error:
            failed = self._failure(error, image)
            # What came of a download that was only cut off is gone on with the next time.
            if failed.failure.code != FailureCode.IMAGE_UNAVAILABLE:
                await asyncio.to_thread(remove, self._shelf.set_aside(part.name))
            if failed is error:
                raise
            raise failed from error
        self._checked.add(key)
        log.info(
            "image_fetched",
            version=image.version,
            sha256=image.sha256,
            bytes=facts.size,
            digest=facts.digest,
        )

    async def _download(self, image: Image, file: Path) -> None:
        """Fetch the file, and check it. Raises DownloadFailed, or OperationFailed."""
        where = public_url(image.url)
        come = await self._try_download(image, file)
        if come.in_pieces and come.sha256 != image.sha256:  # perhaps of two different files
            log.info("download_begun_anew", version=image.version, sha256=image.sha256)
            await asyncio.to_thread(file.unlink)
            come = await self._try_download(image, file)
        if (come.sha256, come.size) != (image.sha256, image.size):
            raise OperationFailed(
                FailureCode.IMAGE_VERIFICATION,
                f"{where} has {come.size} bytes and sha256 {come.sha256}, its feed says "
                f"{image.size} and {image.sha256}",
                where,
            )

    def _check_unpacked(self, image: Image, file: Path) -> None:
        """Compare what is in the file with what its feed says. Raises OperationFailed."""
        with file.open("rb") as opened:
            packed = compression(opened.read(8))
        limit = self._options.max_unpacked_bytes
        found = unpacked_sha256(file, packed, limit) if packed else image.sha256
        if found != image.unpacked_sha256:
            where = public_url(image.url)
            raise OperationFailed(
                FailureCode.IMAGE_VERIFICATION,
                f"what is in {where} has sha256 {found}, its feed says {image.unpacked_sha256}",
                where,
            )

    async def _try_download(self, image: Image, file: Path) -> Downloaded:
        try:
            return await download(
                image.url,
                file,
                limit=image.size,
                size=image.size,
                patience=self._options.patience,
                resume=True,
                tries=self._options.tries,
                pause=self._options.pause,
            )
        except TooLarge as error:
            where = public_url(image.url)
            raise OperationFailed(
                FailureCode.IMAGE_VERIFICATION,
                f"{where} has more bytes than the {image.size} of its feed",
                where,
            ) from error

    async def _make_room(self, key: str, image: Image, incoming: int) -> None:
        """Evict what is too much, with `incoming` bytes to come. Raises OperationFailed."""
        folder = self._shelf.folder
        needed = {key}
        while True:
            cached = await asyncio.to_thread(self._shelf.listing, frozenset(needed))
            free = free_bytes(folder)
            if not fits(cached, free=free, incoming=incoming):
                where = public_url(image.url)
                raise full(
                    f"{where} needs {incoming} bytes in {folder}, which has {free} left, and "
                    f"{total(each for each in cached if not each.needed)} in images that no "
                    "instance needs: make room on this host",
                    where,
                )
            doomed = to_evict(
                cached,
                limit_for(cached, limit=self._options.limit, free=free, incoming=incoming),
            )
            cache_bytes.set(total(cached))
            if not doomed:
                break
            if not await asyncio.to_thread(self._evict, doomed[0]):
                needed.add(doomed[0].removeprefix(".part-"))
        if total(cached) + incoming > self._options.limit:
            log.warning(
                "image_cache_above_limit",
                bytes=total(cached),
                incoming=incoming,
                limit=self._options.limit,
            )

    def _evict(self, name: str) -> bool:
        """Remove an image, unless somebody works on it or has begun to use it."""
        key = name.removeprefix(".part-")
        with self._shelf.try_work_on(key) as mine:
            if not mine or key in self._shelf.used():
                return False
            if not self._shelf.has(name):
                return True  # another agent has just removed it
            doomed = self._shelf.set_aside(name)
        remove(doomed)
        evictions.inc()
        log.info("image_evicted", key=name)
        return True


def _tell(image: Image, error: OperationFailed) -> None:
    """Log and count a failure here, where both a fetch ahead and an instance's own come by."""
    failure = error.failure
    image_failures.labels(failure.code).inc()
    log.warning(
        "image_refused",
        code=failure.code,
        image="/".join((image.publisher, image.offer, image.sku, image.version)),
        message=failure.message,
    )
