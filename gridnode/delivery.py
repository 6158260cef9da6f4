"""How a run reaches its queues.

A slot waits for work, and gets an *access* for one run: the addresses for its environment, a word
from the node when it should end, and the settling of what it leaves behind. Leased delivery is
gridnode.gateway.leased; direct delivery, here, names the task's own Redis.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal, Protocol

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from gridcore.redis_urls import hide_password, readdress_loopback
from gridcore.wire import TaskConfig
from gridnode.ending import Ended
from gridnode.runtimes import Listening
from gridnode.watched import Watched

LOOK_EVERY_S = 0.5
REDIS_TIMEOUT_S = 5.0

TAKES_ITS_FIRST_ITEM_WITHIN_S = 3.0
"""For so long a started run is taken to want one of the items that still wait: a queue of one item
starts one container, not one per core."""

EndReason = Literal["idle", "item_timeout", "leases_lost", "drained"]
"""Why a run should end. idle: there is nothing to do. item_timeout: it has sat on an item for too
long. leases_lost: its items are others' now. drained: it is to end, and has nothing in hand."""


class Access(Protocol):
    """One run's way to its queues."""

    must_end: Watched[EndReason | None]

    async def open(self) -> Listening | None:
        """Before the run starts; raises what Runtime.listen raises."""

    def urls(self) -> tuple[str, str]:
        """Where it takes items from and pushes results to; known after `open`."""

    def drain(self) -> None:
        """The run is about to be asked to end: it gets no more items."""

    async def close(self, ended: Ended | None) -> Ended | None:
        """The run is over (None: it never began): what it left is settled, and what can be said of
        it now is added."""


class Delivery(Protocol):
    async def run(self) -> None:
        """Watches for work, until cancelled."""

    async def wait_for_work(self, slot: int) -> Access:
        """Returns when there is something to do for one more run."""

    async def finish(self) -> None:
        """All runs are over: tells Redis all that is to be told."""


class DirectDelivery:
    """The task's own Redis, passwords and all; an item that a run has taken is its own affair."""

    def __init__(
        self,
        task: TaskConfig,
        *,
        host_alias: str | None,
        on_problem: Callable[[str | None], None],
    ) -> None:
        self._task = task
        self._shown = hide_password(task.input_redis)
        self._host_alias = host_alias
        self._on_problem = on_problem
        self._waiters: deque[asyncio.Future[DirectAccess]] = deque()
        self._someone_waits = asyncio.Event()
        self._look_now = asyncio.Event()
        self._let_go_s: dict[DirectAccess, float] = {}
        """Runs that may not have taken their first item yet, and since when."""
        self._redis = redis.asyncio.Redis.from_url(
            task.input_redis,
            protocol=2,
            # With a timeout redis-py waits by asyncio.wait_for, which on Python 3.11 now and then
            # swallows a cancellation; ours is in waiting().
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )

    async def run(self) -> None:
        try:
            while True:
                await self._someone_waits.wait()
                self._look_now.clear()
                self._let_some_go(await self.waiting() or 0)
                if self._waiters:
                    # A run that has ended frees a turn: then at once.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_EVERY_S):
                            await self._look_now.wait()
                else:
                    self._someone_waits.clear()
        finally:
            await self._redis.aclose()

    async def wait_for_work(self, slot: int) -> DirectAccess:  # noqa: ARG002
        turn: asyncio.Future[DirectAccess] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        self._someone_waits.set()
        try:
            return await turn
        finally:
            if turn in self._waiters:
                self._waiters.remove(turn)

    async def finish(self) -> None:
        pass

    def has_ended(self, access: DirectAccess) -> None:
        self._let_go_s.pop(access, None)
        self._look_now.set()

    async def waiting(self) -> int | None:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                length = int(await self._redis.llen(self._task.input_queue))
        except (ResponseError, AuthenticationError) as error:
            # It is there, and says no: the password, the type of the key.
            self._on_problem(f"The input queue cannot be looked at: {self._shown} said: {error}")
            return None
        except (RedisError, OSError, TimeoutError) as error:
            self._on_problem(
                f"The input queue cannot be looked at: {self._shown} did"
                f" not answer ({type(error).__name__}: {error}). Can this machine reach it?"
            )
            return None
        self._on_problem(None)
        return length

    def urls(self) -> tuple[str, str]:
        input_url, output_url = self._task.input_redis, self._task.output_redis
        if self._host_alias:
            input_url = readdress_loopback(input_url, self._host_alias)
            output_url = readdress_loopback(output_url, self._host_alias)
        return input_url, output_url

    def _let_some_go(self, waiting: int) -> None:
        now = asyncio.get_running_loop().time()
        oldest_s = now - TAKES_ITS_FIRST_ITEM_WITHIN_S
        self._let_go_s = {run: at for run, at in self._let_go_s.items() if at > oldest_s}
        for _ in range(min(waiting - len(self._let_go_s), len(self._waiters))):
            turn = self._waiters.popleft()
            if not turn.done():
                access = DirectAccess(self)
                self._let_go_s[access] = now
                turn.set_result(access)


class DirectAccess:
    def __init__(self, delivery: DirectDelivery) -> None:
        self.must_end: Watched[EndReason | None] = Watched(None)
        self._delivery = delivery
        self._waiting_before: int | None = None

    async def open(self) -> None:
        self._waiting_before = await self._delivery.waiting()

    def urls(self) -> tuple[str, str]:
        return self._delivery.urls()

    def drain(self) -> None:
        pass

    async def close(self, ended: Ended | None) -> Ended | None:
        self._delivery.has_ended(self)
        if ended is None or ended.exit_code != 0 or not self._waiting_before:
            return ended
        # Exactly as long: while others take or push, nothing can be said.
        after = await self._delivery.waiting()
        return replace(ended, took_nothing=after == self._waiting_before)
