"""A desk without a node and connections without sockets: the test is both container and Redis.

desk = make_desk(items=[b"a", b"b"])
peer = Peer(desk)
assert peer.ask("AUTH SECRET", "RPOP work") == [b"OK", b"a"]
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis

from gridcore.lease_queue.queue import Lease, Push, Transaction
from gridcore.wire import AckMode
from gridnode.gateway.constants import Constants
from gridnode.gateway.conversation import Conversation
from gridnode.gateway.desk import Counters, Desk, Rules
from gridnode.gateway.foreign import KeyRules
from gridnode.gateway.outside import IsWanted, NotWanted, Then, always
from gridnode.gateway.resp import Command, CommandReader
from gridnode.gateway.stock import Stock
from gridnode.gateway.watched_streams import StreamIds, StreamWatch, WatchedStreams

QUEUE, OUTPUT, SECRET = "work", "done", "SECRET"

_numbers = itertools.count()


def leases(*payloads: bytes, attempts: int = 0) -> list[Lease]:
    return [Lease(f"t{next(_numbers)}", attempts, payload) for payload in payloads]


@dataclass(frozen=True, eq=False)
class FakeTimer:
    outside: FakeOutside
    at_s: float
    then: Callable[[], None]

    def cancel(self) -> None:
        if self in self.outside.timers:
            self.outside.timers.remove(self)


class FakeOutside:
    """What a desk asks of its node is noted down, and answered when the test says so."""

    def __init__(self) -> None:
        self.clock_s = 1_000.0
        self.committed: list[Transaction] = []
        self.asked: list[tuple[Command, Then]] = []
        self.wanted: list[IsWanted] = []
        """By whom, in the order of what is asked."""
        self.through: list[tuple[Sequence[Push], Then]] = []
        self.timers: list[FakeTimer] = []
        self.streams = WatchedStreams()
        self.long_barriers = 0
        self.results_without_item = 0

    @property
    def results(self) -> list[bytes]:
        """All that was committed or pushed through, in that order."""
        pushes = [push for transaction in self.committed for push in transaction.results]
        pushes += [push for pushes, _ in self.through for push in pushes]
        return [value for push in pushes for value in push.values]

    @property
    def done(self) -> list[str]:
        return [token for transaction in self.committed for token in transaction.tokens]

    def answer(self, answer: object) -> Command:
        """Redis answers the oldest question."""
        command, then = self.asked.pop(0)
        del self.wanted[0]
        then(answer)
        return command

    def forget_the_unwanted(self) -> None:
        """As before anything is sent to Redis, or sent again."""
        asked, self.asked = self.asked, []
        wanted, self.wanted = self.wanted, []
        for (command, then), is_wanted in zip(asked, wanted, strict=True):
            if is_wanted():
                self.ask(command, then, is_wanted=is_wanted)
            else:
                then(NotWanted())

    def now_s(self) -> float:
        return self.clock_s

    def commit(self, transactions: Sequence[Transaction]) -> None:
        self.committed += transactions

    def push_through(self, pushes: Sequence[Push], then: Then) -> None:
        self.through.append((pushes, then))

    def ask(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None:
        self.asked.append((command, then))
        self.wanted.append(is_wanted)

    ask_output = pass_on = ask

    def watch_streams(self, ids: StreamIds, then: Callable[[], None]) -> StreamWatch:
        return self.streams.watch(ids, then)

    def wants_items(self) -> None:
        """The test brings them, or not."""

    def after(self, delay_s: float, then: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self, self.clock_s + delay_s, then)
        self.timers.append(timer)
        return timer

    def pass_time(self, seconds: float) -> None:
        self.clock_s += seconds
        for timer in [timer for timer in self.timers if timer.at_s <= self.clock_s]:
            self.timers.remove(timer)
            timer.then()

    def note_result_without_item(self) -> None:
        self.results_without_item += 1

    def note_long_barrier(self, after_s: float) -> None:  # noqa: ARG002
        self.long_barriers += 1


def make_desk(
    items: Sequence[bytes] = (),
    *,
    outside: FakeOutside | None = None,
    stock: Stock | None = None,
    ack: AckMode = "next",
    keys: Sequence[str] = (),
    constants: Sequence[str] = (),
    alone_after_failure: bool = True,
    known: Constants | None = None,
    counters: Counters | None = None,
) -> Desk:
    if stock is None:
        stock = Stock(alone_after_failure=alone_after_failure)
    stock.taken("R", leases(*items), take=0, is_exhausted=False)
    return Desk(
        Rules(QUEUE, OUTPUT, ack, KeyRules((QUEUE, OUTPUT), keys, constants), alone_after_failure),
        secret=SECRET.encode(),
        stock=stock,
        constants=known or Constants(),
        outside=outside or FakeOutside(),
        counters=counters or Counters(),
    )


class Peer:
    """One connection; its words are separated by spaces, its replies are as hiredis reads them."""

    def __init__(self, desk: Desk, *, logged_in: bool = False) -> None:
        self.sent_back = bytearray()
        """All that was written to it, byte for byte."""
        self.hung_up_for: str | None = None
        """The reason; empty if it was its own wish."""
        self.turns: deque[Callable[[], None]] = deque()
        self.most_kept = 0
        """Bytes that it was seen to keep when it said that there were more of them."""
        self.conversation = Conversation(
            desk,
            write=self._write,
            hang_up=self._hang_up,
            in_turn=self.turns.append,
            has_grown=self._has_grown,
        )
        self._commands = CommandReader()
        self._replies = hiredis.Reader()
        if logged_in:
            assert self.ask(f"AUTH {SECRET}") == [b"OK"]
            self.sent_back.clear()

    def ask(self, *commands: str) -> list[Any]:
        """Sends them in one piece; the replies so far."""
        return self.ask_in_bytes(*(pack(*command.split(" ")) for command in commands))

    def ask_in_bytes(self, *pieces: bytes) -> list[Any]:
        self.conversation.receive(self._commands.feed(b"".join(pieces)))
        while self.turns:
            self.turns.popleft()()
        return self.replies()

    def replies(self) -> list[Any]:
        found = []
        while (reply := self._replies.gets()) is not False:
            found.append(reply)
        return found

    def vanish(self, *, was_read: bool) -> None:
        self.conversation.closed(was_read=was_read)

    def _write(self, data: bytes) -> None:
        self.sent_back += data
        self._replies.feed(data)

    def _has_grown(self) -> None:
        self.most_kept = max(self.most_kept, self.conversation.kept_bytes)

    def _hang_up(self, reason: str) -> None:
        self.hung_up_for = reason


def pack(*words: str | bytes) -> bytes:
    return bytes(hiredis.pack_command(words))  # type: ignore[arg-type]
