"""As short as such programs come: `redis_py_patient.py sync|asyncio|url`, all by default.

By default redis-py 8 waits five seconds for a reply. A client that was made by its class then asks
again on a new connection, ten times; one that was made from a URL gives up.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio

URL = os.environ["INPUT_REDIS_URL"]
QUEUE, OUTPUT = os.environ["INPUT_QUEUE"], os.environ["OUTPUT_QUEUE"]
PARTS = urlsplit(URL)
OPTIONS: dict[str, Any] = {"host": PARTS.hostname, "port": PARTS.port, "password": PARTS.password}


def work(client: Any) -> None:
    _, item = client.brpop(QUEUE)
    client.lpush(OUTPUT, b"result of " + item)


async def work_async(client: Any) -> None:
    _, item = await client.brpop(QUEUE)
    await client.lpush(OUTPUT, b"result of " + item)
    await client.aclose()


if __name__ == "__main__":
    if sys.argv[1] == "asyncio":
        asyncio.run(work_async(redis.asyncio.Redis(**OPTIONS)))
    elif sys.argv[1] == "sync":
        work(redis.Redis(**OPTIONS))
    else:
        work(redis.Redis.from_url(URL))
