"""Compressed files as an attacker with a feed would make them, and as honest tools make them."""

import asyncio
import gzip
import io
import lzma
import os
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiodocker import Docker
from instance_agent.archive import unpack
from instance_agent.decompress import decompress
from instance_agent.drivers.docker.images import bring_in
from instance_agent.failures import OperationFailed
from instance_agent.space import free_bytes
from rollcall_contracts.model import FailureCode

CONTENT = bytes(range(256)) * 10_000
LIMIT = 10 * 1024**2

pytestmark = pytest.mark.usefixtures("qemu_packages")  # zstd is one of them


def zst(content: bytes, *how: str) -> bytes:
    command = ["zstd", "-qc", *how]
    return subprocess.run(command, input=content, capture_output=True, check=True).stdout


def unpacked(content: bytes, packed: str, folder: Path, limit: int = LIMIT) -> bytes:
    file, plain = folder / "file", folder / "plain"
    file.write_bytes(content)
    decompress(file, plain, packed, limit)
    return plain.read_bytes()


def refused(content: bytes, packed: str, folder: Path) -> FailureCode:
    with pytest.raises(OperationFailed) as caught:
        unpacked(content, packed, folder)
    assert (folder / "plain").stat().st_size <= LIMIT
    return FailureCode(caught.value.failure.code)


@pytest.mark.parametrize(
    ("content", "packed"),
    [
        (gzip.compress(CONTENT), "gz"),
        (gzip.compress(CONTENT[:100]) + gzip.compress(CONTENT[100:]), "gz"),
        (lzma.compress(CONTENT), "xz"),
        (lzma.compress(CONTENT[:100]) + lzma.compress(CONTENT[100:]), "xz"),
        (lzma.compress(CONTENT[:100]) + bytes(8) + lzma.compress(CONTENT[100:]) + bytes(4), "xz"),
        (zst(CONTENT), "zst"),
        (zst(CONTENT[:100]) + zst(CONTENT[100:]), "zst"),
        (zst(CONTENT, "-19", "--no-check"), "zst"),
    ],
)
def test_what_honest_tools_make_is_unpacked(content: bytes, packed: str, tmp_path: Path) -> None:
    assert unpacked(content, packed, tmp_path) == CONTENT


@pytest.mark.parametrize(("packed", "pack"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_a_bomb_ends_at_the_limit(packed: str, pack: object, tmp_path: Path) -> None:
    assert callable(pack)
    assert refused(pack(bytes(20 * LIMIT)), packed, tmp_path) is FailureCode.IMAGE_TOO_LARGE


def test_a_bomb_of_zstd_ends_at_the_limit(tmp_path: Path) -> None:
    assert refused(zst(bytes(20 * LIMIT)), "zst", tmp_path) is FailureCode.IMAGE_TOO_LARGE


DISK = 40 * 1024**2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("to mount a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def into_a_file(image: Path, folder: Path) -> None:
    decompress(image, folder / "plain", "gz", 10 * DISK)


def into_a_folder(image: Path, folder: Path) -> None:
    unpack(image, folder, max_bytes=10 * DISK)


def into_an_engine(image: Path, folder: Path) -> None:
    async def bring() -> None:
        async with Docker(url="http://127.0.0.1:1") as client:
            await bring_in(client, image, folder, "web", 10 * DISK)

    asyncio.run(bring())


@pytest.mark.parametrize("unpack_it", [into_a_file, into_a_folder, into_an_engine])
def test_unpacking_ends_before_the_disk_is_full(
    unpack_it: Callable[[Path, Path], None], small_disk: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image.tar.gz"
    with tarfile.open(image, "w:gz", compresslevel=1) as tar:
        for number in range(2 * DISK // 1024**2):
            member = tarfile.TarInfo(f"file-{number}")
            member.size = 1024**2
            tar.addfile(member, io.BytesIO(CONTENT[: member.size]))
    with pytest.raises(OperationFailed, match="stay free: make room") as caught:
        unpack_it(image, small_disk)
    assert caught.value.failure.code == FailureCode.DISK_FULL
    assert DISK // 100 < free_bytes(small_disk) < DISK // 10


def test_holes_count_as_bytes_and_take_no_room(tmp_path: Path) -> None:
    content = bytes(LIMIT - 1) + b"!"
    assert unpacked(lzma.compress(content), "xz", tmp_path) == content
    assert (tmp_path / "plain").stat().st_blocks * 512 < 2 * 1024**2


def test_a_file_that_asks_for_the_hosts_memory_is_refused(tmp_path: Path) -> None:
    greedy = bytearray(lzma.compress(CONTENT))
    header, size = 12, (greedy[12] + 1) * 4  # the first block's (the .xz file format, 3.1)
    assert greedy[header + 2] == 0x21  # LZMA2; its dictionary's size follows
    greedy[header + 4] = 40  # 4 GiB
    crc = zlib.crc32(greedy[header : header + size - 4])
    greedy[header + size - 4 : header + size] = crc.to_bytes(4, "little")
    assert refused(bytes(greedy), "xz", tmp_path) is FailureCode.IMAGE_UNSAFE


def test_a_zstd_file_with_a_giant_window_is_refused(tmp_path: Path) -> None:
    giant = zst(CONTENT * 60, "--ultra", "--long=31", "-1", "--single-thread")
    window = giant[5]  # of a frame without a known size: its exponent is the upper five bits
    assert 10 + (window >> 3) == 31
    assert refused(giant, "zst", tmp_path) is FailureCode.IMAGE_UNSAFE


@pytest.mark.parametrize(
    ("content", "packed"),
    [
        (gzip.compress(CONTENT)[:-1], "gz"),
        (gzip.compress(CONTENT) + b"more", "gz"),
        (lzma.compress(CONTENT)[:-1], "xz"),
        (lzma.compress(CONTENT) + b"more", "xz"),
        (lzma.compress(CONTENT) + lzma.compress(CONTENT)[:30], "xz"),
        (zst(CONTENT)[:-1], "zst"),
        (zst(CONTENT) + b"more", "zst"),
        (b"\xfd7zXZ\0", "xz"),
    ],
)
def test_a_damaged_file_is_refused(content: bytes, packed: str, tmp_path: Path) -> None:
    assert refused(content, packed, tmp_path) is FailureCode.IMAGE_UNSAFE
