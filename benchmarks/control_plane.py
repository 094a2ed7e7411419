"""Control-plane rate: a rollout of sets of several sizes, with agents that answer at once.

Real broker, real database, the real orchestrator; nothing is swapped. Prints instances per second
for each size, and the cost per instance relative to the smallest set's, all measured in one run.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from rollcall_contracts.model import RollingPolicy
from rollcall_embedded.process import spawn
from rollcall_kit.database import open_pool
from rollcall_testing.backing import backing_services
from rollcall_testing.fleets import image, spec
from rollcall_testing.rabbit_admin import RabbitAdmin
from rollcall_testing.seeding import change_set, prepare, publish_image

SIZES = (100, 1_000, 10_000)
HOSTS = 10


def _spawn(module: str, *arguments: str, **settings: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "ROLLCALL_LOG_LEVEL": "WARNING", **settings}
    log = Path(tempfile.gettempdir()) / f"rollcall-bench-{os.getpid()}-{module}.log"
    command = [sys.executable, "-m", module, *arguments]
    return spawn(command, log=log, env=environment, cwd=log.parent)  # ends with this process


async def _wait_healthy(pool: asyncpg.Pool, name: str, version: str, size: int) -> None:
    while True:
        done = await pool.fetchval(
            "SELECT count(*) FROM instances WHERE scale_set = $1 AND version = $2"
            " AND phase = 'ready' AND health = 'Healthy'",
            name,
            version,
        )
        if done == size:
            return
        await asyncio.sleep(0.05)


async def measure(pool: asyncpg.Pool, size: int, repeats: int) -> float:
    """Return the best seconds of a rollout of a set of `size` instances, upgrade start to end."""
    name = (
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/"
        f"bench-{size}"
    )
    line = {"offer": f"bench-{size}"}
    model = spec(size, scale_set=name, policy=RollingPolicy())
    model = model.model_copy(update={"image": model.image.model_copy(update=line)})
    await publish_image(pool, image("1.0", **line))
    await change_set(pool, model)
    await _wait_healthy(pool, name, "1.0", size)
    best = float("inf")
    for number in range(1, repeats + 1):
        await publish_image(pool, image(f"1.{number}", **line))
        row = None
        while row is None:
            await asyncio.sleep(0.05)
            row = await pool.fetchrow(
                "SELECT started_at, ended_at FROM upgrades WHERE scale_set = $1"
                " AND status = 'Completed' AND image->>'version' = $2",
                name,
                f"1.{number}",
            )
        best = min(best, (row["ended_at"] - row["started_at"]).total_seconds())
        await _wait_healthy(pool, name, f"1.{number}", size)
    return best


async def run(database_url: str, amqp_url: str, sizes: list[int], repeats: int) -> None:
    """Measure each size and print the table."""
    settings = {"ROLLCALL_DATABASE_URL": database_url, "ROLLCALL_AMQP_URL": amqp_url}
    pool = await open_pool(database_url)
    await prepare(pool)
    processes = [
        _spawn("orchestrator", **settings),
        _spawn("rollcall_testing.answering", amqp_url, str(HOSTS)),
    ]
    try:
        print(f"{'instances':>9}  {'seconds':>8}  {'instances/s':>11}  cost each, relative")
        base = None
        for size in sizes:
            began = time.monotonic()
            seconds = await measure(pool, size, repeats)
            base = base or seconds / size
            print(
                f"{size:>9}  {seconds:>8.2f}  {size / seconds:>11.0f}  "
                f"{seconds / size / base:.2f}   ({time.monotonic() - began:.0f} s in all)",
                flush=True,
            )
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)
        await pool.close()


def main() -> None:
    """Start the servers, measure, stop them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"# control plane, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores", flush=True)
    with backing_services(print) as backing:
        vhost = f"bench-{os.getpid()}"
        with RabbitAdmin(backing.amqp_url, backing.rabbitmq_api_url, vhost) as admin:
            admin.add_vhost()
            asyncio.run(run(backing.database_url, admin.url(), options.sizes, options.repeats))
            admin.delete_vhost()


if __name__ == "__main__":
    main()
