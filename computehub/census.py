"""Where the items of a leased queue are now, counted in a few round trips however many nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from computehub.producers import NONE, Producers, questions, understood
from computehub.task_redis import TaskRedis
from gridcore.lease_queue.keys import QueueKeys

AT_ONCE = 500
"""Nodes asked for in one round trip: about a millisecond of Redis' time."""

_COUNTERS = (
    "taken",
    "committed",
    "returned",
    "aborted",
    "fenced",
    "dead",
    "reaped",
    "revived",
    "discarded",
)


@dataclass(frozen=True)
class Ledger:
    """Counted one place after the other while items move; `moves` tells whether any has."""

    waiting: int
    retrying: int
    dead: int
    leased: int | None
    """Also those that a node was handed a moment ago; None if nobody asked."""
    moves: tuple[int, ...]
    """Counters of all that ever happened to items, read before every place."""
    producers: Producers = NONE
    """Read before everything else: what one has pushed before it left is seen."""

    @property
    def taken(self) -> int:
        return self.moves[0]


async def count(
    redis: TaskRedis, queue: str, *, fleet: Iterable[str] = (), leased_always: bool = True
) -> Ledger:
    """Of the nodes in `fleet` those count, too, that were handed an item after they were reaped.

    Without `leased_always` leases are counted only if nothing waits: a large fleet has many places
    to look at.
    """
    keys = QueueKeys(queue)
    *said, counters, nodes, waiting, retrying, dead = await redis.ask(
        *questions(keys),
        ("HMGET", keys.stats, *_COUNTERS),
        ("ZRANGE", keys.nodes, 0, -1),
        ("LLEN", queue),
        ("ZCARD", keys.retry),
        ("LLEN", keys.dead),
    )
    leased = None
    if leased_always or not (waiting or retrying):
        known = set(node_names(nodes))
        leased = 0
        for some in _chunks(known):
            held = [("HLEN", keys.lease(node)) for node in some]
            handed = [("LLEN", keys.inbox(node)) for node in some]
            leased += sum(await redis.ask(*held, *handed))
        leased += len(await handed_to(redis, queue, set(fleet) - known))
    return Ledger(
        waiting=waiting,
        retrying=retrying,
        dead=dead,
        leased=leased,
        moves=tuple(int(counter or 0) for counter in counters),
        producers=understood(*said),
    )


async def handed_to(redis: TaskRedis, queue: str, nodes: Iterable[str]) -> list[str]:
    """Those of the nodes whose inbox holds something."""
    keys = QueueKeys(queue)
    found: list[str] = []
    for some in _chunks(nodes):
        (any_of_them,) = await redis.ask(("EXISTS", *(keys.inbox(node) for node in some)))
        if any_of_them:
            each = await redis.ask(*(("EXISTS", keys.inbox(node)) for node in some))
            found += [node for node, exists in zip(some, each, strict=True) if exists]
    return found


def node_names(found: Iterable[bytes]) -> list[str]:
    """Without what cannot be a node's id: then somebody else has written there."""
    return [name.decode() for name in found if name.isascii()]


def _chunks(nodes: Iterable[str]) -> Iterable[Sequence[str]]:
    remaining = iter(nodes)
    while some := list(islice(remaining, AT_ONCE)):
        yield some
