"""The example auditor on a real broker, with the account that the definitions make for it."""

import asyncio
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from rollcall_contracts.chain import GENESIS, entry_hash
from rollcall_contracts.events import (
    AgentSeen,
    BatchStarted,
    Event,
    FeedRecovered,
    InstanceHealthy,
    InstancesRestoreRequested,
    UpgradeCompleted,
    routing_key,
    stream,
    subject,
)
from rollcall_kit.auditing import auditor_definitions
from rollcall_kit.broker import Broker
from rollcall_kit.cloudevents import OutgoingEntry
from rollcall_kit.database import migrate, migrations_of, open_pool
from rollcall_kit.outbox import Relay, append
from rollcall_testing import eventually
from rollcall_testing.rabbit_admin import RabbitAdmin

SCRIPT = Path(__file__).parents[3] / "examples" / "auditor" / "auditor.py"
SET = "/sets/web"


def upgrade() -> list[Event]:
    """Return a piece of an upgrade, with a request among the facts."""
    return [
        BatchStarted(scale_set=SET, upgrade_id="u", batch=1, instance_ids=("0",)),
        InstancesRestoreRequested(scale_set=SET, host="host-1.example.com", instances=()),
        InstanceHealthy(scale_set=SET, instance_id="0", attempt=1, reason="HTTP 200"),
        UpgradeCompleted(scale_set=SET, upgrade_id="u", reason="\x1b[31mred"),
    ]


FIRST = {SET: 4, "images": 1}  # the last number of each stream that was kept
SHOWN = ["batch.started.v1", "instance.healthy.v1", "upgrade.completed.v1"]


