"""Emptying an instance before it is stopped: it is asked by POST until it says that it is empty."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiohttp
from rollcall_contracts.model import Drain

from instance_agent.domain.drain import (
    FIRST_PAUSE,
    DrainEnd,
    Draining,
    in_words,
    judge,
    next_pause,
    time_left,
)
from instance_agent.driver import Endpoint

ANSWER_TIME = 10.0  # seconds; a hook that needs longer answers 202 and works on


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """The drain hook of one instance, and what is known of it."""

    url: str
    keep: Callable[[Draining], object]  # write down what another agent must know
    is_running: Callable[[], Awaitable[bool]]


def url_of(drain: Drain, endpoint: Endpoint) -> str | None:
    """Return where a hook is asked; None when neither driver nor model knows a port.

    A port that the driver has mapped for the instance counts more than the model's, as for probes.
    """
    port = endpoint.port or drain.port
    if not endpoint.address or not port:
        return None
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"http://{host}:{port}{drain.request_path}"


def begin(drain: Drain) -> Draining:
    """Return a drain whose time begins now."""
    now = datetime.now(UTC)
    return Draining(began=now, until=now + timedelta(seconds=drain.deadline))


async def empty(hook: Hook, draining: Draining) -> tuple[DrainEnd, str]:
    """Ask until the instance is empty or need not be waited for; return why, also in words.

    Never takes longer than the deadline. Raises what looking after the instance does.
    """
    asked, last, pause = 0, "nothing was asked", FIRST_PAUSE
    end: DrainEnd | None = None
    while end is None and (left := _time_left(draining)) > 0:
        status, last = await _ask(hook.url, min(left, ANSWER_TIME))
        asked += 1
        known = draining
        draining, end = judge(draining, status)
        if draining != known:
            hook.keep(draining)
        if status is None and not await hook.is_running():
            end = DrainEnd.STOPPED
        if end is None:
            await asyncio.sleep(min(pause, _time_left(draining)))
            pause = next_pause(pause)
    end = end or DrainEnd.DEADLINE
    seconds = max((datetime.now(UTC) - draining.began).total_seconds(), 0.0)
    return end, in_words(end, seconds=seconds, asked=asked, last=last)


def _time_left(draining: Draining) -> float:
    return time_left(draining, datetime.now(UTC))


async def _ask(url: str, patience: float) -> tuple[int | None, str]:
    """Ask once; return the status, None where there was no answer, and either in words."""
    try:
        async with (
            asyncio.timeout(patience),
            aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": "rollcall-instance-agent"},
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session,
            # A redirect is an answer like others: the question is to this instance.
            session.post(url, allow_redirects=False) as response,
        ):
            return response.status, f"POST {url} answered {response.status}"
    except TimeoutError:
        return None, f"POST {url} had no answer in {patience:.1f} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        return None, f"POST {url}: {os.strerror(number) if number else type(error).__name__}"
