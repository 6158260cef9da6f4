"""The tasks' own Redis servers, looked at but never changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from redis.exceptions import RedisError

from computehub.census import Ledger, count
from computehub.producers import Producers, questions, understood
from computehub.task_redis import TaskRedis
from gridcore.lease_queue.keys import QueueKeys
from gridcore.redis_urls import hide_password
from gridcore.wire import QueueLengths, TaskSpec

TIMEOUT_S = 2.0
"""A task's Redis may be anywhere, or gone; a person who asks for the lengths waits for it."""

_Found = TypeVar("_Found")


class QueueWatcher:
    def __init__(self, hub_redis_url: str) -> None:
        self._hub_redis_url = hub_redis_url

    async def lengths(self, task: TaskSpec) -> QueueLengths:
        """All lengths, or why one of them cannot be had."""
        input_url = task.input_redis or self._hub_redis_url
        output_url = task.output_redis or input_url
        input_queue, output_queue = task.queues

        async def look(redis: TaskRedis) -> Ledger | int:
            if task.delivery == "leased":
                return await count(redis, input_queue)
            return await _length(redis, input_queue)

        (found, problem), (done, other_problem) = await asyncio.gather(
            _asked(input_url, look),
            _asked(output_url, lambda redis: _length(redis, output_queue)),
        )
        error = problem or other_problem
        if isinstance(found, Ledger):
            return QueueLengths(
                input=found.waiting,
                output=done,
                retrying=found.retrying,
                leased=found.leased,
                dead=found.dead,
                error=error,
            )
        return QueueLengths(input=found, output=done, error=error)

    async def ledger(self, task: TaskSpec, fleet: Iterable[str]) -> Ledger | None:
        """Of a leased task, for one who wants to know whether anything is left to do."""
        ledger, _problem = await _asked(
            task.input_redis or self._hub_redis_url,
            lambda redis: count(redis, task.queues[0], fleet=fleet, leased_always=False),
        )
        return ledger

    async def producers(self, task: TaskSpec) -> Producers | None:
        """Likewise, of a task without leases."""

        async def look(redis: TaskRedis) -> Producers:
            return understood(*await redis.ask(*questions(QueueKeys(task.queues[0]))))

        producers, _problem = await _asked(task.input_redis or self._hub_redis_url, look)
        return producers


async def _length(redis: TaskRedis, queue: str) -> int:
    return int(await redis.execute_command("LLEN", queue))


async def _asked(
    url: str, question: Callable[[TaskRedis], Awaitable[_Found]]
) -> tuple[_Found | None, str | None]:
    """The answer, or why there is none."""
    # A connection a question: tasks come and go, and a pool for each would have to be watched.
    async with TaskRedis.opened(url, timeout_s=TIMEOUT_S) as redis:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await question(redis), None
        except (RedisError, OSError, TimeoutError) as error:
            return None, f"{hide_password(url)}: {type(error).__name__}: {error}".rstrip(": ")
