"""The orchestrator on a real broker and database, with agents and probers that answer at once."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime

import asyncpg
import pytest
from rollcall_contracts.chain import GENESIS, Entry, is_intact
from rollcall_kit.database import open_pool
from rollcall_testing import eventually
from rollcall_testing.answering import AnsweringHosts
from rollcall_testing.fleets import SET, image, spec
from rollcall_testing.seeding import change_set, prepare, publish_image


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    opened = await open_pool(database_url)
    await prepare(opened)
    yield opened
    await opened.close()


@contextmanager
def orchestrator(database_url: str, amqp_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the orchestrator as a process of its own; a test may kill it."""
    environment = {
        **os.environ,
        "ROLLCALL_DATABASE_URL": database_url,
        "ROLLCALL_AMQP_URL": amqp_url,
        "ROLLCALL_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "orchestrator"], env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


async def _versions(pool: asyncpg.Pool) -> dict[str, int]:
    rows = await pool.fetch(
        "SELECT version, count(*) AS n FROM instances"
        " WHERE phase = 'ready' AND health = 'Healthy' GROUP BY version"
    )
    return {row["version"]: row["n"] for row in rows}


async def _statuses(pool: asyncpg.Pool) -> list[str]:
    rows = await pool.fetch("SELECT status FROM upgrades ORDER BY started_at")
    return [row["status"] for row in rows]


async def _log(pool: asyncpg.Pool) -> list[Entry]:
    rows = await pool.fetch(
        "SELECT * FROM event_log WHERE stream = $1 ORDER BY sequence", SET.lower()
    )
    names = Entry.__slots__
    return [Entry(**{name: row[name] for name in names} | {"id": str(row["id"])}) for row in rows]


def _assert_chain(log: list[Entry]) -> None:
    assert [entry.sequence for entry in log] == list(range(1, len(log) + 1))
    assert [entry.previous_hash for entry in log] == [GENESIS, *(entry.hash for entry in log[:-1])]
    assert all(is_intact(entry) for entry in log)
    assert all(isinstance(entry.time, datetime) for entry in log)


async def _fleet_at(pool: asyncpg.Pool, version: str, capacity: int) -> None:
    async def reached() -> bool:
        return await _versions(pool) == {version: capacity}

    await eventually(reached, timeout=60)


async def test_a_published_image_rolls_through_and_history_and_log_prove_it(
    pool: asyncpg.Pool, database_url: str, amqp_url: str
) -> None:
    async with AnsweringHosts(amqp_url=amqp_url) as hosts:
        with orchestrator(database_url, amqp_url):
            await publish_image(pool, image("1.0"))
            await change_set(pool, spec(20))
            await _fleet_at(pool, "1.0", 20)
            await publish_image(pool, image("1.1"))
            await _fleet_at(pool, "1.1", 20)

            async def completed() -> bool:
                return await _statuses(pool) == ["Completed"]

            await eventually(completed, timeout=10)
    batches = await pool.fetch("SELECT * FROM batches ORDER BY number")
    assert [(b["size"], b["succeeded"], b["failed"]) for b in batches] == [(4, 4, 0)] * 5
    assert all(b["reason"] for b in batches)
    results = await pool.fetch("SELECT state, from_version FROM upgrade_results")
    assert {(r["state"], r["from_version"]) for r in results} == {("succeeded", "1.0")}
    assert len(hosts.swaps) == 20
    assert set(hosts.swaps.values()) == {1}
    _assert_chain(await _log(pool))


@pytest.mark.parametrize("seed", [1, 2])
async def test_kill_9_of_the_orchestrator_at_any_moment_loses_and_repeats_nothing(
    pool: asyncpg.Pool, database_url: str, amqp_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    async with AnsweringHosts(amqp_url=amqp_url, delay=0.05, doubled=True) as hosts:
        with orchestrator(database_url, amqp_url):
            await publish_image(pool, image("1.0"))
            await change_set(pool, spec(20))
            await _fleet_at(pool, "1.0", 20)
        await publish_image(pool, image("1.1"))
        kills = 0
        while await _statuses(pool) != ["Completed"]:
            with orchestrator(database_url, amqp_url) as process:
                start = len(await _log(pool))
                wanted = start + chance.randrange(1, 40)

                async def moved(wanted: int = wanted) -> bool:
                    return len(await _log(pool)) >= wanted or await _statuses(pool) == ["Completed"]

                await eventually(moved, timeout=60, interval=0.005)
                process.send_signal(signal.SIGKILL)
                process.wait(10)
                kills += 1
        assert kills >= 2
    assert await _versions(pool) == {"1.1": 20}
    assert await _statuses(pool) == ["Completed"]
    attempts = {(id, attempt) for (_, id, attempt) in hosts.swaps}
    assert len(attempts) == len({id for id, _ in attempts}) == 20
    _assert_chain(await _log(pool))


async def test_two_orchestrators_share_the_work_and_agree(
    pool: asyncpg.Pool, database_url: str, amqp_url: str
) -> None:
    async with AnsweringHosts(amqp_url=amqp_url) as hosts:
        with orchestrator(database_url, amqp_url), orchestrator(database_url, amqp_url):
            await publish_image(pool, image("1.0"))
            await change_set(pool, spec(30))
            await _fleet_at(pool, "1.0", 30)
            await publish_image(pool, image("1.1"))
            await _fleet_at(pool, "1.1", 30)
            await asyncio.sleep(0)
    assert len(hosts.swaps) == 30
    _assert_chain(await _log(pool))


async def test_a_set_that_cannot_be_read_holds_up_nobody_else(
    pool: asyncpg.Pool, database_url: str, amqp_url: str
) -> None:
    await pool.execute(
        "INSERT INTO fleets (scale_set, token, spec, image_stream, wake_at)"
        " VALUES ('/broken', gen_random_uuid(), '{}', 'contoso/web/stable', now())"
    )
    async with AnsweringHosts(amqp_url=amqp_url):
        with orchestrator(database_url, amqp_url) as process:
            await change_set(pool, spec(2))
            await publish_image(pool, image("1.0"))
            await _fleet_at(pool, "1.0", 2)

            async def postponed() -> bool:
                return bool(
                    await pool.fetchval(
                        "SELECT wake_at > now() + interval '30 s' FROM fleets"
                        " WHERE scale_set = '/broken'"
                    )
                )

            await eventually(postponed, timeout=10)
            said = json.loads(
                await pool.fetchval("SELECT waiting FROM fleets WHERE scale_set = '/broken'")
            )
            assert said["code"] == "InternalExecutionError"
            assert "cannot decide on this set" in said["message"]
            assert process.poll() is None
