"""How RQ's jobs are put in."""

import os

import redis
from rq import Queue  # type: ignore[import-not-found]

IN_BULK = 1_000


def do_nothing() -> None:
    pass


def put_in(count: int) -> None:
    queue = Queue(connection=redis.Redis.from_url(os.environ["REDIS_URL"]))
    left = count
    while left > 0:
        queue.enqueue_many(
            [
                # A result that is kept for no time is not kept.
                Queue.prepare_data("with_rq.do_nothing", result_ttl=0)
                for _ in range(min(left, IN_BULK))
            ]
        )
        left -= IN_BULK
