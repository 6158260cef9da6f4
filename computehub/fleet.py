"""The nodes: who they are, when they were last heard of, what they said."""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import ValidationError

from computehub import keys
from computehub.pace import heartbeat_interval_s, lost_after_s
from computehub.redis_store import RedisStore
from computehub.task_list import moment
from gridcore.errors import GridCoreError
from gridcore.platforms import platform_of
from gridcore.wire import Failure, HeartbeatRequest, NodeView, RegisterRequest

FAILURES_KEPT = 500
LOST_AT_ONCE = 200
FORGET_LOST_AFTER_DAYS = 14
SUPERSEDED_KEPT = 100

_OF_A_NODE = (keys.NODES, keys.REPORTS, keys.SEEN, keys.DEADLINES, keys.LOST, keys.STOPS)


class UnknownNode(GridCoreError):
    """The hub knows no node of that id; an agent that reads this registers again."""


@dataclass(frozen=True)
class Joined:
    node_id: str
    heartbeat_interval_s: float
    now_s: float


@dataclass(frozen=True)
class Verdict:
    """What the hub says to a heartbeat."""

    known: bool
    stop_requested: bool
    was_lost: bool
    superseded: bool
    """The node is another agent's now."""
    heartbeat_interval_s: float
    now_s: float


class Fleet:
    """The nodes in Redis."""

    def __init__(self, store: RedisStore, *, node_grace_s: float) -> None:
        self._store = store
        self._node_grace_s = node_grace_s
        self._online = 0
        self._superseded: deque[tuple[str, str]] = deque(maxlen=SUPERSEDED_KEPT)

    async def register(self, request: RegisterRequest) -> Joined:
        node_id = request.node_id or f"node-{secrets.token_hex(4)}"
        interval_s = heartbeat_interval_s(request.heartbeat_interval, self._online)
        now_ms = await self._store.run(
            "register_node",
            [*_OF_A_NODE, keys.AGENTS],
            [
                node_id,
                request.model_copy(update={"node_id": node_id}).model_dump_json(),
                self._lost_after_ms(interval_s),
                request.agent,
            ],
        )
        return Joined(node_id, interval_s, int(now_ms) / 1000)

    async def heartbeats(self, beats: Sequence[HeartbeatRequest]) -> list[Verdict]:
        """One round trip for all of them; the answers are in the order of the questions."""
        intervals_s = [heartbeat_interval_s(b.heartbeat_interval, self._online) for b in beats]
        args: list[str | int] = [FAILURES_KEPT]
        for beat, interval_s in zip(beats, intervals_s, strict=True):
            failures = json.dumps([f.model_dump_json() for f in beat.failures])
            args += [
                beat.node_id,
                beat.agent,
                beat.model_dump_json(exclude={"failures"}),
                self._lost_after_ms(interval_s),
                failures if beat.failures else "",
            ]
        now_ms, self._online, verdicts = await self._store.run(
            "heartbeats",
            [*_OF_A_NODE, keys.FAILURES, keys.AGENTS],
            args,
        )
        return [
            Verdict(
                known=bool(verdict & 1),
                stop_requested=bool(verdict & 2),
                was_lost=bool(verdict & 4),
                superseded=bool(verdict & 8),
                heartbeat_interval_s=interval_s,
                now_s=now_ms / 1000,
            )
            for verdict, interval_s in zip(verdicts, intervals_s, strict=True)
        ]

    async def request_stop(self, node_id: str) -> None:
        found = await self._store.run(
            "request_stop", [keys.NODES, keys.STOPS], [node_id, keys.CHANGED]
        )
        if not found:
            raise unknown_node(node_id)

    async def forget(self, node_id: str, *, agent: str = "") -> bool:
        """False if the node is another agent's now: then it stays."""
        reply = await self._store.run("forget_node", [*_OF_A_NODE, keys.AGENTS], [node_id, agent])
        if reply == "unknown":
            raise unknown_node(node_id)
        return bool(reply == "gone")

    def is_first_of_superseded(self, beat: HeartbeatRequest) -> bool:
        """Whether this process sees it for the first time: an agent may not heed the answer."""
        pair = (beat.node_id, beat.agent)
        if pair in self._superseded:
            return False
        self._superseded.append(pair)
        return True

    async def hostname(self, node_id: str) -> str:
        """Of the machine that registered last with this id."""
        (registered,) = await self._store.read(("HGET", keys.NODES, node_id))
        return str(json.loads(registered)["hostname"]) if registered else ""

    async def served_without_gap_s(self, *, gap_s: float) -> float:
        """Says that this hub serves, and for how long some hub has without an outage."""
        served_ms = await self._store.run("note_service", [keys.SERVICE], [int(gap_s * 1000)])
        return int(served_ms) / 1000

    async def declare_lost(self) -> list[str]:
        """The nodes that this call found lost; no other hub is told of them."""
        lost: list[str] = await self._store.run(
            "declare_lost", [keys.DEADLINES, keys.LOST], [LOST_AT_ONCE]
        )
        return lost

    async def forget_long_lost(self) -> list[str]:
        (time, lost) = await self._store.read(("TIME",), ("HGETALL", keys.LOST))
        oldest_ms = (int(time[0]) - FORGET_LOST_AFTER_DAYS * 86_400) * 1000
        long_lost = [node for node, since_ms in lost.items() if int(since_ms) < oldest_ms]
        forgotten = []
        for node in long_lost:
            with suppress(UnknownNode):  # another hub was faster
                await self.forget(node)
                forgotten.append(node)
        return forgotten

    async def ids(self) -> list[str]:
        """Of all nodes, also those that are lost."""
        (found,) = await self._store.read(("HKEYS", keys.NODES))
        return list(found)

    async def nodes(self) -> list[NodeView]:
        nodes, reports, seen, lost, stops = await self._store.read(
            ("HGETALL", keys.NODES),
            ("HGETALL", keys.REPORTS),
            ("ZRANGE", keys.SEEN, 0, -1, "WITHSCORES"),
            ("HKEYS", keys.LOST),
            ("SMEMBERS", keys.STOPS),
        )
        seen_ms = dict(zip(seen[::2], seen[1::2], strict=True))
        views = []
        for node, registered in sorted(nodes.items()):
            # What another version of the hub has stored, and this one cannot read, is left out.
            with suppress(ValidationError):
                views.append(
                    _view(
                        RegisterRequest.model_validate_json(registered),
                        reports.get(node),
                        seen_ms.get(node, 0),
                        is_lost=node in lost,
                        stop_requested=node in stops,
                    )
                )
        return views

    async def failures(self, task: str, *, most: int) -> list[Failure]:
        """The newest first; a report that came twice is told once."""
        (stored,) = await self._store.read(("LRANGE", keys.FAILURES, 0, -1))
        found: dict[str, Failure] = {}
        for one in stored:
            with suppress(ValidationError):
                failure = Failure.model_validate_json(one)
                if failure.task == task and len(found) < most:
                    found.setdefault(failure.id, failure)
        return list(found.values())

    def _lost_after_ms(self, interval_s: float) -> int:
        return int(lost_after_s(interval_s, self._node_grace_s) * 1000)


