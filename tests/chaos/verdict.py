"""Is every item in exactly one place? What was pushed against all that is found. No I/O.

An item has two results, its number and 1 or 2. Both once, or one dead letter, is what is right.
After Jepsen's checker for queues (jepsen/checker.clj, total-queue).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

PIECES = (b"1", b"2")


@dataclass(frozen=True)
class DeadItem:
    payload: bytes
    reason: str
    """As its letter tells it."""


@dataclass(frozen=True)
class Found:
    """All that is there in the end."""

    pushed: Sequence[bytes]
    results: Iterable[bytes]
    dead: Sequence[DeadItem] = ()
    left: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    """By key: what has neither result nor letter, and is still somewhere."""


@dataclass(frozen=True)
class Verdict:
    pushed: int
    done: int
    """With both results, each once, and nothing besides."""
    dead: int
    left: int
    lost: dict[bytes, str]
    """Item -> what is missing."""
    doubled: dict[bytes, str]
    """Item -> where it is."""
    strange: list[bytes]
    """Results of items that nobody pushed."""
    wrongly_alive: list[bytes]
    """Items that end their consumer each time, and are no dead letters."""
    wrongly_dead: list[bytes]
    """Dead letters of items that do nothing to their consumer: others have taken them with them."""
    dead_for: Counter[str]

    @property
    def is_good(self) -> bool:
        is_wrong = self.strange or self.wrongly_alive or self.wrongly_dead
        return not (self.lost or self.doubled or self.left or is_wrong)


def judge(found: Found) -> Verdict:
    pieces = Counter(found.results)
    dead = Counter(letter.payload for letter in found.dead)
    left: dict[bytes, list[str]] = {}
    for key, payloads in found.left.items():
        for payload in payloads:
            left.setdefault(payload, []).append(key)
    lost: dict[bytes, str] = {}
    doubled: dict[bytes, str] = {}
    wrongly_alive, wrongly_dead = [], []
    done = 0
    for item in found.pushed:
        number = item.partition(b" ")[0]
        counts = [pieces.pop(number + b" " + piece, 0) for piece in PIECES]
        letters, places = dead.pop(item, 0), left.pop(item, [])
        copies = max(counts) + letters + len(places)
        if copies == 0:
            lost[item] = "nothing of it is anywhere"
        elif copies > 1:
            doubled[item] = _places(counts, letters, places)
        elif sum(counts) == 1:
            lost[item] = f"one of its two results: {_places(counts, letters, places)}"
        elif counts == [1, 1]:
            done += 1
        if item.endswith(b"poison") and not letters:
            wrongly_alive.append(item)
        if letters and not item.endswith((b"poison", b"crash")):
            wrongly_dead.append(item)
    return Verdict(
        pushed=len(found.pushed),
        done=done,
        dead=len(found.dead),
        left=sum(map(len, found.left.values())),
        lost=lost,
        doubled=doubled,
        strange=[*pieces.elements(), *dead.elements(), *left],
        wrongly_alive=wrongly_alive,
        wrongly_dead=wrongly_dead,
        dead_for=Counter(letter.reason for letter in found.dead),
    )


def _places(counts: Sequence[int], letters: int, places: Sequence[str]) -> str:
    told = [f"result {piece.decode()} {n}x" for piece, n in zip(PIECES, counts, strict=True) if n]
    if letters:
        told.append(f"dead letter {letters}x")
    return ", ".join([*told, *places])
