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
        self._looked_s = 0.0
        self._closing = False

    async def wait_until_different(
        self, version: str, *, node_id: str | None, within_s: float
    ) -> Current:
        """What holds now, as soon as it is not `version` or the node is asked to stop.

        Returns what holds at the end when nothing has changed in time, or the hub stops.
        """
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        # The event before the read: a change between the two would wake only those before us.
        changed = self._changed
        current = await self._tasks.current()
        while current.version == version and node_id not in current.stops and not self._closing:
            try:
                async with asyncio.timeout_at(asked_s + within_s):
                    await changed.wait()
            except TimeoutError:
                break
            changed = self._changed
            # A look that began before we asked may not have seen yet what the node has seen.
            is_newer = self._looked_s >= asked_s
            current = self._current if is_newer else await self._tasks.current()
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
                        await self.look()
                        if is_down:
                            log.info("redis_back")
                            is_down = False
                        await pubsub.get_message(timeout=TICK_S)
            except StoreUnavailable as error:
                if not is_down:
                    log.error("redis_unavailable", error=error)
                is_down = True
                await asyncio.sleep(TICK_S)

    async def look(self) -> None:
        """Reads what holds now, and wakes those who wait if that is news."""
        looked_s = asyncio.get_running_loop().time()
        before, self._current = self._current, await self._tasks.current()
        self._looked_s = looked_s
        if (before.version, before.stops) != (self._current.version, self._current.stops):
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
