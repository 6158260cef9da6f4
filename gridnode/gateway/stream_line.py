"""The connection on which streams are waited for: one for all runs of a node.

An XREAD BLOCK of all keys that anybody waits for. Who comes with another key has it interrupted
(CLIENT UNBLOCK, over the connection of all calls) and asked anew. Nothing can be lost by that, or
by a connection that breaks: to read a stream changes nothing, and an id says what is known already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from redis.exceptions import RedisError, ResponseError

from gridcore.backoff import full_jitter_s
from gridcore.logs import EventLog
from gridcore.redis_urls import hide_password
from gridnode.gateway.link import LONGEST_RECONNECT_PAUSE_S, Line, Link, connected, first_of
from gridnode.gateway.watched_streams import StreamIds, StreamWatch, WatchedStreams, covers

BLOCK_S = 10.0
WATCHDOG_S = 3.0
"""A blocked call that is not answered so long after its time is on a connection that is dead."""

IDLE_S = 10.0
"""When nobody has waited for so long the connection is closed."""

INTERRUPT_AGAIN_S = 0.001
"""The interruption takes another connection than the call, and may be there before it."""

REFUSED_PAUSE_S = 0.25
"""One of the keys is no stream, or they cannot be read together: then all look for themselves."""

log = EventLog("gridnode.gateway")


class _CannotInterrupt(Exception):
    """That Redis does not let us; a new connection can ask for more as well."""


class StreamLine:
    def __init__(self, redis_url: str, calls: Line) -> None:
        """`calls` is the connection over which it is interrupted."""
        self._redis_url = redis_url
        self._calls = calls
        self._watched = WatchedStreams()
        self._somebody_waits = asyncio.Event()
        self._asked: StreamIds | None = None
        """What the call under way waits for."""
        self._to_interrupt = asyncio.Event()

    def watch(self, ids: StreamIds, then: Callable[[], None]) -> StreamWatch:
        watch = self._watched.watch(ids, then)
        self._somebody_waits.set()
        if self._asked is not None and not covers(self._asked, ids):
            self._to_interrupt.set()
        return watch

    async def run(self) -> None:
        """Until cancelled."""
        attempt = 0
        while True:
            await self._wait_for_somebody()
            pause_s = 0.0
            try:
                async with connected(self._redis_url) as link, asyncio.TaskGroup() as group:
                    beside = [group.create_task(link.read())]
                    client_id = await link.execute_command("CLIENT", "ID")
                    beside.append(group.create_task(self._interrupt_when_asked(client_id)))
                    attempt = 0
                    await self._serve(link)
                    for task in beside:
                        task.cancel()
            except* _CannotInterrupt:
                pass
            except* (RedisError, OSError, TimeoutError) as errors:
                if attempt == 0:
                    log.warning(
                        "streams_away",
                        redis=hide_password(self._redis_url),
                        error=first_of(errors),
                    )
                pause_s = full_jitter_s(attempt, first_s=0.1, most_s=LONGEST_RECONNECT_PAUSE_S)
                attempt += 1
            self._is_asked_no_more()
            await asyncio.sleep(pause_s)

    async def _serve(self, link: Link) -> None:
        """Until nobody has waited for a while."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._wait_for_somebody()
            except TimeoutError:
                return
            await self._ask(link)

    async def _wait_for_somebody(self) -> None:
        while not self._watched.union():
            self._somebody_waits.clear()
            await self._somebody_waits.wait()

    async def _ask(self, link: Link) -> None:
        self._asked = asked = self._watched.union()
        ids = [b"%d-%d" % last for last in asked.values()]
        try:
            # One entry is enough to know by, and may be large.
            came = await link.execute_command(
                *("XREAD", "COUNT", 1, "BLOCK", int(BLOCK_S * 1000), "STREAMS", *asked, *ids),
                within_s=BLOCK_S + WATCHDOG_S,
            )
        except ResponseError:
            self._is_asked_no_more()
            self._watched.came(asked)
            await asyncio.sleep(REFUSED_PAUSE_S)
            return
        self._is_asked_no_more()
        self._watched.came(key for key, _ in came or ())

    def _is_asked_no_more(self) -> None:
        self._asked = None
        self._to_interrupt.clear()

    async def _interrupt_when_asked(self, client_id: int) -> None:
        while True:
            await self._to_interrupt.wait()
            link = await self._calls.link()
            if self._to_interrupt.is_set():
                try:
                    await link.execute_command("CLIENT", "UNBLOCK", client_id)
                except ResponseError as refusal:
                    raise _CannotInterrupt from refusal
                except RedisError:
                    pass  # It is asked again, over the next connection.
                await asyncio.sleep(INTERRUPT_AGAIN_S)
