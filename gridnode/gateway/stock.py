"""The items that the node has leased and not handed out yet, and the pops that wait for some.

One for all slots of a task: whoever asks first is served first. No I/O, no clock.

An item that has failed before is a *suspect*, and goes before all others, alone, to a run that has
nothing else in hand: if it fails again, it takes nobody with it. A task may do without that
(`alone_after_failure`); then there are no suspects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from gridcore.lease_queue.queue import Lease, Side

MayTake = Literal["yes", "later", "no"]
"""Whether a pop can be given items at this moment; if not, `later` waits, and `no` is told that
there are none."""


class Pop:
    """A pop that waits for its answer."""

    __slots__ = ("count", "is_blocking", "is_over", "may_take", "order", "serve", "side")

    def __init__(
        self,
        side: Side,
        count: int,
        serve: Callable[[Sequence[Lease]], None],
        *,
        is_blocking: bool,
        may_take: Callable[[], MayTake] = lambda: "yes",
    ) -> None:
        self.side: Side = side
        self.count = count
        self.serve = serve
        """Called once, with items, or with none if it does not wait and there are none."""
        self.is_blocking = is_blocking
        self.may_take = may_take
        self.is_over = False
        """It was served, its time was up, or its connection is gone."""
        self.order = 0


class Stock:
    def __init__(self, *, alone_after_failure: bool = True) -> None:
        self.is_closed = False
        """Nothing is handed out: the leases may be lost, or too many results wait for Redis."""
        self.takes_begun = 0
        """Calls that take items, counted, so that a pop knows which began after it had come."""
        self.largest_pop = 1
        self.low_water = 0
        self._items: dict[Side, deque[Lease]] = {"L": deque(), "R": deque()}
        self._alone_after_failure = alone_after_failure
        self._suspects: deque[Lease] = deque()
        self._waiting: deque[Pop] = deque()
        self._is_serving = False

    # --- pops

    def pop(self, side: Side, count: int) -> list[Lease] | None:
        """What is there, at once; None if somebody has to wait for it."""
        if count > self.largest_pop:
            self.largest_pop = count
        items = self._items[side]
        if self.is_closed or self._is_serving:
            return None
        if self._waiting and self._someone_waits(side):
            return None
        if self._suspects:
            return [self._suspects.popleft()]
        if len(items) < count:
            return None
        if count == 1:
            return [items.popleft()]
        return [items.popleft() for _ in range(count)]

    def wait(self, pop: Pop) -> None:
        pop.order = self.takes_begun
        self._waiting.append(pop)

    def call_off(self, pop: Pop) -> None:
        """It waits no more; who stood behind it may find that there is enough for him."""
        pop.is_over = True
        self._serve(take=-1, is_exhausted=False)

    def taken(
        self,
        side: Side,
        leases: Iterable[Lease],
        *,
        take: int,
        is_exhausted: bool,
        is_limited: bool = False,
    ) -> None:
        """What the call number `take` has brought. Serves those who wait: if the queue is
        exhausted, or the call has brought as much as one may, with what there is."""
        for lease in leases:
            self._place_of(lease, side).append(lease)
        self._serve(take=take, is_exhausted=is_exhausted, is_limited=is_limited)

    def put_back(self, side: Side, leases: Sequence[Lease]) -> None:
        """Handed out, but never delivered."""
        for lease in reversed(leases):
            self._place_of(lease, side).appendleft(lease)
        self._serve(take=-1, is_exhausted=True)

    def look_again(self) -> None:
        """A run has less in hand than before: its pops may be given something now."""
        if self._waiting:
            self._serve(take=-1, is_exhausted=False)

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
        return len(self._items["L"]) + len(self._items["R"]) + len(self._suspects)

    @property
    def has_suspects(self) -> bool:
        return bool(self._suspects)

    def size_of(self, side: Side) -> int:
        """For who pops at that side."""
        return len(self._items[side]) + len(self._suspects)

    def tokens(self) -> set[str]:
        return {lease.token for items in self._all() for lease in items}

    def peek(self, side: Side) -> list[bytes]:
        """In the order in which they would be handed out."""
        return [lease.payload for items in (self._suspects, self._items[side]) for lease in items]

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
        return [items.pop() for _ in range(min(len(items), self.size_of(side) - keep))]

    def surrender_suspects(self) -> list[Lease]:
        suspects = list(self._suspects)
        self._suspects.clear()
        return suspects

    def drop(self, tokens: set[str]) -> int:
        """Forgets leases that are this node's no more."""
        before = self.size
        for items in self._all():
            kept = [lease for lease in items if lease.token not in tokens]
            items.clear()
            items.extend(kept)
        return before - self.size

    def _place_of(self, lease: Lease, side: Side) -> deque[Lease]:
        is_suspect = lease.attempts and self._alone_after_failure
        return self._suspects if is_suspect else self._items[side]

    def _all(self) -> Iterable[deque[Lease]]:
        return (*self._items.values(), self._suspects)

    def _someone_waits(self, side: Side) -> bool:
        waiting = self._waiting
        while waiting and waiting[0].is_over:
            waiting.popleft()
        return any(p.side == side and not p.is_over and p.may_take() == "yes" for p in waiting)

    def _serve(self, *, take: int, is_exhausted: bool, is_limited: bool = False) -> None:
        # Whoever is served may ask again at once, or hang up and put back: that comes after those
        # who wait already, in another round.
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._serve_round(take, is_exhausted=is_exhausted, is_limited=is_limited):
                pass
        finally:
            self._is_serving = False

    def _serve_round(self, take: int, *, is_exhausted: bool, is_limited: bool) -> bool:
        """True if somebody was served."""
        still: list[Pop] = []
        line, self._waiting = self._waiting, deque()
        alive = [pop for pop in line if not pop.is_over]
        in_line: set[Side] = set()
        """Where somebody waits for more items than there are: who has come later waits, too."""
        for pop in alive:
            if pop.is_over:  # since then
                continue
            is_told = is_exhausted and not pop.is_blocking and pop.order < take
            if is_told and pop.side in in_line and not self.is_closed:
                # Who stands before it waits for more; it does not, and there is nothing.
                pop.is_over = True
                pop.serve(())
                continue
            has_to_wait = self.is_closed or pop.side in in_line
            may_take = "later" if has_to_wait else pop.may_take()
            if may_take == "later":
                still.append(pop)
            elif may_take == "no":
                pop.is_over = True
                pop.serve(())
            elif self._has_enough(pop, is_exhausted=is_exhausted, is_limited=is_limited):
                pop.is_over = True
                pop.serve(self._hand_out(pop.side, pop.count, from_both_ends=is_exhausted))
            elif is_told:
                pop.is_over = True
                pop.serve(())
            else:
                in_line.add(pop.side)
                still.append(pop)
        self._waiting.extendleft(reversed(still))
        return len(still) < len(alive)

    def _has_enough(self, pop: Pop, *, is_exhausted: bool, is_limited: bool) -> bool:
        if self._suspects or len(self._items[pop.side]) >= pop.count:
            return True
        if is_exhausted:
            return self.size > 0
        return is_limited and bool(self._items[pop.side])

    def _hand_out(self, side: Side, count: int, *, from_both_ends: bool) -> list[Lease]:
        if self._suspects:
            return [self._suspects.popleft()]
        items, others = self._items[side], self._items["L" if side == "R" else "R"]
        handed = [items.popleft() for _ in range(min(count, len(items)))]
        # If the queue between the two ends is empty, its other end is what is left of it.
        while from_both_ends and len(handed) < count and others:
            handed.append(others.pop())
        return handed
