"""What happens to calls, and the notes of it that subscribers get."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

from gridcore.sdk.errors import describe
from gridcore.sdk.packing import Packed, unpack

Kind = Literal[
    "submitted",
    "retried",
    "progress",
    "finished",
    "failed",
    "cancelled",
    "actor_started",
    "actor_died",
]

MOST_KEPT = 10_000
"""Events that wait for their subscriber."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a call, or to an actor."""

    kind: Kind
    id: str
    """Of the call, as `ObjectRef.id`; of an actor's own events, of the actor."""
    name: str
    at: float
    """Seconds since 1970."""
    text: str = ""
    """What was raised, why a call is repeated or an actor dead, or what the call said."""
    fraction: float | None = None
    """Of "progress": how much is done, from 0 to 1."""


class Listener:
    """Keeps notes until they are read, and forgets the oldest if that takes too long."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._notes: deque[tuple[Kind, str, str, float, str | Packed, float | None]] = deque()
        self.dropped = 0
        self.is_closed = False

    def __bool__(self) -> bool:
        return bool(self._notes)

    def note(
        self,
        kind: Kind,
        id: str,  # noqa: A002
        name: str,
        what: str | Packed,
        fraction: float | None,
    ) -> None:
        if len(self._notes) >= self._limit:
            self._notes.popleft()
            self.dropped += 1
        self._notes.append((kind, id, name, time.time(), what, fraction))

    def take(self) -> Event:
        """Raises IndexError if there is none."""
        kind, id_, name, at, what, fraction = self._notes.popleft()
        # Unpacked only here: to make a stranger's exception again runs a stranger's code.
        text = what if isinstance(what, str) else describe(unpack(what))
        return Event(kind, id_, name, at, text, fraction)