class Auditor:
    """The auditor's process, and where its output goes."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.position = folder / "position.json"
        self._log = folder / "output.txt"

    @contextmanager
    def running(self, *options: str) -> "Iterator[subprocess.Popen[str]]":
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    str(SCRIPT),
                    "--url",
                    self.url,
                    "--position",
                    str(self.position),
                    *options,
                ],
                stdout=log,
                stderr=log,
                text=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def kept(self) -> dict[str, int]:
        """Return the number that was kept of each stream."""
        if not self.position.exists():
            return {}
        last = json.loads(self.position.read_text())
        return {name: sequence for name, (sequence, _) in last.items()}

    @property
    def types(self) -> list[str]:
        """Return the types that were printed, in order."""
        lines = [line.split() for line in self.output.splitlines() if line[:2] == "20"]
        return [words[1] for words in lines]


@pytest.fixture
def auditor(rabbitmq_admin: RabbitAdmin, tmp_path: Path) -> Auditor:
    rabbitmq_admin.import_definitions(auditor_definitions(password="secret", salt=b"salt"))
    return Auditor(rabbitmq_admin.url("auditor", "secret"), tmp_path)


@pytest.fixture
async def broker(amqp_url: str) -> AsyncIterator[Broker]:
    broker = Broker(amqp_url, source="test")
    keeper = asyncio.create_task(broker.run())
    await asyncio.wait_for(broker.wait_up(), 20)
    yield broker
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)


def chained(
    events: Sequence[Event], *, first: int = 1, previous: str = GENESIS
) -> list[OutgoingEntry]:
    """Return events as entries of one stream, as the outbox would write them."""
    made = []
    for sequence, event in enumerate(events, first):
        id, now, body = uuid.uuid4(), datetime.now(UTC), event.model_dump_json()
        digest = entry_hash(
            stream=stream(event),
            sequence=sequence,
            id=str(id),
            type=event.type,
            source="test",
            time=now,
            body=body,
            previous_hash=previous,
        )
        made.append(
            OutgoingEntry(
                stream=stream(event),
                sequence=sequence,
                id=id,
                type=event.type,
                source="test",
                subject=subject(event),
                correlation_id=None,
                routing_key=routing_key(event),
                time=now,
                body=body,
                previous_hash=previous,
                hash=digest,
            )
        )
        previous = digest
    return made


async def test_it_prints_the_log_of_a_real_database_and_goes_on_after_a_kill(
    database_url: str, broker: Broker, auditor: Auditor
) -> None:
    pool = await open_pool(database_url)
    await migrate(pool, [migrations_of("rollcall_kit")])
    relay = Relay(pool, broker)

    async def write(events: list[Event]) -> None:
        async with pool.acquire() as connection, connection.transaction():
            await append(connection, events, source="orchestrator", now=datetime.now(UTC))
        while await relay.relay_once():
            pass

    await write([FeedRecovered(feed="f"), *upgrade()])  # before the auditor has ever run
    # A report is no entry of the log: it must not reach the auditor.
    await broker.report([AgentSeen(host="h", driver="process")], time=datetime.now(UTC))
    with auditor.running() as process:
        # Killed before it keeps its position, it would rightly show the last entries again.
        await eventually(lambda: auditor.kept == FIRST, 20)
        assert auditor.types == SHOWN
        assert process.poll() is None
        process.kill()
    await write(upgrade())  # while it is away
    await _publish_again(pool, broker)  # as a relay does that was killed before its commit
    with auditor.running() as process:
        await eventually(lambda: auditor.types == SHOWN * 2, 20)
        await write(upgrade())
        await eventually(lambda: auditor.types == SHOWN * 3, 20)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
    assert "\x1b" not in auditor.output
    assert f'"{SET}"' in auditor.position.read_text()
    await pool.close()


async def _publish_again(pool: asyncpg.Pool, broker: Broker) -> None:
    rows = await pool.fetch(
        "SELECT stream, sequence, id, type, source, subject, correlation_id, routing_key, time,"
        " body, previous_hash, hash FROM event_log WHERE stream = $1 ORDER BY sequence",
        SET,
    )
    await broker.publish_entries([OutgoingEntry(**dict(row)) for row in rows])


def _with(entry: OutgoingEntry, **changes: object) -> OutgoingEntry:
    values = {name: getattr(entry, name) for name in OutgoingEntry.__slots__} | changes
    return OutgoingEntry(**values)


def _missing(entries: list[OutgoingEntry]) -> list[OutgoingEntry]:
    return [entries[0], *entries[2:]]


def _late_start(entries: list[OutgoingEntry]) -> list[OutgoingEntry]:
    return entries[1:]


def _changed(entries: list[OutgoingEntry]) -> list[OutgoingEntry]:
    forged = _with(entries[1], body=entries[1].body.replace("host-1", "host-2"))
    return [entries[0], forged, *entries[2:]]


def _rewritten(entries: list[OutgoingEntry]) -> list[OutgoingEntry]:
    """Return a chain whose second entry was replaced, and hashed as if it had always been so."""
    other = FeedRecovered(feed="g")
    return [entries[0], *chained([other], first=2, previous="f" * 64)]


def _other_twin(entries: list[OutgoingEntry]) -> list[OutgoingEntry]:
    twin = chained([FeedRecovered(feed="g")], first=1)
    return [entries[0], *twin]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_missing, "MISSING: images entries 2 to 2"),
        (_late_start, "MISSING: images entries 1 to 1"),
        (_changed, "CHANGED: images entry 2"),
        (_rewritten, "CHANGED: an entry of images before 2"),
        (_other_twin, "CHANGED: images entry 1 came again"),
    ],
)
async def test_a_gap_or_a_change_ends_it_loudly(
    harm: object, words: str, broker: Broker, auditor: Auditor
) -> None:
    events: list[Event] = [FeedRecovered(feed="host-1") for _ in range(4)]
    await broker.publish_entries(harm(chained(events)))  # type: ignore[operator]  # one of the five above
    with auditor.running() as process:
        assert await asyncio.to_thread(process.wait, 20) == 2
    assert "*** THE CHAIN IS BROKEN ***" in auditor.output
    assert words in auditor.output
    with auditor.running() as process:  # a restart does not hide it
        assert await asyncio.to_thread(process.wait, 20) == 2


async def test_a_chain_that_began_before_is_taken_when_that_is_asked_for(
    broker: Broker, auditor: Auditor
) -> None:
    entries = chained([*upgrade(), *upgrade()])
    await broker.publish_entries(entries[4:])
    with auditor.running("--from-here"):
        await eventually(lambda: auditor.types == SHOWN, 20)


async def test_it_waits_for_a_broker_that_is_away_and_refuses_a_wrong_password(
    auditor: Auditor,
) -> None:
    right = auditor.url
    auditor.url = right.replace(":secret@", ":wrong@")
    with auditor.running() as process:
        assert await asyncio.to_thread(process.wait, 20) == 1
    auditor.url = right.partition("@")[0] + "@127.0.0.1:1/none"
    with auditor.running() as process:
        await eventually(lambda: auditor.output.count("\n") >= 3, 20)
        assert process.poll() is None


async def test_a_second_auditor_waits_and_takes_over(
    broker: Broker, auditor: Auditor, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    second = Auditor(auditor.url, tmp_path / "second")
    second.position = auditor.position  # they share what was seen
    entries = chained([*upgrade(), *upgrade()])
    with auditor.running() as first:
        await eventually(lambda: "connected" in auditor.output, 20)
        with second.running() as standby:
            await eventually(lambda: "connected" in second.output, 20)
            await broker.publish_entries(entries[:4])
            await eventually(lambda: auditor.types == SHOWN, 20)
            assert second.types == []
            # Killed before it has saved its place, it would rightly be shown again.
            await eventually(lambda: '"/sets/web": [\n  4,' in auditor.position.read_text(), 20)
            first.kill()
            await broker.publish_entries(entries[4:])
            await eventually(lambda: second.types == SHOWN, 20)
            assert standby.poll() is None
