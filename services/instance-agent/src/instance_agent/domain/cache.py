"""Which cached images go when there are too many bytes: the least recently used that nobody needs.

An image is needed while an OS disk of an instance was made from it, be it the one in place, the one
that a restore would put back, or one that is being prepared; and while somebody works on it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

_PACKED = (".gz", ".tgz", ".xz", ".zst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """One image in the cache, or what there is of one that is still on its way."""

    key: str
    size: int  # bytes on disk
    used: float  # seconds since the epoch: when it was last asked for
    needed: bool


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
