"""Which cached images go when there are too many bytes: the least recently used that nobody needs.

An image is needed while an OS disk of an instance was made from it, be it the one in place, the one
that a restore would put back, or one that is being prepared; and while somebody works on it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

_PACKED = (".gz", ".tgz", ".xz", ".zst")
_KEY = r"[A-Za-z0-9_]+-[0-9a-f]{64}"
_IMAGE = re.compile(rf"(?:\.part-)?({_KEY})")
_GONE = re.compile(rf"\.gone-(?:part-)?{_KEY}-[0-9a-f]{{8}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """One image in the cache, or what there is of one that is still on its way."""

    key: str
    size: int  # bytes on disk
    used: float  # seconds since the epoch: when it was last asked for
    needed: bool


def key_of(name: str) -> str | None:
    """Return the key of the image that a folder of this name holds, whole or not.

    None for a name that the cache does not give: the folder may have others in it, and what is
    not the cache's own is never counted and never removed.
    """
    found = _IMAGE.fullmatch(name)
    return found[1] if found else None


def is_going(name: str) -> bool:
    """Say whether a folder of this name is one that the cache is removing."""
    return _GONE.fullmatch(name) is not None


def total(cached: Iterable[Cached]) -> int:
    """Return how many bytes the cache has."""
    return sum(each.size for each in cached)


def to_evict(cached: Iterable[Cached], limit: int) -> tuple[str, ...]:
    """Return what must go, in this order, for the cache to have no more than `limit` bytes.

    Nothing that is needed goes, even where the limit is then not met.
    """
    known = tuple(cached)
    left = total(known)
    evicted = []
    for each in sorted(known, key=lambda each: (each.used, each.key)):
        if left <= limit:
            break
        if not each.needed and each.size > 0:
            evicted.append(each.key)
            left -= each.size
    return tuple(evicted)


def fits(cached: Iterable[Cached], *, free: int, incoming: int) -> bool:
    """Say whether the disk has room for `incoming` bytes once all that nobody needs is gone."""
    return free + total(each for each in cached if not each.needed) >= incoming


def limit_for(cached: Iterable[Cached], *, limit: int, free: int, incoming: int) -> int:
    """Return how many bytes the cache may keep so that `incoming` more fit.

    They fit the cache's limit, and the disk, whatever else is on it.
    """
    return min(limit, total(cached) + free) - incoming


def bytes_needed(url: str, size: int, have: int) -> int:
    """Return how much disk an image asks for before it is fetched, `have` bytes being there.

    What is compressed is at least once more as large when it is unpacked. Only the unpacking can
    tell how much more.
    """
    packed = urlsplit(url).path.lower().endswith(_PACKED)
    return max(size - have, 0) + (size if packed else 0)


def parse_limit(text: str, disk: int) -> int:
    """Return the limit in bytes: `text` is a number of bytes, or percent (`20%`) of the disk's."""
    if text.endswith("%"):
        return disk * int(text[:-1]) // 100
    return int(text)
