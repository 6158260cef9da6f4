"""taskiq's broker, and how its jobs are put in."""

import asyncio
import os

from taskiq.serializers import ORJSONSerializer  # type: ignore[import-not-found]
from taskiq_redis import RedisStreamBroker  # type: ignore[import-not-found]

AT_ONCE = 200

# From the first message on: they are there before the workers are.
broker = RedisStreamBroker(
    os.environ["REDIS_URL"], consumer_id="0", max_connection_pool_size=20
).with_serializer(ORJSONSerializer())


async def do_nothing() -> None:
    pass


job = broker.task("do_nothing")(do_nothing)


async def _put_in(count: int) -> None:
    await broker.startup()
    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(job.kiq() for _ in range(min(AT_ONCE, count - first))))
    await broker.shutdown()


def put_in(count: int) -> None:
    asyncio.run(_put_in(count))
