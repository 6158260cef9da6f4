"""How a run reaches its queues.

A crew asks two things only: which URLs a run gets, and whether there is work. Direct delivery
answers with the task's own Redis; the gateway will answer with its own address and what it has
leased, and neither slots nor runtimes will notice.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from gridcore.redis_urls import hide_password, readdress_loopback
from gridcore.wire import TaskConfig

LOOK_EVERY_S = 0.5
REDIS_TIMEOUT_S = 5.0

TAKES_ITS_FIRST_ITEM_WITHIN_S = 3.0
"""For so long a started run is taken to want one of the items that still wait: a queue of one item
starts one container, not one per core."""


class Delivery(Protocol):
    async def run(self) -> None:
        """Watches for work, until cancelled."""

    async def wait_for_work(self) -> int:
        """Returns when there is something to do for one more run, with that run's number."""

    def has_ended(self, run: int) -> None:
        """That run is over: what waits now waits for others."""

    async def waiting(self) -> int | None:
        """How many items wait; None if nobody can tell now."""

    def urls(self, slot: int) -> tuple[str, str]:
        """Where a run in that slot takes items from and pushes results to."""


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
        self._waiters: deque[asyncio.Future[int]] = deque()
        self._someone_waits = asyncio.Event()
        self._look_now = asyncio.Event()
        self._numbers = itertools.count()
        self._let_go_s: dict[int, float] = {}
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

    async def wait_for_work(self) -> int:
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        self._someone_waits.set()
        try:
            return await turn
        finally:
            if turn in self._waiters:
                self._waiters.remove(turn)

    def has_ended(self, run: int) -> None:
        self._let_go_s.pop(run, None)
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

    def urls(self, slot: int) -> tuple[str, str]:  # noqa: ARG002  the gateway's are per slot
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
                run = next(self._numbers)
                self._let_go_s[run] = now
                turn.set_result(run)
