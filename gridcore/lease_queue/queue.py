"""Calls the scripts of one input list.

Every call is one script, done whole or not at all. Those that a lost reply may make somebody send
again say what a repeat does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha1
from importlib import resources
from itertools import repeat
from typing import Any, Literal, NamedTuple, Protocol

from redis.exceptions import NoPermissionError, NoScriptError

from gridcore.lease_queue.keys import QueueKeys
from gridcore.lease_queue.times import PRODUCER_FORGOTTEN_S

Side = Literal["L", "R"]

REAP_AT_ONCE = 1_000
"""Items that one call of `reap` moves: a few milliseconds of Redis' time."""

TAKE_AT_ONCE = 5_000
"""Items that one call of `take` should ask for, for the same reason."""

TAKE_BYTES_AT_ONCE = 16 * 1024 * 1024
"""Of items that one call of `take` brings, or one that is larger: they lie in the memory of Redis
and of the node at once."""


class Commands(Protocol):
    """A client of Redis, or one connection; it must not decode replies."""

    def execute_command(self, *arguments: Any) -> Awaitable[Any]: ...


@dataclass(frozen=True)
class _Script:
    text: str
    sha: str


def _load_scripts() -> dict[str, _Script]:
    found = {}
    for file in resources.files("gridcore.lease_queue.scripts").iterdir():
        if file.name.endswith(".lua"):
            text = file.read_text("utf-8")
            sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
            found[file.name.removesuffix(".lua")] = _Script(text, sha)
    return found


_SCRIPTS = _load_scripts()


class Lease(NamedTuple):
    """A tuple, since a hundred thousand a second are made."""

    token: str
    attempts: int
    """How many runs of this item have failed so far."""
    payload: bytes


_new_lease = partial(tuple.__new__, Lease)
"""What the class itself does, in a third of the time."""


@dataclass(frozen=True)
class Taken:
    leases: list[Lease]
    waiting: int
    """Items left in the list."""
    next_due_ms: int | None
    """When the next item that has failed may be tried again; None if there is none."""
    nodes: int
    """That have renewed lately, this one with them."""
    is_limited: bool = False
    """There may be more, but that was all that comes at once."""


class Push(NamedTuple):
    side: Side
    values: Sequence[bytes]
    to_input: bool = False
    """To the queue itself, as new items, not to the output list."""


class Transaction(NamedTuple):
    """Items that are done together, and what came of them; without items the results are pushed
    as they are."""

    tokens: Sequence[str]
    results: Sequence[Push]


@dataclass(frozen=True)
class GivenBack:
    token: str
    has_failed: bool = False
    delay_ms: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    """Of the failure; becomes part of the dead letter if it was the last."""


@dataclass(frozen=True)
class DeadLetter:
    id: str
    attempts: int
    at_ms: int
    node: str
    report: dict[str, Any]
    payload: bytes


