"""A node's gateway of the test's own, without hub, engine or containers: the test is the container.

with Gateway(redis_server.url) as gateway:
    run = gateway.open_run()
    client = redis.Redis.from_url(run.url)
    ...
    gateway.end_run(run, exit_code=0)
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import redis

from gridcore.event_loop import new_event_loop
from gridcore.lease_queue.keys import QueueKeys
from gridcore.wire import TaskConfig
from gridnode.cores import SlotPlace
from gridnode.ending import Ended
from gridnode.gateway.leased import LeasedAccess, LeasedDelivery
from gridnode.report import Report
from gridnode.runtimes.process import ProcessRuntime

QUEUE, OUTPUT = "work", "done"
WITHIN_S = 20.0

_T = TypeVar("_T")


@dataclass(frozen=True)
class OpenRun:
    """What a container is told."""

    access: LeasedAccess
    url: str
    host: str
    port: int
    password: str


class Gateway:
    """From the `with` on it serves; `task` are fields of TaskConfig."""

    def __init__(
        self,
        redis_url: str,
        *,
        node: str = "node-1",
        slots: int = 2,
        loop: asyncio.AbstractEventLoop | None = None,
        **task: Any,
    ) -> None:
        self.problems: list[str | None] = []
        self.node = node
        self.keys = QueueKeys(QUEUE)
        self.task = TaskConfig(
            **{
                "task_name": "test",
                "input_redis": redis_url,
                "output_redis": redis_url,
                "input_queue": QUEUE,
                "output_queue": OUTPUT,
                "delivery": "leased",
                **task,
            }
        )
        self._slots = slots
        self._loop = loop or new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway")
        self._running: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open_run(self, slot: int = 0) -> OpenRun:
        """A run begins in that slot, whether there is work or not."""
        return self._call(self._open(slot))

    def wait_for_work(self, slot: int = 0) -> OpenRun:
        """A run begins in that slot as soon as there is work."""

        async def wait() -> OpenRun:
            access = await self.delivery.wait_for_work(slot)
            return await _opened(access)

        return self._call(wait())

    def end_run(
        self,
        run: OpenRun,
        *,
        exit_code: int = 0,
        out_of_memory: bool = False,
        was_ours: bool = False,
        sat_on_an_item: bool = False,
        log_lines: tuple[str, ...] = (),
    ) -> Ended:
        """Its container has ended like that."""
        ended = Ended(
            exit_code,
            1.0,
            out_of_memory=out_of_memory,
            was_ours=was_ours,
            sat_on_an_item=sat_on_an_item,
            log_lines=log_lines,
        )
        settled = self._call(run.access.close(ended))
        assert settled is not None
        return settled

    def drain(self, run: OpenRun) -> None:
        self._loop.call_soon_threadsafe(run.access.drain)

    def must_end(self, run: OpenRun) -> str | None:
        return run.access.must_end.value

    def finish(self) -> None:
        """All is told to Redis, and all that is left goes back."""
        self._call(self.delivery.finish())

    def freeze(self, thaw: threading.Event) -> None:
        """The node stands still until the event is set; it does when this returns."""
        stands_still = threading.Event()

        def stand_still() -> None:
            stands_still.set()
            thaw.wait()

        self._loop.call_soon_threadsafe(stand_still)
        assert stands_still.wait(WITHIN_S)

    def _call(self, awaited: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(awaited, self._loop).result(WITHIN_S)

    async def _start(self) -> None:
        self._runtime = ProcessRuntime(node_id=self.node, memory_mb=100)
        self.delivery = LeasedDelivery(
            self.task,
            node_id=self.node,
            runtime=self._runtime,
            report=Report([SlotPlace(number, None) for number in range(self._slots)]),
            on_problem=self.problems.append,
        )
        self._running = asyncio.create_task(self.delivery.run())

    async def _stop(self) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait({self._running})
        await self._runtime.aclose()
        # Connections that the test has left open are closed by now, or in a moment.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _open(self, slot: int) -> OpenRun:
        return await _opened(self.delivery.admit(slot))


async def _opened(access: LeasedAccess) -> OpenRun:
    listening = await access.open()
    url, _ = access.urls()
    return OpenRun(access, url, listening.host, listening.port, access.desk.secret.decode())


@contextmanager
def client(run: OpenRun, **options: Any) -> Iterator[Any]:
    """As a plain program makes one, but it does not give up after five seconds."""
    made = redis.Redis.from_url(run.url, **{"protocol": 2, "socket_timeout": None, **options})
    try:
        yield made
    finally:
        made.close()
