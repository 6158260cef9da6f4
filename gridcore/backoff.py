"""How long to wait before trying again, so that a fleet does not try in step."""

from __future__ import annotations

import random


def full_jitter_s(attempt: int, *, first_s: float = 1.0, most_s: float = 60.0) -> float:
    """Anything from nothing to twice as long as for the attempt before (the first is 0)."""
    ceiling = min(most_s, first_s * 2.0 ** min(attempt, 32))
    return random.uniform(0, ceiling)  # noqa: S311  spreads load, guards nothing
