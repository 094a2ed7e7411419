"""The image cache in the life of instances: what stays for them, and what goes."""

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from instance_agent.app import build_host
from instance_agent.domain.record import Operation, Order
from instance_agent.driver import InstanceRef
from instance_agent.host import Job
from instance_agent.settings import Settings
from instance_agent.stop_instances import stop_all
from rollcall_cli.sample_image import build_image
from rollcall_contracts.events import Event, InstanceCreated, InstanceFailed, InstanceUpgraded
from rollcall_contracts.model import FailureCode, Image, Provisioning
from rollcall_kit.secrets import new_key


class Agent:
    """An agent's host, with a cache that keeps nothing which is not needed."""

    def __init__(self, base: Path, name: str) -> None:
        self.base = base
        self.settings = Settings.model_validate(
            {
                "host": name,
                "state_dir": base / name,
                "image_cache_dir": base / "cache",
                "image_cache_limit": "0",
                "stop_grace": 0.5,
                "secrets_key": new_key(),
            }
        )
        self.host = build_host(self.settings)
        self.reports: list[Event] = []

    async def restart(self) -> None:
        await self.host.power.close()
        self.host.journal.close()
        self.host = build_host(self.settings)

    async def report(self, event: Event) -> None:
        self.reports.append(event)

    def image(self, version: str) -> Image:
        path = self.base / f"{version}.tar.gz"
        if not path.exists():
            build_image(path, version)
        return Image(
            publisher="P",
            offer="O",
            sku="S",
            version=version,
            url=f"file://{path}",
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            size=path.stat().st_size,
        )

    def order(self, operation: Operation, attempt: int, image: Image | None) -> Order:
        return Order(
            scale_set="/sets/web",
            instance_id="0",
            attempt=attempt,
            operation=operation,
            version=image.version if image else "",
            generation=attempt,
        )

    async def ask(self, operation: Operation, attempt: int, version: str = "") -> Event:
        image = self.image(version) if version else None
        job = Job(
            order=self.order(operation, attempt, image),
            image=image,
            provisioning=Provisioning(generation=attempt),
        )
        await self.host.carry_out(job, self.report)
        return self.reports[-1]

    def cached(self) -> list[str]:
        known = {f"process-{self.image(v).sha256}": v for v in ("1.0.0", "2.0.0", "3.0.0", "9.0.0")}
        return sorted(known[each.name] for each in (self.base / "cache").glob("process-*"))

    async def others_go(self) -> None:
        """Fetch something else, for which all that nobody needs must go; then see that go too."""
        await self.host.images.fetch(self.image("9.0.0"))


@pytest.fixture
async def make_agent(tmp_path: Path) -> AsyncIterator[Callable[[str], Agent]]:
    made: list[Agent] = []

    def make(name: str) -> Agent:
        made.append(Agent(tmp_path, name))
        return made[-1]

    yield make
    for agent in made:
        await agent.host.power.close()
        agent.host.journal.close()
        assert await stop_all(agent.settings) == 0


async def test_an_image_stays_as_long_as_a_disk_that_was_made_from_it(
    make_agent: Callable[[str], Agent],
) -> None:
    agent = make_agent("one")
    other = make_agent("two")  # its cache is the same folder
    await agent.ask(Operation.CREATE, 1, "1.0.0")
    await other.others_go()
    assert agent.cached() == ["1.0.0", "9.0.0"]
    await agent.ask(Operation.UPGRADE, 2, "2.0.0")
    await other.others_go()
    assert agent.cached() == ["1.0.0", "2.0.0", "9.0.0"]  # the old one is what a restore needs

    await agent.ask(Operation.RESTORE, 3)
    await other.ask(Operation.CREATE, 1, "3.0.0")
    assert agent.cached() == ["1.0.0", "3.0.0"]
    await agent.ask(Operation.UPGRADE, 4, "2.0.0")
    await agent.host.commit(agent.order(Operation.UPGRADE, 4, agent.image("2.0.0")))
    await other.others_go()
    assert agent.cached() == ["2.0.0", "3.0.0", "9.0.0"]

    await agent.restart()
    await other.restart()
    await agent.ask(Operation.DELETE, 5)
    await other.host.images.fetch(agent.image("1.0.0"))
    assert agent.cached() == ["1.0.0", "3.0.0"]
    assert len(list((agent.base / "cache").glob(".uses/*/*/*"))) == 1


async def test_what_an_agent_was_killed_over_is_forgotten_with_its_disk(
    make_agent: Callable[[str], Agent],
) -> None:
    agent = make_agent("one")
    await agent.ask(Operation.CREATE, 1, "1.0.0")
    (instance,) = (path.name for path in (agent.settings.state_dir / "instances").iterdir())
    agent.host.images.use(agent.image("2.0.0"), instance, "000002-2.0.0")
    agent.host.images.use(agent.image("2.0.0"), "an instance that is gone", "000001-2.0.0")
    await agent.restart()
    uses = [path.name for path in (agent.base / "cache").glob(".uses/*/*/*")]
    assert uses == [f"process-{agent.image('1.0.0').sha256}@000001-1.0.0"]


async def test_a_host_without_room_for_the_new_disk_stops_nothing(
    make_agent: Callable[[str], Agent],
) -> None:
    agent = make_agent("one")
    created = await agent.ask(Operation.CREATE, 1, "1.0.0")
    assert isinstance(created, InstanceCreated)
    (top,) = (agent.settings.state_dir / "instances").iterdir()
    process = json.loads((top / "process.json").read_text())
    room = agent.host._room
    room.promise("another", top, 1, "another instance's OS disk")
    room._promised["another"] = (top.stat().st_dev, 2**60)  # more than others can free meanwhile
    failed = await agent.ask(Operation.UPGRADE, 2, "2.0.0")
    assert isinstance(failed, InstanceFailed)
    assert failed.error.code == FailureCode.DISK_FULL
    assert "OS disk 000002-2.0.0 needs" in failed.error.message
    assert f"of which {2**60} are promised" in failed.error.message
    assert json.loads((top / "process.json").read_text()) == process  # it was never stopped
    ref = InstanceRef(scale_set="/sets/web", instance_id="0")
    assert (failed.version, (await agent.host.driver.observe(ref)).running) == ("1.0.0", True)
    room.release("another")
    assert isinstance(await agent.ask(Operation.UPGRADE, 3, "2.0.0"), InstanceUpgraded)
