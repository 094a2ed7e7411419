"""Rollout overhead: Rollcall's whole stack against the floor, as ratios measured in one run.

Sets of real process instances on two hosts' agents; the time is the upgrade's own, from its start
to its end as the history tells it. `boot` is what the application takes until its first answer.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet, FleetView
from rollcall_cli.sample_image import build_image
from rollcall_embedded.stack import Stack, StackOptions

from benchmarks import floor

SIZES = (20, 50, 100)
BOOTS = (0.0, 2.0)
POLL = 0.3


async def until(fleet: DemoFleet, reached: Callable[[FleetView], bool]) -> FleetView:
    """Return the set as soon as it is so."""
    while not reached(view := await fleet.view()):
        await asyncio.sleep(POLL)
    return view


async def _ours(folder: Path, size: int, boot: float, rounds: int) -> float:
    """Return the best seconds of a rollout of `size` instances by the whole stack."""
    feed = Feed(folder, boot_seconds=boot)
    feed.publish("1.0")
    options = StackOptions(state_dir=folder / "state", config=feed.write_config(), throwaway=True)
    best = float("inf")
    async with Stack(options) as stack:
        fleet = DemoFleet(stack.api_url, stack.token)
        await fleet.create(size, health_timeout="PT60S")
        await until(fleet, lambda view: view.is_healthy_at("1.0", size))
        for number in range(1, rounds + 1):
            version = f"1.{number}"
            feed.publish(version)
            view = await until(fleet, partial(has_ended, version))
            best = min(best, seconds_of(view))
        await fleet.close()
    return best


def has_ended(version: str, view: FleetView) -> bool:
    """Say whether the upgrade to a version is over."""
    return view.has_ended(version) is not None


def seconds_of(view: FleetView) -> float:
    """Return how long the last upgrade took. Raises RuntimeError when it did not complete."""
    if view.upgrade is None or view.upgrade["status"] != "Completed":
        raise RuntimeError(f"the rollout did not complete: {view.upgrade}")
    start, end = (datetime.fromisoformat(view.upgrade[key]) for key in ("startTime", "endTime"))
    return (end - start).total_seconds()


async def _floor(folder: Path, size: int, boot: float, rounds: int) -> float:
    images = {
        version: build_image(folder / f"{version}.tar.gz", version, boot_seconds=boot)
        for version in ("1.0", "1.1")
    }
    best = float("inf")
    for number in range(rounds):
        best = min(best, await floor.measure(folder / str(number), images, size))
    return best


async def run(sizes: list[int], boots: list[float], rounds: int) -> None:
    """Measure each combination and print the table."""
    print(f"# rollout overhead, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores", flush=True)
    print(f"{'instances':>9}  {'boot':>5}  {'floor':>7}  {'rollcall':>8}  ratio")
    for boot in boots:
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="rollcall-bench-") as name:
                folder = Path(name)
                folder.chmod(0o755)  # the database server may run as another user below it
                bare = await _floor(folder / "floor", size, boot, rounds)
                ours = await _ours(folder, size, boot, rounds)
            print(
                f"{size:>9}  {boot:>4g}s  {bare:>6.2f}s  {ours:>7.2f}s  {ours / bare:.2f}",
                flush=True,
            )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--boots", type=float, nargs="+", default=list(BOOTS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asyncio.run(run(options.sizes, options.boots, options.rounds))


if __name__ == "__main__":
    main()
