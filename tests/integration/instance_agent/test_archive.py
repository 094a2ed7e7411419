"""Archives that try to escape, to lie or to fill the disk: each is refused, nothing gets out."""

import asyncio
import gzip
import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from aiodocker import Docker
from instance_agent.archive import unpack
from instance_agent.drivers.docker import images
from instance_agent.failures import OperationFailed
from rollcall_contracts.model import FailureCode

Builder = Callable[[tarfile.TarFile], None]

LIMIT = 10_000_000


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **facts: object) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o755
    for key, value in facts.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    add(tar, name, type=kind, linkname=target)


def write(path: Path, build: Builder, *, init: bool = True) -> Path:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        if init:
            add(tar, "init", b"#!/bin/sh\n")
        build(tar)
    path.write_bytes(gzip.compress(raw.getvalue()))
    return path


def through_a_link(tar: tarfile.TarFile) -> None:
    link(tar, "way", "sub")
    add(tar, "way/file", b"x")


def over_a_link(tar: tarfile.TarFile) -> None:
    link(tar, "file", "init")
    add(tar, "file", b"x")


def chain_of_links(tar: tarfile.TarFile) -> None:
    add(tar, "a", type=tarfile.DIRTYPE)
    link(tar, "a/up", "..")
    link(tar, "out", "a/up/../secret")


def folder_over_link(tar: tarfile.TarFile) -> None:
    link(tar, "d", "a")
    add(tar, "d", type=tarfile.DIRTYPE)


def file_as_folder(tar: tarfile.TarFile) -> None:
    add(tar, "f", b"x")
    add(tar, "f/inside", b"x")


