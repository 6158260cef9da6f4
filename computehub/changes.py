"""Wakes long polls when the task list moves or a node is asked to stop.

The scripts publish on a channel that each hub listens to. A message may get lost with its
connection, so it is only a hint to look at once instead of at the next tick; looking is one read
a second for each hub, however many nodes wait.
"""

from __future__ import annotations

import asyncio

from computehub import keys
from computehub.redis_store import RedisStore, StoreUnavailable
from computehub.task_list import Current, Tasks
from gridcore.logs import EventLog

TICK_S = 1.0

log = EventLog("computehub")


class Changes:
    def __init__(self, store: RedisStore, tasks: Tasks) -> None:
        self._store = store
        self._tasks = tasks
        self._changed = asyncio.Event()
        self._current = Current()
        self._closing = False

    async def wait_until_different(
        self, version: str, *, node_id: str | None, within_s: float
    ) -> Current:
        """What holds now, as soon as it is not `version` or the node is asked to stop.

        Returns what holds at the end when nothing has changed in time, or the hub stops.
        """
        current = await self._tasks.current()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while current.version == version and node_id not in current.stops and not self._closing:
            changed = self._changed
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                break
            current = self._current
        return current

    def close(self) -> None:
        """Lets every waiting poll return, so that a stopping hub need not wait for them."""
        self._closing = True
        self._wake()

    async def run(self) -> None:
        """Watches until cancelled; an unreachable Redis is waited for."""
        is_down = False
        while True:
            try:
                async with self._store.subscription(keys.CHANGED) as pubsub:
                    while True:
                        await self._look()
                        if is_down:
                            log.info("redis_back")
                            is_down = False
                        await pubsub.get_message(timeout=TICK_S)
            except StoreUnavailable as error:
                if not is_down:
                    log.error("redis_unavailable", error=error)
                is_down = True
                await asyncio.sleep(TICK_S)

    async def _look(self) -> None:
        before, self._current = self._current, await self._tasks.current()
        if (before.version, before.stops) != (self._current.version, self._current.stops):
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
