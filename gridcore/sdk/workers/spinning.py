"""Waiting for what may come at once: to look again costs less than to sleep and be woken up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

from gridcore.sdk.workers.cores import usable_cores

SPIN_S = 0.0002
"""About what a short call takes, there and back. A wait that was longer is the last one that spins,
so whoever waits for long, or for nothing, only sleeps."""

Events = TypeVar("Events")


class Spinner:
    def __init__(self) -> None:
        # Alone on a core it would only keep away those that it waits for.
        self._may_spin = usable_cores() > 1
        self._is_worth_it = False

    def wait(self, look: Callable[[float | None], Events], timeout: float | None) -> Events:
        """`look` waits for so many seconds at most, for ever if that is None."""
        if not self._may_spin:
            return look(timeout)
        begun = time.perf_counter()
        if self._is_worth_it and (timeout is None or timeout > SPIN_S):
            until = begun + SPIN_S
            while time.perf_counter() < until:
                events = look(0)
                if events:
                    return events
                os.sched_yield()
        events = look(timeout)
        self._is_worth_it = time.perf_counter() - begun < SPIN_S
        return events
