"""arq's settings, and how its jobs are put in."""

import asyncio
import os
from typing import Any

from arq import create_pool  # type: ignore[import-not-found]
from arq.connections import RedisSettings  # type: ignore[import-not-found]

AT_ONCE = 200


async def do_nothing(context: dict[str, Any]) -> None:
    pass


class WorkerSettings:
    functions = (do_nothing,)
    redis_settings = RedisSettings.from_dsn(os.environ["REDIS_URL"])
    keep_result = 0
    max_jobs = 100
    queue_read_limit = 500
    poll_delay = 0.001


async def _put_in(count: int) -> None:
    pool = await create_pool(WorkerSettings.redis_settings)
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(
            *(pool.enqueue_job("do_nothing") for _ in range(min(AT_ONCE, count - first)))
        )


def put_in(count: int) -> None:
    asyncio.run(_put_in(count))
