"""Whole polls of real feeds, recorded in a real Postgres."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from image_publisher.fetch import Fetcher
from image_publisher.poll import poll, poll_forever, poll_safely
from image_publisher.record import Outcome
from prometheus_client import REGISTRY
from rollcall_cli.feed import add_image, init_feed, make_signing_key, sign_feed, withdraw_image
from rollcall_contracts.model import Image
from rollcall_kit.broker import Broker
from rollcall_kit.config import FeedConfig
from rollcall_kit.database import migrate, migrations_of, open_pool
from rollcall_kit.service import Context

NAMES = {"publisher": "Acme", "offer": "app", "sku": "stable"}


class Stage:
    """A publisher's context on a fresh database, and a feed's folder."""

    def __init__(self, context: Context, folder: Path, session: aiohttp.ClientSession) -> None:
        self.context = context
        self.folder = folder
        self.session = session
        self.settings: dict[str, Any] = {
            "name": "own",
            "url": folder.as_uri(),
            "unsigned": True,
            "timeout": 5,
            "max_bytes": 100_000,
        }

    def config(self, **changes: Any) -> FeedConfig:
        return FeedConfig.model_validate({**self.settings, **changes})

    async def poll(self, **changes: Any) -> Outcome | None:
        config = self.config(**changes)
        fetcher = Fetcher(self.session, timeout=config.timeout, max_bytes=config.max_bytes)
        return await poll(self.context, config, fetcher)

    def add(self, version: str, content: bytes | None = None, **changes: Any) -> Path:
        file = self.folder.parent / "app.tar.gz"
        file.write_bytes(content or version.encode())
        added = add_image(self.folder, file, version=version, **{**NAMES, **changes})
        return self.folder / added.path

    def withdraw(self, version: str) -> None:
        withdraw_image(self.folder, version=version, **NAMES)

    def edit(self, change: Callable[[dict[str, Any]], None], name: str = "images.json") -> None:
        """Change a document by hand, as a careless or hostile author may."""
        path = self.folder / "streams/v1" / name
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def item(self, document: dict[str, Any], version: str) -> dict[str, Any]:
        found = document["products"]["Acme:app:stable"]["versions"][version]["items"]["image"]
        assert isinstance(found, dict)
        return found

    async def rows(self, query: str, *values: Any) -> list[asyncpg.Record]:
        return await self.context.database.fetch(query, *values)

    async def events(self) -> list[str]:
        """Return the event log, as `type what` lines."""
        rows = await self.rows("SELECT type, body FROM event_log ORDER BY stream, sequence")
        return [describe(row["type"], json.loads(row["body"])) for row in rows]

    async def error(self, feed: str = "own") -> dict[str, Any] | None:
        (row,) = await self.rows("SELECT error FROM feed_view WHERE feed = $1", feed)
        return json.loads(row["error"]) if row["error"] else None

    async def code(self, feed: str = "own") -> str | None:
        error = await self.error(feed)
        return str(error["code"]) if error else None

    async def live(self) -> set[str]:
        rows = await self.rows("SELECT version FROM image_view WHERE withdrawn_at IS NULL")
        return {row["version"] for row in rows}

    async def until(self, versions: set[str]) -> None:
        """Wait until just these versions are live."""
        for _ in range(200):
            if await self.live() == versions:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"live are {await self.live()}, not {versions}")


def describe(type: str, body: dict[str, Any]) -> str:
    match type:
        case "feed.rejected.v1":
            return f"rejected {body['error']['code']}"
        case "feed.recovered.v1":
            return "recovered"
        case _:
            return f"{type.split('.')[1]} {body['image']['version']}"


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def stage(database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    pool = await open_pool(database_url, size=4)
    await migrate(pool, [migrations_of("rollcall_kit"), migrations_of("image_publisher")])
    broker = Broker("amqp://unused", source="image-publisher")
    context = Context(name="image-publisher", broker=broker, pool=pool)
    folder = tmp_path / "feed"
    init_feed(folder)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Stage(context, folder, session)
    await pool.close()


async def test_a_version_is_recorded_and_published_once(stage: Stage) -> None:
    file = stage.add("1.0.9")
    await stage.poll()
    stage.add("1.0.10")
    for _ in range(3):
        await stage.poll()
    assert await stage.events() == ["published 1.0.9", "published 1.0.10"]
    rows = await stage.rows("SELECT * FROM image_view ORDER BY published_at")
    image = json.loads(rows[0]["image"])
    assert (rows[0]["stream"], rows[0]["feed"]) == ("acme/app/stable", "own")
    assert image["sha256"] == hashlib.sha256(b"1.0.9").hexdigest()
    assert (image["url"], image["size"]) == (file.as_uri(), 5)
    assert await stage.code() is None
    assert metric("rollcall_feed_up", feed="own") == 1


async def test_the_time_of_publication_is_the_publishers_own_and_stays(stage: Stage) -> None:
    before = datetime.now(UTC)
    stage.add("1")
    await stage.poll()
    after = datetime.now(UTC)

    async def shown() -> tuple[Image, datetime]:
        (row,) = await stage.rows("SELECT image, published_at FROM image_view")
        return Image.model_validate_json(row["image"]), row["published_at"]

    image, published_at = await shown()
    assert image.published_at is not None
    assert before <= image.published_at <= after
    assert image.published_at == published_at
    (event,) = await stage.rows("SELECT body FROM event_log")
    assert Image.model_validate(json.loads(event["body"])["image"]) == image
    # Read in full again, as after a restart with another configuration: nothing has changed.
    outcomes = [await stage.poll(max_image_bytes=10**6 + n) for n in range(2)]
    assert [outcome.verdict.refreshed for outcome in outcomes if outcome] == [(), ()]
    assert await shown() == (image, published_at)
    # A date in the feed has no say, and renewed flags do not make the version younger.
    stage.edit(
        lambda document: stage.item(document, "1").update(
            exclude_from_latest=True, pub_date="2001-01-01", published_at="2001-01-01T00:00:00Z"
        )
    )
    outcome = await stage.poll()
    assert outcome is not None
    (refreshed,) = outcome.verdict.refreshed
    assert refreshed.image == image.model_copy(update={"exclude_from_latest": True})
    assert await shown() == (refreshed.image, published_at)
    assert await stage.events() == ["published 1"]


async def test_a_first_poll_publishes_the_newest_first(stage: Stage) -> None:
    for version in ("1.0.9", "1.0.10", "1.0.2"):
        stage.add(version)
    await stage.poll()
    assert await stage.events() == ["published 1.0.10", "published 1.0.9", "published 1.0.2"]


async def test_a_withdrawn_version_stays_withdrawn(stage: Stage) -> None:
    stage.add("1")
    stage.add("2")
    kept = (stage.folder / "streams/v1/images.json").read_text()
    await stage.poll()
    stage.withdraw("2")
    await stage.poll()
    await stage.poll()
    (row,) = await stage.rows("SELECT * FROM image_view WHERE withdrawn_at IS NOT NULL")
    assert (row["version"], "left feed own" in row["withdrawn_reason"]) == ("2", True)

    def restore(document: dict[str, Any]) -> None:
        document["products"] = json.loads(kept)["products"]

    stage.edit(restore)
    await stage.poll()
    assert await stage.code() == "ImageReturned"
    assert await stage.live() == {"1"}
    assert await stage.events() == [
        "published 2",
        "published 1",
        "withdrawn 2",
        "rejected ImageReturned",
    ]


async def test_content_that_changed_in_place_is_never_taken(stage: Stage) -> None:
    stage.add("1")
    stage.add("2")
    await stage.poll()
    before = (stage.folder / "streams/v1/images.json").read_text()
    good = hashlib.sha256(b"2").hexdigest()
    stage.edit(lambda document: stage.item(document, "2").update(sha256="0" * 64))
    await stage.poll()
    await stage.poll()
    assert await stage.code() == "ImageContentChanged"
    # Back to what it was: it stays withdrawn.
    (stage.folder / "streams/v1/images.json").write_text(before)
    await stage.poll()
    assert await stage.code() == "ImageReturned"
    assert await stage.live() == {"1"}
    (row,) = await stage.rows("SELECT image FROM image_view WHERE version = '2'")
    assert json.loads(row["image"])["sha256"] == good
    assert await stage.events() == [
        "published 2",
        "published 1",
        "withdrawn 2",
        "rejected ImageContentChanged",
        "rejected ImageReturned",
    ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def go_back(stage: Stage) -> None:
    past = "Tue, 24 Feb 2015 14:14:24 +0000"
    stage.edit(lambda document: document.update(updated=past, products={}))


def lose_versions(stage: Stage) -> None:
    stage.edit(lambda document: document.update(products={}))


BAD_FEEDS: dict[str, tuple[str, Callable[[Stage], Any]]] = {
    "truncated": ("FeedMalformed", lambda s: cut(s.folder / "streams/v1/images.json")),
    "truncated index": ("FeedMalformed", lambda s: cut(s.folder / "streams/v1/index.json")),
    "gone": ("FeedUnreachable", lambda s: (s.folder / "streams/v1/images.json").unlink()),
    "other format": ("FeedMalformed", lambda s: s.edit(lambda d: d.update(format="products:9"))),
    "huge": ("FeedTooLarge", lambda s: s.edit(lambda d: d.update(filler="x" * 200_000))),
    "went back": ("FeedWentBack", go_back),
    "lost versions": ("FeedWentBack", lose_versions),
    "escaping path": (
        "FeedPathUnsafe",
        lambda s: s.edit(
            lambda d: d["index"]["rollcall:images"].update(path="../../evil.json"), "index.json"
        ),
    ),
    "from the future": (
        "FeedMalformed",
        lambda s: s.edit(lambda d: d.update(updated="Fri, 01 Jan 2100 00:00:00 +0000")),
    ),
}


@pytest.mark.parametrize("case", BAD_FEEDS)
async def test_a_bad_feed_is_named_and_changes_nothing(stage: Stage, case: str) -> None:
    code, spoil = BAD_FEEDS[case]
    stage.add("1")
    await stage.poll()
    documents = {
        path: path.read_bytes()
        for path in (stage.folder / "streams/v1").iterdir()
        if path.is_file()
    }
    errors = metric("rollcall_feed_errors_total", feed="own", code=code)
    spoil(stage)
    await stage.poll()
    await stage.poll()
    assert await stage.code() == code
    assert metric("rollcall_feed_errors_total", feed="own", code=code) == errors + 2
    assert metric("rollcall_feed_up", feed="own") == 0
    (row,) = await stage.rows("SELECT * FROM feed_error_view")
    assert (row["feed"], row["code"], row["count"]) == ("own", code, 2)
    assert await stage.live() == {"1"}
    for path, content in documents.items():
        path.write_bytes(content)
    await stage.poll()
    assert await stage.code() is None
    assert await stage.events() == ["published 1", f"rejected {code}", "recovered"]
    assert metric("rollcall_feed_up", feed="own") == 1


BAD_VERSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "no sha256": ("ImageChecksumMissing", {"sha256": None}),
    "no size": ("ImageChecksumMissing", {"size": None}),
    "wrong size": ("ImageSizeMismatch", {"size": 999}),
    "escaping path": ("FeedPathUnsafe", {"path": "../../../etc/shadow"}),
    "too large": ("ImageTooLarge", {"size": 10**15}),
}


@pytest.mark.parametrize("case", BAD_VERSIONS)
async def test_a_bad_version_is_named_and_the_good_ones_are_taken(stage: Stage, case: str) -> None:
    code, changes = BAD_VERSIONS[case]
    stage.add("1")
    stage.add("2")
    stage.edit(lambda document: stage.item(document, "2").update(changes))
    await stage.poll()
    error = await stage.error()
    assert error is not None
    assert (error["code"], error["target"].lower()) == (code, "acme/app/stable/2")
    assert await stage.events() == ["published 1", f"rejected {code}"]
    assert metric("rollcall_feed_up", feed="own") == 1


async def test_two_feeds_with_other_content_of_one_version(stage: Stage, tmp_path: Path) -> None:
    stage.add("1")
    await stage.poll()
    second = tmp_path / "second"
    init_feed(second)
    file = tmp_path / "other.tar.gz"
    for version, content in (("1", b"other"), ("2", b"two")):
        file.write_bytes(content)
        add_image(second, file, publisher="acme", offer="app", sku="stable", version=version)
    await stage.poll(name="second", url=second.as_uri())
    assert (await stage.code(), await stage.code("second")) == (None, "ImageConflict")
    assert await stage.events() == ["published 1", "published 2", "rejected ImageConflict"]


async def test_signed_feeds_are_read_with_their_key_only(stage: Stage, tmp_path: Path) -> None:
    keys, other = tmp_path / "keys", tmp_path / "other-keys"
    key, wrong = make_signing_key(keys, "feed"), make_signing_key(other, "someone")
    ring = tmp_path / "ring.gpg"
    trust = {"unsigned": False, "keyring": ring}
    await stage.poll(**trust)
    assert await stage.code() == "FeedKeyringUnusable"
    stage.add("1")
    sign_feed(stage.folder, key=key, gnupghome=keys, keyring_out=ring)
    await stage.poll(**trust)
    assert (await stage.code(), await stage.live()) == (None, {"1"})
    # Another's signature on one document of the chain.
    stage.add("2")
    sign_feed(stage.folder, key=key, gnupghome=keys)
    good = (stage.folder / "streams/v1/images.sjson").read_bytes()
    sign_feed(stage.folder, key=wrong, gnupghome=other)
    wrongly = (stage.folder / "streams/v1/images.sjson").read_bytes()
    sign_feed(stage.folder, key=key, gnupghome=keys)
    (stage.folder / "streams/v1/images.sjson").write_bytes(wrongly)
    await stage.poll(**trust)
    assert await stage.code() == "FeedSignatureInvalid"
    # Changed after it was signed.
    (stage.folder / "streams/v1/images.sjson").write_bytes(good.replace(b'"2"', b'"3"'))
    await stage.poll(**trust)
    assert await stage.code() == "FeedSignatureInvalid"
    # Not signed at all.
    plain = (stage.folder / "streams/v1/images.json").read_bytes()
    (stage.folder / "streams/v1/images.sjson").write_bytes(plain)
    await stage.poll(**trust)
    assert await stage.code() == "FeedSignatureMissing"
    (stage.folder / "streams/v1/images.sjson").unlink()
    await stage.poll(**trust)
    assert await stage.code() == "FeedSignatureMissing"
    assert await stage.live() == {"1"}
    (stage.folder / "streams/v1/images.sjson").write_bytes(good)
    await stage.poll(**trust)
    assert (await stage.code(), await stage.live()) == (None, {"1", "2"})


async def test_a_json_list_is_read_too(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    entry = {**NAMES, "version": "1", "url": "a.tar.gz", "sha256": "a" * 64, "size": 3}

    def write(minute: int, *images: dict[str, Any]) -> None:
        updated = f"2026-01-01T00:{minute:02}:00Z"
        document = {"format": "rollcall-images:1.0", "updated": updated, "images": images}
        path.write_text(json.dumps(document))

    listed = {"type": "json", "url": str(path)}
    write(1, entry)
    await stage.poll(**listed)
    write(2, entry, {**entry, "version": "2"})
    await stage.poll(**listed)
    write(3, {**entry, "version": "2"})
    await stage.poll(**listed)
    assert await stage.events() == ["published 1", "published 2", "withdrawn 1"]
    write(2, entry)
    await stage.poll(**listed)
    assert await stage.code() == "FeedWentBack"


async def test_a_stale_feed_is_an_alarm(stage: Stage) -> None:
    stage.add("1")
    past = datetime.now(UTC) - timedelta(days=9)
    stage.edit(
        lambda document: document.update(updated=past.strftime("%a, %d %b %Y %H:%M:%S +0000")),
        "index.json",
    )
    await stage.poll(max_age=7 * 86400)
    assert (await stage.code(), await stage.live()) == ("FeedStale", set())
    await stage.poll(max_age=10 * 86400)
    assert (await stage.code(), await stage.live()) == (None, {"1"})
    await stage.poll(max_age=7 * 86400)
    assert (await stage.code(), await stage.live()) == ("FeedStale", {"1"})


async def test_pollers_at_once_publish_each_version_once(stage: Stage) -> None:
    for round in range(5):
        stage.add(f"1.{round}")
        await asyncio.gather(*(stage.poll() for _ in range(4)))
    await stage.poll()
    assert sorted(await stage.events()) == [f"published 1.{round}" for round in range(5)]
    assert await stage.code() is None


async def test_an_old_answer_is_dropped_when_another_poll_was_recorded(stage: Stage) -> None:
    stage.add("1")
    async with slow_copy(stage) as (url, release, asked):
        late = asyncio.create_task(stage.poll(url=url))
        await asked.wait()
        stage.add("2")
        await stage.poll()
        release.set()
        await late
    assert (await stage.code(), await stage.live()) == (None, {"1", "2"})


@asynccontextmanager
async def slow_copy(stage: Stage) -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Serve the folder as it is now; the second document waits to be released."""
    content = {path.name: path.read_bytes() for path in (stage.folder / "streams/v1").iterdir()}
    release, asked = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        if name == "images.json":
            asked.set()
            await release.wait()
        return web.Response(body=content[name])

    url, runner = await serving(answer)
    yield url, release, asked
    await runner.cleanup()


