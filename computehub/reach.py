"""For how long nodes could have renewed at a Redis, as far as this hub can tell (no I/O).

A node is silent because it is gone, or because it could not reach Redis. The hub takes its own
reach for that of the nodes: while it cannot reach a Redis itself, silence there proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Seen:
    """What one look at a Redis has shown."""

    at_s: float
    """By the hub's own monotonic clock."""
    redis_s: float
    """By the clock of that Redis."""
    run_id: str | None = None
    uptime_s: float | None = None
    """None where the hub's user may not ask for these two."""


class Reach:
    """A gap is a longer time than `gap_s` between two answers, another server process behind the
    same address, or a clock that jumped: then the time begins anew."""

    def __init__(self, *, gap_s: float) -> None:
        self._gap_s = gap_s
        self._since_s = 0.0
        self._last: Seen | None = None

    def saw(self, now: Seen) -> None:
        if self._last is None or self._is_gap(self._last, now):
            self._since_s = now.at_s
        self._last = now

    def lasted_s(self) -> float:
        """Until the last look."""
        if self._last is None:
            return 0.0
        reached_s = self._last.at_s - self._since_s
        # A server that was restarted between two looks has been up for less.
        return reached_s if self._last.uptime_s is None else min(reached_s, self._last.uptime_s)

    def _is_gap(self, last: Seen, now: Seen) -> bool:
        between_s = now.at_s - last.at_s
        clock_jump_s = (now.redis_s - last.redis_s) - between_s
        return (
            between_s > self._gap_s or abs(clock_jump_s) > self._gap_s or now.run_id != last.run_id
        )
