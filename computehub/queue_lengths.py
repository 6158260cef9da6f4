"""The tasks' own Redis servers, looked at but never changed."""

from __future__ import annotations

import asyncio

from redis.exceptions import RedisError

from computehub.redis_store import connect
from gridcore.redis_urls import hide_password
from gridcore.wire import QueueLengths, TaskSpec

TIMEOUT_S = 2.0
"""A task's Redis may be anywhere, or gone; a person who asks for the lengths waits for it."""


class QueueWatcher:
    def __init__(self, hub_redis_url: str) -> None:
        self._hub_redis_url = hub_redis_url

    async def lengths(self, task: TaskSpec) -> QueueLengths:
        """Both lengths, or why one of them cannot be had."""
        input_url = task.input_redis or self._hub_redis_url
        output_url = task.output_redis or input_url
        input_queue, output_queue = task.queues
        (waiting, problem), (done, other_problem) = await asyncio.gather(
            _length(input_url, input_queue), _length(output_url, output_queue)
        )
        return QueueLengths(input=waiting, output=done, error=problem or other_problem)


async def _length(url: str, queue: str) -> tuple[int | None, str | None]:
    # A connection a question: tasks come and go, and a pool for each would have to be watched.
    client = connect(url, connections=1)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return int(await client.llen(queue)), None
    except (RedisError, OSError, TimeoutError) as error:
        return None, f"{hide_password(url)}: {type(error).__name__}: {error}".rstrip(": ")
    finally:
        await client.aclose()