async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> tuple[str, web.AppRunner]:
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}", runner


async def test_a_web_server_is_asked_only_for_changes(stage: Stage) -> None:
    answers: list[tuple[str, int]] = []

    async def answer(request: web.Request) -> web.Response:
        content = (stage.folder / request.path.lstrip("/")).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        same = request.headers.get("If-None-Match") == tag
        answers.append((request.path.rpartition("/")[2], 304 if same else 200))
        if same:
            return web.Response(status=304)
        return web.Response(body=content, headers={"ETag": tag})

    stage.add("1")
    url, runner = await serving(answer)
    await stage.poll(url=url)
    assert answers == [("index.json", 200), ("images.json", 200)]
    answers.clear()
    await stage.poll(url=url)
    assert answers == [("index.json", 304), ("images.json", 304)]
    stage.add("2")
    await stage.poll(url=url)
    assert (await stage.live(), await stage.code()) == ({"1", "2"}, None)
    # A changed configuration reads in full, and finds what it could not have asked for before.
    answers.clear()
    await stage.poll(url=url, max_image_bytes=10**6)
    assert answers == [("index.json", 200), ("images.json", 200)]
    # A problem of one version stays while the documents stay.
    stage.add("3")
    stage.edit(lambda document: stage.item(document, "3").pop("sha256"))
    await stage.poll(url=url)
    answers.clear()
    await stage.poll(url=url)
    assert [status for _, status in answers] == [304, 304]
    assert await stage.code() == "ImageChecksumMissing"
    await runner.cleanup()
    await stage.poll(url=url)
    assert await stage.code() == "FeedUnreachable"
    assert await stage.live() == {"1", "2"}


