"""The node's dealings with the Redis of one task, for all its slots, over two connections.

    take      keeps the stock filled for those who ask, and a little more (pace)
    watch     blocks in BLMOVE while the queue is empty
    commit    sends the outbox, one commit after the other
    renew     says that this node is alive, and with it all its leases
    asks      what containers want to know of Redis

Every connection begins with a comparison of what Redis and the node believe to be leased: see
`_compare`. While Redis is away containers go on with what is in stock, and the outbox waits.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol

from redis.exceptions import RedisError, ResponseError

from gridcore.backoff import full_jitter_s
from gridcore.lease_queue.queue import (
    TAKE_AT_ONCE,
    GivenBack,
    Lease,
    LeaseQueue,
    Push,
    Side,
    Transaction,
    deliver,
)
from gridcore.logs import EventLog
from gridcore.redis_urls import hide_password
from gridcore.wire import TaskConfig
from gridnode.gateway.foreign import CommandFacts, KeyRules, facts, keys_of
from gridnode.gateway.link import Line, Link, connected
from gridnode.gateway.outbox import Outbox, Verdict
from gridnode.gateway.outside import NotAllowed, Then
from gridnode.gateway.pace import Pace, target
from gridnode.gateway.resp import Command
from gridnode.gateway.stock import Stock

COMMIT_EVERY_S = 0.01
"""Commits that begin sooner after each other become one."""

BLOCK_S = 2.0
"""In BLMOVE; then also what has failed elsewhere and is due again is looked for."""

LONGEST_BLOCK_S = 10.0
"""While nothing comes the waits grow: a large fleet that waits should cost Redis little."""

WATCHDOG_S = 3.0
"""A blocked call that is not answered so long after its time is on a connection that is dead."""

FULL_PAUSE_S = 0.25

REMEMBERED_S = 60.0
"""A Redis that restarts may have forgotten what it was told so long ago, at the most."""

RENEWALS_PER_LEASE = 6
TICK_S = 1.0
LONGEST_RECONNECT_PAUSE_S = 5.0

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
        self._renewed_s = _now_s()
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
        self._facts: dict[bytes, CommandFacts] = {}
        self._line = Line()
        self._output_line = Line() if task.output_redis != task.input_redis else self._line
        self._recent: deque[tuple[float, list[str]]] = deque()
        self._wanted = asyncio.Event()
        self._watch_now = asyncio.Event()
        self._to_send = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self._group: asyncio.TaskGroup | None = None

    # --- the life of it

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._tick())
            if self._output_line is not self._line:
                group.create_task(self._keep_output_line())
            attempt = 0
            while True:
                began_s = _now_s()
                problem = None
                try:
                    await self._connect_and_serve()
                except* _StartOver as reasons:
                    log.warning("leases_compared", reason=reasons.exceptions[0])
                except* (RedisError, OSError, TimeoutError) as errors:
                    problem = _first(errors)
                self._line.down()
                if problem is not None:
                    shown = hide_password(self._task.input_redis)
                    text = f"{shown}: {type(problem).__name__}: {problem}".rstrip(": ")
                    self._on_problem(
                        f"The task's Redis cannot be used now ({text}). Containers go on with what"
                        " they have; results are kept until it is back"
                    )
                if _now_s() - began_s > LONGEST_RECONNECT_PAUSE_S:
                    attempt = 0
                await asyncio.sleep(
                    full_jitter_s(attempt, first_s=0.1, most_s=LONGEST_RECONNECT_PAUSE_S)
                )
                attempt += 1

    async def finish(self) -> None:
        """Tells Redis all there is to tell, and gives back the rest. Nothing runs any more."""
        for side in ("R", "L"):
            self.give_back([GivenBack(lease.token) for lease in self._stock.surrender(side, 0)])
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                await self._all_sent.wait()
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
            queue = LeaseQueue(link, self._task.input_queue)
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

    async def _keep_output_line(self) -> None:
        """Results wait while their Redis is away; leases are renewed all the same."""
        attempt = 0
        while True:
            try:
                async with connected(self._task.output_redis) as link:
                    self._output_line.up(link)
                    attempt = 0
                    await link.read()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning(
                    "output_redis_away", redis=hide_password(self._task.output_redis), error=error
                )
            self._output_line.down()
            await asyncio.sleep(full_jitter_s(attempt, most_s=LONGEST_RECONNECT_PAUSE_S))
            attempt += 1

    async def _compare(self, queue: LeaseQueue) -> None:
        """Redis may have lost its last second, this node may have been reaped, and the answer to
        a call may have been lost: so what both sides believe is compared.

        What the node does not know of it has finished (and Redis lost that), or never got: it goes
        back. What Redis does not know of is in the queue again, or another node's.
        """
        began_s = _now_s()
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
        again = unknown & {token for _, tokens in self._recent for token in tokens}
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

    def note_forced_group(self, after_s: float) -> None:
        log.warning("group_forced", task=self._task.task_name, after_s=after_s)

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

    def ask(self, command: Command, then: Then) -> None:
        self._spawn(self._ask(self._line, command, then, may_repeat=True))

    def ask_output(self, command: Command, then: Then) -> None:
        self._spawn(self._ask(self._output_line, command, then, may_repeat=True))

    def pass_on(self, command: Command, then: Then) -> None:
        self._spawn(self._pass_on(command, then))

    def _spawn(self, what: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(what)

    async def _ask(self, line: Line, command: Command, then: Then, *, may_repeat: bool) -> None:
        while True:
            link = await line.link()
            try:
                answer: Any = await link.execute_command(*command)
            except ResponseError as refusal:
                answer = refusal
            except RedisError as error:
                if may_repeat:
                    await asyncio.sleep(0)
                    continue
                answer = ResponseError(
                    f"ERR gridcore: the task's Redis went away ({error}); whether it has carried"
                    " this out is not known"
                )
            then(answer)
            return

    async def _pass_on(self, command: Command, then: Then) -> None:
        name = command[0].upper()
        if name not in self._facts:
            question = [b"COMMAND", b"INFO", name]
            await self._ask(
                self._line, question, lambda info: self._learn(name, info), may_repeat=True
            )
        known = self._facts.get(name)
        keys = keys_of(command, known) if known else None
        if keys and all(self._keys.allow(key) for key in keys):
            await self._ask(self._line, command, then, may_repeat=False)
        else:
            then(NotAllowed())

    def _learn(self, name: bytes, info: Any) -> None:
        # What Redis does not know is not remembered: there is no end of such names.
        if isinstance(info, list) and info and info[0]:
            self._facts[name] = facts(info[0])

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
        began_s = _now_s()
        taken = await queue.take(self._node, count, prefix=self._prefix, number=number, side=side)
        self._renewed_s = began_s
        self._round_trip_s += 0.2 * (_now_s() - began_s - self._round_trip_s)
        self.waiting, self._nodes = taken.waiting, taken.nodes
        self._next_due_s = None
        if taken.next_due_ms is not None:
            self._next_due_s = _now_s() + taken.next_due_ms / 1000
        if taken.leases:
            mean = sum(len(lease.payload) for lease in taken.leases) / len(taken.leases)
            self._bytes_per_item += 0.2 * (mean - self._bytes_per_item)
        self._is_empty = len(taken.leases) < count
        self._stock.taken(side, taken.leases, take=this_take, is_exhausted=self._is_empty)
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
        self._stock.low_water = goal // 2
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
                block_s = min(block_s, max(0.01, self._next_due_s - _now_s()))
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
                if not str(refusal).startswith("OOM"):
                    raise
                await asyncio.sleep(FULL_PAUSE_S)
            self._is_empty = False
            self._wanted.set()

    # --- results go

    def _send(self, transactions: Sequence[Transaction], then: Verdict | None = None) -> None:
        self._outbox.add(transactions, then)
        self._has_something_to_send()
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
                # Alone it goes at once; what follows soon is gathered.
                await asyncio.sleep(max(0.0, began_s + COMMIT_EVERY_S - _now_s()))
            began_s = _now_s()
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

    async def _send_commit(self, queue: LeaseQueue) -> None:
        commit = self._outbox.current
        assert commit is not None
        transactions = commit.transactions
        try:
            if self._output_line is not self._line:
                transactions = await self._deliver_first(queue, commit.name, transactions)
            verdicts = await queue.commit(
                self._node, commit.name, self._task.output_queue, transactions
            )
        except ResponseError as refusal:
            if not str(refusal).startswith("OOM"):
                raise
            strays = self._outbox.without_strays()
            if not strays:
                raise
            for _, _, then in strays:
                if then:
                    then(refusal)
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

    async def _deliver_first(
        self, queue: LeaseQueue, name: str, transactions: Sequence[Transaction]
    ) -> list[Transaction]:
        """Results to their own Redis, those of leases that are held; what is left to be done here.

        Two servers cannot be written in one step. A node that is reaped between the two has
        delivered results of items that another node will do again: see docs/delivery.md.
        """
        held = await queue.held(self._node)
        pushes, left = [], []
        for transaction in transactions:
            if held.issuperset(transaction.tokens):
                pushes += [push for push in transaction.results if not push.to_input]
            left.append(
                Transaction(transaction.tokens, [p for p in transaction.results if p.to_input])
            )
        if pushes:
            link = await self._output_line.link()
            await deliver(link, self._task.output_queue, self._node, name, pushes)
        now_s = _now_s()
        self._recent.append((now_s, [token for t in transactions for token in t.tokens]))
        while now_s - self._recent[0][0] > REMEMBERED_S:
            self._recent.popleft()
        return left

    # --- staying alive

    async def _renew_loop(self, queue: LeaseQueue) -> None:
        while True:
            for _ in range(RENEWALS_PER_LEASE):
                await asyncio.sleep(self._task.lease_s / RENEWALS_PER_LEASE)
                began_s = _now_s()
                if not await queue.renew(self._node):
                    raise _StartOver(
                        "this node was silent for too long, and its items are others' now"
                    )
                self._check_lease()
                self._renewed_s = began_s
            await self._look_for_what_came_late(queue)

    async def _look_for_what_came_late(self, queue: LeaseQueue) -> None:
        """A network that stalls delivers late: what a connection that was given up had carried last
        may be carried out after the comparison. This node would renew for ever what it does not
        know of."""
        unknown = self._unknown_in(await queue.held(self._node))
        # Once is no proof, as the answer to a take may be on its way.
        self._return(unknown & self._unknown)
        self._unknown = unknown
        if await queue.handed(self._node):
            self._was_handed = True
            self._wanted.set()

    def _check_lease(self) -> None:
        """Whoever was frozen for longer than a lease may have been reaped and not know it."""
        if _now_s() - self._renewed_s > self._task.lease_s * 0.9:
            raise _StartOver("this node could not renew its leases in time")

    async def _tick(self) -> None:
        """Once a second: is too much in stock, and may it still be handed out?"""
        stock = self._stock
        while True:
            largest, stock.largest_pop = stock.largest_pop, 1
            takes = stock.takes_begun
            await asyncio.sleep(TICK_S)
            if not stock.is_closed and _now_s() - self._renewed_s > self._task.lease_s * 0.9:
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


def _now_s() -> float:
    """Goes on while the machine sleeps, where the system can tell."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


__all__ = ["Lease", "Ledger", "Runs"]
