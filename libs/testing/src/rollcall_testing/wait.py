"""Waiting for a condition, with a deadline, in tests."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")


@overload
def eventually(
    predicate: Callable[[], Awaitable[T]], timeout: float = 10, *, interval: float = 0.02
) -> Coroutine[Any, Any, T]: ...


@overload
def eventually(
    predicate: Callable[[], T], timeout: float = 10, *, interval: float = 0.02
) -> Coroutine[Any, Any, T]: ...


async def eventually(
    predicate: Callable[[], Any],
    timeout: float = 10,  # noqa: ASYNC109 (asyncio.timeout could not tell the last answer)
    *,
    interval: float = 0.02,
) -> Any:
    """Ask again until the answer is true, and return it; `predicate` may be a coroutine function.

    An AssertionError counts as "not yet". Raises AssertionError with the last answer, or the last
    failed assertion, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        failure: AssertionError | None = None
        answer: Any = None
        try:
            answer = predicate()
            if inspect.isawaitable(answer):
                answer = await answer
            if answer:
                return answer
        except AssertionError as error:
            failure = error
        if time.monotonic() > deadline:
            message = f"not within {timeout} s; the last answer was {answer!r}"
            raise AssertionError(str(failure) if failure else message) from failure
        await asyncio.sleep(interval)


async def until(
    look: Callable[[], Awaitable[T]],
    wanted: Callable[[T], bool],
    *,
    timeout: float = 120,  # noqa: ASYNC109 (as above)
    interval: float = 0.05,
) -> T:
    """Look again until what is seen is as wanted, and return it. Raises as `eventually` does."""

    async def seen() -> tuple[T] | None:
        found = await look()
        assert wanted(found), f"not within {timeout} s; what was seen last was {found!r}"
        return (found,)  # true, whatever it is

    found = await eventually(seen, timeout, interval=interval)
    assert found is not None
    return found[0]
