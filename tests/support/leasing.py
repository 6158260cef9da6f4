"""A node's leases without a node: what a gateway does at Redis, step by step."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from types import TracebackType
from typing import Any, Self, TypeVar

import redis.asyncio

from gridcore.lease_queue.queue import GivenBack, Lease, LeaseQueue, Push, Transaction
from tests.support.redis_server import RedisServer

T = TypeVar("T")

LONG_AGO_MS = 1


class Leasing:
    """One queue on one Redis, and any nodes that work on it."""

    def __init__(self, server: RedisServer, queue: str) -> None:
        self._runner = asyncio.Runner()
        self.redis: Any = redis.asyncio.Redis.from_url(server.url, protocol=2)
        self.queue = queue
        self.leases = LeaseQueue(self.redis, queue)
        self._numbers = itertools.count()

    def call(self, awaited: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaited

        return self._runner.run(wait())

    def push(self, *items: str | bytes) -> None:
        self.call(self.redis.lpush(self.queue, *items))

    def waiting(self) -> list[bytes]:
        """The next at the right."""
        found: list[bytes] = self.call(self.redis.lrange(self.queue, 0, -1))
        return found

    def take(self, node: str, count: int = 1) -> list[Lease]:
        prefix = f"{node}-{next(self._numbers)}-"
        return self.call(self.leases.take(node, count, prefix=prefix, number=0)).leases

    def renew(self, node: str) -> bool:
        return self.call(self.leases.renew(node))

    def commit(self, node: str, *leases: Lease, output: str = "results") -> bool:
        transaction = Transaction(
            [lease.token for lease in leases],
            [Push("L", [b"done " + lease.payload for lease in leases])],
        )
        name = f"c{next(self._numbers)}"
        (is_done,) = self.call(self.leases.commit(node, name, output, [transaction]))
        return is_done

    def fail(
        self, node: str, lease: Lease, *, max_attempts: int = 3, delay_ms: int = 0, **report: Any
    ) -> None:
        item = GivenBack(lease.token, has_failed=True, delay_ms=delay_ms, report=report)
        self.call(self.leases.give_back(node, [item], max_attempts=max_attempts))

    def kill(self, node: str, payload: str | bytes, **report: Any) -> str:
        """The item becomes a dead letter; its id."""
        self.push(payload)
        (lease,) = self.take(node)
        self.fail(node, lease, max_attempts=1, **report)
        return lease.token

    def produce(self, producer: str) -> None:
        self.call(self.leases.produce(producer))

    def leave(self, producer: str) -> None:
        self.call(self.leases.leave(producer))

    def spoke_last(self, producer: str, *, before_s: float) -> None:
        """As if it had been silent for so long."""
        word_ms = (self.now_s() - before_s) * 1000
        self.call(self.redis.zadd(self.leases.keys.producers, {producer: word_ms}))

    def producers(self) -> set[str]:
        found = self.call(self.redis.zrange(self.leases.keys.producers, 0, -1))
        return {name.decode() for name in found}

    def be_handed_while_frozen(self, node: str) -> None:
        """What Redis does for a blocked BLMOVE, whether or not its client can still read."""
        keys = self.leases.keys
        self.call(self.redis.lmove(self.queue, keys.inbox(node), "RIGHT", "RIGHT"))

    def fall_silent(self, *nodes: str) -> None:
        """As if they had renewed long ago for the last time."""
        keys = self.leases.keys
        self.call(self.redis.zadd(keys.nodes, dict.fromkeys(nodes, LONG_AGO_MS)))

    def nodes(self) -> set[str]:
        """That hold, or lately held, leases."""
        return {
            node.decode() for node in self.call(self.redis.zrange(self.leases.keys.nodes, 0, -1))
        }

    def served_since_ms(self) -> int:
        """Since when a hub on this Redis has served without an outage."""
        return int(self.call(self.redis.hget("gc:{hub}:service", "since")) or 0)

    def now_s(self) -> float:
        seconds, micros = self.call(self.redis.time())
        return float(seconds + micros / 1e6)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.call(self.redis.aclose())
        self._runner.close()
