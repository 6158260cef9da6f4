"""SAQ's settings, and how its jobs are put in."""

import asyncio
import os
from typing import Any

from saq import Job, Queue  # type: ignore[import-not-found]

AT_ONCE = 200
NOT_KEPT = -1

queue = Queue.from_url(os.environ["REDIS_URL"])


async def do_nothing(context: dict[str, Any]) -> None:
    pass


settings = {"queue": queue, "functions": [do_nothing], "concurrency": 20}


async def _put_in(count: int) -> None:
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(
            *(
                queue.enqueue(Job("do_nothing", ttl=NOT_KEPT))
                for _ in range(min(AT_ONCE, count - first))
            )
        )


def put_in(count: int) -> None:
    asyncio.run(_put_in(count))
