"""What is inside of an archive of one container image: `docker save`, or an OCI image layout."""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BLOB = re.compile(r"sha256:([0-9a-f]{64})")
_REFERENCE = re.compile(r"[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}")


class ArchiveError(ValueError):
    """The archive does not hold one image that can run here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Which members make the image."""

    config: str
    layers: tuple[str, ...]


def contents(
    names: frozenset[str],
    links: Mapping[str, str],
    read: Callable[[str], bytes],
    architecture: str,
) -> Contents:
    """Return what the image is made of. Raises ArchiveError.

    `names` are the archive's plain files, `links` where its links point, `read` gives a small file.
    """
    if "manifest.json" in names:
        found = _list(_json(read("manifest.json"), "manifest.json"), "manifest.json")
        if len(found) != 1:
            raise ArchiveError(f"it holds {len(found)} images; make an archive of one")
        config, layers = _text(found[0], "Config"), _texts(found[0], "Layers")
    elif "index.json" in names:
        config, layers = _of_layout(read, architecture)
    else:
        raise ArchiveError("it has neither a manifest.json nor an index.json")
    members = [_resolve(name, names, links) for name in (config, *layers)]
    return Contents(config=members[0], layers=tuple(members[1:]))


def check_platform(config: bytes, architecture: str) -> Mapping[str, Any]:
    """Return an image's configuration. Raises ArchiveError where it cannot run on this engine."""
    found = _json(config, "the image's configuration")
    if not isinstance(found, dict):
        raise ArchiveError("the image's configuration is no JSON object")
    made_for = f"{found.get('os')}/{found.get('architecture')}"
    if made_for != f"linux/{architecture}":
        raise ArchiveError(f"it is for {made_for}, and the engine here is linux/{architecture}")
    return found


def reference(content: bytes) -> str | None:
    """Return the reference in a file that names an image in a registry, or None: it is none.

    Raises ArchiveError where it names it by a tag, which may be another image tomorrow.
    """
    if not content.lstrip().startswith(b"{"):
        return None
    found = _json(content, "the file")
    name = found.get("reference") if isinstance(found, dict) else None
    if not isinstance(name, str) or not _REFERENCE.fullmatch(name):
        raise ArchiveError(
            f'{name!r} does not name an image by its digest: write {{"reference": '
            '"REGISTRY/NAME@sha256:…"}'
        )
    return name


def _of_layout(read: Callable[[str], bytes], architecture: str) -> tuple[str, list[str]]:
    document = _json(read("index.json"), "index.json")
    for _ in range(3):  # an index may name an index, which names one manifest per platform
        if isinstance(document, dict) and "config" in document:
            return (
                _blob(document["config"]),
                [_blob(layer) for layer in _list(document.get("layers"), "layers")],
            )
        manifests = _list(
            document.get("manifests") if isinstance(document, dict) else None, "manifests"
        )
        fitting = [each for each in manifests if _fits(each, architecture)]
        if len(fitting) != 1:
            raise ArchiveError(
                f"it holds {len(fitting)} images for linux/{architecture}; make an archive of one"
            )
        name = _blob(fitting[0])
        document = _json(read(name), name)
    raise ArchiveError("its index leads to no manifest")


def _fits(descriptor: object, architecture: str) -> bool:
    platform = descriptor.get("platform") if isinstance(descriptor, dict) else None
    if not isinstance(platform, dict):
        return True  # it does not say; the configuration does
    return (platform.get("os"), platform.get("architecture")) == ("linux", architecture)


def _blob(descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    found = _BLOB.fullmatch(digest) if isinstance(digest, str) else None
    if found is None:
        raise ArchiveError(f"{digest!r} is no digest")
    return f"blobs/sha256/{found[1]}"


def _resolve(name: str, names: frozenset[str], links: Mapping[str, str]) -> str:
    """Follow the link that `docker save` writes for a layer that is there twice."""
    if name in links:
        name = posixpath.normpath(posixpath.join(posixpath.dirname(name), links[name]))
    if name not in names:
        raise ArchiveError(f"it has no file {name!r}, which its manifest names")
    return name


def _json(content: bytes, what: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # the latter of brackets in brackets in brackets
        raise ArchiveError(f"{what} is not JSON") from error


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ArchiveError(f"{what} is no list")
    return value


def _text(item: object, name: str) -> str:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise ArchiveError(f"its manifest has no {name}")
    return value


def _texts(item: object, name: str) -> list[str]:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise ArchiveError(f"its manifest has no {name}")
    return list(value)
