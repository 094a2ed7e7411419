"""A service's main loop: consume, decide in a transaction, publish, stop on SIGTERM.

A *batch* consumer is for a service with a database: what waits in its queue is handled together in
one transaction, and what the handler returns becomes entries of the event log in it. A *task*
consumer is for a service without: each delivery is a task of its own, and what it sees it reports.
Either way a delivery is acknowledged only when its work is done, so a crash repeats it.
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.resources.abc import Traversable
from typing import Any

import asyncpg
import structlog
import uvloop
from aio_pika.abc import AbstractConnection
from rollcall_contracts.events import Event

from rollcall_kit.broker import Broker
from rollcall_kit.consume import BatchConsumer, TaskConsumer, start_consumer
from rollcall_kit.database import DATABASE_AWAY, migrate, migrations_of, open_pool, wait_for_views
from rollcall_kit.logging import configure_logging
from rollcall_kit.metrics import serve_metrics
from rollcall_kit.outbox import Connection, Relay, append
from rollcall_kit.settings import Settings

log = structlog.get_logger()

CLOSING = 3.0  # seconds for the database to say goodbye


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a handler may use of the outside world."""

    name: str
    broker: Broker
    pool: asyncpg.Pool | None = None
    relay: Relay | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # of task consumers

    def now(self) -> datetime:
        """Return the time; UTC."""
        return datetime.now(UTC)

    @property
    def database(self) -> asyncpg.Pool:
        """Return the pool. Raises RuntimeError in a service that has no database."""
        if self.pool is None:
            raise RuntimeError(f"{self.name} has no database: set ROLLCALL_DATABASE_URL")
        return self.pool

    async def report(self, *events: Event) -> None:
        """Tell the orchestrator what was seen; returns when the broker holds it."""
        await self.broker.report(events, time=self.now())

    async def transact(self, work: Callable[[Connection], Awaitable[Sequence[Event]]]) -> None:
        """Run `work` in one transaction, with the events that it returns in the event log."""
        async with self.database.acquire() as connection, connection.transaction():
            events = await work(connection)
            if events:
                await append(connection, events, source=self.name, now=self.now())
        if events and self.relay is not None:
            self.relay.wake()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a service handles and what else it keeps doing; composition, no logic."""

    name: str
    consumers: Sequence[BatchConsumer[Context] | TaskConsumer[Context]] = ()
    background: Sequence[Callable[[Context], Awaitable[None]]] = ()
    migrations: Sequence[tuple[str, Traversable]] = ()
    reads: Sequence[str] = ()  # views of other services, which must exist before work begins
    database: bool = False


async def serve(service: Service, settings: Settings, stopping: asyncio.Event) -> None:
    """Run a service until `stopping` is set."""
    async with AsyncExitStack() as stack:
        broker = Broker(settings.amqp_url, source=service.name)
        pool: asyncpg.Pool | None = None
        relay: Relay | None = None
        if service.database:
            pool = await open_pool(settings.database_url)
            stack.push_async_callback(_close, pool)
            await migrate(pool, [migrations_of("rollcall_kit"), *service.migrations])
            await wait_for_views(pool, service.reads)
            relay = Relay(pool, broker)
        context = Context(
            name=service.name, broker=broker, pool=pool, relay=relay, stopping=stopping
        )
        loops: list[Awaitable[None]] = [task(context) for task in service.background]
        if relay is not None:
            loops.append(relay.run())
        loops.append(broker.run(partial(_start_consumers, service, context)))
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        stop = asyncio.create_task(stopping.wait())
        try:
            log.info("service_started")
            done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                task.result()  # a background task that ends has failed, or is not one
        finally:
            stopping.set()
            await _end({*tasks, *context.tasks, stop})
            log.info("service_stopped")


async def _end(running: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended.

    Again and again: a cancellation that meets a failing connection can be lost in it.
    """
    while running:
        for task in running:
            task.cancel()
        done, running = await asyncio.wait(running, timeout=0.5)
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                log.warning("task_failed", error=repr(task.exception()))


async def _close(pool: asyncpg.Pool) -> None:
    """Close the pool; a server that does not answer is not waited for."""
    try:
        async with asyncio.timeout(CLOSING):
            await pool.close()
    except (TimeoutError, *DATABASE_AWAY):
        pool.terminate()


async def _start_consumers(
    service: Service, context: Context, connection: AbstractConnection
) -> None:
    for consumer in service.consumers:
        await start_consumer(consumer, context, connection)


def main(service: Service, settings: Settings) -> None:
    """Run a service as a process: settings, logs, metrics, SIGTERM and SIGINT."""
    # Thousands of long-lived values, and more short-lived ones at each step: the collector's own
    # thresholds would have it walk through the former all the time.
    gc.set_threshold(50_000, 20, 50)
    configure_logging(service.name, settings.log_level, settings.log_format)
    if settings.metrics_port is not None:
        serve_metrics(settings.metrics_port, settings.metrics_address)

    async def run() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stopping.set)
        await serve(service, settings, stopping)

    uvloop.run(run())
