"""What has gone to an output list on another Redis, for as long as that may forget it again.

No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gridcore.lease_queue.queue import Push

REMEMBERED_S = 60.0
"""A Redis that restarts may have forgotten what it was told so long ago, at the most."""

MAX_BYTES = 64 * 1024 * 1024
"""Of results that are kept. Where a minute brings more, it is a second that counts."""


@dataclass(frozen=True)
class Delivery:
    at_s: float
    name: str
    tokens: Sequence[str]
    pushes: Sequence[Push]


class Delivered:
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        """Of the names of this agent's commits; a number that counts up follows."""
        self._deliveries: deque[Delivery] = deque()
        self._pushed: deque[tuple[Delivery, int]] = deque()
        """Those whose results are kept too, and about how many bytes each is."""
        self._bytes = 0

    def add(self, now_s: float, name: str, tokens: Sequence[str], pushes: Sequence[Push]) -> None:
        if self._deliveries and self._deliveries[-1].name == name:
            return  # it was sent again, since it could not be committed
        delivery = Delivery(now_s, name, tokens, pushes)
        self._deliveries.append(replace(delivery, pushes=()))
        if pushes:
            size = sum(16 + len(value) for push in pushes for value in push.values)
            self._pushed.append((delivery, size))
            self._bytes += size
        while self._bytes > MAX_BYTES:
            self._forget_first()
        self.forget_before(now_s - REMEMBERED_S)

    def forget_before(self, then_s: float) -> None:
        while self._deliveries and self._deliveries[0].at_s < then_s:
            self._deliveries.popleft()
        while self._pushed and self._pushed[0][0].at_s < then_s:
            self._forget_first()

    @property
    def is_empty(self) -> bool:
        return not self._deliveries

    def tokens(self) -> set[str]:
        return {token for delivery in self._deliveries for token in delivery.tokens}

    def later_than(self, name: str | None) -> list[Delivery]:
        """What that Redis has forgotten if `name` is the last that it knows of, in its order."""
        last = self._number(name) if name and name.startswith(self._prefix) else 0
        return [delivery for delivery, _ in self._pushed if self._number(delivery.name) > last]

    def _number(self, name: str) -> int:
        return int(name.removeprefix(self._prefix))

    def _forget_first(self) -> None:
        _, size = self._pushed.popleft()
        self._bytes -= size
