"""The node's dealings with the Redis of one task, for all its slots, over two connections.

    take      keeps the stock filled for those who ask, and a little more (pace)
    watch     blocks in BLMOVE while the queue is empty
    commit    sends the outbox, one commit after the other
    renew     says that this node is alive, and with it all its leases

What containers want to know of Redis: asks; what they wait for in streams, on a third connection:
stream_line. Results whose Redis is another one: far_results.

Every connection begins with a comparison of what Redis and the node believe to be leased: see
`_compare`. While Redis is away containers go on with what is in stock, and the outbox waits.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from redis.exceptions import (
    ClusterCrossSlotError,
    MovedError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)

from gridcore.backoff import full_jitter_s
from gridcore.lease_queue.queue import (
    TAKE_AT_ONCE,
    GivenBack,
    LeaseQueue,
    Push,
    Side,
    Transaction,
)
from gridcore.logs import EventLog
from gridcore.redis_urls import hide_password
from gridcore.wire import TaskConfig
from gridnode.gateway.asks import Asks
from gridnode.gateway.clock import now_s
from gridnode.gateway.far_results import FarResults
from gridnode.gateway.foreign import KeyRules
from gridnode.gateway.link import LONGEST_RECONNECT_PAUSE_S, Line, Link, connected, first_of
from gridnode.gateway.outbox import Outbox, Verdict
from gridnode.gateway.outside import IsWanted, Then, always
from gridnode.gateway.pace import COMMIT_AT_ONCE_S, Pace, gather_s, low_water, target
from gridnode.gateway.resp import Command
from gridnode.gateway.stock import Stock
from gridnode.gateway.stream_line import StreamLine
from gridnode.gateway.watched_streams import StreamIds, StreamWatch

BLOCK_S = 2.0
"""In BLMOVE; then also what has failed elsewhere and is due again is looked for."""

LONGEST_BLOCK_S = 10.0
"""While nothing comes the waits grow: a large fleet that waits should cost Redis little."""

WATCHDOG_S = 3.0
"""A blocked call that is not answered so long after its time is on a connection that is dead."""

FULL_PAUSE_S = 0.25

RENEWALS_PER_LEASE = 6
TICK_S = 1.0

CLUSTER_PAUSE_S = 30.0
"""A Redis Cluster stays one; somebody has to do something."""

FINISH_S = 15.0
"""For the last commits of a task. What Redis does not get in that time is done again."""

log = EventLog("gridnode.gateway")


class Runs(Protocol):
    """What the ledger asks about those whom it serves."""

    def running(self) -> int:
        """Runs that have asked for items."""

    def hungry(self) -> int:
        """Slots that would start a run if there were an item, and runs that have just started."""

    def seconds_per_item(self) -> float | None: ...

    def tokens(self) -> set[str]:
        """Of all items that runs have in hand."""

    def lost(self, tokens: set[str]) -> None:
        """These items are others' now: what works on them works in vain."""

    def stocked(self) -> None:
        """Items have come."""


class _StartOver(Exception):
    """What the node believes to hold must be compared with what Redis knows."""


