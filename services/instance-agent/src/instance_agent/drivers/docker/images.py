"""From a feed's file to an image in the engine, known by its digest."""

import asyncio
import gzip
import hashlib
import json
import os
import platform
import tarfile
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from aiodocker import Docker, DockerError
from rollcall_contracts.model import FailureCode

from instance_agent.archive import Bounded, unsafe
from instance_agent.domain.image_archive import ArchiveError, check_platform, contents, reference
from instance_agent.drivers.docker.engine import failure
from instance_agent.failures import OperationFailed
from instance_agent.space import leave_room

_ARCHIVE, _REFERENCE, _FACTS = "image.tar", "reference.json", "image.json"
_SMALL = 4 * 1024**2  # bytes of a manifest or a configuration, at most
_LONGEST_REFERENCE = 4096
_CHUNK = 1024**2
_MEMBERS = 10_000
_UNUSED = timedelta(days=1)  # then the engine's copy goes; the archive brings it back
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image in the host's cache."""

    id: str  # by which the engine knows it: a digest
    name: str  # the tag that keeps it from being pruned
    ports: tuple[int, ...]  # that it exposes


async def bring_in(client: Docker, file: Path, folder: Path, repository: str, limit: int) -> None:
    """Put an image's file into `folder`, and the image into the engine. Raises OperationFailed."""
    try:
        named = await asyncio.to_thread(_reference, file)
        if named is not None:
            (folder / _REFERENCE).write_text(json.dumps({"reference": named}))
            found = await _pull(client, named, repository)
        else:
            await asyncio.to_thread(_keep, file, folder / _ARCHIVE, limit)
            found = await _load(client, folder / _ARCHIVE, repository)
    except ArchiveError as error:
        raise unsafe(str(error)) from error
    (folder / _FACTS).write_text(json.dumps(asdict(found)))


async def ensure(client: Docker, folder: Path, repository: str) -> ImageFacts:
    """Return the image, brought back into the engine where somebody removed it from there."""
    kept = json.loads((folder / _FACTS).read_text())
    facts = ImageFacts(id=kept["id"], name=kept["name"], ports=tuple(kept["ports"]))
    try:
        await client.images.inspect(facts.id)
    except DockerError as error:
        if error.status != 404:
            raise
        if (folder / _REFERENCE).exists():
            named = json.loads((folder / _REFERENCE).read_text())["reference"]
            return await _pull(client, named, repository)
        return await _load(client, folder / _ARCHIVE, repository)
    return facts


async def drop_unused(client: Docker, repository: str, now: datetime) -> None:
    """Let the engine drop what was brought in some time ago and no container is made of."""
    for item in await client.images.list(filters={"reference": [repository]}):
        if item.get("Containers", -1) > 0:
            continue
        with suppress(DockerError):  # a container is made of it, or somebody else was quicker
            tagged = (await client.images.inspect(item["Id"]))["Metadata"]["LastTagTime"]
            if datetime.fromisoformat(f"{tagged[:19]}+00:00") < now - _UNUSED:
                for name in item["RepoTags"] or ():
                    if name.startswith(f"{repository}:"):
                        await client.images.delete(name)


def _reference(file: Path) -> str | None:
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size > _LONGEST_REFERENCE:
            return None
        return reference(opened.read())


