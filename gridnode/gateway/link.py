"""One connection to a Redis: any number of calls at a time, answered in their order.

redis-py's connections know URLs, TLS and how to log in; its clients, which take a connection out of
a pool for each call, cannot let a hundred calls share one.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions
from redis._parsers import BaseParser
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

CONNECT_S = 5.0
CALL_S = 10.0
"""A Redis from which nothing comes for so long, and to which nothing of what it was told gets
through, is taken for gone, and connected to anew. However much there is to carry may take as long
as it needs."""

LONGEST_RECONNECT_PAUSE_S = 5.0

LOOKS = 10
"""In that time, at whether anything has moved: one timer for the connection, not one for each
call."""

READ_BYTES = 64 * 1024

_MORE = object()
"""hiredis has no whole answer yet."""


class Link:
    """Made by `connected`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._due: deque[tuple[asyncio.Future[Any], float | None]] = deque()
        self._lost: Exception | None = None
        self._reading: asyncio.Task[None] | None = None
        self._reads = 0
        self._seen: tuple[int, ...] = ()
        self._still_s = 0.0

    async def execute_command(self, *arguments: Any, within_s: float | None = None) -> Any:
        """`within_s` is for a call that Redis answers when it likes; else it is CALL_S."""
        if self._lost:
            raise redis.exceptions.ConnectionError(str(self._lost))
        # hiredis packs a large commit in a tenth of the time that redis-py takes.
        packed = hiredis.pack_command(arguments)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # Both before anything is waited for, so the order of calls is that of answers. That the
        # connection has room is not waited for: nothing can be done then but wait for the answer.
        self._due.append((answer, within_s))
        self._writer.write(packed)
        return await answer

    async def read(self) -> None:
        """Until the connection is lost, which is the error that it raises."""
        self._reading = asyncio.create_task(self._read())
        try:
            while not self._reading.done():
                pause_s = CALL_S / LOOKS
                await asyncio.wait({self._reading}, timeout=pause_s)
                if not self._reading.done():
                    self._look(pause_s)
        finally:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        assert self._lost is not None
        raise self._lost

    async def _read(self) -> None:
        # redis-py's own errors, and its meaning of each.
        answers = hiredis.Reader(
            protocolError=redis.exceptions.InvalidResponse,
            replyError=BaseParser.parse_error,
            notEnoughData=_MORE,
        )
        try:
            while received := await self._reader.read(READ_BYTES):
                self._reads += 1
                answers.feed(received)
                while (answer := answers.gets()) is not _MORE:
                    if isinstance(answer, redis.exceptions.ConnectionError):
                        raise answer  # it is loading its data, or wants a password
                    self._answered(answer)
            self.fail(redis.exceptions.ConnectionError("Redis has closed the connection"))
        except (redis.exceptions.RedisError, OSError) as error:
            self.fail(error)

    def _answered(self, answer: Any) -> None:
        future, _ = self._due.popleft()
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _look(self, since_s: float) -> None:
        """Whether anything has moved since the last look; fails if nothing has for too long.

        The time is counted in looks: what stood still while this process did is none of Redis'
        fault.
        """
        seen = self._reads, *_carried(self._writer.transport)
        if seen != self._seen or not self._due:
            self._seen, self._still_s = seen, 0.0
            return
        self._still_s += since_s
        _, within_s = self._due[0]
        if self._still_s >= (within_s or CALL_S):
            error = f"no answer within {self._still_s:.0f} s"
            # Nobody knows any more which answer belongs to which call.
            self.fail(redis.exceptions.TimeoutError(error))

    def fail(self, error: Exception) -> None:
        """The connection is of no use any more; `read` ends with this error."""
        if self._lost is None:
            self._lost = error
            if self._reading:
                self._reading.cancel()
            # What has not been sent is not to be sent any more.
            self._writer.transport.abort()
        while self._due:
            future, _ = self._due.popleft()
            if not future.done():
                future.set_exception(redis.exceptions.ConnectionError(str(error)))
                future.exception()  # it may be that nobody waits for it any more


def _carried(transport: asyncio.WriteTransport) -> tuple[int, ...]:
    """Numbers that change as long as anything is carried, be it ever so slowly.

    The kernel takes several megabytes at once, and these may be on their way for longer than
    CALL_S: that they arrive only the kernel knows. Where it does not tell (macOS), what it has
    not taken yet must do.
    """
    connected: socket.socket | None = transport.get_extra_info("socket")
    if transport.is_closing():
        return ()
    with suppress(OSError):  # a Unix socket
        if connected is not None and _TCP_INFO is not None:
            info = connected.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _BYTES_CARRIED.size)
            if len(info) == _BYTES_CARRIED.size:
                return _BYTES_CARRIED.unpack(info)
    return (transport.get_write_buffer_size(),)


_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)
_BYTES_CARRIED = struct.Struct("=120x2Q")
"""Of Linux' tcp_info: tcpi_bytes_acked and tcpi_bytes_received."""


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
        # redis-py would wait for room in the connection and read one answer at a time.
        reader, writer = connection._reader, connection._writer
        assert reader is not None
        assert writer is not None
        link = Link(reader, writer)
        yield link
    finally:
        if link is not None:
            link.fail(redis.exceptions.ConnectionError("closed"))
        await connection.disconnect(nowait=True)


def first_of(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
