"""Huey's queue, and how its jobs are put in."""

import os

from huey import RedisHuey  # type: ignore[import-not-found]

huey = RedisHuey("jobs", url=os.environ["REDIS_URL"], results=False)


def do_nothing() -> None:
    pass


job = huey.task()(do_nothing)


def put_in(count: int) -> None:
    for _ in range(count):
        job()