def _keep(file: Path, plain: Path, limit: int) -> None:
    """Put the archive, unpacked where it is a .gz, beside what the engine makes of it."""
    with file.open("rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    if not packed:
        os.link(file, plain)
        return
    size = 0
    try:
        with gzip.open(file) as source, plain.open("wb") as target:
            while chunk := source.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise OperationFailed(
                        FailureCode.IMAGE_TOO_LARGE,
                        f"the image is larger than {limit} bytes unpacked "
                        "(ROLLCALL_MAX_UNPACKED_BYTES)",
                    )
                leave_room(plain.parent, len(chunk), "the unpacked image")
                target.write(chunk)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(f"it is not a sound .gz file: {error}") from error


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a file's bytes are in the archive."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Archive:
    """An archive that was looked through."""

    file: Path
    config: bytes
    layers: tuple[_Member, ...]
    ports: tuple[int, ...]


def _look_through(file: Path, architecture: str) -> _Archive:
    members: dict[str, _Member] = {}
    links: dict[str, str] = {}
    try:
        with file.open("rb") as raw, tarfile.open(fileobj=Bounded(raw), mode="r:") as tar:
            for number, member in enumerate(tar):
                if number > _MEMBERS:
                    raise ArchiveError(f"it has more than {_MEMBERS} members")
                if member.size < 0:
                    raise ArchiveError(f"{member.name!r} has a negative size")
                name = member.name.removeprefix("./")
                if member.isreg():
                    members[name] = _Member(member.offset_data, member.size)
                elif member.issym() or member.islnk():
                    links[name] = member.linkname
    except (tarfile.TarError, EOFError) as error:
        raise ArchiveError(f"it is not a sound tar: {error}") from error

    def read(name: str) -> bytes:
        member = members.get(name)
        if member is None or member.size > _SMALL:
            raise ArchiveError(f"{name!r} is missing, or larger than {_SMALL} bytes")
        with file.open("rb") as opened:
            opened.seek(member.offset)
            return opened.read(member.size)

    found = contents(frozenset(members), links, read, architecture)
    config = read(found.config)
    told = check_platform(config, architecture).get("config") or {}
    return _Archive(
        file=file,
        config=config,
        layers=tuple(members[name] for name in found.layers),
        ports=_ports(told.get("ExposedPorts")),
    )


def _ports(exposed: object) -> tuple[int, ...]:
    names = exposed if isinstance(exposed, dict) else {}
    found = [str(name).partition("/") for name in names]
    return tuple(sorted(int(port) for port, _, kind in found if port.isdecimal() and kind != "udp"))


async def _load(client: Docker, file: Path, repository: str) -> ImageFacts:
    """Have the engine load the image under a name of our own, whatever names it came with."""
    machine = platform.machine()
    archive = await asyncio.to_thread(_look_through, file, _ARCHITECTURES.get(machine, machine))
    tag = await asyncio.to_thread(_digest, file)
    name = f"{repository}:{tag}"
    try:
        await client.images.import_image(_only(archive, name))
        identity = (await client.images.inspect(name))["Id"]
    except DockerError as error:
        raise failure(error, FailureCode.IMAGE_UNSAFE) from error
    return ImageFacts(id=identity, name=name, ports=archive.ports)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def _only(archive: _Archive, name: str) -> AsyncIterator[bytes]:
    """Yield an archive of the image's parts alone.

    A name in the feed's archive could be that of any image that this host has, and would then mean
    the feed's; so could what else is in it.
    """
    layers = [f"{number}.tar" for number in range(len(archive.layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": layers}]
    small = {"config.json": archive.config, "manifest.json": json.dumps(manifest).encode()}
    for each, content in small.items():
        yield _header(each, len(content))
        yield content + bytes(-len(content) % tarfile.BLOCKSIZE)
    with archive.file.open("rb") as opened:
        for each, member in zip(layers, archive.layers, strict=True):
            yield _header(each, member.size)
            opened.seek(member.offset)
            left = member.size
            while left:
                chunk = await asyncio.to_thread(opened.read, min(_CHUNK, left))
                if not chunk:
                    raise ArchiveError("it ends too early")
                left -= len(chunk)
                yield chunk
            yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)


async def _pull(client: Docker, named: str, repository: str) -> ImageFacts:
    try:
        await client.images.pull(named)
        found = await client.images.inspect(named)
        tag = named.rpartition(":")[2]
        await client.images.tag(found["Id"], repository, tag=tag)
    except DockerError as error:
        raise failure(error, FailureCode.IMAGE_UNAVAILABLE) from error
    return ImageFacts(
        id=found["Id"],
        name=f"{repository}:{tag}",
        ports=_ports((found.get("Config") or {}).get("ExposedPorts")),
    )
