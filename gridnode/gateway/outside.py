"""What a desk needs of the node: the time, timers, and Redis. Answers come by a callback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gridcore.lease_queue.queue import Push, Transaction
from gridnode.gateway.resp import Command

Then = Callable[[Any], None]


class Timer(Protocol):
    def cancel(self) -> object: ...


class Outside(Protocol):
    def now_s(self) -> float: ...

    def commit(self, transactions: Sequence[Transaction]) -> None: ...

    def push_through(self, pushes: Sequence[Push], then: Then) -> None:
        """Results that belong to no item; `then` gets None when they are in Redis, or an error."""

    def ask(self, command: Command, then: Then) -> None:
        """Asks the Redis of the input queue; `then` gets the answer, or an error."""

    def ask_output(self, command: Command, then: Then) -> None: ...

    def pass_on(self, command: Command, then: Then) -> None:
        """A command on further keys, if all of them are allowed."""

    def wants_items(self) -> None: ...

    def after(self, delay_s: float, then: Callable[[], None]) -> Timer: ...

    def note_forced_group(self, after_s: float) -> None: ...


class NotAllowed(Exception):
    """A command on keys that the task does not allow."""
