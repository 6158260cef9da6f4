"""Waiting for something, but not beyond a request to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Interrupted(Exception):
    """The event came first; what was waited for has been cancelled."""


async def unless(interrupt: asyncio.Event, awaited: Coroutine[Any, Any, _T]) -> _T:
    """The result, or Interrupted as soon as the event is set."""
    if interrupt.is_set():
        awaited.close()
        raise Interrupted
    # No TaskGroup: it would wrap what `awaited` raises into a group.
    wanted = asyncio.create_task(awaited)
    interrupted = asyncio.create_task(interrupt.wait())
    try:
        await asyncio.wait({wanted, interrupted}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        interrupted.cancel()
        wanted.cancel()
        await asyncio.wait({wanted, interrupted})
    # A result that came at the same moment is not dropped: it may be a container.
    if wanted.cancelled():
        raise Interrupted
    return wanted.result()


async def pause(interrupt: asyncio.Event, seconds: float) -> None:
    """Sleeps for that long, or raises Interrupted as soon as the event is set."""
    await unless(interrupt, asyncio.sleep(seconds))
