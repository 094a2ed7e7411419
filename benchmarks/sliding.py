"""Sliding batches beside barrier batches, on real instances whose boot times are unequal.

One set, one stack: rollouts under either policy by turns, so that both see the same machine. The
time is the upgrade's own. Both have the same cap on how many may be down at once.
"""

import argparse
import asyncio
import os
import tempfile
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, most_down
from rollcall_embedded.stack import Stack, StackOptions

from benchmarks.overhead import has_ended, seconds_of, until


async def run(size: int, boot: float, spread: float, rounds: int) -> None:
    """Measure both by turns and print the table."""
    print(f"# sliding batches, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores", flush=True)
    print(f"{size} instances that boot in {boot:g} to {boot + spread:g} s, 20 % at a time")
    times: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(prefix="rollcall-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the database server may run as another user below it
        feed = Feed(folder, boot_seconds=boot, boot_spread=spread)
        feed.publish("1.0")
        options = StackOptions(
            state_dir=folder / "state", config=feed.write_config(), throwaway=True
        )
        async with Stack(options) as stack:
            fleet = DemoFleet(stack.api_url, stack.token)
            await fleet.create(size, health_timeout="PT60S")
            await until(fleet, lambda view: view.is_healthy_at("1.0", size))
            for number in range(1, 2 * rounds + 1):
                sliding = number % 2 == 0
                await fleet.create(size, health_timeout="PT60S", policy={"slidingBatches": sliding})
                feed.publish(f"1.{number}")
                view = await until(fleet, partial(has_ended, f"1.{number}"))
                times[sliding].append(seconds_of(view))
            down = most_down(await fleet.events())
            await fleet.close()
    barrier, sliding_time = median(times[False]), median(times[True])
    print(f"{'barrier':>9}  {'sliding':>8}  ratio  most down at once (allowed)")
    print(
        f"{barrier:>8.2f}s  {sliding_time:>7.2f}s  {sliding_time / barrier:.2f}   "
        f"{down} ({max(1, size * 20 // 100)})",
        flush=True,
    )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=25)
    parser.add_argument("--boot", type=float, default=0.5)
    parser.add_argument("--spread", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    asyncio.run(run(options.size, options.boot, options.spread, options.rounds))


if __name__ == "__main__":
    main()
