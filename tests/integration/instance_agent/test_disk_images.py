"""Disk images as feeds have them, made into bases of OS disks with the real programs."""

import asyncio
import gzip
import json
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from instance_agent.drivers.qemu import disks
from instance_agent.failures import OperationFailed
from instance_agent.space import need
from rollcall_contracts.model import FailureCode
from rollcall_testing.tiny_machine import build_tiny_machine

Pack = Callable[[bytes], bytes]
LIMIT = 8 * 1024**2

pytestmark = pytest.mark.usefixtures("qemu_packages")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return build_tiny_machine(tmp_path / "disk.raw", "1.0.0")


def as_qcow2(raw: Path) -> bytes:
    target = raw.with_suffix(".qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, target], check=True)
    return target.read_bytes()


def zst(content: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=content, capture_output=True, check=True).stdout


def base_of(content: bytes, folder: Path, limit: int = LIMIT) -> Path:
    file, place = folder / "file", folder / "content"
    file.write_bytes(content)
    place.mkdir()
    asyncio.run(disks.make_base(file, place, max_bytes=limit))
    assert sorted(each.name for each in place.iterdir()) == ["base.json", "base.qcow2"]
    return place


@pytest.mark.parametrize("packed", ["", "gz", "xz", "zst"])
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_each_form_becomes_the_same_disk(raw: Path, tmp_path: Path, kind: str, packed: str) -> None:
    content = raw.read_bytes() if kind == "raw" else as_qcow2(raw)
    packs: dict[str, Pack] = {"": bytes, "gz": gzip.compress, "xz": lzma.compress, "zst": zst}
    place = base_of(packs[packed](content), tmp_path)
    assert (place / "base.qcow2").stat().st_mode & 0o777 == 0o444
    subprocess.run(
        ["qemu-img", "compare", "-f", "raw", "-F", "qcow2", raw, place / "base.qcow2"], check=True
    )


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zst])
def test_a_damaged_file_is_refused(raw: Path, tmp_path: Path, pack: Pack) -> None:
    with pytest.raises(OperationFailed) as caught:
        base_of(pack(raw.read_bytes())[:-20], tmp_path)
    assert caught.value.failure.code == FailureCode.IMAGE_UNSAFE


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress, zst])
def test_an_image_above_the_limit_is_refused(raw: Path, tmp_path: Path, pack: Pack) -> None:
    with pytest.raises(OperationFailed) as caught:
        base_of(pack(raw.read_bytes()), tmp_path, limit=100_000)
    assert caught.value.failure.code == FailureCode.IMAGE_TOO_LARGE


def test_an_image_that_names_a_file_of_the_host_is_refused(tmp_path: Path) -> None:
    evil = tmp_path / "evil.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", evil, "1M"],
        check=True,
    )
    with pytest.raises(OperationFailed, match="backing file") as caught:
        base_of(evil.read_bytes(), tmp_path)
    assert caught.value.failure.code == FailureCode.IMAGE_UNSAFE


def test_a_base_that_somebody_wrote_to_is_found_out(raw: Path, tmp_path: Path) -> None:
    place = base_of(raw.read_bytes(), tmp_path)
    disks.check_base(place)
    base = place / "base.qcow2"
    base.touch()
    disks.check_base(place)  # another time, the same content
    base.chmod(0o644)
    with base.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    with pytest.raises(OperationFailed, match="was changed after it was verified"):
        disks.check_base(place)


def test_an_os_disk_outlives_the_image_in_the_cache(raw: Path, tmp_path: Path) -> None:
    place = base_of(raw.read_bytes(), tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    asyncio.run(disks.make_overlay(place, disk, 2 * 1024**2))
    for file in place.iterdir():
        file.unlink()
    told = subprocess.run(
        ["qemu-img", "info", "--output=json", "os.qcow2"], cwd=disk, capture_output=True, check=True
    )
    assert json.loads(told.stdout)["virtual-size"] == 2 * 1024**2
    subprocess.run(["qemu-img", "check", "-q", "os.qcow2"], cwd=disk, check=True)


def test_a_host_without_room_says_so_before_anything_stops(tmp_path: Path) -> None:
    need(tmp_path, 1, "a disk")
    with pytest.raises(OperationFailed, match=r"a disk needs .* make room on this host"):
        need(tmp_path, 2**60, "a disk")
