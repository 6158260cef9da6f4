"""Leased delivery: the gateway of one task on this node, put together.

slot --access--> desk <--conversations-- server <--socket-- container
                  |
                stock, constants, ledger (one each for all slots)
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from gridcore.lease_queue.queue import GivenBack, Lease
from gridcore.wire import MAX_LOG_LINE, TaskConfig, WorkReport
from gridnode.delivery import EndReason
from gridnode.ending import Ended
from gridnode.gateway.constants import Constants
from gridnode.gateway.desk import Counters, Desk, Rules, Settled
from gridnode.gateway.foreign import KeyRules
from gridnode.gateway.ledger import Ledger
from gridnode.gateway.server import SlotServer
from gridnode.gateway.stock import Stock
from gridnode.report import Report
from gridnode.runtimes import Listening, Runtime
from gridnode.watched import Watched

LOOK_EVERY_S = 0.25
IDLE_LOOK_EVERY_S = 1.0

IDLE_S = 15.0
"""A container that has asked in vain for so long is ended; the next item starts another one."""

DRAINED_S = 1.0
"""A run that is to end, and asks for more instead, has had so long to do so by itself."""

RATE_OVER_S = 10.0

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
"""Between the attempts of an item that fails: one second, then two, four, ..."""


class LeasedDelivery:
    def __init__(
        self,
        task: TaskConfig,
        *,
        node_id: str,
        runtime: Runtime,
        report: Report,
        on_problem: Callable[[str | None], None],
    ) -> None:
        self.task = task
        self.stock = Stock(alone_after_failure=task.alone_after_failure)
        self.constants = Constants()
        self.runtime = runtime
        self.report = report
        keys = KeyRules((task.input_queue, task.output_queue), task.keys, task.constants)
        self.rules = Rules(
            task.input_queue, task.output_queue, task.ack, keys, task.alone_after_failure
        )
        self.ledger = Ledger(
            task, node=node_id, stock=self.stock, keys=keys, runs=self, on_problem=on_problem
        )
        self.counters: dict[int, Counters] = {}
        self.servers: dict[int, SlotServer] = {}
        self.accesses: set[LeasedAccess] = set()
        self._waiters: deque[tuple[int, asyncio.Future[LeasedAccess]]] = deque()
        self._committed_at: deque[tuple[float, int]] = deque()

    # --- Delivery

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.ledger.run())
                group.create_task(self._look_after_runs())
        finally:
            self.report.set_work(None, {})
            for server in self.servers.values():
                await server.close()

    async def wait_for_work(self, slot: int) -> LeasedAccess:
        turn: asyncio.Future[LeasedAccess] = asyncio.get_running_loop().create_future()
        waiter = (slot, turn)
        self._waiters.append(waiter)
        self.stocked()
        self.ledger.wants_items()
        try:
            return await turn
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def finish(self) -> None:
        await self.ledger.finish()
        for slot, server in self.servers.items():
            await server.close()
            await self.runtime.stop_listening(slot)
        self.servers.clear()

    # --- Runs, for the ledger

    def running(self) -> int:
        return sum(access.desk.has_popped for access in self.accesses)

    def hungry(self) -> int:
        return len(self._waiters) + self._starting()

    def seconds_per_item(self) -> float | None:
        known = [c.seconds_per_item for c in self.counters.values() if c.seconds_per_item]
        if not known:
            return None
        # An item that takes longer than those before it tells more than they do.
        longest_now = max((a.desk.seconds_on_item() for a in self.accesses), default=0.0)
        return max(sum(known) / len(known), longest_now)

    def tokens(self) -> set[str]:
        found: set[str] = set()
        for access in self.accesses:
            found |= access.desk.work.tokens()
        return found

    def lost(self, tokens: set[str]) -> None:
        for access in self.accesses:
            if access.desk.work.tokens() & tokens:
                access.must_end.set("leases_lost")

    def stocked(self) -> None:
        while self._waiters and self.stock.size > self._starting() and not self.stock.is_closed:
            slot, turn = self._waiters.popleft()
            if not turn.done():
                turn.set_result(self.admit(slot))

    # --- for accesses

    def give_back(self, leases: list[Lease]) -> None:
        self.ledger.give_back([GivenBack(lease.token) for lease in leases])

    def give_back_failed(self, leases: list[Lease], report: dict[str, object]) -> None:
        self.ledger.give_back(
            [
                GivenBack(
                    lease.token,
                    has_failed=True,
                    delay_ms=int(1000 * _retry_after_s(lease.attempts)),
                    report=report,
                )
                for lease in leases
            ]
        )

    def _starting(self) -> int:
        return sum(not access.desk.has_popped for access in self.accesses)

    def admit(self, slot: int) -> LeasedAccess:
        counters = self.counters.setdefault(slot, Counters())
        desk = Desk(
            self.rules,
            secret=secrets.token_urlsafe(18).encode(),
            stock=self.stock,
            constants=self.constants,
            outside=self.ledger,
            counters=counters,
        )
        server = self.servers.setdefault(slot, SlotServer(slot))
        access = LeasedAccess(self, slot, desk, server, counters)
        self.accesses.add(access)
        return access

    # --- looking after

    async def _look_after_runs(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now_s = loop.time()
            for access in self.accesses:
                access.look(now_s)
            self.stocked()
            self._tell(now_s)
            await asyncio.sleep(LOOK_EVERY_S if self.accesses else IDLE_LOOK_EVERY_S)

    def _tell(self, now_s: float) -> None:
        counters = self.counters.values()
        committed = sum(c.committed for c in counters)
        self._committed_at.append((now_s, committed))
        while now_s - self._committed_at[0][0] > RATE_OVER_S:
            self._committed_at.popleft()
        since_s, before = self._committed_at[0]
        work = WorkReport(
            taken=sum(c.taken for c in counters),
            committed=committed,
            aborted=sum(c.aborted for c in counters),
            items_per_s=(committed - before) / (now_s - since_s) if now_s > since_s else 0.0,
            seconds_per_item=self.seconds_per_item(),
        )
        self.report.set_work(work, self.counters)


class LeasedAccess:
    """One run's way to its queues, by the gateway."""

    def __init__(
        self,
        delivery: LeasedDelivery,
        slot: int,
        desk: Desk,
        server: SlotServer,
        counters: Counters,
    ) -> None:
        self.must_end: Watched[EndReason | None] = Watched(None)
        self.desk = desk
        self._delivery = delivery
        self._slot = slot
        self._server = server
        self._counters = counters
        self._committed_before = counters.committed
        self._listening: Listening | None = None
        self._drains_since_s: float | None = None

    async def open(self) -> Listening:
        listening = await self._delivery.runtime.listen(self._slot, self._delivery.task.network)
        await self._server.listen_on(listening.socket)
        self._server.desk = self.desk
        self._delivery.report.set_isolation(listening.isolation)
        self._listening = listening
        return listening

    def urls(self) -> tuple[str, str]:
        assert self._listening is not None, "open() comes first"
        host, port = self._listening.host, self._listening.port
        # With the name of Redis' default user: redis-cli logs in with a name or not at all.
        url = f"redis://default:{self.desk.secret.decode()}@{host}:{port}/0"
        return url, url

    def drain(self) -> None:
        self.desk.drain()
        self._drains_since_s = asyncio.get_running_loop().time()

    def look(self, now_s: float) -> None:
        """Is there a reason for the run to end?"""
        timeout_s = self._delivery.task.item_timeout
        if self._drains_since_s is not None:
            if self.desk.is_idle and now_s - self._drains_since_s > DRAINED_S:
                self.must_end.set("drained")
        elif timeout_s is not None and self.desk.is_overdue(timeout_s):
            self.must_end.set("item_timeout")
        elif self.desk.idle_since_s is not None and now_s - self.desk.idle_since_s > IDLE_S:
            self.must_end.set("idle")

    async def close(self, ended: Ended | None) -> Ended | None:
        await self._server.quiet()
        delivery, desk = self._delivery, self.desk
        is_idle_exit = desk.idle_since_s is not None
        settled = Settled()
        if ended is None or ended.was_ours:
            # Also with exit code 0: a program that is told to end may do so in mid-item.
            settled = desk.ended(well=False, is_to_blame=False)
        else:
            well = ended.exit_code == 0 and not ended.sat_on_an_item
            settled = desk.ended(well=well, is_to_blame=True)
        delivery.give_back(settled.returned)
        if settled.failed and ended is not None:
            delivery.give_back_failed(settled.failed, self._dead_letter(ended))
        delivery.accesses.discard(self)
        delivery.stocked()
        delivery.ledger.wants_items()
        if ended is None:
            return None
        return replace(
            ended,
            # Its client has given up waiting for an item: nothing is wrong with it.
            was_ours=ended.was_ours or is_idle_exit,
            took_nothing=not desk.has_popped,
            made_progress=self._counters.committed > self._committed_before,
            had_suspects_only=bool(settled.failed) and all(i.attempts for i in settled.failed),
        )

    def _dead_letter(self, ended: Ended) -> dict[str, object]:
        """What is kept of this failure if it was the item's last."""
        if ended.sat_on_an_item:
            reason = "item_timeout"
            message = f"It took longer than item_timeout ({self._delivery.task.item_timeout:g} s)"
        elif ended.out_of_memory:
            reason = "out_of_memory"
            message = "It needed more memory than container_memory in gridnode.toml allows"
        else:
            reason, message = "exit", f"Its container ended with exit code {ended.exit_code}"
        return {
            "reason": reason,
            "message": message,
            "exit_code": ended.exit_code,
            "out_of_memory": ended.out_of_memory,
            "log_lines": [line[:MAX_LOG_LINE] for line in ended.log_lines],
            "slot": self._slot,
            "task": self._delivery.task.task_name,
        }


def _retry_after_s(attempts: int) -> float:
    return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempts, 16))
