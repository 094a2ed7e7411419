"""Waiting for a condition, with a deadline, in tests."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(
    predicate: Callable[[], T | Awaitable[T]],
    timeout: float = 10,  # noqa: ASYNC109 (asyncio.timeout could not tell the last answer)
    *,
    interval: float = 0.02,
) -> T:
    """Ask again until the answer is true, and return it; `predicate` may be a coroutine function.

    An AssertionError counts as "not yet". Raises AssertionError with the last answer, or the last
    failed assertion, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        failure: AssertionError | None = None
        answer: object = None
        try:
            found = predicate()
            value = await found if inspect.isawaitable(found) else found
            if value:
                return value
            answer = value
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            message = f"not within {timeout} s; the last answer was {answer!r}"
            raise AssertionError(str(failure) if failure else message) from failure
        await asyncio.sleep(interval)
