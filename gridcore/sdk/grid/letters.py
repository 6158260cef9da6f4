"""What a run tells a driver: one letter after the other, each until it is there.

First go the large values that it speaks of, then the letter, and when that is there, what follows
from it: items whose results have arrived are done. If a step fails it is tried again, and so a
letter may arrive twice; its number says so. Those of the last seconds are kept: a driver that has
not got one asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from gridcore.sdk.blobs import Blob
from gridcore.sdk.grid.kept import LOSABLE_S, Kept
from gridcore.sdk.grid.keys import KEPT_S, JobKeys
from gridcore.sdk.grid.messages import MOST_BYTES, UNNUMBERED, Part, Ticket, letter
from gridcore.sdk.grid.resp import Bytes, ReplyError
from gridcore.sdk.grid.values import fields_of, pieces_of
from gridcore.sdk.workers.frames import Message

RETRY_S = 0.25

SLOW_BYTES_PER_S = 125_000
"""What a slow uplink takes."""

Command = Sequence[str | int | Bytes]
Send = Callable[[Command, Callable[[Any], None]], None]
Later = Callable[[float, Callable[[], None]], None]
Values = Sequence[tuple[Ticket, Blob]]


class Letters:
    def __init__(
        self,
        run: str,
        keys: JobKeys,
        *,
        send: Send,
        later: Later,
        now: Callable[[], float],
        on_lost: Callable[[], None],
    ) -> None:
        """`on_lost` is called if the driver misses letters that are not kept any more."""
        self._run = run
        self._keys = keys
        self._send = send
        self._later = later
        self._now = now
        self._on_lost = on_lost
        self._number = 0
        self._waiting: deque[tuple[bytes, Values] | Callable[[], None]] = deque()
        """Parts with their large values, and what is to be done when those before have arrived."""
        self._kept: Kept[tuple[bytes, Values]] = Kept()
        self._arrived_at = 0.0
        self._missed_after: int | None = None
        """The driver has the letters up to that one."""
        self._again: deque[tuple[bytes, Values]] = deque()
        self._is_sending = False
        self._expires = True
        """The keys' ends are put off with the next letter: a key has none before it is there."""
        self._left = 0

    def add(self, part: Part, values: Values = ()) -> None:
        self._waiting.append((part.encoded(), values))

    def then(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)

    @property
    def are_all_there(self) -> bool:
        return not (self._waiting or self._is_sending or self._again)

    def say(self, message: Message) -> None:
        """At once, whatever letter the driver waits for."""
        word = letter(self._run, UNNUMBERED, [Part(0, [message], []).encoded()])
        self._send(("XADD", self._keys.up, "*", "l", word), _ignore)

    def expire(self) -> None:
        """Should the driver be gone, what it was told goes as well, some time after the next
        letter."""
        self._expires = True

    def repeat(self, after: int | None) -> None:
        """The driver has the letters up to that one, and not all of those that came then; or Redis
        may have lost what belongs to any that are kept."""
        if after is not None:
            before = self._missed_after
            self._missed_after = after if before is None else min(after, before)
        elif self._missed_after is None:
            self._again = deque(self._kept.all())
        self.flush()

    def flush(self) -> None:
        if self._is_sending:
            return
        if self._missed_after is not None:
            missed = self._kept.after(self._missed_after)
            self._missed_after = None
            if missed is None:
                self.say(("lost touch",))
                self._on_lost()
                self.flush()  # what it still says is how calls ended
                return
            self._again.extend(missed)
        if self._again:
            self._is_sending = True
            data, values = self._again.popleft()
            self._send_values(values, lambda: self._send_letter(data, self._is_there))
        elif self._waiting:
            self._send_next()

    def _is_there(self) -> None:
        self._is_sending = False
        self.flush()

    def _send_next(self) -> None:
        parts: list[bytes] = []
        values: list[tuple[Ticket, Blob]] = []
        then: list[Callable[[], None]] = []
        size = 0
        while self._waiting and size < MOST_BYTES:
            next_one = self._waiting.popleft()
            if callable(next_one):
                then.append(next_one)
            else:
                parts.append(next_one[0])
                values += next_one[1]
                size += len(next_one[0])
        self._is_sending = True
        self._number += 1
        number, data = self._number, letter(self._run, self._number, parts)
        if self._expires:
            self._expires = False
            then.append(self._expire_keys)

        def arrived() -> None:
            # From the one before on: there may have been a long silence, and Redis not there.
            self._kept.forget(self._arrived_at - LOSABLE_S)
            self._arrived_at = self._now()
            size = len(data) + sum(blob.size for _, blob in values)
            self._kept.add(number, (data, values), size, self._arrived_at)
            for call in then:
                call()
            self._is_there()

        self._send_values(values, lambda: self._send_letter(data, arrived))

    def _expire_keys(self) -> None:
        for key in (self._keys.up, self._keys.values):
            self._send(("EXPIRE", key, KEPT_S), _ignore)

    def _send_values(self, values: Values, then: Callable[[], None]) -> None:
        longer_s = sum(blob.size for _, blob in values) // SLOW_BYTES_PER_S
        if longer_s:
            self.say(("patience", longer_s))
        commands: list[Command] = [
            ("HSET", self._keys.values, field, piece)
            for ticket, blob in values
            for field, piece in zip(fields_of(ticket), pieces_of(blob), strict=True)
        ]
        if not commands:
            then()
            return
        self._left = len(commands)
        for command in commands:
            self._until_done(command, lambda: self._one_less(then))

    def _one_less(self, then: Callable[[], None]) -> None:
        self._left -= 1
        if self._left == 0:
            then()

    def _send_letter(self, data: bytes, then: Callable[[], None]) -> None:
        self._until_done(("XADD", self._keys.up, "*", "l", data), then)

    def _until_done(self, command: Command, then: Callable[[], None]) -> None:
        def answered(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                self._later(RETRY_S, lambda: self._until_done(command, then))
            else:
                then()

        self._send(command, answered)


def _ignore(reply: Any) -> None:
    del reply
