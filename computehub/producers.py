"""Who says that he will push more: the producers of a queue, as of one moment (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gridcore.lease_queue.keys import QueueKeys
from gridcore.lease_queue.times import PRODUCER_SILENCE_S


@dataclass(frozen=True)
class Producers:
    silent_s: float | None = None
    """Since one that has not left has last said so; None if there is none."""
    last_word_s: float | None = None
    """Since any of them has, also one that has left; None if there never was one."""

    @property
    def will_push(self) -> bool:
        return self.silent_s is not None and self.silent_s < PRODUCER_SILENCE_S

    def spoke_for(self, task_age_s: float) -> bool:
        """Meant the task that was submitted so long ago, not an earlier one of the same queue.
        (Many a program says so just before it submits its task.)"""
        if self.last_word_s is None:
            return False
        return self.last_word_s <= task_age_s + PRODUCER_SILENCE_S


NONE = Producers()


def questions(keys: QueueKeys) -> Sequence[Sequence[str | int]]:
    """To the task's Redis, by whose clock they have spoken."""
    return (
        ("TIME",),
        ("ZRANGE", keys.producers, -1, -1, "WITHSCORES"),
        ("HGET", keys.stats, "produced"),
    )


def understood(time: Sequence[int], latest: Sequence[Any], produced: bytes | None) -> Producers:
    """The answers to these questions."""
    now_s = float(time[0]) + float(time[1]) / 1e6
    silent_s = now_s - float(latest[1]) / 1000 if latest else None
    words = [] if silent_s is None else [silent_s]
    if produced is not None:
        words.append(now_s - int(produced) / 1000)
    return Producers(silent_s, min(words, default=None))
