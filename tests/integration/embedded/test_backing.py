"""The fixtures themselves: each test gets ground of its own."""

import aio_pika
import asyncpg
import pytest
from rollcall_testing import eventually
from rollcall_testing.rabbit_admin import RabbitAdmin


@pytest.mark.parametrize("round_number", [1, 2])
async def test_a_database_is_fresh_each_time(database_url: str, round_number: int) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("CREATE TABLE mark (n int)")
        await connection.execute("INSERT INTO mark VALUES ($1)", round_number)
        assert await connection.fetchval("SELECT array_agg(n) FROM mark") == [round_number]
    finally:
        await connection.close()


@pytest.mark.parametrize("round_number", [1, 2])
async def test_a_vhost_is_fresh_each_time(
    amqp_url: str, rabbitmq_admin: RabbitAdmin, round_number: int
) -> None:
    assert rabbitmq_admin.queues() == {}
    async with await aio_pika.connect(amqp_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(
            f"round-{round_number}", durable=True, arguments={"x-queue-type": "quorum"}
        )
        assert list(rabbitmq_admin.queues()) == [f"round-{round_number}"]


async def test_an_account_of_a_test_has_the_permissions_it_was_given(
    rabbitmq_admin: RabbitAdmin,
) -> None:
    rabbitmq_admin.add_user("reader", "secret")
    rabbitmq_admin.set_permissions("reader", configure="", write="", read="^mine$")
    async with await aio_pika.connect(rabbitmq_admin.url("reader", "secret")) as connection:
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match="ACCESS_REFUSED"):
            await channel.declare_queue("mine")


async def test_waiting_returns_the_answer_and_fails_with_the_last_one() -> None:
    answers = iter([0, 0, 7])
    assert await eventually(lambda: next(answers)) == 7
    with pytest.raises(AssertionError, match="the last answer was 0"):
        await eventually(lambda: 0, timeout=0.05)
