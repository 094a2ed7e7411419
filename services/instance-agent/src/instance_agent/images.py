"""The host's image cache: each image is fetched, verified and unpacked once, whoever asks."""

import asyncio
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from rollcall_contracts.model import FailureCode, Image

from instance_agent.download import DownloadFailed, TooLarge, download, public_url
from instance_agent.failures import OperationFailed
from instance_agent.metrics import image_failures

log = structlog.get_logger()

Import = Callable[[Path, Path], Awaitable[None]]


class ImageCache:
    """Verified images by their SHA-256; the least recently used ones go when there are too many."""

    def __init__(
        self, folder: Path, import_image: Import, *, max_bytes: int, timeout: float, keep: int
    ) -> None:
        self._folder = folder
        self._import = import_image
        self._max_bytes = max_bytes
        self._timeout = timeout
        self._keep = keep
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._in_use: defaultdict[str, int] = defaultdict(int)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".part-*"):  # of a fetch that was killed
            shutil.rmtree(leftover)

    @contextmanager
    def hold(self, image: Image) -> Iterator[None]:
        """Keep an image from eviction meanwhile."""
        self._in_use[image.sha256] += 1
        try:
            yield
        finally:
            self._in_use[image.sha256] -= 1

    async def fetch(self, image: Image) -> Path:
        """Return the folder that the driver made from the image.

        Raises OperationFailed: ImageUnavailable, ImageVerificationFailed, ImageTooLarge,
        DriverOperationFailed where this host cannot keep it, or what the driver says of the
        content (ImageUnsafe). Each failure is logged and counted by its code.
        """
        try:
            return await self._cached(image)
        except OperationFailed as error:
            _tell(image, error)
            raise
        except OSError as error:  # such as a full disk
            failed = OperationFailed(
                FailureCode.DRIVER, f"the image cannot be kept: {error}", public_url(image.url)
            )
            _tell(image, failed)
            raise failed from error

    async def _cached(self, image: Image) -> Path:
        place = self._folder / image.sha256
        async with self._locks[image.sha256]:
            if not place.is_dir():
                await self._fetch(image, place)
                log.info("image_fetched", version=image.version, sha256=image.sha256)
            os.utime(place)
            for doomed in self._evict():
                await asyncio.to_thread(shutil.rmtree, doomed)
        return place

    async def _fetch(self, image: Image, place: Path) -> None:
        work = Path(tempfile.mkdtemp(prefix=".part-", dir=self._folder))
        try:
            file = work / "file"
            await self._download(image, file)
            content = work / "content"
            content.mkdir()
            await self._import(file, content)
            content.rename(place)
        finally:
            await asyncio.to_thread(shutil.rmtree, work)

    async def _download(self, image: Image, file: Path) -> None:
        where = public_url(image.url)
        if image.size > self._max_bytes:
            raise OperationFailed(
                FailureCode.IMAGE_TOO_LARGE,
                f"{where} has {image.size} bytes, the limit is {self._max_bytes} "
                "(ROLLCALL_MAX_IMAGE_BYTES)",
                where,
            )
        free = shutil.disk_usage(self._folder).free
        if image.size > free:
            raise OperationFailed(
                FailureCode.DRIVER,
                f"{where} has {image.size} bytes, and this host's cache has room for {free}",
                where,
            )
        try:
            digest, size = await download(image.url, file, limit=image.size, patience=self._timeout)
        except TooLarge as error:
            raise OperationFailed(
                FailureCode.IMAGE_VERIFICATION,
                f"{where} has more bytes than the {image.size} of its feed",
                where,
            ) from error
        except DownloadFailed as error:
            raise OperationFailed(FailureCode.IMAGE_UNAVAILABLE, str(error), where) from error
        if (digest, size) != (image.sha256, image.size):
            raise OperationFailed(
                FailureCode.IMAGE_VERIFICATION,
                f"{where} has {size} bytes and sha256 {digest}, its feed says {image.size} and "
                f"{image.sha256}",
                where,
            )

    def _evict(self) -> list[Path]:
        """Set aside what is too many; without a pause, so that nobody takes one meanwhile."""
        cached = sorted(
            (entry for entry in self._folder.iterdir() if not entry.name.startswith(".")),
            key=lambda entry: entry.stat().st_mtime,
            reverse=True,
        )
        doomed = []
        for entry in cached[self._keep :]:
            if not self._in_use[entry.name] and not self._locks[entry.name].locked():
                doomed.append(entry.rename(self._folder / f".part-{entry.name}"))
                log.info("image_evicted", sha256=entry.name)
        return doomed


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
