"""Waiting on a condition instead of for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")

POLL_S = 0.01
"""Short beside everything that is waited for, long enough to leave the CPU to it."""


def wait_until(condition: Callable[[], T], *, within_s: float, what: str) -> T:
    """The first true value of `condition`; an AssertionError with the last value if there is none.

    What `condition` raises is not caught: a broken condition shows at once.
    """
    deadline = time.monotonic() + within_s
    while not (seen := condition()):
        if time.monotonic() > deadline:
            _fail(what, within_s, seen)
        time.sleep(POLL_S)
    return seen


async def wait_until_async(
    condition: Callable[[], Awaitable[T]], *, within_s: float, what: str
) -> T:
    """`wait_until` for a condition that is awaited; one call of it may outlast the time."""
    deadline = time.monotonic() + within_s
    while not (seen := await condition()):
        if time.monotonic() > deadline:
            _fail(what, within_s, seen)
        await asyncio.sleep(POLL_S)
    return seen


def _fail(what: str, within_s: float, seen: object) -> NoReturn:
    message = f"{what}: not within {within_s:g} s; last seen: {seen!r}"
    raise AssertionError(message)
