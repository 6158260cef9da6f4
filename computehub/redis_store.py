"""The hub's Redis: scripts by name, bounded waits, one error for everything that can go wrong.

No call is retried here. A script whose reply was lost may have run, and only the caller can know
whether running it again is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    OutOfMemoryError,
    RedisError,
)

from gridcore.errors import GridCoreError
from gridcore.redis_urls import hide_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.asyncio.client import PubSub, Redis
    from redis.commands.core import AsyncScript

CALL_TIMEOUT_S = 5.0
"""Well above a script's run time, and short enough that a caller still waits for the 503."""

CONNECTIONS = 32


class StoreUnavailable(GridCoreError):
    """Redis did not do what the hub asked; nothing is lost, but nothing can be decided either."""


def connect(url: str, *, connections: int = CONNECTIONS, decode_responses: bool = True) -> Redis:
    # Every setting that redis-py 8 would choose by itself is chosen here: its own retries
    # would run a script twice, and its pool would grow without bound.
    return redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=connections,
            timeout=CALL_TIMEOUT_S,
            protocol=2,
            decode_responses=decode_responses,
            # No socket timeout: with one, redis-py waits by asyncio.wait_for, which on Python
            # 3.11 now and then swallows a cancellation. Each call has its asyncio.timeout.
            socket_timeout=None,
            socket_connect_timeout=None,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
    )


class RedisStore:
    """The hub's view of its Redis."""

    def __init__(self, url: str) -> None:
        self._shown_url = hide_password(url)
        self.client = connect(url)
        self._scripts = {
            file.name.removesuffix(".lua"): self.client.register_script(file.read_text("utf-8"))
            for file in resources.files("computehub.scripts").iterdir()
            if file.name.endswith(".lua")
        }

    async def run(self, script: str, keys: Sequence[str], args: Sequence[str | int] = ()) -> Any:
        """One state transition (scripts/<script>.lua), done whole or not at all."""
        lua: AsyncScript = self._scripts[script]
        with self._explained(f"running {script}"):
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await lua(keys=list(keys), args=list(args))

    async def read(self, *commands: tuple[str | int, ...]) -> list[Any]:
        """The replies of several reading commands, in one round trip.

        Not in a transaction: inside one, a Redis that is full refuses to read, too.
        """
        with self._explained("reading"):
            async with asyncio.timeout(CALL_TIMEOUT_S), self.client.pipeline(False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return await pipe.execute()

    @asynccontextmanager
    async def subscription(self, channel: str) -> AsyncIterator[PubSub]:
        with self._explained(f"listening on {channel}"):
            async with self.client.pubsub(ignore_subscribe_messages=True) as pubsub:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await pubsub.subscribe(channel)
                yield pubsub

    async def aclose(self) -> None:
        await self.client.aclose()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (AuthenticationError, AuthorizationError) as error:
            raise StoreUnavailable(
                f"{what} in the hub's Redis at {self._shown_url}",
                cause=f"Redis refused the user name or password ({error})",
                next_step="Correct redis_url in computehub.toml and restart the hub",
            ) from error
        except OutOfMemoryError as error:
            raise StoreUnavailable(
                f"{what} in the hub's Redis at {self._shown_url}",
                cause="Redis is full (maxmemory)",
                next_step="Take results out, or give it more memory; nothing is lost",
            ) from error
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(
                f"{what} in the hub's Redis at {self._shown_url}",
                cause=f"Redis does not answer as it should ({type(error).__name__}: {error})",
                next_step="Nothing is lost; try again when Redis is back",
            ) from error
