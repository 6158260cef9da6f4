"""Gives the items of lost nodes back to their queues.

Every replica of the hub watches, so that each knows for how long nodes could have renewed; the one
that holds the lock reaps. A Redis that is stuck or gone keeps nobody else waiting: each has a task
of its own here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from computehub import keys
from computehub.caretaker import OUTAGE_S
from computehub.fleet import Fleet
from computehub.licence import Licence
from computehub.lock import Lock
from computehub.redis_store import RedisStore, StoreUnavailable
from computehub.redis_watch import RedisWatch
from computehub.task_list import Tasks
from computehub.task_redis import TaskRedis
from computehub.watched_queues import WatchedQueues
from gridcore.logs import EventLog
from gridcore.redis_urls import hide_password

TICK_S = 1.0
TICKS_PER_LEASE = 10
"""At least so many looks in the time of a lease, which is what tests shorten."""

LOCK_S = 5.0
"""So long nobody reaps when the hub that did is killed."""

SUSPECT_EVERY_LEASES = 2
"""How often all tasks are looked at: a minute, unless tests shorten the lease. A task that ran
between two ticks is found then."""

CALL_TIMEOUT_S = 4.0

log = EventLog("computehub")


class Reaper:
    def __init__(
        self, store: RedisStore, tasks: Tasks, fleet: Fleet, *, hub_redis_url: str, lease_s: float
    ) -> None:
        self._tasks = tasks
        self._fleet = fleet
        self._lock = Lock(store, keys.REAPER, expires_s=LOCK_S)
        self._licence = Licence(lease_s=lease_s, lock_s=LOCK_S)
        self._watched = WatchedQueues(hub_redis_url)
        self._hub_redis_url = hub_redis_url
        self._lease_s = lease_s
        self._tick_s = min(TICK_S, lease_s / TICKS_PER_LEASE)
        self._is_beginning = False
        self._suspect_at_s = 0.0
        self._nodes: list[str] = []

    async def run(self) -> None:
        """Until cancelled."""
        watches: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                with suppress(StoreUnavailable):  # computehub.changes says so, once
                    await self._look_at_hub()
                for url in self._watched.redis_urls():
                    if url not in watches or watches[url].done():
                        watches[url] = group.create_task(self._watch(url))
                await asyncio.sleep(self._tick_s)

    async def _look_at_hub(self) -> None:
        """Who reaps, and what there is to watch."""
        now_s = _now_s()
        served_s = await self._fleet.served_without_gap_s(gap_s=OUTAGE_S)
        if await self._lock.hold():
            if not self._licence.is_held(now_s):
                log.info("reaping_here")
                self._is_beginning = True
            self._licence.renew(now_s, served_s=served_s)
        else:
            self._licence.withdraw()
        self._watched.run((await self._tasks.current()).task)
        if self._is_beginning or now_s >= self._suspect_at_s:
            self._nodes = await self._fleet.ids()
            tasks = await self._tasks.all()
            self._watched.suspect(tasks, to_be_swept=self._is_beginning)
            self._is_beginning = False
            self._suspect_at_s = now_s + SUSPECT_EVERY_LEASES * self._lease_s

    async def _watch(self, url: str) -> None:
        """One Redis, as long as any queue there is watched."""
        async with TaskRedis.opened(url, timeout_s=CALL_TIMEOUT_S) as redis:
            watch = RedisWatch(redis, self._licence, self._watched, lease_s=self._lease_s)
            is_told = False
            while queues := self._watched.at(url):
                try:
                    await watch.look(queues, self._nodes)
                except Exception as error:  # noqa: BLE001  no server's answers may end the hub
                    if not is_told and not self._is_told_elsewhere(url, error):
                        log.warning(
                            "task_redis_unavailable",
                            error=redis.unavailable("looking for leases of lost nodes", error),
                        )
                        is_told = True
                else:
                    if is_told:
                        log.info("task_redis_back", redis=hide_password(url))
                    is_told = False
                self._watched.drop_done(url)
                await asyncio.sleep(self._tick_s)

    def _is_told_elsewhere(self, url: str, error: Exception) -> bool:
        # computehub.changes listens to the hub's own Redis.
        is_away = isinstance(error, RedisError | OSError | TimeoutError)
        return is_away and url == self._hub_redis_url


def _now_s() -> float:
    return asyncio.get_running_loop().time()