def unknown_node(node_id: str) -> UnknownNode:
    return UnknownNode(
        f"looking for node {node_id!r}",
        cause="no node of that id has registered",
        next_step="An agent registers again by itself; a person finds the ids with GET /api/nodes",
    )


def _view(
    node: RegisterRequest,
    report_json: str | None,
    seen_ms: str | float,
    *,
    is_lost: bool,
    stop_requested: bool,
) -> NodeView:
    report = HeartbeatRequest.model_validate_json(report_json) if report_json else None
    last_seen = moment(seen_ms)
    assert node.node_id is not None
    assert last_seen is not None
    return NodeView(
        id=node.node_id,
        hostname=node.hostname,
        architecture=node.architecture,
        cpu_count=node.cpu_count,
        last_seen=last_seen,
        status="Lost" if is_lost else "Online",
        runtime_status=report.status if report else None,
        active_containers=report.active_containers if report else 0,
        platform=platform_of(node.architecture),
        runtime=node.runtime,
        parallelism=node.parallelism or node.cpu_count,
        container_memory=node.container_memory,
        version=node.version,
        task=report.task if report else None,
        task_version=report.version if report else "",
        error=report.error if report else None,
        image_pull=report.image_pull if report else None,
        slots=report.slots if report else [],
        isolation=report.isolation if report else None,
        work=report.work if report else None,
        stop_requested=stop_requested,
    )
