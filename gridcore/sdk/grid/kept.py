"""Numbered messages that were sent lately, should Redis lose them.

A Redis that is killed comes back without its last second or two, and nobody tells those whom that
second's messages were for. They see it by the next number, and ask for what is missing.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

LOSABLE_S = 10.0
"""What is older Redis has in its file, and a replica of it has as well."""

ASK_AGAIN_S = 1.0
"""For what is missing: not with each message that comes meanwhile."""

MOST_BYTES = 16 * 1024 * 1024

What = TypeVar("What")


class Kept(Generic[What]):
    def __init__(self) -> None:
        self._entries: deque[tuple[int, float, int, What]] = deque()
        self._bytes = 0
        self._last = 0

    def add(self, number: int, what: What, size: int, now: float) -> None:
        """It is there."""
        self._last = number
        self._entries.append((number, now, size, what))
        self._bytes += size
        while self._bytes > MOST_BYTES:
            self._drop_first()

    def forget(self, before: float) -> None:
        while self._entries and self._entries[0][1] < before:
            self._drop_first()

    def after(self, number: int) -> list[What] | None:
        """Those with higher numbers; None if not all of them are here any more."""
        if number >= self._last:
            return []
        if not self._entries or self._entries[0][0] > number + 1:
            return None
        return [what for its_number, *_, what in self._entries if its_number > number]

    def all(self) -> list[What]:
        return [what for *_, what in self._entries]

    def _drop_first(self) -> None:
        _, _, size, _ = self._entries.popleft()
        self._bytes -= size
