"""Decompression of .gz, .xz and .zst files that nobody vouches for: bounded in bytes and memory."""

import gzip
import hashlib
import lzma
import os
import subprocess
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rollcall_contracts.model import FailureCode

from instance_agent.archive import unsafe
from instance_agent.failures import OperationFailed
from instance_agent.space import leave_room

_CHUNK = 1024 * 1024
# xz -9 asks for 65 MiB; a file may ask for 4 GiB, which the host has better uses for. zstd's own
# limit, unless it is told otherwise, is 128 MiB.
_MEMORY = 256 * 1024 * 1024

Read = Callable[[], bytes]


def unpacked_sha256(file: Path, packed: str, max_bytes: int) -> str:
    """Return the SHA-256 of what a compressed file holds; raises as `decompress` does."""
    digest = hashlib.sha256()
    for chunk in _chunks(file, packed, max_bytes):
        digest.update(chunk)
    return digest.hexdigest()


def decompress(file: Path, plain: Path, packed: str, max_bytes: int) -> None:
    """Write what a compressed file holds to `plain`, with holes for zeros.

    `packed` is gz, xz or zst. Raises OperationFailed: ImageUnsafe for a damaged file, or one that
    asks for absurd memory; ImageTooLarge above `max_bytes`; HostDiskFull before the disk is full;
    DriverOperationFailed without `zstd`.
    """
    with plain.open("wb") as target, closing(_chunks(file, packed, max_bytes)) as chunks:
        for chunk in chunks:
            if chunk.count(0) == len(chunk):
                target.seek(len(chunk), os.SEEK_CUR)  # raw images are mostly holes
            else:
                leave_room(plain.parent, len(chunk), "the unpacked image")
                target.write(chunk)
        target.truncate(target.tell())


def _chunks(file: Path, packed: str, max_bytes: int) -> Generator[bytes, None, None]:
    size = 0
    try:
        with _READERS[packed](file) as read:
            while chunk := read():
                size += len(chunk)
                if size > max_bytes:
                    raise OperationFailed(
                        FailureCode.IMAGE_TOO_LARGE,
                        f"the image is larger than {max_bytes} bytes unpacked "
                        "(ROLLCALL_MAX_UNPACKED_BYTES)",
                    )
                yield chunk
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise unsafe(f"it is not a sound .{packed} file: {error}") from error


@contextmanager
def _gz(file: Path) -> Iterator[Read]:
    with gzip.open(file) as opened:
        yield lambda: opened.read(_CHUNK)


@contextmanager
def _xz(file: Path) -> Iterator[Read]:
    with file.open("rb") as opened:
        chunks = _xz_chunks(lambda: opened.read(_CHUNK))
        yield lambda: next(chunks, b"")


def _xz_chunks(read: Read) -> Iterator[bytes]:
    """Yield what an .xz file holds: one stream, or several with nothing but padding between."""
    unused = b""
    while True:
        unused = unused.lstrip(b"\0") or read().lstrip(b"\0")
        if not unused:
            return
        stream = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY)
        more = unused
        while not stream.eof:
            if stream.needs_input and not more and not (more := read()):
                raise EOFError("it ends in the middle")
            chunk = stream.decompress(more, max_length=_CHUNK)
            more = b""
            if chunk:
                yield chunk
        unused = stream.unused_data


@contextmanager
def _zst(file: Path) -> Iterator[Read]:
    try:
        process = subprocess.Popen(
            ["zstd", "-dcq", "--", str(file)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise OperationFailed(
            FailureCode.DRIVER, "zstd is not installed on this host: apt-get install zstd"
        ) from error
    with process:
        output = process.stdout
        if output is None:
            raise ValueError("a pipe was asked for")
        try:
            yield lambda: output.read(_CHUNK)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise EOFError("zstd found it damaged")


_READERS = {"gz": _gz, "xz": _xz, "zst": _zst}
