"""What happens to whom and when, and what the items are: drawn from a seed. No I/O.

The same seed gives the same plan. What comes of it differs a little from run to run, as processes
and their timing are real.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal, NamedTuple

Kind = Literal[
    "kill consumer",
    "kill agent",
    "stop agent",
    "kill hub",
    "kill redis",
    "roll redis back",
    "freeze redis",
    "freeze node past its lease",
    "freeze node for less",
    "cut replies",
    "cut requests",
    "stall requests",
    "stall replies",
]

_WEIGHTS: dict[Kind, int] = {
    "kill consumer": 24,
    "kill agent": 6,
    "stop agent": 3,
    "kill hub": 4,
    "kill redis": 3,
    "roll redis back": 4,
    "freeze redis": 2,
    "freeze node past its lease": 4,
    "freeze node for less": 4,
    "cut replies": 12,
    "cut requests": 6,
    "stall requests": 3,
    "stall replies": 3,
}

KINDS: tuple[Kind, ...] = tuple(_WEIGHTS)

ONE_EVENT_EVERY_S = 0.8

ALL_AT_ONCE = 0.3
"""This share of the items is there before anything runs; the others come in bursts, so that nodes
also wait for items."""

ONE_BURST_EVERY_S = 1.5

BUSY = 0.4
"""Of all the time that consumers have, if nobody hindered them."""


class Event(NamedTuple):
    at_s: float
    kind: Kind
    target: int = 0
    """Which node or hub."""
    lasts_s: float = 0.0
    share: float = 0.0
    """Which consumer, how many of the connections, how much of a reply: from 0 to 1."""


@dataclass(frozen=True)
class Burst:
    at_s: float
    count: int


@dataclass(frozen=True)
class Scene:
    """What a plan has to know of the run."""

    seconds: float
    nodes: int
    slots: int
    hubs: int
    lease_s: float
    patience_s: float
    """After which clients of the nodes give up a connection and try another one."""
    call_s: float = 10.0
    """After which nodes take a Redis that does not answer for gone."""

    def work_s(self, items: int) -> float:
        """What one item may take in the mean."""
        return BUSY * self.seconds * self.nodes * self.slots / items


def draw_events(seed: int, scene: Scene) -> list[Event]:
    """Every kind at least once, and the others as often as their weight says."""
    random = Random(f"events {seed}")
    others = max(0, round(scene.seconds / ONE_EVENT_EVERY_S) - len(KINDS))
    kinds = [*KINDS, *random.choices(KINDS, [_WEIGHTS[kind] for kind in KINDS], k=others)]
    events = []
    for kind in kinds:
        # What takes long begins early enough to be over when the run is.
        lasts_s = _lasts_s(kind, random, scene)
        latest_s = max(scene.seconds * 0.5, scene.seconds - lasts_s)
        at_s = random.uniform(1.0, latest_s)
        target = random.randrange(scene.hubs if kind == "kill hub" else scene.nodes)
        events.append(Event(round(at_s, 3), kind, target, round(lasts_s, 3), random.random()))
    return sorted(events)


def _lasts_s(kind: Kind, random: Random, scene: Scene) -> float:
    """How long the victim is away."""
    match kind:
        case "kill agent" | "stop agent" | "kill hub":
            # Sometimes it is back before anybody has noticed, sometimes others take over.
            return random.choice([0.0, 0.5, 1.5 * scene.lease_s]) * random.uniform(0.5, 1.0)
        case "kill redis" | "roll redis back":
            return random.uniform(0.0, 1.5)
        case "freeze redis":
            return _sometimes_long(random, scene, scene.call_s + 1.0)
        case "freeze node past its lease":
            return 3 * scene.lease_s
        case "freeze node for less":
            return scene.patience_s * random.uniform(0.9, 1.6)
        case "stall requests" | "stall replies":
            return _sometimes_long(random, scene, scene.call_s + 1.5)
        case _:
            return 0.0


def _sometimes_long(random: Random, scene: Scene, long_s: float) -> float:
    (lasts_s,) = random.choices([0.5, scene.lease_s, long_s], [3, 2, 1])
    return lasts_s


def draw_items(seed: int, count: int) -> list[bytes]:
    """Each is its number, and perhaps what befalls its consumer."""
    random = Random(f"items {seed}")
    deeds = [""] * count
    for deed, every, least in (
        ("slow", 400, 5),
        ("leave", 1_000, 3),
        ("crash", 2_000, 3),
        ("poison", 5_000, 2),
    ):
        for number in random.sample(range(count), min(count, max(least, count // every))):
            deeds[number] = deed
    return [f"{number} {deed}".strip().encode() for number, deed in enumerate(deeds)]


def draw_bursts(seed: int, count: int, scene: Scene) -> list[Burst]:
    """When how many of the items are pushed; their sum is `count`."""
    random = Random(f"bursts {seed}")
    first = int(count * ALL_AT_ONCE)
    left = count - first
    bursts = [Burst(0.0, first)]
    times = sorted(
        random.uniform(0.0, scene.seconds) for _ in range(int(scene.seconds / ONE_BURST_EVERY_S))
    )
    for number, at_s in enumerate(times):
        mean = left / (len(times) - number)
        size = left if number == len(times) - 1 else min(left, int(random.expovariate(1 / mean)))
        if size:
            bursts.append(Burst(round(at_s, 3), size))
        left -= size
        if not left:
            break
    return bursts


def split(items: Sequence[bytes], bursts: Sequence[Burst]) -> list[Sequence[bytes]]:
    """The items of each burst."""
    parts, at = [], 0
    for burst in bursts:
        parts.append(items[at : at + burst.count])
        at += burst.count
    return parts
