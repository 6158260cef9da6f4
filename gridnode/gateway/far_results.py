"""Results whose Redis is another one than that of the items: they go there first.

Two servers cannot be written in one step. What that costs: docs/delivery.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from gridcore.backoff import full_jitter_s
from gridcore.lease_queue.queue import (
    LeaseQueue,
    Push,
    Transaction,
    deliver,
    last_delivered,
    prepare_deliveries,
)
from gridcore.logs import EventLog
from gridcore.redis_urls import hide_password
from gridcore.wire import TaskConfig
from gridnode.gateway.clock import now_s
from gridnode.gateway.delivered import REMEMBERED_S, Delivered
from gridnode.gateway.link import LONGEST_RECONNECT_PAUSE_S, Line, Link, connected, first_of

log = EventLog("gridnode.gateway")


class FarResults:
    def __init__(self, task: TaskConfig, node: str, prefix: str) -> None:
        self.line = Line()
        self._task = task
        self._node = node
        self._delivered = Delivered(prefix)

    async def run(self) -> None:
        """Results wait while their Redis is away; leases are renewed all the same."""
        attempt = 0
        while True:
            try:
                async with connected(self._task.output_redis) as link, asyncio.TaskGroup() as group:
                    group.create_task(link.read())
                    await prepare_deliveries(link)
                    # Before anything else, as nothing older than the last delivery is accepted.
                    await self._deliver_again(link)
                    self.line.up(link)
                    attempt = 0
            except* (RedisError, OSError, TimeoutError) as errors:
                log.warning(
                    "output_redis_away",
                    redis=hide_password(self._task.output_redis),
                    error=first_of(errors),
                )
            self.line.down()
            # Only now: if it is away for long, what counts is what it was told before.
            self._delivered.forget_before(now_s() - REMEMBERED_S)
            await asyncio.sleep(full_jitter_s(attempt, most_s=LONGEST_RECONNECT_PAUSE_S))
            attempt += 1

    async def are_there(self) -> None:
        """If that Redis is away it may come back without what it was told last."""
        if not self._delivered.is_empty:
            await self.line.link()

    def tokens(self) -> set[str]:
        """Of the items whose results it has been told not long ago."""
        return self._delivered.tokens()

    async def deliver(
        self, queue: LeaseQueue, name: str, transactions: Sequence[Transaction]
    ) -> list[Transaction]:
        """Results to their own Redis, those of leases that are held; what is left to be done here.

        Two servers cannot be written in one step. A node that is reaped between the two has
        delivered results of items that another node will do again: see docs/delivery.md.
        """
        pushes: list[Push] = []
        while True:
            link = await self.line.link()
            held = await queue.held(self._node)
            results = [t.results for t in transactions if held.issuperset(t.tokens)]
            pushes = [push for some in results for push in some if not push.to_input]
            if not pushes:
                break
            try:
                await deliver(link, self._task.output_queue, self._node, name, pushes)
                break
            except RedisConnectionError:
                # That Redis has gone away; this one need not be connected to anew for that.
                continue
        tokens = [token for transaction in transactions for token in transaction.tokens]
        self._delivered.add(now_s(), name, tokens, pushes)
        left = []
        for transaction in transactions:
            to_input = [push for push in transaction.results if push.to_input]
            left.append(Transaction(transaction.tokens, to_input))
        return left

    async def _deliver_again(self, link: Link) -> None:
        """A Redis that restarts may have lost its last second. Items of that time are closed
        already; their results are only here."""
        output = self._task.output_queue
        forgotten = self._delivered.later_than(await last_delivered(link, output, self._node))
        for delivery in forgotten:
            await deliver(link, output, self._node, delivery.name, delivery.pushes)
        if forgotten:
            log.warning("results_sent_again", task=self._task.task_name, commits=len(forgotten))
