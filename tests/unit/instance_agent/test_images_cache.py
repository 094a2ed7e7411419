"""Which cached images go: examples, and what must hold for every cache."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from instance_agent.domain.cache import (
    Cached,
    bytes_needed,
    fits,
    limit_for,
    parse_limit,
    to_evict,
    total,
)


def cached(key: str, size: int, used: float, needed: bool = False) -> Cached:
    return Cached(key=key, size=size, used=used, needed=needed)


OLD, MIDDLE, NEW = cached("old", 10, 1), cached("middle", 20, 2), cached("new", 30, 3)


@pytest.mark.parametrize(
    ("known", "limit", "gone"),
    [
        ((OLD, MIDDLE, NEW), 60, ()),
        ((NEW, MIDDLE, OLD), 59, ("old",)),
        ((OLD, MIDDLE, NEW), 49, ("old", "middle")),
        ((OLD, MIDDLE, NEW), -1, ("old", "middle", "new")),
        ((cached("old", 10, 1, needed=True), MIDDLE, NEW), 40, ("middle",)),
        ((cached("old", 10, 1, needed=True),), 0, ()),
        ((cached("empty", 0, 0), OLD), 0, ("old",)),
        ((), 0, ()),
    ],
)
def test_the_least_recently_used_go_first(
    known: tuple[Cached, ...], limit: int, gone: tuple[str, ...]
) -> None:
    assert to_evict(known, limit) == gone


CACHES = st.lists(
    st.builds(
        Cached,
        key=st.text("abcdef", min_size=1, max_size=3),
        size=st.integers(0, 100),
        used=st.integers(0, 5).map(float),
        needed=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda each: each.key,
)


@given(CACHES, st.integers(-50, 600))
def test_nothing_needed_goes_and_nothing_goes_in_vain(known: list[Cached], limit: int) -> None:
    by_key = {each.key: each for each in known}
    gone = to_evict(known, limit)
    assert len(set(gone)) == len(gone)
    assert not any(by_key[key].needed for key in gone)
    left = [each for each in known if each.key not in gone]
    # The limit is met, or only what is needed is left (and what has no size).
    assert total(left) <= limit or all(each.needed or not each.size for each in left)
    # Without the last one that goes, it was not met.
    if gone:
        assert total(left) + by_key[gone[-1]].size > limit
        oldest_left = [each.used for each in left if not each.needed and each.size]
        assert all(by_key[key].used <= min(oldest_left, default=99) for key in gone)


@given(CACHES, st.integers(0, 600), st.integers(0, 300), st.integers(0, 300))
def test_what_fits_has_room_on_disk_and_in_the_limit_once_the_rest_is_gone(
    known: list[Cached], limit: int, free: int, incoming: int
) -> None:
    gone = to_evict(known, limit_for(known, limit=limit, free=free, incoming=incoming))
    left = [each for each in known if each.key not in gone]
    freed = total(known) - total(left)
    assert fits(known, free=free, incoming=incoming) == (
        free + total(each for each in known if not each.needed) >= incoming
    )
    if fits(known, free=free, incoming=incoming):
        assert free + freed >= incoming
        if total(each for each in known if each.needed) + incoming <= limit:
            assert total(left) + incoming <= limit


@pytest.mark.parametrize(
    ("url", "size", "have", "needed"),
    [
        ("https://h/a.qcow2", 100, 0, 100),
        ("https://h/a.qcow2", 100, 40, 60),
        ("https://h/a.qcow2", 100, 140, 0),
        ("https://h/a.tar.gz?sig=x", 100, 0, 200),
        ("https://h/a.IMG.XZ", 100, 100, 100),
        ("file:///a.zst", 100, 0, 200),
        ("https://h/a.tgz", 100, 0, 200),
        ("https://h/a.qcow2?x=.gz", 100, 0, 100),
    ],
)
def test_a_fetch_asks_for_the_rest_and_for_the_unpacked(
    url: str, size: int, have: int, needed: int
) -> None:
    assert bytes_needed(url, size, have) == needed


@pytest.mark.parametrize(
    ("text", "bytes_"), [("0", 0), ("1234", 1234), ("20%", 200), ("0%", 0), ("100%", 1000)]
)
def test_a_limit_is_bytes_or_percent(text: str, bytes_: int) -> None:
    assert parse_limit(text, 1000) == bytes_
