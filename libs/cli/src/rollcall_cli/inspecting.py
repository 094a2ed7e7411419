"""What doctor looks at: the API, and where it can the database and the broker themselves."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

import aio_pika
import asyncpg
import httpx
from aio_pika.exceptions import AMQPError
from rollcall_embedded.postgres import PostgresServer
from rollcall_embedded.rabbitmq import RabbitServer

from rollcall_cli.client import (
    Api,
    BusyError,
    ClientError,
    ForbiddenError,
    LoginError,
    UnreachableError,
    UntrustedError,
)
from rollcall_cli.diagnosis import Direct, Facts, Queue, Reached

PATIENCE = 5.0  # seconds for a server to answer
QUEUES = ("orchestrator", "health-prober", "health-prober.metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """A server behind the services, as far as it is known from here."""

    url: str | None  # None: it has none, and `error` says why
    source: str
    error: str = ""


def inspect(api: Api, environment: Mapping[str, str], folder: Path) -> Facts:
    """Return what can be seen from here."""
    facts = _ask(api)
    if not api.target.is_here and facts.reached is not Reached.AWAY:
        return facts  # what this machine knows is another installation
    database = _backing(environment, "ROLLCALL_DATABASE_URL", folder, _postgres)
    broker = _backing(environment, "ROLLCALL_AMQP_URL", folder, _rabbit)
    hosts = [host["host"] for host in (facts.health or {}).get("hosts") or ()]
    return asyncio.run(_look(facts, database, broker, hosts))


# --- the API --------------------------------------------------------------------------------------


def _ask(api: Api) -> Facts:
    before, began = datetime.now(UTC), time.monotonic()
    facts = Facts(url=api.url, reached=Reached.ANSWERS, here=before)
    try:
        alive = api.raw("/healthz")
    except UntrustedError as error:
        return _came(facts, Reached.UNTRUSTED, error)
    except UnreachableError as error:
        return _came(facts, Reached.AWAY, error)
    took = time.monotonic() - began
    facts = replace(
        facts,
        seconds=took,
        here=before + timedelta(seconds=took / 2),
        there=_date_of(alive),
        certificate_ends=_certificate_end(alive),
    )
    try:
        before, began = datetime.now(UTC), time.monotonic()
        health = api.get("/rollcall/health")
        took = time.monotonic() - began
        return replace(
            facts,
            seconds=took,
            health=health,
            here=before + timedelta(seconds=took / 2),
            there=datetime.fromisoformat(health["time"]),
        )
    except LoginError as error:
        facts = _came(facts, Reached.REFUSED, error)
    except ForbiddenError as error:
        facts = _came(facts, Reached.FORBIDDEN, error)
    except (BusyError, UnreachableError) as error:
        facts = replace(facts, message=error.what)
    except ClientError as error:
        facts = _came(facts, Reached.OLDER, error)
    except (KeyError, TypeError, ValueError) as error:
        facts = replace(facts, reached=Reached.OLDER, message=f"it lacks {error}")
    return _readiness(api, facts)


def _readiness(api: Api, facts: Facts) -> Facts:
    """Return the facts with what the server says that it lacks; anybody may ask that."""
    try:
        answer = api.raw("/readyz")
        error = answer.json().get("error") or {}
    except (UnreachableError, ValueError, AttributeError):
        return facts
    missing = tuple(error.get("details") or ())
    return replace(facts, ready=answer.is_success, missing=missing)


def _came(facts: Facts, reached: Reached, error: ClientError) -> Facts:
    return replace(facts, reached=reached, message=error.what.splitlines()[0], todo=error.todo)


def _date_of(answer: httpx.Response) -> datetime | None:
    """Return the server's time, which is cut to the second."""
    try:
        return parsedate_to_datetime(answer.headers["date"]) + timedelta(milliseconds=500)
    except (KeyError, ValueError):
        return None


def _certificate_end(answer: httpx.Response) -> datetime | None:
    stream = answer.extensions.get("network_stream")
    tls = stream.get_extra_info("ssl_object") if stream is not None else None
    certificate = tls.getpeercert() if tls is not None else None
    if not certificate:
        return None
    text = str(certificate["notAfter"])  # such as Jan  5 09:34:43 2027 GMT
    return datetime.strptime(text, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)


