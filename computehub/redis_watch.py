"""Looks at the watched queues of one Redis, and reaps there when it may."""

from __future__ import annotations

import asyncio
from typing import Any

from redis.exceptions import ResponseError

from computehub.census import handed_to, node_names
from computehub.licence import Licence
from computehub.reach import Reach, Seen
from computehub.task_redis import TaskRedis
from computehub.watched_queues import WatchedQueue, WatchedQueues
from gridcore.lease_queue.keys import QueueKeys
from gridcore.lease_queue.queue import LeaseQueue
from gridcore.logs import EventLog

GAPS_PER_LEASE = 3
"""A node that is silent for a lease has missed several renewals even if Redis was out of reach for
one such gap."""

SWEEP_EVERY_LEASES = 2
"""How often it is looked whether a node was handed an item after it was reaped."""

NODES_AT_ONCE = 1_000

log = EventLog("computehub")


class RedisWatch:
    def __init__(
        self, redis: TaskRedis, licence: Licence, watched: WatchedQueues, *, lease_s: float
    ) -> None:
        self._redis = redis
        self._licence = licence
        self._watched = watched
        self._lease_s = lease_s
        self._gap_s = lease_s / GAPS_PER_LEASE
        self._reach = Reach(gap_s=self._gap_s)
        self._sweep_at_s = 0.0
        self._refused: set[WatchedQueue] = set()

    async def look(self, queues: list[WatchedQueue], fleet: list[str]) -> None:
        (seconds, micros), server, *sizes = await self._ask_about(queues)
        at_s, redis_s = _now_s(), seconds + micros / 1e6
        may_ask = not isinstance(server, ResponseError)
        self._reach.saw(
            Seen(
                at_s=at_s,
                redis_s=redis_s,
                run_id=server.get("run_id") if may_ask else None,
                uptime_s=server.get("uptime_in_seconds") if may_ask else None,
            )
        )
        # One with very much to give back must keep neither the next look nor the others waiting.
        share_s = self._gap_s / 2 / len(queues)
        is_sweep_due = at_s >= self._sweep_at_s and not self._has_to_wait()
        for queue, size in zip(queues, sizes, strict=True):
            if isinstance(size, ResponseError):
                self._note_refusal(queue, size)
                continue
            self._watched.saw(queue, has_nodes=size > 0)
            try:
                until_s = _now_s() + share_s
                if size:
                    await self._reap_silent(queue, redis_s, until_s=until_s)
                if is_sweep_due:
                    await self._sweep(queue, fleet, until_s=until_s)
            except ResponseError as error:
                self._note_refusal(queue, error)
            else:
                self._refused.discard(queue)
        if is_sweep_due:
            self._sweep_at_s = at_s + SWEEP_EVERY_LEASES * self._lease_s

    async def _ask_about(self, queues: list[WatchedQueue]) -> list[Any]:
        time, *others = await self._redis.ask_each(
            ("TIME",),
            ("INFO", "server"),
            *(("ZCARD", QueueKeys(queue.name).nodes) for queue in queues),
        )
        if isinstance(time, ResponseError):
            raise time
        return [time, *others]

    async def _reap_silent(self, queue: WatchedQueue, redis_s: float, *, until_s: float) -> None:
        if not self._may_reap():
            return
        newest_ms = int((redis_s - self._lease_s) * 1000)
        nodes = QueueKeys(queue.name).nodes
        silent = await self._redis.execute_command(
            "ZRANGEBYSCORE", nodes, "-inf", newest_ms, "LIMIT", 0, NODES_AT_ONCE
        )
        await self._reap(queue, node_names(silent), until_s=until_s)

    async def _sweep(self, queue: WatchedQueue, fleet: list[str], *, until_s: float) -> None:
        """A node that was frozen while it waited for an item may be handed one after it was reaped.

        One that is well has an inbox, too, now and then: it has renewed, and is left alone.
        """
        if self._may_reap():
            handed = await handed_to(self._redis, queue.name, fleet)
            if not await self._reap(queue, handed, until_s=until_s):
                return
        # The others only keep pace: who begins to reap looks at everything again.
        self._watched.swept(queue)

    async def _reap(self, queue: WatchedQueue, nodes: list[str], *, until_s: float) -> bool:
        """True if that was all that there was to do."""
        leases = LeaseQueue(self._redis, queue.name)
        for node in nodes:
            held, handed = await self._redis.ask(
                ("HLEN", leases.keys.lease(node)), ("LLEN", leases.keys.inbox(node))
            )
            left: int | None = None
            while left is None or left > 0:
                if _now_s() > until_s or not self._may_reap():
                    return False
                left = await leases.reap(node, silent_ms=int(self._lease_s * 1000))
                if left is None:
                    break  # it was heard of
            else:
                log.warning("leases_reaped", node=node, queue=queue.name, items=held + handed)
        return True

    def _may_reap(self) -> bool:
        return self._licence.permits(_now_s(), reached_s=self._reach.lasted_s())

    def _has_to_wait(self) -> bool:
        """This hub is the one to reap, and the grace is not over."""
        return self._licence.is_held(_now_s()) and not self._may_reap()

    def _note_refusal(self, queue: WatchedQueue, error: ResponseError) -> None:
        if queue not in self._refused:
            log.warning("reaping_refused", queue=queue.name, error=error)
        self._refused.add(queue)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
