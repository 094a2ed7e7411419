"""The auditor's account can read its queue, and nothing else on the broker (M54)."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import aio_pika
import httpx
import pytest
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aiormq.exceptions import ChannelAccessRefused
from rollcall_kit.auditing import auditor_definitions
from rollcall_kit.broker import EXCHANGE
from rollcall_testing import eventually
from rollcall_testing.backing import Backing
from rollcall_testing.rabbit_admin import RabbitAdmin

Attempt = Callable[[AbstractChannel], Awaitable[object]]


@pytest.fixture
async def account(rabbitmq_admin: RabbitAdmin) -> AsyncIterator[AbstractConnection]:
    """Connect as the auditor, beside a queue of a service with a message in it."""
    rabbitmq_admin.import_definitions(auditor_definitions(password="secret", salt=b"salt"))
    connection = await aio_pika.connect(rabbitmq_admin.url())
    async with connection:
        channel = await connection.channel()
        await channel.declare_queue("orchestrator", durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"private"), "orchestrator")
    connection = await aio_pika.connect(rabbitmq_admin.url("auditor", "secret"))
    async with connection:
        yield connection


async def _publish(channel: AbstractChannel, exchange: str, key: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False) if exchange else None
    await (target or channel.default_exchange).publish(
        aio_pika.Message(b"{}"), key, mandatory=False
    )


async def _bind_own(channel: AbstractChannel) -> None:
    queue = await channel.get_queue("auditor", ensure=False)
    await queue.bind(EXCHANGE, "report.#")


async def _unbind_own(channel: AbstractChannel) -> None:
    queue = await channel.get_queue("auditor", ensure=False)
    await queue.unbind(EXCHANGE, "image.#")


async def _get_other(channel: AbstractChannel) -> None:
    await (await channel.get_queue("orchestrator", ensure=False)).get(fail=False)


async def _consume_other(channel: AbstractChannel) -> None:
    async def ignore(_: object) -> None:
        return None

    await (await channel.get_queue("orchestrator", ensure=False)).consume(ignore)


async def _purge_other(channel: AbstractChannel) -> None:
    await (await channel.get_queue("orchestrator", ensure=False)).purge()


async def _bind_exchanges(channel: AbstractChannel) -> None:
    target = await channel.get_exchange("amq.fanout", ensure=False)
    await target.bind(EXCHANGE, "#")


ATTEMPTS: dict[str, Attempt] = {
    "publish an event": lambda channel: _publish(channel, EXCHANGE, "instance.healthy.v1"),
    "publish a report": lambda channel: _publish(channel, EXCHANGE, "report.agent.seen.v1"),
    "publish to a queue": lambda channel: _publish(channel, "", "orchestrator"),
    "publish to its own queue": lambda channel: _publish(channel, "", "auditor"),
    "publish to another exchange": lambda channel: _publish(channel, "amq.topic", "x"),
    "declare a queue": lambda channel: channel.declare_queue("mine"),
    "declare a queue without a name": lambda channel: channel.declare_queue(exclusive=True),
    "declare a queue named as its own": lambda channel: channel.declare_queue("auditor-2"),
    "declare an exchange": lambda channel: channel.declare_exchange("mine"),
    "delete the exchange": lambda channel: channel.exchange_delete(EXCHANGE),
    "delete its own queue": lambda channel: channel.queue_delete("auditor"),
    "delete another queue": lambda channel: channel.queue_delete("orchestrator"),
    "bind its own queue": _bind_own,
    "unbind its own queue": _unbind_own,
    "bind exchanges": _bind_exchanges,
    "get from another queue": _get_other,
    "consume another queue": _consume_other,
    "purge another queue": _purge_other,
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
async def test_the_broker_refuses(
    attempt: Attempt, account: AbstractConnection, rabbitmq_admin: RabbitAdmin
) -> None:
    with pytest.raises(ChannelAccessRefused):
        await attempt(await account.channel(publisher_confirms=True))
    untouched = await aio_pika.connect(rabbitmq_admin.url())
    async with untouched:
        channel = await untouched.channel()
        queue = await channel.get_queue("orchestrator")
        assert (await queue.get(no_ack=True)).body == b"private"


async def test_it_reads_its_own_queue(
    account: AbstractConnection, rabbitmq_admin: RabbitAdmin
) -> None:
    services = await aio_pika.connect(rabbitmq_admin.url())
    async with services:
        exchange = await (await services.channel()).get_exchange(EXCHANGE)
        for key in ("report.agent.seen.v1", "image.published.v1", "instances.x.v1.host.with.dots"):
            await exchange.publish(
                aio_pika.Message(key.encode(), timestamp=datetime.now(UTC)), key, mandatory=False
            )
    bodies: list[bytes] = []

    async def note(message: AbstractIncomingMessage) -> None:
        bodies.append(message.body)
        await message.ack()

    queue = await (await account.channel()).get_queue("auditor", ensure=False)
    await queue.consume(note)
    await eventually(lambda: len(bodies) >= 2)
    assert bodies == [b"image.published.v1", b"instances.x.v1.host.with.dots"]


async def test_it_has_no_door_to_the_management_api(
    account: AbstractConnection, backing: Backing
) -> None:
    api = httpx.URL(backing.rabbitmq_api_url)
    async with httpx.AsyncClient(auth=("auditor", "secret")) as client:
        answer = await client.get(api.copy_with(username=None, password=None, path="/api/queues"))
    assert answer.status_code == httpx.codes.UNAUTHORIZED
