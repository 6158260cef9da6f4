"""Which cores this agent may use, and which slot gets which."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class SlotPlace:
    number: int
    core: int | None
    """None where processes cannot be pinned."""


def usable_cores() -> list[int] | None:
    """The cores that this process may run on; None where the system does not tell (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return None


def plan_slots(cores: list[int] | None, cpu_count: int, parallelism: int | None) -> list[SlotPlace]:
    """One slot per core; more of them share cores, in turn."""
    count = parallelism or (len(cores) if cores else cpu_count)
    return [
        SlotPlace(number, cores[number % len(cores)] if cores else None) for number in range(count)
    ]
