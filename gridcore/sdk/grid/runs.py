"""The runs that a driver hears of: which letters it reads, and the orders that it gives.

Letters and orders are numbered. One that comes again is not read; before one that is missing none
is, and it is asked for. Whoever cannot send it any more has lost touch: the run begins anew. How
calls ended is still read of it, as their items are done.

    unknown --letter--> known --silent, or out of touch--> lost --letter--> told to begin anew
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from gridcore.sdk.driver.records import Peer
from gridcore.sdk.grid import messages
from gridcore.sdk.grid.kept import ASK_AGAIN_S, LOSABLE_S, Kept
from gridcore.sdk.grid.keys import KEPT_S
from gridcore.sdk.grid.messages import UNNUMBERED, Part
from gridcore.sdk.workers.frames import Message

RUN_SILENT_S = 45.0
"""More than a node's lease, after which its items come back."""


class GridWorker(Peer):
    """A worker process in some container: a seat of calls, or an actor."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.run: str | None = None
        """None until it has said hello."""
        self.worker = 0
        """Its number in the run."""
        self.node = ""


class Run:
    def __init__(self, now: float) -> None:
        self.heard_at = now
        self.last_letter = 0
        self.is_lost = False
        self.asked_at = 0.0
        """For letters that are missing, or to begin anew."""
        self.orders = 0
        self.parts: deque[bytes] = deque()
        self.is_ordering = False
        """An order is on its way. There is one at a time: should Redis refuse it for a while, none
        is to be there before it."""
        self.kept: Kept[bytes] = Kept()
        self.misses_after: int | None = None
        """It has the orders up to that one, and not all after it."""
        self.peers: dict[int, GridWorker] = {}
        """Those that have said something besides results."""
        self.started: dict[int, int] = {}
        """Calls that run there for a while already, and in which of its workers."""
        self.lent: dict[int, int] = {}
        """Values that another program fetches, by its tokens."""
        self.trusted: set[int] = set()
        """Those of them that were not pushed again, as they are at work there."""


class SendsOrders(Protocol):
    def order(self, run: str, data: bytes, then: Callable[[], None]) -> None: ...


class Runs:
    def __init__(
        self,
        store: SendsOrders,
        *,
        now: Callable[[], float],
        on_lost: Callable[[str, Run, str], None],
    ) -> None:
        """`on_lost` gets the name of a run that is known no more, and why."""
        self.known: dict[str, Run] = {}
        self._store = store
        self._now = now
        self._on_lost = on_lost
        self._lost: dict[str, Run] = {}
        self._to_order: dict[str, Run] = {}

    # Letters

    def hear(self, name: str, number: int) -> Run | None:
        """A letter has come; None if it is not to be read."""
        now = self._now()
        run = self._lost.get(name) or self.known.get(name)
        if run is None:
            run = self.known[name] = Run(now)
        run.heard_at = now
        if run.is_lost:
            # It has slept, or its node was away: what it holds is held for nobody.
            if now - run.asked_at >= ASK_AGAIN_S:
                run.asked_at = now
                self._say(name, ("anew",))
        elif number == UNNUMBERED:
            return run
        elif number > run.last_letter + 1:
            if now - run.asked_at >= ASK_AGAIN_S:
                run.asked_at = now
                self._say(name, ("repeat", run.last_letter))
            return None
        if number <= run.last_letter:
            return None
        run.last_letter = number
        return run

    def look(self, heard_at: float, since: float) -> None:
        """`heard_at`: until when letters would have come here; `since`: since when, as nobody can
        be heard while Redis is away."""
        for name, run in list(self.known.items()):
            if heard_at - max(run.heard_at, since) > RUN_SILENT_S:
                self.lose(name, "was lost with its node")
            elif heard_at - since > LOSABLE_S:
                run.kept.forget(heard_at - LOSABLE_S)

        now = self._now()
        for name, run in list(self._lost.items()):
            if now - run.heard_at > KEPT_S:
                del self._lost[name]

    def lose(self, name: str, how: str) -> None:
        run = self.known.pop(name)
        self._to_order.pop(name, None)
        if run.last_letter:
            run.is_lost, run.asked_at = True, self._now()
            self._lost[name] = run
            self._say(name, ("anew",))
        self._on_lost(name, run, how)

    # Orders

    def order(self, name: str, part: Part) -> None:
        run = self.known.get(name)
        if run is not None:
            run.parts.append(part.encoded())
            self._to_order[name] = run

    def send_orders(self) -> None:
        to_order, self._to_order = self._to_order, {}
        for name, run in to_order.items():
            if not run.is_ordering:
                self._send_order(name, run)

    def _send_order(self, name: str, run: Run) -> None:
        parts: list[bytes] = []
        size = 0
        while run.parts and size < messages.MOST_BYTES:
            parts.append(run.parts.popleft())
            size += len(parts[-1])
        run.is_ordering = True
        run.orders += 1
        number, data = run.orders, messages.order(run.orders, parts)

        def is_there() -> None:
            run.is_ordering = False
            run.kept.add(number, data, len(data), self._now())
            if self.known.get(name) is not run:
                return
            if run.misses_after is not None:
                self.missed(name, run, run.misses_after)
            if run.parts:
                self._to_order[name] = run

        self._store.order(name, data, is_there)

    def missed(self, name: str, run: Run, after: int) -> None:
        """It has the orders up to that one, and not all of those that came then."""
        if run.is_ordering:  # that one it does not read, either
            run.misses_after = after if run.misses_after is None else min(after, run.misses_after)
            return
        run.misses_after = None
        orders = run.kept.after(after)
        if orders is None:
            self.lose(name, "was told what the grid's Redis has forgotten")
            return
        for data in orders:
            self._store.order(name, data, _nothing)

    def send_again(self) -> None:
        """Redis may have lost some, and not every run would notice; and values that runs have put
        there, which come again with their letters."""
        for name, run in self.known.items():
            for data in run.kept.all():
                self._store.order(name, data, _nothing)
            self._say(name, ("repeat", None))

    def _say(self, name: str, message: Message) -> None:
        """Whatever order it waits for."""
        order = messages.order(UNNUMBERED, [Part(0, [message], []).encoded()])
        self._store.order(name, order, _nothing)


def _nothing() -> None:
    pass
