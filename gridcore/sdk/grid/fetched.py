"""What a run has fetched for its driver's calls: functions, and large values within bounds.

What is not there may be there in a moment: a Redis that was killed has lost its last second, and
whoever had put it there does so again. So it is looked for some time before it is given up.
"""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from gridcore.sdk.blobs import Blob
from gridcore.sdk.grid.kept import LOSABLE_S
from gridcore.sdk.grid.keys import JobKeys
from gridcore.sdk.grid.letters import Later, Send
from gridcore.sdk.grid.messages import PYTHON, Ticket
from gridcore.sdk.grid.resp import ReplyError
from gridcore.sdk.grid.values import fields_of, joined
from gridcore.sdk.grid.versions import function_field, installed, mismatch, without_versions
from gridcore.sdk.workers.memory import memory_limit

SHARE_OF_MEMORY = 0.25
"""Of the container's, for large values that may be wanted by the next call as well."""

MOST_VALUES = 200
"""Each is an open file, and a process may have a thousand or so."""

RETRY_S = 0.25

Function = tuple[bytes, tuple[str, str] | None]
"""As pickled, and what of it does not fit here, with what to do about it."""


@functools.cache
def memory_for_values() -> int:
    limit = memory_limit()
    if limit is None:  # one core's part of the machine
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = machine // (os.cpu_count() or 1)
    return int(SHARE_OF_MEMORY * limit)


class Fetched:
    def __init__(
        self,
        keys: JobKeys,
        *,
        send: Send,
        later: Later,
        now: Callable[[], float],
        memory: Callable[[], int],
    ) -> None:
        """`memory`: what large values may take."""
        self.functions: dict[bytes, Function] = {}
        self._keys = keys
        self._send = send
        self._later = later
        self._now = now
        self._memory = memory
        self._values: OrderedDict[str, Blob] = OrderedDict()
        self._values_bytes = 0
        self._waiting: dict[str, list[Callable[[str, Blob | None], None]]] = {}
        """For a value that is on its way: each comes once, however many calls take it."""

    def function(self, id: bytes, then: Callable[[Function | None], None]) -> None:  # noqa: A002
        """None if it is not there any more."""
        if id in self.functions:
            then(self.functions[id])
            return

        def got(replies: list[Any] | None) -> None:
            if replies is not None and id not in self.functions:
                packages, data = without_versions(replies[0])
                self.functions[id] = data, mismatch(PYTHON, packages, installed)
            then(self.functions.get(id))

        self._ask([function_field(id)], got, self._now() + LOSABLE_S)

    def values(self, tickets: Sequence[Ticket], then: Callable[[list[Blob] | None], None]) -> None:
        """In their order; None if one is not there any more."""
        missing = {name: size for name, size in tickets if name not in self._values}
        found = {name: self._values[name] for name, _ in tickets if name in self._values}
        if not missing:
            then([found[name] for name, _ in tickets])
            return
        left = len(missing)

        def got(name: str, blob: Blob | None) -> None:
            nonlocal left
            left -= 1
            if blob is not None:
                found[name] = blob
            if left == 0:
                is_whole = all(name in found for name, _ in tickets)
                then([found[name] for name, _ in tickets] if is_whole else None)

        for ticket in missing.items():
            waiting = self._waiting.setdefault(ticket[0], [])
            waiting.append(got)
            if len(waiting) == 1:
                self._fetch(ticket)

    def _fetch(self, ticket: Ticket) -> None:
        def got(pieces: list[Any] | None) -> None:
            blob = None if pieces is None else joined(ticket, pieces)
            if blob is not None:
                self._keep(ticket[0], blob)
            for then in self._waiting.pop(ticket[0]):
                then(ticket[0], blob)

        self._ask(fields_of(ticket), got, self._now() + LOSABLE_S)

    def _ask(
        self, fields: list[str], then: Callable[[list[Any] | None], None], until: float
    ) -> None:
        replies: list[Any] = []

        def got(reply: Any) -> None:
            replies.append(reply)
            if len(replies) < len(fields):
                return
            is_refused = any(isinstance(reply, ReplyError) for reply in replies)
            if not is_refused and None not in replies:
                then(replies)
            elif is_refused or self._now() < until:
                self._later(RETRY_S, lambda: self._ask(fields, then, until))
            else:
                then(None)

        for field in fields:
            self._send(("HGET", self._keys.values, field), got)

    def _keep(self, name: str, blob: Blob) -> None:
        if name in self._values:
            return
        self._values[name] = blob
        self._values_bytes += blob.size
        while self._values_bytes > self._memory() or len(self._values) > MOST_VALUES:
            _, oldest = self._values.popitem(last=False)
            self._values_bytes -= oldest.size
