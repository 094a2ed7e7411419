"""From reports to decisions: lock, load, fold, settle, save. No rules here.

Many reports of one set are folded into one working copy; the set is decided once, and only what
changed is saved, in the transaction in which the decisions enter the event log.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from rollcall_contracts import events as e
from rollcall_contracts.model import ImageReference, Provisioning, ScaleSetSpec
from rollcall_kit.database import DATABASE_AWAY
from rollcall_kit.outbox import Connection
from rollcall_kit.service import Context
from rollcall_rollout import Fleet, fold, next_wake, settle

from orchestrator import store
from orchestrator.metrics import sets_postponed
from orchestrator.store import Cache

log = structlog.get_logger()

REPORTS = (e.InstanceReport, e.ImageFetched, e.ImageFetchFailed, e.MetricQueried)
TICK = 0.1  # seconds between looks for sets whose time has come
SETS_PER_TICK = 50
POSTPONED = timedelta(seconds=60)


async def on_events(
    events: Sequence[e.Event], connection: Connection, context: Context, *, cache: Cache
) -> list[e.Event]:
    """Fold what came, set by set; return what is to be logged: accepted reports and decisions."""
    now = context.now()
    seen = [event for event in events if isinstance(event, e.AgentSeen)]
    if seen:
        await store.note_hosts(connection, seen, now)
    by_set: dict[str, list[e.Event]] = defaultdict(list)
    for event in events:
        match event:
            case e.SetEvent():
                by_set[event.scale_set].append(event)
            case e.ImagePublished() | e.ImageWithdrawn() | e.ImageHeld() | e.ImageReleased():
                await store.note_holds(connection, [event], now)
                for scale_set in await store.followers(connection, event.image.stream):
                    by_set[scale_set].append(event)
    logged: list[e.Event] = []
    for scale_set in sorted(by_set):  # in one order everywhere, so that no two wait for each other
        logged += await advance(connection, scale_set, by_set[scale_set], now, cache)
    return logged


async def advance(
    connection: Connection,
    scale_set: str,
    events: Sequence[e.Event],
    now: datetime,
    cache: Cache,
) -> list[e.Event]:
    """Fold events into one set, decide, save; return what enters the log."""
    loaded = await store.lock(connection, scale_set, cache)
    before = loaded
    if loaded is None:
        loaded = _first_known(scale_set, events)
        if loaded is None:
            log.info("event_ignored", scale_set=scale_set, why="unknown scale set")
            return []
    folded, accepted = fold(loaded, events, now)
    moved = before is None or folded.spec.image.stream != before.spec.image.stream
    if moved or not events:  # by time: also what changed of an image without an event
        folded = await store.with_images(connection, folded)
    folded = await store.with_hosts(connection, folded, now)
    settled, decided = settle(folded, now)
    await store.save(
        connection, before, settled, decided, cache=cache, wake_at=next_wake(settled, now), now=now
    )
    _log(decided)
    return [*(event for event in accepted if isinstance(event, REPORTS)), *decided]


def _first_known(scale_set: str, events: Sequence[e.Event]) -> Fleet | None:
    """Return a set of which nothing was known: as its first model says, or already deleted.

    A deletion that has overtaken its model is kept, so that the model, which comes later and is
    older, makes no set that nobody owns.
    """
    created = next((ev for ev in events if isinstance(ev, e.ScaleSetChanged)), None)
    if created is not None:
        return Fleet(spec=created.spec)
    deleted = next((ev for ev in events if isinstance(ev, e.ScaleSetDeleted)), None)
    if deleted is None:
        return None
    none = ImageReference(publisher="", offer="", sku="")
    spec = ScaleSetSpec(
        scale_set=scale_set,
        location="",
        capacity=0,
        image=none,
        provisioning=Provisioning(generation=0),
    )
    return Fleet(spec=spec)


async def tick(context: Context, *, cache: Cache) -> None:
    """Ask again for the sets whose time has come: deadlines, pauses, leases."""
    while True:
        try:
            async with context.database.acquire() as connection:
                due = await store.due(connection, context.now(), SETS_PER_TICK)
            for scale_set in due:
                await _wake(context, scale_set, cache)
        except DATABASE_AWAY as error:
            log.warning("tick_failed", error=str(error) or type(error).__name__)
            due = []
        if len(due) < SETS_PER_TICK:
            await asyncio.sleep(TICK)


async def _wake(context: Context, scale_set: str, cache: Cache) -> None:
    now = context.now()

    async def work(connection: Connection) -> list[e.Event]:
        if not await store.try_lock(connection, scale_set):
            return []  # another copy is at work on it
        return await advance(connection, scale_set, (), now, cache)

    try:
        await context.transact(work)
    except DATABASE_AWAY:
        raise
    except Exception as error:
        # One set that cannot be read or decided must not hold up the others, nor end the service.
        log.exception("set_postponed", scale_set=scale_set)
        sets_postponed.inc()
        async with context.database.acquire() as connection:
            await store.postpone(connection, scale_set, now + POSTPONED, error)


def _log(decided: Sequence[e.Event]) -> None:
    for event in decided:
        if isinstance(event, e.UpgradeEvent | e.UpgradeHeld | e.ScaleSetHeld | e.ImageHeld):
            log.info(
                event.type.rsplit(".", 1)[0].replace(".", "_"),
                scale_set=event.by_set if isinstance(event, e.ImageHeld) else event.scale_set,
                reason=event.reason,
                upgrade_id=getattr(event, "upgrade_id", None),
                batch=getattr(event, "batch", None),
            )
