"""The pytest plugin: one database server and one broker per session, fresh ground per test."""

import uuid
from collections.abc import Iterator

import asyncpg
import pytest

from rollcall_testing.backing import Backing, backing_services, run_sync
from rollcall_testing.rabbit_admin import RabbitAdmin
from rollcall_testing.script_server import ScriptServer, serving_scripts


@pytest.fixture(scope="session")
def backing(request: pytest.FixtureRequest) -> Iterator[Backing]:
    """The session's Postgres and RabbitMQ."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def report(line: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\n{line}", flush=True)  # noqa: T201 (progress of an installation, for a person)

    with backing_services(report) as services:
        yield services


@pytest.fixture
def database_url(backing: Backing) -> Iterator[str]:
    """The URL of a fresh, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    run_sync(_execute(backing.database_url, f"CREATE DATABASE {name}"))
    yield f"{backing.database_url.rpartition('/')[0]}/{name}"
    run_sync(_execute(backing.database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def rabbitmq_admin(backing: Backing) -> Iterator[RabbitAdmin]:
    """An administrator of a fresh vhost, the one of `amqp_url`."""
    vhost = f"test-{uuid.uuid4().hex}"
    with RabbitAdmin(backing.amqp_url, backing.rabbitmq_api_url, vhost) as admin:
        admin.add_vhost()
        yield admin
        admin.delete_vhost()


@pytest.fixture
def amqp_url(rabbitmq_admin: RabbitAdmin) -> str:
    """The AMQP URL of a fresh vhost, for an account that may do everything in it."""
    return rabbitmq_admin.url()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def script_server() -> Iterator[ScriptServer]:
    """A server of the scripts of the templates' extensions."""
    with serving_scripts() as server:
        yield server
