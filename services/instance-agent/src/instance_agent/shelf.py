"""Where cached images lie, so that several agents can share them and none trusts a half one.

    KEY/content/               what the driver made of the image
    KEY/facts.json             what that was when it was made
    .part-KEY/                 an image on its way; it gets its name by one rename when it is whole
    .gone-KEY-RANDOM/          one that is being removed
    .locks/KEY                 held (flock) by who works on the image; the kernel frees it when that
                               process ends, however it ends
    .uses/AGENT/INSTANCE/...   which instance's OS disk was made from which image

KEY is DRIVER-SHA256: drivers make different things of one file. Whatever has another name is not
the cache's, and left alone.
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from instance_agent.domain.cache import Cached, is_going, key_of
from instance_agent.space import size_on_disk

log = structlog.get_logger()

_ABANDONED = 86_400.0  # seconds after which nobody is thought to go on with a download
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5  # seconds between two looks at a lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What tells that cached content is still what it was when it was made."""

    url: str  # where it came from, without secrets
    size: int  # bytes on disk
    quick: str  # digest of names, kinds, sizes and times: costs no reading
    digest: str  # the same with the files' content in place of their times


class Shelf:
    """One folder of cached images, shared by the agents of a host."""

    def __init__(self, folder: Path, *, driver: str, agent: str) -> None:
        self.folder = folder
        self._driver = re.sub(r"[^A-Za-z0-9_]", "_", driver)
        self._locks = folder / ".locks"
        self._all_uses = folder / ".uses"
        self._uses = self._all_uses / agent
        for each in (folder, self._locks, self._uses):
            each.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def key(self, sha256: str) -> str:
        """Return an image's name here."""
        return f"{self._driver}-{sha256}"

    def content(self, key: str) -> Path:
        """Return what the driver made of an image."""
        return self.folder / key / "content"

    def has(self, key: str) -> bool:
        """Say whether an image is here, sound or not."""
        return (self.folder / key).is_dir()

    def part(self, key: str) -> Path:
        """Return the folder of an image on its way."""
        return self.folder / f".part-{key}"

    @asynccontextmanager
    async def working_on(self, key: str) -> AsyncIterator[None]:
        """Wait until nobody else on this host works on the image, and keep others from it."""
        pause = _FIRST_PAUSE
        while True:
            with self.try_work_on(key) as mine:
                if mine:
                    yield
                    return
            if pause == _FIRST_PAUSE:
                log.info("image_awaited", key=key)  # another agent of this host fetches it
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @contextmanager
    def try_work_on(self, key: str) -> Iterator[bool]:
        """Keep others from an image if nobody works on it; says whether that is so.

        The file stays: were it removed, somebody could wait for one and a third take another.
        """
        descriptor = os.open(self._locks / key, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def begin(self, key: str) -> Path:
        """Return the folder to fetch an image into: what came of it before is there."""
        part = self.part(key)
        part.mkdir(exist_ok=True)
        shutil.rmtree(part / "content", ignore_errors=True)
        os.utime(part)
        return part

    def finish(self, key: str, url: str) -> Facts:
        """Give an image its name: its content is whole, and nothing else is in its folder."""
        part = self.part(key)
        facts = facts_of(part / "content", url)
        (part / "facts.json").write_text(json.dumps(asdict(facts)))
        for each in part.iterdir():
            if each.name not in ("content", "facts.json"):
                each.unlink()
        part.rename(self.folder / key)
        return facts

    def check(self, key: str, *, full: bool) -> str:
        """Return what is wrong with an image that is here, or "" where nothing is.

        Names, sizes and times are compared; content only where those differ, or when `full`.
        """
        place = self.folder / key
        try:
            known = Facts(**json.loads((place / "facts.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            return f"its facts.json cannot be read: {error}"
        if not full and _quick(place / "content") == known.quick:
            return ""
        found = facts_of(place / "content", known.url)
        if found.digest != known.digest:
            return f"its content has the digest {found.digest}, and had {known.digest}"
        if found.quick != known.quick:  # copied, or touched: the same content all the same
            fresh = place / "facts.json.new"
            fresh.write_text(json.dumps(asdict(found)))
            fresh.rename(place / "facts.json")
        return ""

    def touch(self, key: str) -> None:
        """Note that an image was asked for."""
        os.utime(self.folder / key)

    def set_aside(self, name: str) -> Path:
        """Take an image, or a part of one, out of use at once; returns what is to be removed."""
        doomed = self.folder / f".gone-{name.removeprefix('.')}-{secrets.token_hex(4)}"
        return (self.folder / name).rename(doomed)

    def use(self, key: str, instance: str, disk: str) -> None:
        """Note that an OS disk of an instance is made from an image."""
        folder = self._uses / instance
        folder.mkdir(exist_ok=True)
        (folder / f"{key}@{disk}").touch()

    def keep_uses(self, instance: str, disks: frozenset[str]) -> None:
        """Forget an instance's OS disks but these."""
        folder = self._uses / instance
        if not folder.is_dir():
            return
        for each in list(folder.iterdir()):
            if each.name.partition("@")[2] not in disks:
                each.unlink(missing_ok=True)
        if not disks:
            with suppress(OSError):  # not empty: another order has begun to use one
                folder.rmdir()

    def keep_all_uses(self, kept: Mapping[str, frozenset[str]]) -> None:
        """Forget all that this agent's instances do not have any more."""
        for folder in list(self._uses.iterdir()):
            self.keep_uses(folder.name, kept.get(folder.name, frozenset()))

    def used(self) -> frozenset[str]:
        """Return the keys of all images that an OS disk of any agent of this host was made from."""
        return frozenset(
            note.partition("@")[0]
            for agent in _names(self._all_uses)
            for instance in _names(self._all_uses / agent)
            for note in _names(self._all_uses / agent / instance)
            if "@" in note
        )

    def listing(self, needed: frozenset[str]) -> list[Cached]:
        """Return what is here, whole or not; `needed` beside what OS disks were made from."""
        needed |= self.used()
        found = []
        for place in self.folder.iterdir():
            key = key_of(place.name)
            if key is None or place.is_symlink() or not place.is_dir():
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
                found.append(
                    Cached(
                        key=place.name,
                        size=_known_size(place),
                        used=place.stat().st_mtime,
                        needed=key in needed,
                    )
                )
        return found

    def _sweep(self) -> None:
        """Remove what an agent before this one was killed over, and downloads nobody wants."""
        for doomed in self.folder.glob(".gone-*"):
            if is_going(doomed.name):
                remove(doomed)
        for part in self.folder.glob(".part-*"):
            key = key_of(part.name)
            if key is None:
                continue
            with self.try_work_on(key) as mine:
                if mine and part.is_dir() and time.time() - part.stat().st_mtime > _ABANDONED:
                    remove(self.set_aside(part.name))


def remove(folder: Path) -> None:
    """Remove what is set aside, also folders that may not be written to, also with another."""
    for parent, _, _ in os.walk(folder):
        with suppress(FileNotFoundError):
            os.chmod(parent, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    """Return what is in a folder; nothing where another agent has removed it meanwhile."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _known_size(place: Path) -> int:
    if place.name.startswith("."):
        return size_on_disk(place)
    try:
        return int(json.loads((place / "facts.json").read_text())["size"])
    except (ValueError, KeyError, FileNotFoundError):
        return size_on_disk(place)


def facts_of(content: Path, url: str) -> Facts:
    """Return what there is to say of content; reads all of it."""
    digest = hashlib.sha256()
    for name, path, facts in _walk(content):
        digest.update(_line(name, path, facts, _content_digest(path, facts)))
    return Facts(
        url=url,
        size=size_on_disk(content),
        quick=_quick(content),
        digest=digest.hexdigest(),
    )


def _quick(content: Path) -> str:
    digest = hashlib.sha256()
    for name, path, facts in _walk(content):
        when = str(facts.st_mtime_ns) if stat.S_ISREG(facts.st_mode) else ""
        digest.update(_line(name, path, facts, when))
    return digest.hexdigest()


def _walk(content: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    for parent, folders, files in os.walk(content):
        folders.sort()
        for name in sorted((*folders, *files)):
            path = Path(parent) / name
            yield os.path.relpath(path, content), path, path.lstat()


def _line(name: str, path: Path, facts: os.stat_result, more: str) -> bytes:
    target = os.readlink(path) if stat.S_ISLNK(facts.st_mode) else ""
    size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
    parts = (name, f"{facts.st_mode:o}", str(size), target, more)
    return "\0".join(parts).encode(errors="surrogateescape") + b"\n"


def _content_digest(path: Path, facts: os.stat_result) -> str:
    if not stat.S_ISREG(facts.st_mode):
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
