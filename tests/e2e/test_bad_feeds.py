"""Feeds that are bad, each in its own way, on the embedded stack: named errors, nothing touched.

All run side by side, and beside a good one: its upgrade goes through, so the others' instances
stay as they are because of what is wrong with their feeds, not because nothing happens at all.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from instance_agent.driver import InstanceRef
from instance_agent.drivers import procfs
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet
from rollcall_cli.feeds.folder import PRODUCTS
from rollcall_cli.feeds.signing import make_signing_key, sign_feed
from rollcall_cli.sample_image import build_image
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_testing import eventually
from rollcall_testing.mirror import Mirror
from rollcall_testing.scraping import StackView, samples
from rollcall_testing.spoiling import add_members, halve, rewrite_version

CAPACITY = 2  # one for each host


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a feed lies, for those who spoil it."""

    name: str
    top: Path
    feed: Feed
    mirror: Mirror

    @property
    def products(self) -> Path:
        return self.feed.folder / PRODUCTS

    def file_of(self, version: str) -> Path:
        (file,) = self.feed.folder.glob(f"images/*/*/*/{version}/*.tar.gz")
        return file

    def offer(self, *members: tuple[str, str | None]) -> None:
        """Add 2.0.0; who reads the signed documents does not see it until they are signed."""
        file = build_image(self.top / "built" / "web-2.0.0.tar.gz", "2.0.0")
        # Content of its own: a host that holds the right content already needs no fetch.
        add_members(file, (self.name, None), *members)
        self.feed.add("2.0.0", file)


def say_wrong_sha256(place: Place) -> None:
    place.offer()
    size = place.file_of("2.0.0").stat().st_size
    rewrite_version(place.products, "2.0.0", b"x" * size)
    place.feed.sign()


def sign_with_foreign_key(place: Place) -> None:
    place.offer()
    home = place.top / "foreign-gnupg"
    sign_feed(place.feed.folder, key=make_signing_key(home, "Somebody else"), gnupghome=home)


def cut_document_off(place: Place) -> None:
    place.mirror.cut.add(f"/{place.name}/feed/{PRODUCTS.removesuffix('.json')}.sjson")
    place.feed.publish("2.0.0")


def keep_half_an_image(place: Place) -> None:
    place.offer()
    halve(place.file_of("2.0.0"))
    place.feed.sign()


def change_content_in_place(place: Place) -> None:
    file = build_image(place.file_of("1.0.0"), "1.0.0", boot_seconds=0.001)
    rewrite_version(place.products, "1.0.0", file.read_bytes())
    place.feed.sign()


def escape(*members: tuple[str, str | None]) -> Callable[[Place], None]:
    """Return how to offer an image with these members; `TOP` stands for the feed's top."""

    def spoil(place: Place) -> None:
        top = str(place.top)
        place.offer(*((n.replace("TOP", top), t and t.replace("TOP", top)) for n, t in members))
        place.feed.sign()

    return spoil


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One feed: what is done to it once its set runs 1.0.0, and the code that must follow."""

    spoil: Callable[[Place], None]
    code: str
    web: bool = False  # read over HTTP, not as files
    section: dict[str, object] = field(default_factory=dict)


# Found by image-publisher: the version is never offered to a set.
REFUSED = {
    "foreign-key": Case(spoil=sign_with_foreign_key, code="FeedSignatureInvalid"),
    "cut-transfer": Case(spoil=cut_document_off, code="FeedTruncated", web=True),
    "half-document": Case(
        spoil=lambda place: halve(place.products),
        code="FeedMalformed",
        section={"keyring": None, "unsigned": True},
    ),
    "half-image-here": Case(spoil=keep_half_an_image, code="ImageSizeMismatch"),
    "changed-content": Case(spoil=change_content_in_place, code="ImageContentChanged"),
}
# Found by the agents, which alone read the image's file: the upgrade faults before its first batch.
FAULTED = {
    "wrong-sha256": Case(spoil=say_wrong_sha256, code="ImageVerificationFailed"),
    "half-image-there": Case(spoil=keep_half_an_image, code="ImageVerificationFailed", web=True),
    "escape-up": Case(spoil=escape(("../../escaped", None)), code="ImageUnsafe"),
    "escape-by-path": Case(spoil=escape(("TOP/escaped", None)), code="ImageUnsafe"),
    "escape-by-link": Case(spoil=escape(("x", "TOP"), ("x/escaped", None)), code="ImageUnsafe"),
}
GOOD = {"good": Case(spoil=lambda place: place.feed.publish("2.0.0"), code="", web=True)}
CASES = REFUSED | FAULTED | GOOD


@dataclass(frozen=True, slots=True, kw_only=True)
class World(StackView):
    """A stack with a healthy set for each feed."""

    places: dict[str, Place]
    fleets: dict[str, DemoFleet]

    def on_disk(self, name: str) -> dict[str, str]:
        """Return what tells a touched instance of a set: its process, boots and OS disk."""
        found: dict[str, str] = {}
        for id in map(str, range(CAPACITY)):
            key = InstanceRef(scale_set=self.fleets[name].id, instance_id=id).key
            (top,) = self.stack.folder.glob(f"agents/*/instances/{key}")
            found[f"{top}/process"] = (top / "process.json").read_text()
            found[f"{top}/boots"] = (top / "data" / "0" / "boots").read_text()
            found[f"{top}/os"] = str((top / "os").readlink())
        return found


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    mirror = Mirror(folder)
    places = {}
    async with mirror.running():
        sections = []
        for name, case in CASES.items():
            image = {"publisher": "Contoso", "offer": "Web", "sku": name}
            feed = Feed(folder / name, image=image)
            (folder / name).mkdir()
            feed.publish("1.0.0")
            places[name] = Place(name=name, top=folder / name, feed=feed, mirror=mirror)
            where = {"url": f"{mirror.url}/{name}/feed"} if case.web else {}
            section = feed.section(name, **where, **case.section)
            sections.append({key: value for key, value in section.items() if value is not None})
        config = folder / "rollcall.yaml"
        catalogue = [{"publisher": "Contoso", "offer": "Web", "sku": "*"}]
        config.write_text(yaml.safe_dump({"feeds": sections, "catalogue": catalogue}))
        options = StackOptions(state_dir=folder / "state", config=config, throwaway=True)
        async with Stack(options) as stack, AsyncExitStack() as clients:
            fleets = {
                name: DemoFleet(stack.api_url, stack.token, name=name, image=place.feed.image)
                for name, place in places.items()
            }
            for fleet in fleets.values():
                clients.push_async_callback(fleet.close)
                await fleet.create(CAPACITY, health_timeout="PT60S")
            for fleet in fleets.values():
                await _healthy(fleet, "1.0.0")
            yield World(stack=stack, places=places, fleets=fleets)


async def _healthy(fleet: DemoFleet, version: str) -> None:
    async def look() -> bool:
        return (await fleet.view()).is_healthy_at(version, CAPACITY)

    await eventually(look, timeout=60, interval=0.1)


async def _is_refused(world: World, name: str, case: Case) -> None:
    """Check that image-publisher's error has its name everywhere."""

    def in_log() -> bool:
        where = ["image-publisher"]
        return world.has_logged(where, "feed_rejected", feed=name, code=case.code)

    def in_metrics() -> bool:
        sample = f"rollcall_feed_errors_total {case.code} {name}"
        own = world.metrics("image-publisher")()
        return own[sample] > 0 and samples(world.api("/metrics").text)[sample] > 0

    def in_api() -> bool:
        feeds = {feed["name"]: feed for feed in world.api("/rollcall/feeds").json()["value"]}
        assert (feeds[name]["error"] or {}).get("code") == case.code, name
        return case.code in [error["code"] for error in feeds[name]["errors"]]

    for look in (in_api, in_log, in_metrics):
        await eventually(look, timeout=30, interval=0.2)


