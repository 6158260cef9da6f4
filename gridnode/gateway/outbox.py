"""What the node has still to tell Redis: transactions in their order, and items to give back.

Nothing leaves it before Redis has answered: a commit whose answer was lost is sent again under the
same name. No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gridcore.lease_queue.queue import GivenBack, Transaction

MAX_BYTES = 64 * 1024 * 1024
"""Results that may wait for Redis; beyond that no more items are handed out."""

MAX_TRANSACTIONS = 200_000

COMMIT_AT_ONCE = 2_000
COMMIT_BYTES_AT_ONCE = 1024 * 1024
"""On a slow link what comes after it waits: items that are taken, and the results of others."""

COMMIT_ARGUMENTS_AT_ONCE = 100_000
"""A Redis 6.2 refuses a call of more than a million and closes the connection. The last transaction
of a commit, which may have many by itself, comes on top."""

RETURN_AT_ONCE = 1_000

Verdict = Callable[[Exception | None], None]


Waiting = tuple[Transaction, int, Verdict | None]
"""A transaction, about its size, and who is told. A plain tuple, as one is made for every item."""


@dataclass(frozen=True)
class Commit:
    name: str
    waiting: Sequence[Waiting]

    @property
    def transactions(self) -> list[Transaction]:
        return [transaction for transaction, _, _ in self.waiting]


class Outbox:
    def __init__(self, prefix: str) -> None:
        self.current: Commit | None = None
        """The commit that is under way, or whose answer was lost."""
        self._prefix = prefix
        self._number = 0
        self._waiting: deque[Waiting] = deque()
        self._returned: deque[GivenBack] = deque()
        self._bytes = 0
        self._awaited = 0

    def add(self, transactions: Sequence[Transaction], then: Verdict | None = None) -> None:
        for transaction in transactions:
            size = 64 * (1 + len(transaction.tokens))
            for push in transaction.results:
                for value in push.values:
                    size += 16 + len(value)
            self._waiting.append((transaction, size, then))
            self._bytes += size
            self._awaited += then is not None

    def give_back(self, items: Sequence[GivenBack]) -> None:
        self._returned += items

    @property
    def is_empty(self) -> bool:
        return not (self.current or self._waiting or self._returned)

    @property
    def is_full(self) -> bool:
        return self._bytes > MAX_BYTES or len(self._waiting) > MAX_TRANSACTIONS

    @property
    def is_awaited(self) -> bool:
        """Somebody waits for the answer to one that is not under way yet."""
        return self._awaited > 0

    @property
    def holds_a_full_commit(self) -> bool:
        return len(self._waiting) >= COMMIT_AT_ONCE or self._bytes >= COMMIT_BYTES_AT_ONCE

    def tokens(self) -> set[str]:
        """Of all leases that it has something to say about."""
        found = {token for transaction, _, _ in self._waiting for token in transaction.tokens}
        found |= {item.token for item in self._returned}
        if self.current:
            found |= {token for t in self.current.transactions for token in t.tokens}
        return found

    def next_commit(self) -> Commit | None:
        """The one under way, or else the next, which is under way from now on."""
        if self.current is None and self._waiting:
            chosen: list[Waiting] = []
            size = arguments = 0
            while (
                self._waiting
                and len(chosen) < COMMIT_AT_ONCE
                and size < COMMIT_BYTES_AT_ONCE
                and arguments < COMMIT_ARGUMENTS_AT_ONCE
            ):
                chosen.append(self._waiting.popleft())
                (tokens, results), its_size, then = chosen[-1]
                self._awaited -= then is not None
                size += its_size
                arguments += 2 + len(tokens)
                for _, values, _ in results:
                    arguments += 2 + len(values)
            self._number += 1
            self.current = Commit(f"{self._prefix}{self._number}", chosen)
        return self.current

    def was_answered(self) -> None:
        """The commit under way is applied, or is not to be tried again."""
        assert self.current is not None
        self._bytes -= sum(size for _, size, _ in self.current.waiting)
        self.current = None

    def without_strays(self) -> list[Waiting]:
        """Takes the transactions without items out of the commit under way: alone in a commit they
        have nothing to take away, and a Redis that is full refuses the whole."""
        assert self.current is not None
        strays: list[Waiting] = []
        kept: list[Waiting] = []
        for one in self.current.waiting:
            transaction, _, _ = one
            (kept if transaction.tokens else strays).append(one)
        self._bytes -= sum(size for _, size, _ in strays)
        self._number += 1
        self.current = Commit(f"{self._prefix}{self._number}", kept) if kept else None
        return strays

    def to_give_back(self) -> list[GivenBack]:
        return [self._returned[i] for i in range(min(RETURN_AT_ONCE, len(self._returned)))]

    def were_given_back(self, count: int) -> None:
        for _ in range(count):
            self._returned.popleft()
