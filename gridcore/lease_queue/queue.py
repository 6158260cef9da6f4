"""Calls the scripts of one input list.

Every call is one script, done whole or not at all. Those that a lost reply may make somebody send
again say what a repeat does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from gridcore.lease_queue.keys import QueueKeys

if TYPE_CHECKING:
    from redis.asyncio import Redis

Side = Literal["L", "R"]

REAP_AT_ONCE = 1_000
"""Items that one call of `reap` moves: a few milliseconds of Redis' time."""

_SCRIPTS = {
    file.name.removesuffix(".lua"): file.read_text("utf-8")
    for file in resources.files("gridcore.lease_queue.scripts").iterdir()
    if file.name.endswith(".lua")
}


@dataclass(frozen=True)
class Lease:
    token: str
    attempts: int
    """How many runs of this item have failed so far."""
    payload: bytes


@dataclass(frozen=True)
class Taken:
    leases: list[Lease]
    waiting: int
    """Items left in the list."""


@dataclass(frozen=True)
class Result:
    side: Side
    payload: bytes


@dataclass(frozen=True)
class Transaction:
    """Items that are done together, and what came of them; without items the results are pushed
    as they are."""

    tokens: Sequence[str]
    results: Sequence[Result]


@dataclass(frozen=True)
class GivenBack:
    token: str
    has_failed: bool = False
    delay_ms: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    """Of the failure; becomes part of the dead letter if it was the last."""


class LeaseQueue:
    """One input list, as nodes and hubs change it. `redis` must not decode replies."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self.keys = QueueKeys(queue)
        self._scripts = {name: redis.register_script(text) for name, text in _SCRIPTS.items()}

    async def take(self, node: str, tokens: Sequence[str], *, side: Side = "R") -> Taken:
        """As many items as there are tokens, or fewer.

        Not to be repeated: what a lost reply named is found by comparing the node's lease hash
        with what it holds.
        """
        keys = self.keys
        waiting, *found = await self._run(
            "take",
            [keys.queue, keys.inbox(node), keys.retry, keys.lease(node), keys.nodes, keys.stats],
            [node, side, *tokens],
        )
        leases = [
            Lease(token.decode(), attempts, payload)
            for token, attempts, payload in zip(found[::3], found[1::3], found[2::3], strict=True)
        ]
        return Taken(leases, waiting)

    async def commit(
        self, node: str, name: str, output: str, transactions: Sequence[Transaction]
    ) -> list[bool]:
        """For each transaction whether it was done; False if it was fenced.

        A node's commits are sent one after the other. Sent again under its name, the last one does
        nothing and has the same answer.
        """
        arguments: list[str | bytes | int] = [node, name]
        for transaction in transactions:
            arguments += [len(transaction.tokens), *transaction.tokens, len(transaction.results)]
            for result in transaction.results:
                arguments += [result.side, result.payload]
        keys = self.keys
        verdicts: bytes = await self._run(
            "commit",
            [keys.lease(node), output, keys.stats, keys.retry],
            arguments,
        )
        return [verdict == "1" for verdict in verdicts.decode()]

    async def give_back(
        self, node: str, items: Sequence[GivenBack], *, max_attempts: int
    ) -> list[Literal["returned", "dead", "gone"]]:
        """What became of each. A repeat finds them gone."""
        arguments: list[str | bytes | int] = [node, max_attempts]
        for item in items:
            arguments += [item.token, int(item.has_failed), item.delay_ms, json.dumps(item.report)]
        keys = self.keys
        outcomes: bytes = await self._run(
            "give_back",
            [keys.queue, keys.lease(node), keys.retry, keys.dead, keys.stats],
            arguments,
        )
        meaning: dict[str, Literal["returned", "dead", "gone"]] = {
            "r": "returned",
            "d": "dead",
            "-": "gone",
        }
        return [meaning[outcome] for outcome in outcomes.decode()]

    async def renew(self, node: str) -> bool:
        """False if the node has been reaped, and holds nothing any more."""
        return bool(await self._run("renew", [self.keys.nodes], [node]))

    async def reap(self, node: str, *, silent_ms: int) -> int | None:
        """Items that are left for another call; None if the node was heard of since then.

        With 0 a node gives up what it holds itself, or what an agent before it has held.
        """
        keys = self.keys
        left = await self._run(
            "reap",
            [keys.queue, keys.inbox(node), keys.lease(node), keys.retry, keys.nodes, keys.stats],
            [node, silent_ms, REAP_AT_ONCE],
        )
        return None if left < 0 else int(left)

    async def _run(
        self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Any:
        return await self._scripts[script](keys=list(keys), args=list(arguments))
