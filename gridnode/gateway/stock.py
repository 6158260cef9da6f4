"""The items that the node has leased and not handed out yet, and the pops that wait for some.

One for all slots of a task: whoever asks first is served first. No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gridcore.lease_queue.queue import Lease, Side


class Pop:
    """A pop that waits for its answer."""

    __slots__ = ("count", "is_blocking", "is_over", "order", "serve", "side")

    def __init__(
        self,
        side: Side,
        count: int,
        serve: Callable[[Sequence[Lease]], None],
        *,
        is_blocking: bool,
    ) -> None:
        self.side: Side = side
        self.count = count
        self.serve = serve
        """Called once, with items, or with none if it does not wait and there are none."""
        self.is_blocking = is_blocking
        self.is_over = False
        """It was served, its time was up, or its connection is gone."""
        self.order = 0


class Stock:
    def __init__(self) -> None:
        self.is_closed = False
        """Nothing is handed out: the leases may be lost, or too many results wait for Redis."""
        self.takes_begun = 0
        """Calls that take items, counted, so that a pop knows which began after it had come."""
        self.largest_pop = 1
        self.low_water = 0
        self._items: dict[Side, deque[Lease]] = {"L": deque(), "R": deque()}
        self._waiting: deque[Pop] = deque()
        self._is_serving = False

    # --- pops

    def pop(self, side: Side, count: int) -> list[Lease] | None:
        """What is there, at once; None if somebody has to wait for it."""
        if count > self.largest_pop:
            self.largest_pop = count
        items = self._items[side]
        if self.is_closed or len(items) < count or self._is_serving:
            return None
        if self._waiting and self._someone_waits(side):
            return None
        if count == 1:
            return [items.popleft()]
        return self._hand_out(side, count)

    def wait(self, pop: Pop) -> None:
        pop.order = self.takes_begun
        self._waiting.append(pop)

    def call_off(self, pop: Pop) -> None:
        """It waits no more; who stood behind it may find that there is enough for him."""
        pop.is_over = True
        self._serve(take=-1, is_exhausted=False)

    def taken(self, side: Side, leases: Iterable[Lease], *, take: int, is_exhausted: bool) -> None:
        """What the call number `take` has brought. Serves those who wait."""
        self._items[side].extend(leases)
        self._serve(take=take, is_exhausted=is_exhausted)

    def put_back(self, side: Side, leases: Sequence[Lease]) -> None:
        """Handed out, but never delivered."""
        self._items[side].extendleft(reversed(leases))
        self._serve(take=-1, is_exhausted=True)

    def make_do(self) -> None:
        """Redis has no more: whoever waits gets what is left here, from whichever end."""
        self._serve(take=-1, is_exhausted=True)

    def reopen(self) -> None:
        self.is_closed = False
        self._serve(take=-1, is_exhausted=True)

    # --- what is in stock

    @property
    def is_low(self) -> bool:
        return len(self._items["L"]) + len(self._items["R"]) <= self.low_water

    @property
    def size(self) -> int:
        return len(self._items["L"]) + len(self._items["R"])

    def size_of(self, side: Side) -> int:
        return len(self._items[side])

    def tokens(self) -> set[str]:
        return {lease.token for items in self._items.values() for lease in items}

    def peek(self, side: Side) -> list[bytes]:
        """In the order in which they would be handed out."""
        return [lease.payload for lease in self._items[side]]

    def waiting_sides(self) -> dict[Side, int]:
        """How many items those who wait want, by side; the first in line comes first."""
        wanted: dict[Side, int] = {}
        for pop in self._waiting:
            if not pop.is_over:
                wanted[pop.side] = wanted.get(pop.side, 0) + pop.count
        return wanted

    @property
    def has_impatient(self) -> bool:
        """Somebody waits who must be told even if there is nothing."""
        return any(not (pop.is_over or pop.is_blocking) for pop in self._waiting)

    def surrender(self, side: Side, keep: int) -> list[Lease]:
        """What is too much, in the order in which it belongs back on its side of the queue."""
        items = self._items[side]
        return [items.pop() for _ in range(len(items) - keep)]

    def drop(self, tokens: set[str]) -> int:
        """Forgets leases that are this node's no more."""
        before = self.size
        for side, items in self._items.items():
            self._items[side] = deque(lease for lease in items if lease.token not in tokens)
        return before - self.size

    def _someone_waits(self, side: Side) -> bool:
        waiting = self._waiting
        while waiting and waiting[0].is_over:
            waiting.popleft()
        return any(pop.side == side and not pop.is_over for pop in waiting)

    def _serve(self, *, take: int, is_exhausted: bool) -> None:
        # Whoever is served may ask again at once, or hang up and put back: that comes after those
        # who wait already, in another round.
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._serve_round(take=take, is_exhausted=is_exhausted):
                pass
        finally:
            self._is_serving = False

    def _serve_round(self, *, take: int, is_exhausted: bool) -> bool:
        """True if somebody was served."""
        still: list[Pop] = []
        line, self._waiting = self._waiting, deque()
        alive = [pop for pop in line if not pop.is_over]
        for pop in alive:
            if pop.is_over:  # since then
                continue
            has_enough = len(self._items[pop.side]) >= pop.count or (is_exhausted and self.size)
            is_behind = any(other.side == pop.side for other in still)
            if is_behind or self.is_closed:
                still.append(pop)
            elif has_enough:
                pop.is_over = True
                pop.serve(self._hand_out(pop.side, pop.count))
            elif is_exhausted and not pop.is_blocking and pop.order < take:
                pop.is_over = True
                pop.serve(())
            else:
                still.append(pop)
        self._waiting.extendleft(reversed(still))
        return len(still) < len(alive)

    def _hand_out(self, side: Side, count: int) -> list[Lease]:
        items = self._items[side]
        handed: list[Lease] = []
        while len(handed) < count:
            if items:
                lease = items.popleft()
            elif others := self._items["L" if side == "R" else "R"]:
                # The queue between the two ends is empty: its other end is what is left of it.
                lease = others.pop()
            else:
                break
            # One that has failed goes alone: it must not take others with it when it fails again.
            if lease.attempts and handed:
                items.appendleft(lease)
                break
            handed.append(lease)
            if lease.attempts:
                break
        return handed
