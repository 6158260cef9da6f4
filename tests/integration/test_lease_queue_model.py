"""The lease queue against a model: whatever happens in whatever order, every item is in one place.

Hypothesis makes up histories of takes, commits, lost replies, failures, silences and restarts, and
runs the real scripts on a real Redis. After each step it looks into every key and finds each item
exactly where the model has it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gridcore.lease_queue.queue import (
    REAP_AT_ONCE,
    GivenBack,
    Lease,
    LeaseQueue,
    Push,
    Side,
    Transaction,
)
from tests.support.redis_server import RedisServer

QUEUE, OUTPUT = "{the queue}:input", "{the queue}:output"
NODES = ("one", "two", "three")
MAX_ATTEMPTS = 2

nodes = st.sampled_from(NODES)
seldom = st.sampled_from((False, False, False, True))
budgets = st.sampled_from((0, 20, 40, 1_000))
"""Bytes that one call of `take` may bring: nothing, one item or two, and more than there are."""

sides: st.SearchStrategy[Side] = st.sampled_from(("L", "R"))


class LeaseQueueMachine(RuleBasedStateMachine):
    """`holds` is what each node believes to hold; Redis may have taken it away since."""

    server: RedisServer
    committed_ever = dead_ever = 0

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._redis: Any = redis.asyncio.Redis.from_url(self.server.url, protocol=2)
        self._call(self._redis.flushall())
        self._queue = LeaseQueue(self._redis, QUEUE)
        self._numbers = itertools.count()
        self._last_commit: dict[str, tuple[str, list[Transaction], list[bool]]] = {}
        self.pushed: set[bytes] = set()
        self.committed: set[bytes] = set()
        self.dead: set[bytes] = set()
        self.attempts: Counter[bytes] = Counter()
        self.leased: dict[str, dict[str, bytes]] = {node: {} for node in NODES}
        self.holds: dict[str, dict[str, Lease]] = {node: {} for node in NODES}

    def _call(self, awaited: Any) -> Any:
        async def wait() -> Any:
            return await awaited

        return self._runner.run(wait())

    def _a_holder(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from([node for node in NODES if self.holds[node]]))

    # --- what users and nodes do

    @initialize()
    def begin_with_work(self) -> None:
        self.push(40, "L")

    @rule(count=st.integers(1, 5), side=sides)
    def push(self, count: int, side: str) -> None:
        items = [b"item \x00\xff\n %d" % next(self._numbers) for _ in range(count)]
        self._call((self._redis.lpush if side == "L" else self._redis.rpush)(QUEUE, *items))
        self.pushed |= set(items)

    @rule(node=nodes, count=st.integers(1, 6), side=sides, reply_is_lost=seldom, most_bytes=budgets)
    def take(
        self, node: str, count: int, side: Side, reply_is_lost: bool, most_bytes: int = 1_000
    ) -> None:
        prefix = f"t{next(self._numbers)}-"
        taken = self._call(
            self._queue.take(node, count, prefix=prefix, number=0, side=side, most_bytes=most_bytes)
        )
        if taken.is_limited:
            assert 0 < len(taken.leases) < count
        elif len(taken.leases) < count:
            assert taken.waiting == self._call(self._queue.handed(node)) == 0
        for lease in taken.leases:
            assert lease.attempts == self.attempts[lease.payload]
            self.leased[node][lease.token] = lease.payload
            if not reply_is_lost:
                self.holds[node][lease.token] = lease
        assert taken.waiting == self._call(self._redis.llen(QUEUE))

    @rule(node=nodes)
    def be_handed_an_item_while_blocked(self, node: str) -> None:
        self._call(self._redis.lmove(QUEUE, self._queue.keys.inbox(node), "RIGHT", "RIGHT"))

    @precondition(lambda self: any(self.holds.values()))
    @rule(data=st.data(), reply_is_lost=st.booleans())
    def commit(self, data: st.DataObject, reply_is_lost: bool) -> None:
        node = self._a_holder(data)
        held = list(self.holds[node].values())
        chosen = data.draw(st.lists(st.sampled_from(held), unique=True, min_size=1))
        groups = data.draw(st.integers(1, 3))
        self._commit(node, [chosen[start::groups] for start in range(groups)], data.draw(sides))
        if reply_is_lost:
            self.commit_again(node)

    @precondition(lambda self: any(self.holds.values()))
    @rule(data=st.data())
    def come_back_late_and_commit(self, data: st.DataObject) -> None:
        node = self._a_holder(data)
        self.be_reaped(node, knows_nothing=False)
        self._commit(node, [[lease] for lease in self.holds[node].values()], "R")

    def _commit(self, node: str, groups: list[list[Lease]], side: Side) -> None:
        transactions = [
            Transaction(
                [lease.token for lease in group],
                [
                    Push(side, [b"done " + lease.payload for lease in group]),
                    Push(side, [b"more by " + lease.payload for lease in group], to_input=True),
                ],
            )
            for group in groups
        ]
        payloads = [[lease.payload for lease in group] for group in groups]
        name = f"c{next(self._numbers)}"

        verdicts = self._call(self._queue.commit(node, name, OUTPUT, transactions))

        for transaction, items, is_done in zip(transactions, payloads, verdicts, strict=True):
            owned = [token in self.leased[node] for token in transaction.tokens]
            assert is_done == all(owned)
            for token, item in zip(transaction.tokens, items, strict=True):
                if self.leased[node].pop(token, None) is not None and is_done:
                    self.committed.add(item)
                    self.pushed.add(b"more by " + item)
                self.holds[node].pop(token)
        self._last_commit[node] = (name, transactions, verdicts)

    @rule(node=nodes)
    def commit_again(self, node: str) -> None:
        """Its reply was lost: the invariant shows that nothing is done twice."""
        if node in self._last_commit:
            name, transactions, verdicts = self._last_commit[node]
            again = self._call(self._queue.commit(node, name, OUTPUT, transactions))
            assert again == verdicts

    @precondition(lambda self: any(self.holds.values()))
    @rule(data=st.data(), has_failed=st.booleans(), is_repeated=seldom)
    def give_back(self, data: st.DataObject, has_failed: bool, is_repeated: bool) -> None:
        node = self._a_holder(data)
        held = list(self.holds[node].values())
        chosen = data.draw(st.lists(st.sampled_from(held), unique=True, min_size=1))
        self._give_back(node, chosen, has_failed=has_failed)
        if is_repeated:
            items = [GivenBack(c.token, has_failed) for c in chosen]
            again = self._call(self._queue.give_back(node, items, max_attempts=MAX_ATTEMPTS))
            assert set(again) == {"gone"}

    @rule(node=nodes)
    def take_one_and_fail_until_it_is_dead(self, node: str) -> None:
        for _ in range(MAX_ATTEMPTS):
            before = set(self.holds[node])
            self.take(node, 1, "R", reply_is_lost=False)
            taken = [lease for token, lease in self.holds[node].items() if token not in before]
            self._give_back(node, taken, has_failed=True)

    def _give_back(self, node: str, chosen: list[Lease], *, has_failed: bool) -> None:
        reason = "exit" if len(chosen) % 2 else "out_of_memory"
        items = [GivenBack(c.token, has_failed, report={"reason": reason}) for c in chosen]

        outcomes = self._call(self._queue.give_back(node, items, max_attempts=MAX_ATTEMPTS))

        for lease, outcome in zip(chosen, outcomes, strict=True):
            del self.holds[node][lease.token]
            if self.leased[node].pop(lease.token, None) is None:
                assert outcome == "gone"
                continue
            self.attempts[lease.payload] += has_failed
            is_dead = has_failed and self.attempts[lease.payload] >= MAX_ATTEMPTS
            assert outcome == ("dead" if is_dead else "returned")
            if is_dead:
                self.dead.add(lease.payload)

    @precondition(lambda self: self.dead)
    @rule(data=st.data(), kind=st.sampled_from(("id", "reason", "all")), is_discarded=seldom)
    def settle_dead_letters(self, data: st.DataObject, kind: Any, is_discarded: bool) -> None:
        letters = self._call(self._queue.dead_letters(0, 1_000))
        assert {letter.payload for letter in letters} == self.dead
        one = data.draw(st.sampled_from(letters))
        value = {"id": one.id, "reason": one.report["reason"], "all": ""}[kind]
        meant = {
            "id": {one.payload},
            "reason": {x.payload for x in letters if x.report["reason"] == value},
            "all": set(self.dead),
        }[kind]
        settle = self._queue.discard if is_discarded else self._queue.revive

        assert self._call(settle(kind, [value], look_at=len(letters))) == len(meant)

        kept = [letter for letter in letters if letter.payload not in meant]
        assert self._call(self._queue.dead_letters(0, 1_000)) == kept
        self.dead -= meant
        if is_discarded:
            self.pushed -= meant
        for item in meant:
            del self.attempts[item]

    @rule(node=nodes)
    def renew(self, node: str) -> None:
        is_known = self._call(self._redis.zscore(self._queue.keys.nodes, node)) is not None
        assert self._call(self._queue.renew(node)) == is_known

    # --- what happens to them

    @rule(node=nodes, knows_nothing=st.booleans())
    def be_reaped(self, node: str, knows_nothing: bool) -> None:
        """A silent node keeps what it believes to hold, and may come back with it at any time; a
        restarted agent knows nothing, and gives up at once what the one before it held."""
        if knows_nothing:
            self.holds[node].clear()
            self._last_commit.pop(node, None)
            self._call(self._queue.release(node))
        else:
            assert self._call(self._queue.reap(node, silent_ms=0)) == 0
        self.leased[node].clear()

    @rule(node=nodes)
    def be_reaped_in_vain(self, node: str) -> None:
        if self._call(self._queue.renew(node)):
            assert self._call(self._queue.reap(node, silent_ms=60_000)) is None

    # --- what must be true after each step

    @invariant()
    def every_item_is_in_exactly_one_place(self) -> None:
        found = self._call(self._look())
        expected = Counter(self.pushed)
        assert found["everywhere"] == expected
        assert found["results"] == Counter(b"done " + item for item in self.committed)
        assert found["dead"] == self.dead
        assert found["leased"] == {node: set(held.values()) for node, held in self.leased.items()}
        for item, attempts in found["attempts"].items():
            assert attempts == self.attempts[item]

    async def _look(self) -> dict[str, Any]:
        store, keys = self._redis, self._queue.keys
        places: list[bytes] = list(await store.lrange(QUEUE, 0, -1))
        attempts: dict[bytes, int] = {}
        leased: dict[str, set[bytes]] = {}
        for node in NODES:
            places += await store.lrange(keys.inbox(node), 0, -1)
            entries = (await store.hgetall(keys.lease(node))).values()
            parsed = dict(_parse(entry) for entry in entries)
            assert len(parsed) == len(entries)
            attempts |= parsed
            leased[node] = set(parsed)
            places += parsed
        for member in await store.zrange(keys.retry, 0, -1):
            item, count = _parse(member.partition(b" ")[2])
            attempts[item] = count
            places.append(item)
        dead = [d.partition(b"\n")[2] for d in await store.lrange(keys.dead, 0, -1)]
        results = Counter(await store.lrange(OUTPUT, 0, -1))
        done = [result.removeprefix(b"done ") for result in results.elements()]
        return {
            "everywhere": Counter(places + dead + done),
            "results": results,
            "dead": set(dead),
            "leased": leased,
            "attempts": attempts,
        }

    def teardown(self) -> None:
        type(self).committed_ever += len(self.committed)
        type(self).dead_ever += len(self.dead)
        self._call(self._redis.aclose())
        self._runner.close()


def _parse(entry: bytes) -> tuple[bytes, int]:
    head, _, payload = entry.partition(b"\n")
    return payload, int(head.split()[0])


@pytest.fixture
def machine(redis_server: RedisServer) -> type[LeaseQueueMachine]:
    LeaseQueueMachine.server = redis_server
    return LeaseQueueMachine


def test_whatever_happens_every_item_is_in_exactly_one_place(
    machine: type[LeaseQueueMachine],
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=120,
            # Without shrinking a failure is reported in seconds; the history stays readable.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert machine.committed_ever > 20, "histories in which nothing gets done show nothing"
    assert machine.dead_ever > 10


def test_the_leases_of_a_node_that_held_very_many_all_return(redis_server: RedisServer) -> None:
    """Looking for them by HSCAN from its start finds none any more once the first are gone."""
    count = 20_000

    async def story() -> tuple[int, int]:
        async with redis.asyncio.Redis.from_url(redis_server.url, protocol=2) as store:
            queue = LeaseQueue(store, QUEUE)
            for first in range(0, count, 1_000):
                items = [b"%d" % number for number in range(first, first + 1_000)]
                await store.lpush(QUEUE, *items)
                await queue.take("n", 1_000, prefix="t", number=first)
            calls = 1
            while await queue.reap("n", silent_ms=0):
                calls += 1
            return calls, int(await store.llen(QUEUE))

    calls, waiting = asyncio.run(story())

    assert waiting == count
    assert calls == count / REAP_AT_ONCE