class Ledger:
    def __init__(
        self,
        task: TaskConfig,
        *,
        node: str,
        stock: Stock,
        keys: KeyRules,
        runs: Runs,
        on_problem: Callable[[str | None], None],
    ) -> None:
        self.waiting: int | None = None
        """Items left in the queue, as last seen."""
        self._task = task
        self._node = node
        self._stock = stock
        self._keys = keys
        self._runs = runs
        self._on_problem = on_problem
        self._prefix = f"{secrets.token_hex(6)}-"
        self._number = 0
        self._outbox = Outbox(self._prefix)
        self._has_released = False
        self._renewed_s = now_s()
        self._side: Side = "R"
        self._nodes = 1
        self._round_trip_s = 0.001
        self._bytes_per_item = 100.0
        self._is_empty = False
        """The last look found nothing more: the watch says when there is something."""
        self._next_due_s: float | None = None
        self._was_handed = False
        """Something lies in the inbox, and is to be taken even if nobody needs it any more."""
        self._unknown: set[str] = set()
        """Leases that the last look has found, and that this node knows nothing of."""
        self._line = Line()
        self._far_results: FarResults | None = None
        if task.output_redis != task.input_redis:
            self._far_results = FarResults(task, node, self._prefix)
        output_line = self._far_results.line if self._far_results else self._line
        self._asks = Asks(self._line, output_line, keys)
        self._streams = StreamLine(task.input_redis, self._line)
        self._wanted = asyncio.Event()
        self._watch_now = asyncio.Event()
        self._to_send = asyncio.Event()
        self._send_now = asyncio.Event()
        """Somebody waits for what is being gathered, or there is enough of it."""
        self._gather_s = COMMIT_AT_ONCE_S
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    # --- the life of it

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self._asks.run())
            group.create_task(self._streams.run())
            if self._far_results:
                group.create_task(self._far_results.run())
            attempt = 0
            while True:
                began_s = now_s()
                problem = None
                try:
                    await self._connect_and_serve()
                except* _StartOver as reasons:
                    log.warning("leases_compared", reason=reasons.exceptions[0])
                except* (RedisError, OSError, TimeoutError) as errors:
                    problem = first_of(errors)
                self._line.down()
                if now_s() - began_s > LONGEST_RECONNECT_PAUSE_S:
                    attempt = 0
                if problem is not None:
                    explained = self._explained(problem)
                    self._on_problem(explained)
                    if attempt == 0:
                        log.warning("redis_away", task=self._task.task_name, error=explained)
                if isinstance(problem, ClusterCrossSlotError | MovedError):
                    await asyncio.sleep(CLUSTER_PAUSE_S)
                await asyncio.sleep(
                    full_jitter_s(attempt, first_s=0.1, most_s=LONGEST_RECONNECT_PAUSE_S)
                )
                attempt += 1

    def _explained(self, problem: BaseException) -> str:
        shown = hide_password(self._task.input_redis)
        if isinstance(problem, ClusterCrossSlotError | MovedError):
            return (
                f"The task's Redis ({shown}) is a Redis Cluster, where an item and its results do"
                " not lie together and cannot be written in one step: nothing is done for this"
                " task. Submit it again with a Redis that is not a cluster in 'input_redis'"
            )
        text = f"{shown}: {type(problem).__name__}: {problem}".rstrip(": ")
        if not self._has_released:
            return (
                f"This node has not reached the task's Redis yet ({text}), so nothing is done for"
                " this task. Check that it runs and that this machine reaches it, and the password;"
                " if 'input_redis' is wrong, submit the task again"
            )
        return (
            f"The task's Redis cannot be used now ({text}). Containers go on with what they have;"
            " results are kept until it is back"
        )

    async def finish(self) -> None:
        """Tells Redis all there is to tell, and gives back the rest. Nothing runs any more."""
        left = self._stock.surrender("R", 0) + self._stock.surrender("L", 0)
        left += self._stock.surrender_suspects()
        self.give_back([GivenBack(lease.token) for lease in left])
        if not self._has_released:
            return  # It was never connected, and has taken nothing.
        self._send_now.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._all_sent.wait()
                if self._far_results:
                    await self._far_results.are_there()
                while True:
                    link = await self._line.link()
                    with suppress(RedisError):
                        await LeaseQueue(link, self._task.input_queue).release(self._node)
                        return
                    await asyncio.sleep(0.1)
        log.warning("task_left_unsettled", task=self._task.task_name, after_s=FINISH_S)

    async def _connect_and_serve(self) -> None:
        url = self._task.input_redis
        async with (
            connected(url) as link,
            connected(url) as watching,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(link.read())
            group.create_task(watching.read())
            await self._refuse_cluster(link)
            queue = LeaseQueue(link, self._task.input_queue)
            await queue.prepare_commits()
            await self._compare(queue)
            self._on_problem(None)
            self._line.up(link)
            self._is_empty = False
            self._wanted.set()
            # Even if nothing is left: what was under way when the line went down may have been it.
            self._to_send.set()
            group.create_task(self._take_loop(queue))
            group.create_task(self._watch_loop(watching, queue))
            group.create_task(self._send_loop(queue))
            group.create_task(self._renew_loop(queue))
            group.create_task(self._look_for_what_came_late(queue))

    async def _refuse_cluster(self, link: Link) -> None:
        """Before anything is taken that could never be committed."""
        try:
            if b"cluster_enabled:1" not in await link.execute_command("INFO", "cluster"):
                return
            queues = self._task.input_queue, self._task.output_queue
            slots = [await link.execute_command("CLUSTER", "KEYSLOT", queue) for queue in queues]
        except ResponseError:
            return  # It does not tell, or not us. Then the first commit does.
        if len(set(slots)) > 1:
            raise ClusterCrossSlotError("the queues are in different slots")

    async def _compare(self, queue: LeaseQueue) -> None:
        """Redis may have lost its last second, this node may have been reaped, and the answer to
        a call may have been lost: so what both sides believe is compared.

        What the node does not know of it has finished (and Redis lost that), or never got: it goes
        back. What Redis does not know of is in the queue again, or another node's.
        """
        began_s = now_s()
        if not self._has_released:
            # What an agent before this one has held; nobody works on it any more.
            await queue.release(self._node)
            self._has_released = True
        await queue.renew(self._node)
        held = await queue.held(self._node)
        self._return(self._unknown_in(held))
        self._unknown = set()
        lost = (self._stock.tokens() | self._runs.tokens()) - held
        if lost:
            log.warning("leases_lost", task=self._task.task_name, count=len(lost))
            self._stock.drop(lost)
            self._runs.lost(lost)
        self._renewed_s = began_s
        if not self._outbox.is_full:
            self._stock.reopen()

    def _unknown_in(self, held: set[str]) -> set[str]:
        return held - self._stock.tokens() - self._runs.tokens() - self._outbox.tokens()

    def _return(self, unknown: set[str]) -> None:
        again = unknown & self._far_results.tokens() if self._far_results else set()
        if again:
            # Their results are on another Redis, which has not lost them: only to be closed again.
            self._send([Transaction([token], ()) for token in again])
            unknown -= again
        if unknown:
            log.info("leases_returned", task=self._task.task_name, count=len(unknown))
            self.give_back([GivenBack(token) for token in unknown])

    # --- Outside, for desks

    now_s = staticmethod(time.monotonic)

    def after(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, then)

    def note_long_barrier(self, after_s: float) -> None:
        log.warning("group_waits", task=self._task.task_name, since_s=after_s)

    def note_result_without_item(self) -> None:
        log.warning("result_without_item", task=self._task.task_name)

    def wants_items(self) -> None:
        self._wanted.set()

    def commit(self, transactions: Sequence[Transaction]) -> None:
        self._send(transactions)

    def push_through(self, pushes: Sequence[Push], then: Then) -> None:
        self._send([Transaction((), pushes)], then)

    def give_back(self, items: Sequence[GivenBack]) -> None:
        if items:
            self._outbox.give_back(items)
            self._has_something_to_send()

    def ask(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None:
        self._asks.ask(command, then, is_wanted)

    def ask_output(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None:
        self._asks.ask_output(command, then, is_wanted)

    def pass_on(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None:
        self._asks.pass_on(command, then, is_wanted)

    def watch_streams(self, ids: StreamIds, then: Callable[[], None]) -> StreamWatch:
        return self._streams.watch(ids, then)

    # --- items come

    async def _take_loop(self, queue: LeaseQueue) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            while count := self._to_take():
                if self._is_empty and not (self._stock.has_impatient or self._was_handed):
                    self._stock.make_do()
                    self._watch_now.set()
                    break
                await self._take(queue, count)

    def _to_take(self) -> int:
        """How many items to ask for now; the side is that of who has waited longest."""
        stock = self._stock
        if stock.is_closed:
            return 0
        waiting = stock.waiting_sides()
        if waiting:
            self._side = next(iter(waiting))
        goal = self._update_target()
        wanted = waiting.get(self._side, 0) + self._runs.hungry()
        least = int(self._was_handed)
        if not wanted and not stock.is_low:
            return least
        return min(TAKE_AT_ONCE, max(least, wanted + goal - stock.size_of(self._side)))

    async def _take(self, queue: LeaseQueue, count: int) -> None:
        self._check_lease()
        self._stock.takes_begun += 1
        this_take, number, side = self._stock.takes_begun, self._number, self._side
        self._number += count
        self._was_handed = False
        began_s = now_s()
        taken = await queue.take(self._node, count, prefix=self._prefix, number=number, side=side)
        # Not back: it may have taken longer than some renewals.
        self._renewed_s = max(self._renewed_s, began_s)
        self._round_trip_s += 0.2 * (now_s() - began_s - self._round_trip_s)
        self.waiting, self._nodes = taken.waiting, taken.nodes
        self._next_due_s = None
        if taken.next_due_ms is not None:
            self._next_due_s = now_s() + taken.next_due_ms / 1000
        if taken.leases:
            mean = sum(len(lease.payload) for lease in taken.leases) / len(taken.leases)
            self._bytes_per_item += 0.2 * (mean - self._bytes_per_item)
        self._is_empty = len(taken.leases) < count and not taken.is_limited
        if self._is_empty:
            self._send_now.set()
        self._stock.taken(
            side,
            taken.leases,
            take=this_take,
            is_exhausted=self._is_empty,
            is_limited=taken.is_limited,
        )
        if taken.leases:
            self._runs.stocked()

    def _update_target(self) -> int:
        pace = Pace(
            running=self._runs.running(),
            seconds_per_item=self._runs.seconds_per_item(),
            round_trip_s=self._round_trip_s,
            largest_pop=self._stock.largest_pop,
            waiting=self.waiting or 0,
            nodes=self._nodes,
            bytes_per_item=self._bytes_per_item,
        )
        goal = target(pace)
        self._stock.low_water = low_water(pace, goal)
        self._gather_s = gather_s(pace, is_awaited=self._is_empty)
        return goal

    async def _watch_loop(self, watching: Link, queue: LeaseQueue) -> None:
        """While the queue is empty and somebody waits."""
        keys = queue.keys
        longest_s = BLOCK_S
        while True:
            await self._watch_now.wait()
            self._watch_now.clear()
            block_s = longest_s
            if self._next_due_s is not None:
                block_s = min(block_s, max(0.01, self._next_due_s - now_s()))
            self._check_lease()
            end = "RIGHT" if self._side == "R" else "LEFT"
            try:
                moved = await watching.execute_command(
                    *("BLMOVE", keys.queue, keys.inbox(self._node), end, "RIGHT"),
                    f"{block_s:.3f}",
                    within_s=block_s + WATCHDOG_S,
                )
                self._was_handed = self._was_handed or moved is not None
                longest_s = BLOCK_S if moved else min(longest_s * 1.5, LONGEST_BLOCK_S)
            except ResponseError as refusal:
                # A Redis that is full refuses what could add something; a take it does not.
                if not _is_out_of_memory(refusal):
                    raise
                await asyncio.sleep(FULL_PAUSE_S)
            self._is_empty = False
            self._wanted.set()

    # --- results go

    def _send(self, transactions: Sequence[Transaction], then: Verdict | None = None) -> None:
        self._outbox.add(transactions, then)
        self._has_something_to_send()
        if then or self._outbox.holds_a_full_commit:
            self._send_now.set()
        if self._outbox.is_full:
            self._stock.is_closed = True

    def _has_something_to_send(self) -> None:
        self._to_send.set()
        self._all_sent.clear()

    async def _send_loop(self, queue: LeaseQueue) -> None:
        began_s = 0.0
        while True:
            await self._to_send.wait()
            if not self._outbox.holds_a_full_commit:
                await self._gather(began_s)
            began_s = now_s()
            self._to_send.clear()
            if self._outbox.next_commit():
                self._check_lease()
                await self._send_commit(queue)
            items = self._outbox.to_give_back()
            if items:
                await queue.give_back(self._node, items, max_attempts=self._task.max_attempts)
                self._outbox.were_given_back(len(items))
            if self._outbox.is_empty:
                self._all_sent.set()
            else:
                self._to_send.set()
            if self._stock.is_closed and not self._outbox.is_full:
                self._stock.reopen()
                self._wanted.set()

    async def _gather(self, last_s: float) -> None:
        """Alone a commit goes at once; what follows soon is gathered."""
        await asyncio.sleep(max(0.0, last_s + COMMIT_AT_ONCE_S - now_s()))
        self._send_now.clear()
        left_s = last_s + self._gather_s - now_s()
        if left_s > 0 and not (self._is_empty or self._outbox.is_awaited):
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._send_now.wait()

    async def _send_commit(self, queue: LeaseQueue) -> None:
        commit = self._outbox.current
        assert commit is not None
        transactions = commit.transactions
        try:
            if self._far_results:
                transactions = await self._far_results.deliver(queue, commit.name, transactions)
            verdicts = await queue.commit(
                self._node, commit.name, self._task.output_queue, transactions
            )
        except ResponseError as refusal:
            if not _is_out_of_memory(refusal):
                raise
            strays = self._outbox.without_strays()
            if not strays:
                raise
            for _, _, then in strays:
                if then:
                    # As Redis says it to who pushes by himself, without our script's name.
                    then(ResponseError("OOM command not allowed when used memory > 'maxmemory'."))
            self._to_send.set()
            return
        self._outbox.was_answered()
        fenced = verdicts.count(False)
        if fenced:
            log.warning("commits_fenced", task=self._task.task_name, count=fenced)
        for _, _, then in commit.waiting:
            if then:
                then(None)
        if fenced:
            raise _StartOver("some items of this node are others' now")

    # --- staying alive

    async def _renew_loop(self, queue: LeaseQueue) -> None:
        pause_s = self._task.lease_s / RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(pause_s)
            began_s = now_s()
            try:
                async with asyncio.timeout(pause_s):
                    is_known = await queue.renew(self._node)
            except TimeoutError:
                began_s = now_s()
                is_known = await self._renew_beside()
            if not is_known:
                raise _StartOver("this node was silent for too long, and its items are others' now")
            self._check_lease()
            self._renewed_s = max(self._renewed_s, began_s)

    async def _renew_beside(self) -> bool:
        """What is large may take longer than a lease on a slow link, and all calls wait behind it:
        then renewals have a connection of their own."""
        async with connected(self._task.input_redis) as link, asyncio.TaskGroup() as group:
            reading = group.create_task(link.read())
            is_known = await LeaseQueue(link, self._task.input_queue).renew(self._node)
            reading.cancel()
        return is_known

    async def _look_for_what_came_late(self, queue: LeaseQueue) -> None:
        """A network that stalls delivers late: what a connection that was given up had carried last
        may be carried out after the comparison. This node would renew for ever what it does not
        know of."""
        while True:
            await asyncio.sleep(self._task.lease_s)
            unknown = self._unknown_in(await queue.held(self._node))
            # Once is no proof, as the answer to a take may be on its way.
            self._return(unknown & self._unknown)
            self._unknown = unknown
            if await queue.handed(self._node):
                self._was_handed = True
                self._wanted.set()

    def _check_lease(self) -> None:
        """Whoever was frozen for longer than a lease may have been reaped and not know it."""
        if now_s() - self._renewed_s > self._task.lease_s * 0.9:
            raise _StartOver("this node could not renew its leases in time")

    async def _tick(self) -> None:
        """Once a second: is too much in stock, and may it still be handed out?"""
        stock = self._stock
        while True:
            largest, stock.largest_pop = stock.largest_pop, 1
            takes = stock.takes_begun
            await asyncio.sleep(TICK_S)
            if not stock.is_closed and now_s() - self._renewed_s > self._task.lease_s * 0.9:
                log.warning("fenced", task=self._task.task_name)
                stock.is_closed = True
            stock.largest_pop = max(largest, stock.largest_pop)
            goal = self._update_target()
            if stock.takes_begun != takes:
                continue
            # Nobody has needed more for a second: what is beyond the goal is others'.
            spare = stock.size - goal - self._runs.hungry()
            for side in ("R", "L"):
                if spare > goal and stock.size_of(side):
                    keep = max(0, stock.size_of(side) - spare)
                    given = stock.surrender(side, keep)
                    spare -= len(given)
                    self.give_back([GivenBack(lease.token) for lease in given])
            if spare > goal:
                # All who could take them here have other things in hand.
                self.give_back([GivenBack(lease.token) for lease in stock.surrender_suspects()])


def _is_out_of_memory(refusal: ResponseError) -> bool:
    # Redis 6.2 wraps what a script was told in a sentence of its own.
    return isinstance(refusal, OutOfMemoryError) or "-OOM " in str(refusal)