EVIL: dict[str, Builder] = {
    "absolute path": lambda tar: add(tar, "/etc/evil"),
    "parent path": lambda tar: add(tar, "../evil"),
    "parent path inside": lambda tar: add(tar, "a/../../evil"),
    "absolute link": lambda tar: link(tar, "l", "/etc/passwd"),
    "link to the parent": lambda tar: link(tar, "l", "../secret"),
    "link beyond the root from below": lambda tar: link(tar, "a/l", "../../secret"),
    "link that goes down and up again": chain_of_links,
    "empty link": lambda tar: link(tar, "l", ""),
    "hard link outside": lambda tar: link(tar, "l", "../secret", tarfile.LNKTYPE),
    "absolute hard link": lambda tar: link(tar, "l", "/etc/passwd", tarfile.LNKTYPE),
    "hard link to nothing": lambda tar: link(tar, "l", "later", tarfile.LNKTYPE),
    "file through a link": through_a_link,
    "file over a link": over_a_link,
    "folder over a link": folder_over_link,
    "file used as a folder": file_as_folder,
    "file twice": lambda tar: add(tar, "./init", b"other"),
    "character device": lambda tar: add(tar, "null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": lambda tar: add(tar, "disk", type=tarfile.BLKTYPE, devmajor=8),
    "pipe": lambda tar: add(tar, "pipe", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", EVIL)
def test_an_evil_archive_is_refused_and_nothing_gets_out(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "root"
    folder.mkdir(parents=True)
    (tmp_path / "in" / "secret").write_text("untouched")
    archive = write(tmp_path / "evil.tar.gz", EVIL[name])
    with pytest.raises(OperationFailed) as caught:
        unpack(archive, folder, max_bytes=LIMIT)
    assert caught.value.failure.code == FailureCode.IMAGE_UNSAFE, caught.value
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"root", "secret"}
    assert (tmp_path / "in" / "secret").read_text() == "untouched"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "evil.tar.gz"}


def bomb(tar: tarfile.TarFile) -> None:
    add(tar, "zeros", b"\0" * (LIMIT + 1))


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    archive = write(tmp_path / "bomb.tar.gz", bomb)
    assert archive.stat().st_size < 100_000
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(OperationFailed) as caught:
        unpack(archive, folder, max_bytes=LIMIT)
    assert caught.value.failure.code == FailureCode.IMAGE_TOO_LARGE
    assert not (folder / "zeros").exists()


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    archive = write(
        tmp_path / "header.tar.gz", lambda tar: add(tar, "x" * 20_000_000, b""), init=False
    )
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(OperationFailed, match="absurd length"):
        unpack(archive, folder, max_bytes=100 * LIMIT)


def test_a_header_of_a_container_image_that_would_fill_the_memory_is_refused(
    tmp_path: Path,
) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 400 * 1024**2
    archive = tmp_path / "image.tar"
    with archive.open("wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(header.size + 10_240)
    assert "absurd length" in refused_as_container(archive)


def test_a_member_of_a_container_image_with_a_negative_size_is_refused(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("manifest.json").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" * 12  # the size, in base 256
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    archive = tmp_path / "image.tar"
    archive.write_bytes(header + bytes(10_240))
    assert refused_as_container(archive)


def refused_as_container(archive: Path) -> str:
    """Return why an archive is not taken into an engine; none is asked."""
    folder = archive.with_suffix(".d")
    folder.mkdir()

    async def bring() -> None:
        async with Docker(url="http://127.0.0.1:1") as client:
            await images.bring_in(client, archive, folder, "web", LIMIT)

    with pytest.raises(OperationFailed) as caught:
        asyncio.run(bring())
    assert caught.value.failure.code == FailureCode.IMAGE_UNSAFE
    return caught.value.failure.message


@pytest.mark.parametrize("cut", [10, 100, 200])
def test_a_damaged_archive_is_refused(tmp_path: Path, cut: int) -> None:
    archive = write(tmp_path / "cut.tar.gz", lambda tar: add(tar, "more", bytes(range(256)) * 50))
    archive.write_bytes(archive.read_bytes()[:cut])
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(OperationFailed) as caught:
        unpack(archive, folder, max_bytes=LIMIT)
    assert caught.value.failure.code == FailureCode.IMAGE_UNSAFE


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "no.tar.gz"
    archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(OperationFailed, match="not a sound"):
        unpack(archive, tmp_path, max_bytes=LIMIT)


@pytest.mark.parametrize(
    "build",
    [
        lambda tar: None,
        lambda tar: add(tar, "init", b"x", mode=0o644),
        lambda tar: add(tar, "init", type=tarfile.DIRTYPE),
        lambda tar: add(tar, "sub/init", b"x"),
        lambda tar: link(tar, "init", "sub/init"),
    ],
    ids=["none", "not executable", "folder", "deeper", "link"],
)
def test_an_image_without_init_is_refused(tmp_path: Path, build: Builder) -> None:
    archive = write(tmp_path / "no-init.tar.gz", build, init=False)
    folder = tmp_path / "root"
    folder.mkdir()
    with pytest.raises(OperationFailed, match="executable file `init`"):
        unpack(archive, folder, max_bytes=LIMIT)


def good(tar: tarfile.TarFile) -> None:
    add(tar, "./", type=tarfile.DIRTYPE)
    add(tar, "./bin/", type=tarfile.DIRTYPE, mode=0o555)
    add(tar, "bin/su", b"x", mode=0o6755, uid=0, gid=0)
    link(tar, "bin/start", "../init")
    link(tar, "again", "bin/su", tarfile.LNKTYPE)
    add(tar, "name with spaces and ünïcode " + "x" * 120, b"y")


def test_a_good_archive_is_unpacked_without_privileges(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    folder.mkdir()
    unpack(write(tmp_path / "good.tar.gz", good), folder, max_bytes=LIMIT)
    assert (folder / "bin" / "start").read_bytes() == b"#!/bin/sh\n"
    assert (folder / "again").read_bytes() == b"x"
    mode = (folder / "bin" / "su").stat().st_mode
    assert stat.S_IMODE(mode) == 0o755  # no setuid, no setgid
    assert stat.S_IMODE((folder / "bin").stat().st_mode) & 0o700 == 0o700  # can be removed again


@pytest.mark.parametrize("time", ["1e40", "-1e40", "inf", "nan"])
def test_a_time_that_no_file_can_have_is_bent_to_one_that_it_can(tmp_path: Path, time: str) -> None:
    archive = write(
        tmp_path / "image.tar.gz", lambda tar: add(tar, "file", b"x", pax_headers={"mtime": time})
    )
    folder = tmp_path / "root"
    folder.mkdir()
    unpack(archive, folder, max_bytes=LIMIT)
    assert 0 <= (folder / "file").stat().st_mtime < 2**32
