"""One connection to a Redis: any number of calls at a time, answered in their order.

redis-py's connections know URLs, TLS and how to log in; its clients, which take a connection out of
a pool for each call, cannot let a hundred calls share one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_S = 5.0
CALL_S = 10.0
"""A Redis that takes longer for one of our calls is taken for gone, and connected to anew."""


class Link:
    """Made by `connected`."""

    def __init__(self, connection: redis.asyncio.Connection) -> None:
        self._connection = connection
        self._due: deque[asyncio.Future[Any]] = deque()
        self._lost: Exception | None = None
        self._reading: asyncio.Task[None] | None = None

    async def execute_command(self, *arguments: Any, within_s: float = CALL_S) -> Any:
        if self._lost:
            raise redis.exceptions.ConnectionError(str(self._lost))
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._due.append(answer)
        try:
            async with asyncio.timeout(within_s):
                # It writes before it waits for anything, so the order of calls is that of answers.
                # hiredis packs a large commit in a tenth of the time that redis-py takes.
                await self._connection.send_packed_command(
                    hiredis.pack_command(arguments), check_health=False
                )
                return await answer
        except TimeoutError:
            # Nobody knows any more which answer belongs to which call.
            self.fail(redis.exceptions.TimeoutError(f"no answer within {within_s:.0f} s"))
            raise redis.exceptions.TimeoutError(f"no answer within {within_s:.0f} s") from None

    async def read(self) -> None:
        """Until the connection is lost, which is the error that it raises."""
        self._reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({self._reading})
        finally:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        assert self._lost is not None
        raise self._lost

    async def _read(self) -> None:
        try:
            while True:
                try:
                    answer = await self._connection.read_response(disable_decoding=True)
                except redis.exceptions.ResponseError as refusal:
                    self._answered(None, refusal)
                else:
                    self._answered(answer, None)
        except (redis.exceptions.RedisError, OSError) as error:
            self.fail(error)

    def _answered(self, answer: Any, refusal: Exception | None) -> None:
        future = self._due.popleft()
        if future.done():
            return
        if refusal is not None:
            future.set_exception(refusal)
        else:
            future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """The connection is of no use any more; `read` ends with this error."""
        if self._lost is None:
            self._lost = error
            if self._reading:
                self._reading.cancel()
        while self._due:
            future = self._due.popleft()
            if not future.done():
                future.set_exception(redis.exceptions.ConnectionError(str(error)))
                future.exception()  # it may be that nobody waits for it any more


class Line:
    """The connection of the moment, for those who can wait until there is one."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._is_up = asyncio.Event()

    def up(self, link: Link) -> None:
        self._link = link
        self._is_up.set()

    def down(self) -> None:
        self._link = None
        self._is_up.clear()

    async def link(self) -> Link:
        while True:
            await self._is_up.wait()
            if self._link is not None:
                return self._link


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Link]:
    """Somebody has to run its `read`."""
    pool = redis.asyncio.ConnectionPool.from_url(
        url,
        protocol=2,
        # With a timeout redis-py waits by asyncio.wait_for, which on Python 3.11 now and then
        # swallows a cancellation.
        socket_timeout=None,
        socket_connect_timeout=None,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )
    connection = pool.make_connection()  # type: ignore[no-untyped-call]
    link = None
    try:
        async with asyncio.timeout(CONNECT_S):
            await connection.connect()
        link = Link(connection)
        yield link
    finally:
        if link is not None:
            link.fail(redis.exceptions.ConnectionError("closed"))
        await connection.disconnect(nowait=True)
