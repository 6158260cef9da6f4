"""A grid with a node that runs plain processes: hub, agent and Redis, all real."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.support.programs import TOKEN, HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until


class Grid:
    token = TOKEN

    def __init__(self, *, slots: int = 2, lease_time: float = 30) -> None:
        self._slots = slots
        self._lease_time = lease_time
        self._parts = ExitStack()
        self._nodes = 0

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            self.redis = parts.enter_context(RedisServer(appendonly=True))
            self.hub = parts.enter_context(
                HubProgram(redis_url=self.redis.url, lease_time=self._lease_time)
            )
            self._parts = parts.pop_all()
        try:
            self.node = self.add_node()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._parts.close()

    def add_node(self) -> NodeProgram:
        self._nodes += 1
        # A node that starts ends what a node of its name has left on this machine; another grid's
        # tests may run here as well.
        node_id = f"n{self._nodes}-{secrets.token_hex(3)}"
        node = self._parts.enter_context(
            NodeProgram(
                self.hub.url,
                node_id=node_id,
                runtime="process",
                parallelism=self._slots,
                container_memory=1024,
            )
        )
        wait_until(
            lambda: any(found["id"] == node_id for found in self.hub.nodes()),
            within_s=20,
            what=f"{node_id} is registered",
        )
        return node
