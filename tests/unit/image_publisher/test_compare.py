"""The rules of M23: what an offer changes, compared with what was recorded before."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from image_publisher.domain.compare import Verdict, compare, stale
from image_publisher.domain.feed import FeedCode, FeedError, Known, Offer, Offered
from rollcall_contracts.model import Image

T0 = datetime(2026, 1, 1, tzinfo=UTC)
T1 = T0 + timedelta(hours=1)
NOW = T0 + timedelta(hours=2)
INDEX, PAGE = "index", "page"
SEEN = {INDEX: T0, PAGE: T0}


def one(version: str, *, digest: str = "a", location: str | None = None, **changes: Any) -> Offered:
    fields = {
        "publisher": "Acme",
        "offer": "app",
        "sku": "s",
        "version": version,
        "url": f"https://m/{version}",
        "sha256": digest * 64,
        "size": 5,
        **changes,
    }
    return Offered(
        image=Image.model_validate(fields),
        product="acme:app:s",
        document=PAGE,
        location=location or version,
    )


def known(version: str, *, feed: str = "f", withdrawn: bool = False, **changes: Any) -> Known:
    return Known(offered=one(version, **changes), feed=feed, withdrawn=withdrawn)


def offer(
    *items: Offered, updated: datetime | None = T1, extra: Iterable[str] = (), **changes: Any
) -> Offer:
    present = {(item.product, item.image.version) for item in items}
    present |= {("acme:app:s", version) for version in extra}
    made = Offer(
        top=INDEX,
        documents={INDEX: updated, PAGE: updated},
        offered=items,
        present=frozenset(present),
    )
    return replace(made, **changes)


def judge(recorded: Iterable[Known], offered: Offer, **changes: Any) -> Verdict:
    return compare(recorded, offered, **{"feed": "f", "seen": SEEN, "now": NOW, **changes})


def codes(verdict: Verdict) -> list[str]:
    return [problem.code for problem in verdict.problems]


def test_new_versions_are_published_newest_first_by_number() -> None:
    verdict = judge([], offer(one("20240501.9"), one("20240501.10"), one("20240430")))
    assert [item.image.version for item in verdict.published] == [
        "20240501.10",
        "20240501.9",
        "20240430",
    ]
    assert (verdict.withdrawn, verdict.problems) == ((), ())


def test_what_is_known_is_not_published_again() -> None:
    verdict = judge([known("1")], offer(one("1")))
    assert verdict == Verdict(accepted=True)


def test_a_version_that_left_a_newer_document_is_withdrawn() -> None:
    verdict = judge([known("1"), known("2")], offer(one("1")))
    (withdrawal,) = verdict.withdrawn
    assert withdrawal.known.image.version == "2"
    assert "left feed f" in withdrawal.reason
    assert verdict.problems == ()


def test_everything_may_leave_in_a_newer_document() -> None:
    verdict = judge([known("1"), known("2")], offer())
    assert {item.known.image.version for item in verdict.withdrawn} == {"1", "2"}


def test_a_version_gone_without_a_newer_document_changes_nothing() -> None:
    verdict = judge([known("1"), known("2")], offer(one("1"), one("3"), updated=T0))
    assert (verdict.accepted, verdict.withdrawn, verdict.published) == (False, (), ())
    assert codes(verdict) == [FeedCode.WENT_BACK]


def test_a_feed_that_goes_back_in_time_changes_nothing() -> None:
    back = offer(one("1", digest="b"), one("9"), updated=T0 - timedelta(seconds=1))
    verdict = judge([known("1"), known("2")], back)
    assert verdict == Verdict(accepted=False, problems=verdict.problems)
    assert codes(verdict) == [FeedCode.WENT_BACK]


def test_one_document_that_goes_back_is_enough() -> None:
    mixed = offer(one("1"), documents={INDEX: T1, PAGE: T0 - timedelta(days=1)})
    assert codes(judge([known("1")], mixed)) == [FeedCode.WENT_BACK]


def test_a_feed_that_stops_saying_when_it_was_updated_went_back() -> None:
    assert codes(judge([known("1")], offer(one("1"), updated=None))) == [FeedCode.WENT_BACK]


def test_a_feed_without_times_adds_and_prunes_but_does_not_withdraw() -> None:
    recorded = [known("1"), known("2")]
    verdict = judge(recorded, offer(one("2"), one("3"), updated=None), seen={})
    assert [item.image.version for item in verdict.published] == ["3"]
    assert (verdict.withdrawn, verdict.problems) == ((), ())
    # Its newest version went down: that is an old copy.
    verdict = judge(recorded, offer(one("1"), updated=None), seen={})
    assert (verdict.accepted, codes(verdict)) == (False, [FeedCode.WENT_BACK])


def test_a_document_that_left_the_index_is_judged_by_the_index() -> None:
    gone = offer(documents={INDEX: T1})
    assert len(judge([known("1")], gone).withdrawn) == 1
    same = offer(documents={INDEX: T0})
    assert codes(judge([known("1")], same)) == [FeedCode.WENT_BACK]


def test_a_configuration_that_maps_less_withdraws_nothing() -> None:
    assert judge([known("1")], offer(extra=["1"])) == Verdict(accepted=True)
    unread = offer(unread=frozenset({"acme:app:s"}))
    assert judge([known("1")], unread) == Verdict(accepted=True)


def test_content_that_changed_in_place_is_an_alarm_and_withdraws() -> None:
    verdict = judge([known("1"), known("2")], offer(one("1"), one("2", digest="b"), one("3")))
    (withdrawal,) = verdict.withdrawn
    assert withdrawal.known.image == known("2").image  # what was published, not what is offered now
    assert "content changed in place" in withdrawal.reason
    assert codes(verdict) == [FeedCode.CONTENT_CHANGED]
    assert verdict.problems[0].target == "acme/app/s/2"
    assert [item.image.version for item in verdict.published] == ["3"]


def test_a_size_or_a_path_that_changed_in_place_is_an_alarm_too() -> None:
    for changed in (one("1", size=6), one("1", location="elsewhere")):
        verdict = judge([known("1")], offer(changed))
        assert (len(verdict.withdrawn), codes(verdict)) == (1, [FeedCode.CONTENT_CHANGED])


def test_a_mirror_that_moves_refreshes_addresses_only() -> None:
    moved = one("1", url="https://new/1", exclude_from_latest=True)
    verdict = judge([known("1")], offer(moved))
    assert verdict == Verdict(accepted=True, refreshed=(moved,))


def test_a_version_is_published_when_it_is_seen_whatever_its_feed_says() -> None:
    lying = one("1", published_at=T0 - timedelta(days=365))
    (published,) = judge([], offer(lying)).published
    assert published.image.published_at == NOW
    recorded = Known(offered=published, feed="f")
    # Offered as before, with any time or none, it is unchanged.
    later = NOW + timedelta(days=1)
    for same in (lying, one("1"), one("1", published_at=later)):
        assert judge([recorded], offer(same), now=later) == Verdict(accepted=True)
    # What changes around it does not make it younger.
    (refreshed,) = judge([recorded], offer(one("1", url="https://new/1")), now=later).refreshed
    assert (refreshed.image.url, refreshed.image.published_at) == ("https://new/1", NOW)


def test_a_withdrawn_version_never_comes_back() -> None:
    gone = known("1", withdrawn=True)
    verdict = judge([gone], offer(one("1")))
    assert (verdict.published, verdict.withdrawn, verdict.refreshed) == ((), (), ())
    assert codes(verdict) == [FeedCode.RETURNED]
    verdict = judge([gone], offer(one("1", digest="b")))
    assert (verdict.withdrawn, codes(verdict)) == ((), [FeedCode.CONTENT_CHANGED])
    assert judge([gone], offer()) == Verdict(accepted=True)


def test_the_second_feed_with_other_content_is_refused() -> None:
    other = known("1", feed="first")
    verdict = judge([other], offer(one("1", digest="b")))
    assert (verdict.published, verdict.withdrawn) == ((), ())
    assert codes(verdict) == [FeedCode.CONFLICT]
    assert judge([other], offer(one("1"))) == Verdict(accepted=True)
    # Another feed's versions are not ours to withdraw.
    assert judge([other], offer()) == Verdict(accepted=True)


def test_what_another_feed_withdrew_is_not_published_by_a_second() -> None:
    verdict = judge([known("1", feed="first", withdrawn=True)], offer(one("1")))
    assert (verdict.published, codes(verdict)) == ((), [FeedCode.RETURNED])


def test_a_refused_version_does_not_stop_the_others() -> None:
    fault = FeedError(FeedCode.CHECKSUM_MISSING, "no sha256").failure("acme/app/s/2")
    verdict = judge([known("2")], offer(one("3"), extra=["2"], refused=(fault,)))
    assert [item.image.version for item in verdict.published] == ["3"]
    assert (verdict.withdrawn, verdict.problems) == ((), (fault,))


def test_a_stale_feed_is_an_alarm_and_changes_nothing() -> None:
    verdict = judge([known("1")], offer(one("2")), max_age=3599)
    assert (verdict.accepted, verdict.published, verdict.withdrawn) == (False, (), ())
    assert codes(verdict) == [FeedCode.STALE]
    assert judge([], offer(one("2")), max_age=3600).accepted
    assert stale(None, now=NOW, max_age=1) is not None


def test_a_document_from_the_future_cannot_spoil_later_ones() -> None:
    verdict = judge([], offer(one("2"), updated=NOW + timedelta(days=2)))
    assert (verdict.accepted, codes(verdict)) == (False, [FeedCode.MALFORMED])


versions = st.sampled_from(["1", "1.9", "1.10", "2", "20240501.9", "20240501.10"])
knowns = st.dictionaries(
    versions,
    st.tuples(st.sampled_from("ab"), st.sampled_from(["f", "g"]), st.booleans()),
)
offers = st.dictionaries(versions, st.sampled_from("ab"))
times = st.sampled_from([None, T0 - timedelta(hours=1), T0, T1])


def apply(recorded: list[Known], verdict: Verdict) -> list[Known]:
    """Return what is recorded after a verdict, as the store writes it."""
    gone = {item.known.image.version for item in verdict.withdrawn}
    after = [
        replace(item, withdrawn=item.withdrawn or item.image.version in gone) for item in recorded
    ]
    return after + [Known(offered=item, feed="f") for item in verdict.published]


@given(knowns, offers, times, times)
def test_any_offer_keeps_the_promises(
    before: dict[str, tuple[str, str, bool]],
    offered: dict[str, str],
    index: datetime | None,
    page: datetime | None,
) -> None:
    recorded = [
        known(version, digest=digest, feed=feed, withdrawn=withdrawn)
        for version, (digest, feed, withdrawn) in before.items()
    ]
    made = offer(
        *(one(version, digest=digest) for version, digest in offered.items()),
        documents={INDEX: index, PAGE: page},
    )
    verdict = judge(recorded, made)
    # A version is published once, ever.
    assert not {item.image.version for item in verdict.published} & set(before)
    # Only the feed's own live versions are withdrawn.
    for item in verdict.withdrawn:
        assert item.known.feed == "f"
        assert not item.known.withdrawn
    # What is refused changes nothing.
    if not verdict.accepted:
        assert verdict == Verdict(accepted=False, problems=verdict.problems)
        assert verdict.problems
        return
    # Asked again, nothing more follows.
    seen = SEEN | {name: time for name, time in made.documents.items() if time}
    again = judge(apply(recorded, verdict), made, seen=seen)
    assert (again.published, again.withdrawn) == ((), ())
    assert again.accepted
