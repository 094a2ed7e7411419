"""What the orchestrator saves is what it loads again, on a real database, in any state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from orchestrator import store
from orchestrator.handlers import advance
from orchestrator.store import Cache
from rollcall_contracts import events as e
from rollcall_kit.database import open_pool
from rollcall_kit.outbox import Connection
from rollcall_rollout import Fleet, next_wake, settle
from rollcall_testing.arbitrary import fleets
from rollcall_testing.fleets import SET, START, fleet, spec
from rollcall_testing.seeding import prepare


@asynccontextmanager
async def _undone(database_url: str) -> AsyncIterator[Connection]:
    """Yield a connection of which nothing stays."""
    pool = await open_pool(database_url)
    await prepare(pool)
    try:
        async with pool.acquire() as connection:
            undo = connection.transaction()
            await undo.start()
            yield connection
            await undo.rollback()
    finally:
        await pool.close()


async def _save_twice(database_url: str, fleet: Fleet) -> tuple[Fleet, Fleet | None]:
    """Save a fleet, settle it, save what changed, and load it anew; nothing of it stays."""
    later = START + timedelta(seconds=1)
    async with _undone(database_url) as connection:
        await _save(connection, None, fleet)
        saved = fleet.saved()
        settled, _ = settle(saved, later)
        await _save(connection, saved, settled)
        loaded = await store.lock(connection, SET, Cache())
    return settled, loaded


async def _save(connection: Connection, before: Fleet | None, after: Fleet) -> None:
    await store.save(
        connection, before, after, [], cache=Cache(), wake_at=next_wake(after, START), now=START
    )


@given(fleet=fleets())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_set_is_loaded_as_it_was_saved(database_url: str, fleet: Fleet) -> None:
    """By the ids of what changed alone: a forgotten mark would lose a change."""
    settled, loaded = asyncio.run(_save_twice(database_url, fleet))
    if settled.deleted and not settled.instances:
        # What is left knows a model of before as older, and never gives a number twice.
        assert loaded is not None
        assert (loaded.deleted, loaded.instances, loaded.upgrade) == (True, {}, None)
        assert (loaded.spec, loaded.next_id) == (settled.spec, settled.next_id)
        return
    # Hosts, versions and holds are the surroundings, which are looked up.
    assert loaded is not None
    assert _alone(loaded) == _alone(settled)


def _alone(fleet: Fleet) -> Fleet:
    nothing: frozenset[str] = frozenset()
    return replace(fleet, hosts=(), room={}, images=(), holds={}, ended=(), blind_hosts=nothing)


async def test_hosts_are_known_as_their_agents_last_said(database_url: str) -> None:
    async with _undone(database_url) as connection:
        for blind in ((True, True), (False, True)):
            seen = [
                e.AgentSeen(host=f"h-{n}", driver="qemu", tcp_probe_proves_guest=not each)
                for n, each in enumerate(blind)
            ]
            await store.note_hosts(connection, seen, START)
        known = await store.with_hosts(connection, fleet(1), START)
    assert {"h-0", "h-1"} <= set(known.hosts)
    assert known.blind_hosts == {"h-1"}


async def _known_after(database_url: str, *told: e.Event) -> bool | None:
    """Tell a set one event after another; return whether it is deleted, None when it is unknown."""
    async with _undone(database_url) as connection:
        for event in told:
            await advance(connection, SET, [event], START, Cache())
        known = await store.lock(connection, SET, Cache())
    return None if known is None else known.deleted


def test_a_model_that_its_deletion_has_overtaken_makes_no_set(database_url: str) -> None:
    deleted = e.ScaleSetDeleted(scale_set=SET, revision=2)
    older, newer = (
        e.ScaleSetChanged(scale_set=SET, spec=spec(1, revision=revision)) for revision in (1, 3)
    )
    resumed = e.UpgradeResumeRequested(scale_set=SET)
    assert asyncio.run(_known_after(database_url, resumed)) is None
    assert asyncio.run(_known_after(database_url, deleted)) is True
    assert asyncio.run(_known_after(database_url, deleted, older)) is True
    assert asyncio.run(_known_after(database_url, older, deleted)) is True
    assert asyncio.run(_known_after(database_url, deleted, older, newer)) is False
