"""Two publishers as real processes, with a real broker; one of them is killed."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from rollcall_cli.feed import add_image, init_feed
from rollcall_kit.broker import Broker
from rollcall_testing.listening import listen


@asynccontextmanager
async def publisher(config: Path, **urls: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an image-publisher; it is stopped, or killed if it does not stop, at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "image_publisher",
        env={**os.environ, "ROLLCALL_CONFIG": str(config), **urls},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(20):
                assert await process.wait() in (0, -9)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise


async def test_two_processes_publish_each_version_once(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    feed, config, file = tmp_path / "feed", tmp_path / "config.yaml", tmp_path / "app.tar.gz"
    init_feed(feed)
    config.write_text(
        f"feeds:\n  - {{name: own, url: '{feed.as_uri()}', unsigned: true, interval: 0.2}}\n"
    )
    urls = {"ROLLCALL_DATABASE_URL": database_url, "ROLLCALL_AMQP_URL": amqp_url}
    broker = Broker(amqp_url, source="test")
    running = asyncio.create_task(broker.run())
    versions = [f"1.{number}" for number in range(6)]
    async with asyncio.timeout(90):
        await broker.wait_up()
        async with (
            listen(amqp_url, ["image.#"]) as received,
            publisher(config, **urls) as first,
            publisher(config, **urls),
        ):
            arrived: dict[str, str] = {}  # a publisher that is killed may have sent twice
            for version in versions:
                file.write_text(version)
                add_image(feed, file, publisher="Acme", offer="app", sku="stable", version=version)
                while version not in arrived.values():
                    message = await anext(received)
                    sequence = message.attributes["sequence"]
                    arrived[sequence] = json.loads(message.body)["image"]["version"]
                if version == "1.2":
                    first.kill()
            assert arrived == {str(n): version for n, version in enumerate(versions, start=1)}
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("SELECT sequence, body FROM event_log ORDER BY sequence")
    await connection.close()
    assert [json.loads(row["body"])["image"]["version"] for row in rows] == versions
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
