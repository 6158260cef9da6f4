"""Dramatiq's broker, and how its jobs are put in."""

import os

import dramatiq  # type: ignore[import-not-found]
from dramatiq.brokers.redis import RedisBroker  # type: ignore[import-not-found]

# Without middleware: retries, time limits and statistics each cost something for every job.
broker = RedisBroker(url=os.environ["REDIS_URL"], middleware=[])
dramatiq.set_broker(broker)


def do_nothing() -> None:
    pass


job = dramatiq.actor(do_nothing)


def put_in(count: int) -> None:
    for _ in range(count):
        job.send()
