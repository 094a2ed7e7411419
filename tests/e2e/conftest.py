"""The whole stack for an end-to-end test: real servers, real services, real processes."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from rollcall_cli.demo_feed import Feed
from rollcall_cli.demo_fleet import DemoFleet
from rollcall_embedded.stack import Stack, StackOptions
from rollcall_testing import until

RunningSet = Callable[[Feed, int], AbstractAsyncContextManager[tuple[Stack, DemoFleet]]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the database server's own user may pass through, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="rollcall-e2e-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def running_set(folder: Path) -> RunningSet:
    """What gives a stack with a healthy set of so many instances at version 1.0.0."""

    @asynccontextmanager
    async def running(feed: Feed, capacity: int) -> AsyncIterator[tuple[Stack, DemoFleet]]:
        feed.publish("1.0.0")
        config = feed.write_config()
        options = StackOptions(state_dir=folder / "state", config=config, throwaway=True)
        async with Stack(options) as stack:
            fleet = DemoFleet(stack.api_url, stack.token)
            await fleet.create(capacity, health_timeout="PT60S")
            await until(fleet.view, lambda view: view.is_healthy_at("1.0.0", capacity))
            yield stack, fleet
            await fleet.close()

    return running