async def _is_faulted(world: World, name: str, case: Case) -> None:
    """Check that the agents' error has its name in their log and in the upgrade history."""

    async def look() -> bool:
        return (await world.fleets[name].view()).has_ended("2.0.0") is not None

    await eventually(look, timeout=60, interval=0.2)
    (upgrade,) = (await world.fleets[name].history())["value"]
    assert upgrade["properties"]["runningStatus"]["code"] == "Faulted", name
    assert upgrade["properties"]["error"]["code"] == case.code, name

    def in_log() -> bool:
        image = f"Contoso/Web/{name}/2.0.0"
        return world.has_logged(world.agents(), "image_refused", image=image, code=case.code)

    await eventually(in_log, timeout=10)


async def _faults_are_counted(world: World) -> None:
    sets = Counter(case.code for case in FAULTED.values())

    def look() -> bool:
        own = world.metrics(*world.agents())()
        installation = samples(world.api("/metrics").text)
        for code, count in sets.items():
            assert own[f"rollcall_image_failures_total {code}"] >= count
            assert installation[f"rollcall_upgrade_faults {code}"] == count
        return True

    await eventually(look, timeout=10)


async def _polled_again(world: World) -> None:
    """Wait for some more polls of each feed: a belated effect would show."""
    look = world.metrics("image-publisher")
    before = look()
    await eventually(
        lambda: all((look() - before)[f"rollcall_feed_polls_total {name}"] >= 4 for name in CASES),
        timeout=30,
        interval=0.2,
    )


async def _requests(fleet: DemoFleet) -> Counter[str]:
    """Count what agents were asked to do with instances, and the batches, by the event log."""
    types = [event["type"] for event in await fleet.events()]
    return Counter(each for each in types if each.startswith(("instances.", "batch.")))


def _escaped(folder: Path) -> list[Path]:
    return list(folder.rglob("escaped"))


async def test_each_bad_feed_has_its_named_error_and_no_instance_is_touched(folder: Path) -> None:
    bad = REFUSED | FAULTED
    async with world(folder) as here:
        before = {name: here.on_disk(name) for name in CASES}
        created = {name: await _requests(fleet) for name, fleet in here.fleets.items()}
        for name, case in CASES.items():
            await asyncio.to_thread(case.spoil, here.places[name])
        for name, case in REFUSED.items():
            await _is_refused(here, name, case)
        for name, case in FAULTED.items():
            await _is_faulted(here, name, case)
        await _faults_are_counted(here)
        await _healthy(here.fleets["good"], "2.0.0")
        await _polled_again(here)

        assert here.on_disk("good") != before["good"]
        for name in bad:
            assert here.on_disk(name) == before[name], name
            for path, content in before[name].items():
                if path.endswith("/process"):
                    assert procfs.is_alive(procfs.Process(**json.loads(content))), name
            assert await _requests(here.fleets[name]) == created[name], name
            assert set(created[name]) == {"instances.create_requested.v1"}, name
            await _healthy(here.fleets[name], "1.0.0")
        for name in REFUSED:
            assert (await here.fleets[name].history())["value"] == [], name
        assert _escaped(folder) == []