class LeaseQueue:
    """One input list, as nodes and hubs change it."""

    def __init__(self, redis: Commands, queue: str) -> None:
        self.keys = QueueKeys(queue)
        self._redis = redis

    async def take(
        self,
        node: str,
        count: int,
        *,
        prefix: str,
        number: int,
        side: Side = "R",
        most_bytes: int = TAKE_BYTES_AT_ONCE,
    ) -> Taken:
        """As many items as wanted, or fewer; their tokens are `prefix` and `number` counted on.

        Not to be repeated: what a lost reply named is found by comparing `held` with what the node
        knows of.
        """
        keys = self.keys
        waiting, next_due_ms, nodes, attempts, payloads, is_limited = await self._run(
            "take",
            [keys.queue, keys.inbox(node), keys.retry, keys.lease(node), keys.nodes, keys.stats],
            [node, side, count, prefix, number, most_bytes],
        )
        tokens = [f"{prefix}{i}" for i in range(number, number + len(payloads))]
        leases = list(map(_new_lease, zip(tokens, repeat(0), payloads, strict=False)))
        for i, failed in enumerate(attempts):
            leases[i] = leases[i]._replace(attempts=failed)
        next_due = next_due_ms if next_due_ms >= 0 else None
        return Taken(leases, waiting, next_due, nodes, bool(is_limited))

    async def commit(
        self, node: str, name: str, output: str, transactions: Sequence[Transaction]
    ) -> list[bool]:
        """For each transaction whether it was done; False if it was fenced.

        A node's commits are sent one after the other. Sent again under its name, the last one does
        nothing and has the same answer.
        """
        arguments: list[str | bytes | int] = [node, name]
        for transaction in transactions:
            tokens, results = transaction
            arguments += (len(tokens), *tokens, len(results))
            for side, values, to_input in results:
                arguments += (side.lower() if to_input else side, len(values), *values)
        keys = self.keys
        verdicts: bytes = await self._run(
            "commit",
            [keys.lease(node), output, keys.stats, keys.retry, keys.queue],
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

    async def prepare_commits(self) -> None:
        """So that the first one need not be sent twice: it may be large, and the link slow."""
        await _load(self._redis, "commit")

    async def renew(self, node: str) -> bool:
        """False if the node has been reaped, and holds nothing any more."""
        return bool(await self._run("renew", [self.keys.nodes], [node]))

    async def held(self, node: str) -> set[str]:
        """The tokens of all its leases, by Redis."""
        tokens = await self._redis.execute_command("HKEYS", self.keys.lease(node))
        return {token.decode() for token in tokens}

    async def handed(self, node: str) -> int:
        """Items that Redis has put into its inbox, and that are not taken yet."""
        return int(await self._redis.execute_command("LLEN", self.keys.inbox(node)))

    async def reap(self, node: str, *, silent_ms: int) -> int | None:
        """Items that are left for another call; None if the node was heard of since then."""
        left = await self._reap(node, silent_ms, leaves=False)
        return None if left < 0 else left

    async def release(self, node: str) -> None:
        """The node gives up all that it holds, or what an agent before it has held."""
        while await self._reap(node, 0, leaves=True):
            pass

    async def _reap(self, node: str, silent_ms: int, *, leaves: bool) -> int:
        keys = self.keys
        left = await self._run(
            "reap",
            [keys.queue, keys.inbox(node), keys.lease(node), keys.retry, keys.nodes, keys.stats],
            [node, silent_ms, REAP_AT_ONCE, int(leaves)],
        )
        return int(left)

    async def produce(self, producer: str) -> None:
        """The producer will push more; holds for PRODUCER_SILENCE_S, or until it leaves."""
        keys = self.keys
        await self._run(
            "produce", [keys.producers, keys.stats], [producer, int(PRODUCER_FORGOTTEN_S * 1000)]
        )

    async def leave(self, producer: str) -> None:
        """The producer will push nothing more."""
        await self._run("leave", [self.keys.producers], [producer])

    async def dead_letters(self, start: int, count: int) -> list[DeadLetter]:
        """The newest first."""
        found = await self._redis.execute_command(
            "LRANGE", self.keys.dead, start, start + count - 1
        )
        letters = []
        for letter in found:
            header, _, payload = letter.partition(b"\n")
            letters.append(DeadLetter(**json.loads(header), payload=payload))
        return letters

    async def revive(
        self, kind: Literal["all", "reason", "id"], values: Sequence[str] = (), *, look_at: int
    ) -> int:
        """How many of the `look_at` oldest dead letters were meant, and are items again."""
        keys = self.keys
        return int(
            await self._run("revive", [keys.dead, keys.retry, keys.stats], [look_at, kind, *values])
        )

    async def discard(
        self, kind: Literal["all", "reason", "id"], values: Sequence[str] = (), *, look_at: int
    ) -> int:
        """How many of the `look_at` oldest dead letters were meant, and are gone for good."""
        keys = self.keys
        return int(await self._run("discard", [keys.dead, keys.stats], [look_at, kind, *values]))

    async def _run(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Any:
        return await _run(self._redis, name, keys, arguments)


async def deliver(
    redis: Commands, output: str, node: str, name: str, pushes: Sequence[Push]
) -> bool:
    """Pushes to an output list on a Redis of its own; False if that was done under this name."""
    arguments: list[str | bytes | int] = [node, name]
    for push in pushes:
        arguments += [push.side, len(push.values), *push.values]
    keys = [output, QueueKeys(output).delivered]
    return bool(await _run(redis, "deliver", keys, arguments))


async def prepare_deliveries(redis: Commands) -> None:
    """As `LeaseQueue.prepare_commits`."""
    await _load(redis, "deliver")


async def last_delivered(redis: Commands, output: str, node: str) -> str | None:
    """The name of the node's last delivery of which that Redis knows."""
    name = await redis.execute_command("HGET", QueueKeys(output).delivered, node)
    return None if name is None else name.decode()


async def _load(redis: Commands, name: str) -> None:
    # Who may not do this need not: `_run` has another way.
    with suppress(NoPermissionError):
        await redis.execute_command("SCRIPT", "LOAD", _SCRIPTS[name].text)


async def _run(
    redis: Commands, name: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]
) -> Any:
    script = _SCRIPTS[name]
    try:
        return await redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *arguments)
    except NoScriptError:
        return await redis.execute_command("EVAL", script.text, len(keys), *keys, *arguments)
