"""What a desk needs of the node: the time, timers, and Redis. Answers come by a callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gridcore.lease_queue.queue import Push, Transaction
from gridnode.gateway.resp import Command
from gridnode.gateway.watched_streams import StreamIds

Then = Callable[[Any], None]
IsWanted = Callable[[], bool]


class Timer(Protocol):
    def cancel(self) -> object: ...


class StreamWatch(Protocol):
    def cancel(self) -> object: ...


def always() -> bool:
    return True


class Outside(Protocol):
    """Who asks may be gone before Redis is there to be asked, or asked again: what `is_wanted`
    denies then is not sent, and `then` gets NotWanted."""

    def now_s(self) -> float: ...

    def commit(self, transactions: Sequence[Transaction]) -> None: ...

    def push_through(self, pushes: Sequence[Push], then: Then) -> None:
        """Results that belong to no item; `then` gets None when they are in Redis, or an error."""

    def ask(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None:
        """Asks the Redis of the input queue; `then` gets the answer, or an error."""

    def ask_output(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None: ...

    def pass_on(self, command: Command, then: Then, *, is_wanted: IsWanted = always) -> None:
        """A command on further keys, if all of them are allowed."""

    def watch_streams(self, ids: StreamIds, then: Callable[[], None]) -> StreamWatch:
        """`then` is called, once, when streams may have more than that; perhaps for nothing."""

    def wants_items(self) -> None: ...

    def after(self, delay_s: float, then: Callable[[], None]) -> Timer: ...

    def note_long_barrier(self, after_s: float) -> None:
        """Pops of a run have waited so long for items that it has in hand besides."""

    def note_result_without_item(self) -> None: ...


class NotWanted(Exception):
    """Nobody was there any more to be told."""


class NotAllowed(Exception):
    """A command on keys that the task does not allow."""
