"""How many items a node keeps in stock. No I/O, no clock.

Enough that no container waits for Redis, and no more than a fraction of a second of work; nothing
where an item takes longer than that; and less towards the end of the queue, so that its last items
are spread over the fleet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

STOCK_S = 0.25
"""Work that may wait in stock while other nodes have none."""

ROUND_TRIPS = 3.0
"""A refill is under way for one; the others are for its ups and downs."""

LONGEST_STOCK_S = 2.0
"""Even if Redis is very far away."""

LOW_SHARE = 8
"""A refill begins when so small a part is left, or what is needed while it is under way."""

COMMIT_AT_ONCE_S = 0.01
LONGEST_GATHERING_S = 0.25
GATHERED = 10
"""Items whose results go to Redis together, if that takes no longer."""

MAX_ITEMS = 10_000
MAX_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Pace:
    """What is known at the moment."""

    running: int
    """Runs that take items."""
    seconds_per_item: float | None
    """For one of them; None before the first."""
    round_trip_s: float
    largest_pop: int
    waiting: int
    """Items left in the queue."""
    nodes: int
    """That share the queue."""
    bytes_per_item: float


def target(pace: Pace) -> int:
    """How many items should be in stock."""
    if not pace.running or pace.seconds_per_item is None:
        return 0
    ahead_s = min(LONGEST_STOCK_S, max(STOCK_S, ROUND_TRIPS * pace.round_trip_s))
    per_run = int(ahead_s / max(pace.seconds_per_item, 1e-6))
    if per_run and pace.largest_pop > 1:
        # A batch takes as long as its items; the next one should be there when it is done.
        per_run = max(per_run, 2 * pace.largest_pop)
    share = pace.waiting if pace.nodes <= 1 else pace.waiting // (2 * pace.nodes)
    affordable = int(MAX_BYTES / max(pace.bytes_per_item, 1.0))
    return max(0, min(per_run * pace.running, share, affordable, MAX_ITEMS))


def low_water(pace: Pace, goal: int) -> int:
    """How few items are left in stock when the next are fetched."""
    return min(goal // 2, max(goal // LOW_SHARE, math.ceil(2 * pace.round_trip_s * _rate(pace))))


def gather_s(pace: Pace, *, is_awaited: bool) -> float:
    """How long results wait for others, so that Redis has less to do. Not so when the queue is
    empty: then somebody may wait for just these before there is more to do."""
    rate = _rate(pace)
    if is_awaited or rate * LONGEST_GATHERING_S < 2:
        return COMMIT_AT_ONCE_S
    return min(LONGEST_GATHERING_S, max(COMMIT_AT_ONCE_S, GATHERED / rate))


def _rate(pace: Pace) -> float:
    """Items a second that its runs can do."""
    return pace.running / max(pace.seconds_per_item or math.inf, 1e-6)
