"""A task's own Redis, which may be anywhere, stuck or gone: every call has its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from computehub.redis_store import connect
from gridcore.errors import GridCoreError
from gridcore.redis_urls import hide_password

CLOSE_TIMEOUT_S = 1.0


class TaskRedisUnavailable(GridCoreError):
    """The Redis that a task names does not do what it is asked."""


class TaskRedis:
    """One connection; its replies are bytes, as `LeaseQueue` wants them."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._client: Any = connect(url, connections=1, decode_responses=False)

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, *, timeout_s: float) -> AsyncIterator[Self]:
        redis = cls(url, timeout_s=timeout_s)
        try:
            yield redis
        finally:
            await redis.aclose()

    async def execute_command(self, *arguments: Any) -> Any:
        async with asyncio.timeout(self._timeout_s):
            return await self._client.execute_command(*arguments)

    async def ask(self, *commands: Sequence[str | int]) -> list[Any]:
        """The replies of several commands, in one round trip; raises the first refusal."""
        replies = await self.ask_each(*commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply
        return replies

    async def ask_each(self, *commands: Sequence[str | int]) -> list[Any]:
        """Likewise, but a refusal stands where the reply would: the others are still of use."""
        async with asyncio.timeout(self._timeout_s), self._client.pipeline(False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies

    async def aclose(self) -> None:
        # Of a server that is stuck even a goodbye may have to be waited for.
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._client.aclose()

    def unavailable(self, tried: str, error: Exception) -> TaskRedisUnavailable:
        """What a person is told when one of these calls has raised."""
        where = f"{tried} in the task's Redis at {hide_password(self._url)}"
        if isinstance(error, AuthenticationError | AuthorizationError):
            return TaskRedisUnavailable(
                where,
                cause=f"it refused the user name or password ({error})",
                next_step="Submit the task again with the right one in 'input_redis'",
            )
        if isinstance(error, ResponseError):
            return TaskRedisUnavailable(
                where,
                cause=f"it said: {error}",
                next_step="Nothing is lost; try again when that is mended",
            )
        # asyncio's own TimeoutError has nothing to say.
        said = str(error) or f"nothing for {self._timeout_s:g} s"
        return TaskRedisUnavailable(
            where,
            cause=f"it does not answer ({said})",
            next_step="Nothing is lost; try again when it is back",
        )
