"""A service stops when it is told to, also when neither database nor broker answers any more."""

import asyncio
import os
import signal
import sys

import asyncpg
import pytest
from rollcall_testing import eventually
from rollcall_testing.proxy import proxy_to
from rollcall_testing.seeding import prepare


@pytest.mark.parametrize("away", [0.0, 0.3, 0.7, 1.1])
async def test_sigterm_ends_the_orchestrator_while_its_servers_are_away(
    database_url: str, amqp_url: str, away: float
) -> None:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
        await prepare(pool)
        async with proxy_to(database_url) as database, proxy_to(amqp_url) as broker:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "orchestrator"),
                env={
                    **os.environ,
                    "ROLLCALL_DATABASE_URL": database.url(database_url),
                    "ROLLCALL_AMQP_URL": broker.url(amqp_url),
                },
                stderr=asyncio.subprocess.PIPE,
            )
            assert process.stderr is not None
            async with asyncio.timeout(30):
                while b"broker_connected" not in await process.stderr.readline():
                    assert process.returncode is None
            database.close()
            broker.close()
            gone = asyncio.get_running_loop().time() + away
            await eventually(lambda: asyncio.get_running_loop().time() >= gone, timeout=5)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                await process.communicate()
    assert process.returncode == 0