async def test_a_mirror_that_moves_keeps_its_versions(stage: Stage, tmp_path: Path) -> None:
    stage.add("1")
    await stage.poll()
    moved = tmp_path / "moved"
    stage.folder.rename(moved)
    await stage.poll(url=moved.as_uri())
    (row,) = await stage.rows("SELECT image FROM image_view")
    assert json.loads(row["image"])["url"].startswith(moved.as_uri())
    assert await stage.events() == ["published 1"]


async def test_a_mapping_names_the_images(stage: Stage) -> None:
    stage.add("1")
    stage.add("1", offer="other")
    mapping = {"match": "Acme:app:*", "publisher": "P", "offer": "O", "sku": "S"}
    await stage.poll(products=[mapping])
    rows = await stage.rows("SELECT stream FROM image_view")
    assert [row["stream"] for row in rows] == ["p/o/s"]
    # A mistake in the mapping withdraws nothing.
    stage.add("2")
    await stage.poll(products=[{**mapping, "match": "nothing"}])
    assert await stage.events() == ["published 1"]


async def test_one_failing_feed_does_not_disturb_another(stage: Stage) -> None:
    stage.add("1")
    quick = {"interval": 0.2, "jitter": 0.5}
    good = stage.config(**quick)
    bad = stage.config(name="bad", url="http://127.0.0.1:1/", **quick)
    loops = [asyncio.create_task(poll_forever(stage.context, feed=feed)) for feed in (bad, good)]
    await stage.until({"1"})
    stage.add("2")
    await stage.until({"1", "2"})
    assert await stage.code("bad") == "FeedUnreachable"
    stage.context.stopping.set()
    await asyncio.wait_for(asyncio.gather(*loops), 5)


async def test_a_database_that_is_away_is_no_crash(stage: Stage) -> None:
    await stage.context.database.close()
    fetcher = Fetcher(stage.session, timeout=5, max_bytes=1000)
    await poll_safely(stage.context, stage.config(), fetcher)
