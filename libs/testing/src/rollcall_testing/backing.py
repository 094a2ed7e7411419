"""Where the tests' Postgres and RabbitMQ come from: given, in containers, or private servers.

`ROLLCALL_TEST_BACKEND=embedded|containers` forces one of the last two. Unforced, containers are
taken where a Docker engine answers and has (or can pull) the images.
"""

import asyncio
import gc
import os
import secrets
import tempfile
import time
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import docker  # type: ignore[import-untyped]  # it ships no types
from rollcall_embedded.packages import ensure_packages
from rollcall_embedded.postgres import PostgresServer
from rollcall_embedded.rabbitmq import RabbitServer
from rollcall_embedded.server import start_together

from rollcall_testing.rabbit_admin import RabbitAdmin

T = TypeVar("T")

POSTGRES_IMAGE = "postgres:17"
RABBITMQ_IMAGE = "rabbitmq:4-management"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """A database server and a broker for a test session; every account may do everything."""

    kind: str
    database_url: str  # of a database to connect to while others are made and dropped
    amqp_url: str
    rabbitmq_api_url: str  # http://user:password@host:port of the management API


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a fixture, leaving the current event loop of the tests alone."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def backing_services(report: Callable[[str], None]) -> Iterator[Backing]:
    """Give the session's servers; `report` is told what takes long."""
    given = _given()
    if given is not None:
        yield given
        return
    forced = os.environ.get("ROLLCALL_TEST_BACKEND", "")
    if forced not in ("", "embedded", "containers"):
        raise ValueError(f"ROLLCALL_TEST_BACKEND is {forced!r}: use embedded or containers")
    if forced != "embedded":
        why = _no_containers()
        if not why:
            with _containers() as backing:
                yield backing
            return
        if forced:
            raise RuntimeError(f"ROLLCALL_TEST_BACKEND=containers, but {why}")
    ensure_packages(report)
    with _embedded() as backing:
        yield backing


def _given() -> Backing | None:
    names = ("DATABASE_URL", "AMQP_URL", "RABBITMQ_API_URL")
    values = [os.environ.get(f"ROLLCALL_TEST_{name}", "") for name in names]
    if not any(values):
        return None
    if not all(values):
        raise ValueError(
            "set all three of " + ", ".join(f"ROLLCALL_TEST_{name}" for name in names) + ", or none"
        )
    database, amqp, api = values
    return Backing(kind="given", database_url=database, amqp_url=amqp, rabbitmq_api_url=api)


@contextmanager
def _embedded() -> Iterator[Backing]:
    with tempfile.TemporaryDirectory(prefix="rollcall-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's own user must pass
        postgres = PostgresServer(folder / "postgres", throwaway=True)
        rabbit = RabbitServer(folder / "rabbitmq", management=True, throwaway=True)

        async def stop() -> None:
            await asyncio.gather(postgres.stop(), rabbit.stop())

        run_sync(start_together(postgres, rabbit))
        try:
            yield Backing(
                kind="embedded",
                database_url=postgres.url("postgres"),
                amqp_url=rabbit.url(),
                rabbitmq_api_url=rabbit.management_url.replace(
                    "://", f"://rollcall:{rabbit.password}@"
                ),
            )
        finally:
            run_sync(stop())


def _docker_client() -> Any:  # docker ships no types
    try:
        return docker.from_env(timeout=20)
    except docker.errors.DockerException:
        return None


def _no_containers() -> str:
    """Return why containers cannot be used: no engine, or no image; empty when they can."""
    with warnings.catch_warnings():
        # Where no engine answers, the client forgets the socket that it tried.
        warnings.simplefilter("ignore", ResourceWarning)
        client = _docker_client()
        gc.collect()
    if client is None:
        return "no Docker engine answers"
    with closing(client):
        try:
            client.ping()
            for name in (POSTGRES_IMAGE, RABBITMQ_IMAGE):
                _have_image(client, name)
        except (docker.errors.DockerException, OSError) as error:
            return f"the Docker engine does not help: {error}"
    return ""


def _have_image(client: Any, name: str) -> None:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        client.images.pull(name)


@contextmanager
def _containers() -> Iterator[Backing]:
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    # Its image is one more to pull; the containers are stopped below.
    testcontainers_config.ryuk_disabled = True
    password = secrets.token_urlsafe(18)
    postgres = (
        DockerContainer(POSTGRES_IMAGE)
        .with_env("POSTGRES_USER", "rollcall")
        .with_env("POSTGRES_PASSWORD", password)
        .with_command("postgres -c fsync=off -c full_page_writes=off")
        .with_exposed_ports(5432)
    )
    rabbit = (
        DockerContainer(RABBITMQ_IMAGE)
        .with_env("RABBITMQ_DEFAULT_USER", "rollcall")
        .with_env("RABBITMQ_DEFAULT_PASS", password)
        .with_exposed_ports(5672, 15672)
    )
    with ExitStack() as stack:
        stack.enter_context(postgres)
        stack.enter_context(rabbit)

        def place(container: DockerContainer, port: int) -> str:
            host = container.get_container_host_ip()
            return f"rollcall:{password}@{host}:{container.get_exposed_port(port)}"

        backing = Backing(
            kind="containers",
            database_url=f"postgresql://{place(postgres, 5432)}/postgres",
            amqp_url=f"amqp://{place(rabbit, 5672)}/%2F",
            rabbitmq_api_url=f"http://{place(rabbit, 15672)}",
        )
        _await_ready(backing)
        yield backing


def _await_ready(backing: Backing, patience: float = 90) -> None:
    deadline = time.monotonic() + patience
    with RabbitAdmin(backing.amqp_url, backing.rabbitmq_api_url, "/") as admin:
        while not (admin.answers() and run_sync(_database_answers(backing.database_url))):
            if time.monotonic() > deadline:
                host = urlsplit(backing.amqp_url).hostname
                raise RuntimeError(f"the containers on {host} are not ready after {patience} s")
            time.sleep(0.2)


async def _database_answers(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True