# --- database and broker --------------------------------------------------------------------------


def _backing(
    environment: Mapping[str, str],
    variable: str,
    folder: Path,
    private: Callable[[Path], Backing | None],
) -> Backing | None:
    """Return a server that is named by the environment, or is private to `rollcall up`."""
    if environment.get(variable):
        return Backing(url=environment[variable], source=variable)
    try:
        return private(folder)
    except PermissionError:
        return None  # another user's


def _postgres(folder: Path) -> Backing | None:
    server = PostgresServer(folder / "postgres")
    if not (server.folder / "password").exists():
        return None
    server.password = (server.folder / "password").read_text().strip()
    try:
        lines = (server.data / "postmaster.pid").read_text().splitlines()
        server.port = int(lines[3])
    except (FileNotFoundError, ValueError, IndexError):
        return Backing(url=None, source=str(folder), error="it does not run")
    return Backing(url=server.url(), source=str(folder))


def _rabbit(folder: Path) -> Backing | None:
    server = RabbitServer(folder / "rabbitmq")
    if not (server.folder / "password").exists():
        return None
    server.password = (server.folder / "password").read_text().strip()
    try:
        text = (server.folder / "rabbitmq.conf").read_text()
    except FileNotFoundError:
        return Backing(url=None, source=str(folder), error="it does not run")
    for line in text.splitlines():
        if line.startswith("listeners.tcp.1"):
            server.port = int(line.rpartition(":")[2])
    return Backing(url=server.url(), source=str(folder))


async def _look(
    facts: Facts, database: Backing | None, broker: Backing | None, hosts: Iterable[str]
) -> Facts:
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)  # what fails is told as a finding
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    looked, (asked, queues) = await asyncio.gather(_database(database), _broker(broker, hosts))
    return replace(facts, database=looked, broker=asked, queues=queues)


async def _database(backing: Backing | None) -> Direct | None:
    if backing is None:
        return None
    if backing.url is None:
        return Direct(where="PostgreSQL", source=backing.source, error=backing.error)
    where = _where(backing.url, 5432)
    try:
        connection = await asyncpg.connect(backing.url, timeout=PATIENCE)
        try:
            now = await connection.fetchval("SELECT clock_timestamp()", timeout=PATIENCE)
        finally:
            await connection.close(timeout=PATIENCE)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        return Direct(where=where, source=backing.source, error=_why(error))
    return Direct(where=where, source=backing.source, time=now)


async def _broker(
    backing: Backing | None, hosts: Iterable[str]
) -> tuple[Direct | None, tuple[Queue, ...]]:
    if backing is None:
        return None, ()
    if backing.url is None:
        return Direct(where="RabbitMQ", source=backing.source, error=backing.error), ()
    where = _where(backing.url, 5672)
    try:
        connection = await aio_pika.connect(backing.url, timeout=PATIENCE)
        async with connection, asyncio.timeout(PATIENCE):
            names = (*QUEUES, *(f"instance-agent.{host}" for host in hosts))
            found = [await _queue(connection, name) for name in names]
    except (OSError, AMQPError, TimeoutError, RuntimeError) as error:
        return Direct(where=where, source=backing.source, error=_why(error)), ()
    return Direct(where=where, source=backing.source), tuple(q for q in found if q is not None)


async def _queue(connection: aio_pika.abc.AbstractConnection, name: str) -> Queue | None:
    """Return a queue's counts; None where there is no such queue."""
    counts = await _counts(connection, name)
    dead = await _counts(connection, f"{name}.dead")
    if counts is None:
        return None
    return Queue(name=name, messages=counts[0], consumers=counts[1], dead=dead[0] if dead else 0)


async def _counts(connection: aio_pika.abc.AbstractConnection, name: str) -> tuple[int, int] | None:
    # A channel of its own: the broker closes it when it knows no such queue.
    channel = await connection.channel()
    try:
        queue = await channel.declare_queue(name, passive=True)
    except AMQPError:
        return None
    result = queue.declaration_result
    await channel.close()
    return int(result.message_count or 0), int(result.consumer_count or 0)


def _where(url: str, port: int) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or port}"


def _why(error: BaseException) -> str:
    return str(error) or f"no answer within {PATIENCE:g} s"
