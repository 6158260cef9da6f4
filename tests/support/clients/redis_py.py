"""A plain program in redis-py: `redis_py.py sync|asyncio RESP ITEMS`.

It works on a quarter of its items in each of the ways in which people write such programs, and
knows nothing of what it is connected to.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
import redis.asyncio

URL = os.environ["INPUT_REDIS_URL"]
QUEUE, OUTPUT = os.environ["INPUT_QUEUE"], os.environ["OUTPUT_QUEUE"]
WORKERS = 4


def result_of(item: bytes) -> bytes:
    return b"result of " + item


def drain(protocol: int, quarter: int) -> None:
    client: Any = redis.Redis.from_url(URL, protocol=protocol)
    for _ in range(quarter):
        _, item = client.brpop([QUEUE], timeout=5)
        client.lpush(OUTPUT, result_of(item))

    batch = client.rpop(QUEUE, quarter)
    with client.pipeline(transaction=False) as pipeline:
        for item in batch:
            pipeline.rpush(OUTPUT, result_of(item))
        pipeline.execute()

    for _ in range(quarter):
        item = client.lpop(QUEUE)
        with client.pipeline(transaction=True) as pipeline:
            pipeline.lpush(OUTPUT, result_of(item))
            pipeline.llen(QUEUE)
            pipeline.execute()

    def work(_: int) -> None:
        _, item = client.blpop([QUEUE], timeout=5)
        client.lpush(OUTPUT, result_of(item))

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(work, range(quarter)))
    assert client.brpop([QUEUE], timeout=0.01) is None
    client.close()


async def drain_async(protocol: int, quarter: int) -> None:
    client: Any = redis.asyncio.Redis.from_url(URL, protocol=protocol)
    for _ in range(quarter):
        _, item = await client.brpop([QUEUE], timeout=5)
        await client.lpush(OUTPUT, result_of(item))

    batch = await client.rpop(QUEUE, quarter)
    async with client.pipeline(transaction=False) as pipeline:
        for item in batch:
            pipeline.rpush(OUTPUT, result_of(item))
        await pipeline.execute()

    for _ in range(quarter):
        item = await client.lpop(QUEUE)
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.lpush(OUTPUT, result_of(item))
            pipeline.llen(QUEUE)
            await pipeline.execute()

    left = iter(range(quarter))

    async def work() -> None:
        for _ in left:
            _, item = await client.blpop([QUEUE], timeout=5)
            await client.lpush(OUTPUT, result_of(item))

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    assert await client.brpop([QUEUE], timeout=0.01) is None
    # aclose() came with 5.0.1, and close() is deprecated since.
    await client.aclose()


if __name__ == "__main__":
    kind, resp, items = sys.argv[1:]
    if kind == "asyncio":
        asyncio.run(drain_async(int(resp), int(items) // 4))
    else:
        drain(int(resp), int(items) // 4)
