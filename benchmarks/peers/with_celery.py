"""Celery's app, and how its jobs are put in."""

import os

from celery import Celery  # type: ignore[import-not-found]

app = Celery("jobs", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=100,
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    broker_connection_retry_on_startup=True,
)


def do_nothing() -> None:
    pass


job = app.task(name="do_nothing")(do_nothing)


def put_in(count: int) -> None:
    with app.producer_pool.acquire() as producer:
        for _ in range(count):
            job.apply_async(producer=producer)
