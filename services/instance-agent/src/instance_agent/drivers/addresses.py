"""Waiting for an address that only the network tells."""

import asyncio
from collections.abc import Awaitable, Callable

from instance_agent.driver import Endpoint

_LOOK = 0.5  # seconds between two looks


async def until_known(
    look: Callable[[], Awaitable[Endpoint | None]], seconds: float
) -> Endpoint | None:
    """Return what `look` finds, or None when the time is over: a guest says it when it is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while (found := await look()) is None:
        if loop.time() >= deadline:
            return None
        await asyncio.sleep(_LOOK)
    return found
