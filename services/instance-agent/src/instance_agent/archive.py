"""Unpacking of an image's tar.gz without trusting it.

Its digest says that it is the file that the feed meant, not that it is harmless. Everything is
checked before it is written: Python's own `data` filter has had ways around it.
"""

import gzip
import io
import math
import os
import posixpath
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from rollcall_contracts.model import FailureCode

from instance_agent.failures import OperationFailed
from instance_agent.space import leave_room

MAX_MEMBERS = 500_000
_LATEST = 2**32 - 1  # a time that every file system can hold
_LONGEST_READ = 4 * 1024 * 1024  # a header that claims to be longer would be held in memory


class Bounded(io.BufferedIOBase):
    """A plain tar; refuses reads that only an evil header asks for."""

    def __init__(self, raw: io.BufferedIOBase) -> None:
        super().__init__()
        self._raw = raw

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > _LONGEST_READ:
            raise tarfile.ReadError("a header in it claims an absurd length")
        return self._raw.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()


@dataclass(slots=True)
class _Seen:
    """What of the archive was already accepted."""

    files: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    total: int = 0
    members: int = 0


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> None:
    """Unpack `archive` into the existing, empty `folder`.

    Raises OperationFailed: ImageUnsafe where a member would escape or is no file, folder or link,
    or where the archive is damaged; ImageTooLarge above `max_bytes` (unpacked);
    HostDiskFull before the disk is full.
    """
    seen = _Seen()
    try:
        with (
            gzip.open(archive) as raw,
            tarfile.open(fileobj=Bounded(raw), mode="r:") as tar,
        ):
            for member in tar:
                name = _check(member, seen, max_bytes)
                if name == ".":
                    continue
                leave_room(folder, member.size, "the unpacked image")
                member.name = name
                tar.extract(member, folder, set_attrs=True, filter=_modes)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, UnicodeError) as error:
        raise unsafe(f"it is not a sound tar.gz: {error}") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise unsafe(f"its members contradict each other at {_relative(error, folder)}") from error
    init = folder / "init"
    if init.is_symlink() or not init.is_file() or not os.access(init, os.X_OK):
        raise unsafe("it must hold an executable file `init` at its top")


def unsafe(why: str) -> OperationFailed:
    """Return the failure of an image that must not be unpacked."""
    return OperationFailed(FailureCode.IMAGE_UNSAFE, f"the image cannot be used: {why}")


def _check(member: tarfile.TarInfo, seen: _Seen, max_bytes: int) -> str:
    """Return the member's clean name, having found nothing against it."""
    name = _clean_name(member.name)
    seen.members += 1
    seen.total += max(member.size, 0)
    if seen.members > MAX_MEMBERS:
        raise OperationFailed(
            FailureCode.IMAGE_TOO_LARGE, f"the image has more than {MAX_MEMBERS} members"
        )
    if member.size < 0:
        raise unsafe(f"{name!r} has a negative size")
    if seen.total > max_bytes:
        raise OperationFailed(
            FailureCode.IMAGE_TOO_LARGE,
            f"the image is larger than {max_bytes} bytes unpacked (ROLLCALL_MAX_UNPACKED_BYTES)",
        )
    _check_place(member, name, seen)
    if member.issym():
        _check_symlink(name, member.linkname)
        seen.links.add(name)
    elif member.islnk():
        member.linkname = _clean_name(member.linkname)
        if member.linkname not in seen.files:
            raise unsafe(f"hard link {name!r} points to what is no file of the image before it")
        seen.files.add(name)
    elif member.isreg():
        seen.files.add(name)
    elif not member.isdir():
        raise unsafe(f"{name!r} is a device, a pipe, or of an unknown kind")
    return name


def _clean_name(name: str) -> str:
    if not name or "\0" in name:
        raise unsafe("a member has no name, or one with a zero byte")
    if name.startswith("/"):
        raise unsafe(f"{name!r} is an absolute path")
    if ".." in name.split("/"):
        raise unsafe(f"{name!r} leaves its folder by `..`")
    return posixpath.normpath(name)


def _check_place(member: tarfile.TarInfo, name: str, seen: _Seen) -> None:
    if any(str(parent) in seen.links for parent in PurePosixPath(name).parents):
        raise unsafe(f"{name!r} lies behind a link")
    if name in seen.links or (name in seen.files and not member.isdir()):
        raise unsafe(f"{name!r} appears twice")


def _check_symlink(name: str, target: str) -> None:
    """Allow `../` only at the front, and not beyond the root.

    What follows are plain names, which lead down, or through links for which the same holds; so no
    chain of links can leave the root.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    depth = len(PurePosixPath(name).parts) - 1
    if not target or target.startswith("/") or up > depth or ".." in parts[up:]:
        raise unsafe(f"link {name!r} points out of the image, or could")


def _modes(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Apply Python's own filter too, then drop setuid, setgid and sticky, and keep it removable."""
    filtered = tarfile.data_filter(member, folder)
    mode = (member.mode or 0) & 0o755 | (0o700 if member.isdir() else 0o600)
    # Its time may be one that no file can have.
    time = min(max(member.mtime, 0), _LATEST) if math.isfinite(member.mtime) else 0
    return filtered.replace(mode=mode, mtime=int(time), deep=False)


def _relative(error: OSError, folder: Path) -> str:
    name = os.fspath(error.filename or "?")
    return repr(os.path.relpath(str(name), folder))
