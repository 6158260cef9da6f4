"""Values of other drivers, for a program that was given the id of a reference.

The other driver is asked as a run would ask it, by a letter, and answers by an order. What it
answers becomes a value of this driver. If it is gone, so are its values.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from typing import Any

from gridcore.sdk.blobs import Blob
from gridcore.sdk.driver.pump import Poller
from gridcore.sdk.errors import GridError, ObjectLost
from gridcore.sdk.grid.keys import BEAT_S, JobKeys
from gridcore.sdk.grid.link import Link
from gridcore.sdk.grid.messages import UNNUMBERED, Part, Ticket, letter, read_order
from gridcore.sdk.grid.resp import ReplyError
from gridcore.sdk.grid.values import fields_of, joined
from gridcore.sdk.outcomes import packed_error
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.frames import packed_from

LISTEN_MS = 10_000

Settle = Callable[[Packed, bool], None]
"""With the value, or with an error."""


class Guest:
    """At one other driver: its questions, and the connection on which answers come."""

    def __init__(self, url: str, queue: str, job: str, *, poller: Poller) -> None:
        """Raises OSError."""
        self._job = job
        self._keys = JobKeys(queue, job)
        # One of its own for each, since each counts its questions and reads answers from the first.
        self._name = f"guest-{os.urandom(8).hex()}"
        self._poller = poller
        self._asked: dict[int, tuple[int, Settle]] = {}
        """The numbers of values, and what to do with them, by the tokens of the questions."""
        self._fetching: set[int] = set()
        self._tokens = itertools.count(1)
        self._last = b"0-0"
        self._looked_at = 0.0
        # One connection waits, so another one asks.
        self._calls, self._orders = self._connected(url), self._connected(url)
        self._listen()

    def ask(self, number: int, settle: Settle) -> None:
        token = next(self._tokens)
        self._asked[token] = number, settle
        self._tell(("fetch", token, number))
        self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Whether who was asked is still there, who is asked again: it may have taken us for gone,
        or a Redis that was killed may have lost the answer."""
        if not self._asked or now - self._looked_at < BEAT_S:
            return
        self._looked_at = now

        def answered(is_there: Any) -> None:
            if is_there == 0:
                self._fail_all("its driver has ended, and its values are gone with it")

        self._calls.send(("EXISTS", self._keys.alive), answered)
        for token, (number, _) in list(self._asked.items()):
            if token not in self._fetching:
                self._tell(("fetch", token, number))
        self._tell(("alive",))

    def close(self) -> None:
        for link in (self._calls, self._orders):
            if link.is_connected:
                self._poller.forget(link.fileno())
                link.close()

    def _tell(self, message: tuple[Any, ...]) -> None:
        data = letter(self._name, UNNUMBERED, [Part(0, [message], []).encoded()])

        def answered(reply: Any) -> None:
            if isinstance(reply, ReplyError):
                self._broke(reply)

        self._calls.send(("XADD", self._keys.up, "*", "l", data), answered)
        self._flush(self._calls)

    def _listen(self) -> None:
        key = self._keys.to(self._name)
        self._orders.send(
            ("XREAD", "COUNT", 100, "BLOCK", LISTEN_MS, "STREAMS", key, self._last), self._came
        )
        self._flush(self._orders)

    def _came(self, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            self._broke(reply)
            return
        for _, entries in reply or ():
            for entry, fields in entries:
                self._last = entry
                for part in read_order(fields[1])[1]:
                    for message in part.messages:
                        self._answered(message, part.tickets)
        self._listen()

    def _answered(self, message: tuple[Any, ...], tickets: list[Ticket]) -> None:
        if message[0] != "value":
            return
        _, token, is_error, wire = message
        if token not in self._asked or token in self._fetching:
            return  # it was answered twice
        if not tickets:
            self._settle(token, packed_from(wire, []), is_error)
            return
        self._fetching.add(token)
        pieces: list[Any] = []
        fields = fields_of(tickets[0])

        def got(piece: Any) -> None:
            pieces.append(piece)
            if len(pieces) < len(fields):
                return
            self._fetching.discard(token)
            try:
                blob: Blob = joined(tickets[0], pieces)
            except ObjectLost as error:
                self._settle(token, packed_error(error), True)
            else:
                self._settle(token, Packed(None, blob), is_error)

        for field in fields:
            self._calls.send(("HGET", self._keys.values, field), got)
        self._flush(self._calls)

    def _settle(self, token: int, packed: Packed, is_error: bool) -> None:
        found = self._asked.pop(token, None)
        if found is not None:
            self._tell(("fetched", token))
            found[1](packed, is_error)

    def _fail_all(self, cause: str) -> None:
        asked, self._asked = self._asked, {}
        for _, settle in asked.values():
            settle(packed_error(not_reachable(self._job, cause)), True)

    def _flush(self, link: Link) -> None:
        try:
            link.flush()
        except OSError as error:
            self._broke(error)

    def _broke(self, error: Exception) -> None:
        self.close()
        self._fail_all(f"the grid's Redis went away, or refuses ({error})")

    def _connected(self, url: str) -> Link:
        link = Link(url, wants_to_write=lambda on: self._poller.also_write(link.fileno(), on))
        link.connect()

        def ready(can_read: bool) -> None:
            try:
                if can_read:
                    link.receive()
                link.flush()
            except OSError as error:
                self._broke(error)

        self._poller.watch(link.fileno(), ready)
        return link

    @property
    def is_connected(self) -> bool:
        return self._calls.is_connected and self._orders.is_connected


def not_reachable(job: str, cause: str) -> GridError:
    return ObjectLost(
        f"Getting a value of the program with the job {job}",
        cause=cause,
        next_step="Let that program go on until its results were taken, or make the call here",
    )


def _ignore(reply: Any) -> None:
    del reply
