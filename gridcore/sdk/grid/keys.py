"""Where driver and runners meet, on the task's Redis. `{Q}` keeps it all beside the queue.

sdk:{Q}:<job>            string  the driver is there; goes with it, after ALIVE_S
sdk:{Q}:<job>:up         stream  what runners tell the driver
sdk:{Q}:<job>:to:<run>   stream  what the driver tells one of them
sdk:{Q}:<job>:values     hash    functions ("f:...") and pieces of large values
"""

from __future__ import annotations

ALIVE_S = 30
"""A driver that was not heard of for so long is dead, and nothing runs for it any more."""

BEAT_S = 5.0
"""Between two signs of life."""

KEPT_S = 600
"""Streams and values of a driver that is silent; one whose machine sleeps may go on after that."""


class JobKeys:
    def __init__(self, queue: str, job: str) -> None:
        self.alive = f"{_prefix(queue)}{job}"
        self.up = f"{self.alive}:up"
        self.values = f"{self.alive}:values"

    def to(self, run: str) -> str:
        return f"{self.alive}:to:{run}"


def allowed(queue: str) -> list[str]:
    """The task's `keys`."""
    return [f"{_prefix(queue)}*"]


def constants(queue: str) -> list[str]:
    """The task's `constants`: what never changes, and is kept by nodes."""
    return [f"{_prefix(queue)}*:values"]


def _prefix(queue: str) -> str:
    return f"sdk:{{{queue}}}:"
