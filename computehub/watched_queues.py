"""Which queues may hold leases of lost nodes (no I/O).

The running task's always; that of another task until no node is left there and nothing was handed
to one that is gone. At its start a hub suspects all queues, as it does not know what ran before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gridcore.wire import TaskSpec


class WatchedQueue(NamedTuple):
    redis_url: str
    name: str


@dataclass
class _State:
    is_running: bool = False
    has_nodes: bool = True
    """Until a look has shown that it has none."""
    is_swept: bool = False
    """No inbox was found of a node that is gone, since there last were nodes."""


class WatchedQueues:
    def __init__(self, hub_redis_url: str) -> None:
        self._hub_redis_url = hub_redis_url
        self._states: dict[WatchedQueue, _State] = {}

    def suspect(self, tasks: Iterable[TaskSpec], *, to_be_swept: bool) -> None:
        """Looks at these tasks' queues, too, at least once."""
        for queue in self._leased(tasks):
            state = self._states.setdefault(queue, _State(is_swept=True))
            state.is_swept &= not to_be_swept

    def run(self, task: TaskSpec | None) -> None:
        """This is what runs now."""
        running = set(self._leased([task] if task else []))
        for queue in running:
            self._states.setdefault(queue, _State())
        for queue, state in self._states.items():
            state.is_running = queue in running
            if state.is_running:
                state.is_swept = False

    def saw(self, queue: WatchedQueue, *, has_nodes: bool) -> None:
        state = self._states[queue]
        state.has_nodes = has_nodes
        if has_nodes:
            state.is_swept = False

    def swept(self, queue: WatchedQueue) -> None:
        state = self._states[queue]
        state.is_swept = not state.is_running and not state.has_nodes

    def drop_done(self, redis_url: str) -> None:
        """Forgets those of this Redis that need no further look."""
        for queue in self.at(redis_url):
            state = self._states[queue]
            if state.is_swept and not state.is_running and not state.has_nodes:
                del self._states[queue]

    def at(self, redis_url: str) -> list[WatchedQueue]:
        return [queue for queue in self._states if queue.redis_url == redis_url]

    def redis_urls(self) -> set[str]:
        return {queue.redis_url for queue in self._states}

    def _leased(self, tasks: Iterable[TaskSpec]) -> list[WatchedQueue]:
        return [
            WatchedQueue(task.input_redis or self._hub_redis_url, task.queues[0])
            for task in tasks
            if task.delivery == "leased"
        ]
