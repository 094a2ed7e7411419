"""Disk images: from a feed's file to an immutable base, and from that to an instance's OS disk."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from rollcall_contracts.model import FailureCode

from instance_agent.archive import unsafe
from instance_agent.decompress import decompress
from instance_agent.domain.data_disks import HEAD, DataDisk, identify
from instance_agent.domain.qemu import compression, image_format
from instance_agent.drivers.files import sync
from instance_agent.drivers.qemu.programs import call
from instance_agent.failures import OperationFailed
from instance_agent.space import need

BASE, OVERLAY, SEED = "base.qcow2", "os.qcow2", "seed.iso"
_PIN = "base.json"  # what the base was when it was made
_CHUNK = 1024 * 1024


async def make_base(file: Path, folder: Path, *, max_bytes: int) -> None:
    """Make the base of OS disks from a verified file: qcow2 or raw, also as .gz, .xz or .zst.

    Raises OperationFailed: ImageUnsafe for what is no whole disk image, ImageTooLarge above
    `max_bytes`, HostDiskFull where the host has no room.
    """
    plain = folder / "plain"
    packed = compression(_head(file, 8))
    if packed:
        await _in_thread(lambda: decompress(file, plain, packed, max_bytes))
    else:
        plain = file
    kind = _format(plain)
    size = await _virtual_size(plain, kind)
    if size > max_bytes:
        raise OperationFailed(
            FailureCode.IMAGE_TOO_LARGE,
            f"the image is a disk of {size} bytes, the limit is {max_bytes} "
            "(ROLLCALL_MAX_UNPACKED_BYTES)",
        )
    base = folder / BASE
    if kind == "qcow2":
        plain.rename(base)
    else:
        measured = json.loads(
            await call("qemu-img", "measure", "-f", kind, "-O", "qcow2", *_JSON, str(plain))
        )
        need(folder, measured["required"], "the image as qcow2")
        await call("qemu-img", "convert", "-f", kind, "-O", "qcow2", str(plain), str(base))
        plain.unlink()
    base.chmod(0o444)  # disks stand on it; a version never changes
    await _in_thread(lambda: _pin(folder))


_JSON = ("--output", "json")


def _format(file: Path) -> str:
    try:
        return image_format(_head(file, 512))
    except ValueError as error:
        raise unsafe(str(error)) from error


async def _virtual_size(file: Path, kind: str) -> int:
    try:
        facts = json.loads(await call("qemu-img", "info", "-f", kind, *_JSON, str(file)))
    except OperationFailed as error:
        raise unsafe(str(error)) from error
    return int(facts["virtual-size"])


def _head(file: Path, count: int) -> bytes:
    with file.open("rb") as opened:
        return opened.read(count)


async def _in_thread(work: Callable[[], None]) -> None:
    """Do work on files in a thread; when cancelled, not before the thread is done with them."""
    future = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise


def _pin(folder: Path) -> None:
    base = folder / BASE
    facts = {"sha256": _digest(base), "size": base.stat().st_size}
    (folder / _PIN).write_text(json.dumps(facts | {"changed": base.stat().st_mtime_ns}))


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def base_digest(folder: Path) -> str:
    """Return the digest that the base had when it was made."""
    return str(json.loads((folder / _PIN).read_text())["sha256"])


def check_base(folder: Path) -> None:
    """Raise OperationFailed where the base is not what it was when it was made.

    The digest is asked only where its size or time has changed: bases have gigabytes.
    """
    pinned = json.loads((folder / _PIN).read_text())
    facts = (folder / BASE).stat()
    if (facts.st_size, facts.st_mtime_ns) == (pinned["size"], pinned["changed"]):
        return
    if _digest(folder / BASE) != pinned["sha256"]:
        raise OperationFailed(
            FailureCode.IMAGE_VERIFICATION,
            f"{folder / BASE} was changed after it was verified: delete {folder} to have it "
            "fetched anew",
        )


async def make_overlay(image: Path, disk: Path, size: int) -> None:
    """Put an OS disk into the folder `disk`: what changes, on top of the image's base.

    The base is a second name of the cached one, so the cache may drop its own at any time.
    """
    os.link(image / BASE, disk / BASE)
    wanted = (str(size),) if size else ()
    await call(
        *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", BASE, OVERLAY, *wanted),
        folder=disk,
    )


async def name_disk(part: Path, place: Path) -> None:
    """Give an OS disk its name, once its files, which are small, outlive a loss of power."""

    def work() -> None:
        for each in (part / OVERLAY, part / SEED, part):
            sync(each)
        part.rename(place)
        sync(place.parent)

    await _in_thread(work)


def make_data_disk(file: Path, size: int) -> None:
    """Make an empty data disk; one that is there stays as it is (M06)."""
    if file.exists():
        return
    fresh = file.with_name(f".{file.name}.new")
    with fresh.open("wb") as opened:
        opened.truncate(size)
    fresh.rename(file)


def find_data_disk(file: Path) -> DataDisk:
    """Return what tells a data disk from others; what the guest wrote is seen while it runs too."""
    facts = file.stat()
    return DataDisk(
        place=f"inode {facts.st_dev}:{facts.st_ino}", content=identify(_head(file, HEAD))
    )
