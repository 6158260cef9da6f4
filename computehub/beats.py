"""Joins the heartbeats of one moment into one round trip.

While one batch is on its way to Redis the next one gathers, so a small fleet waits for nothing and
a large one costs a round trip for every few hundred nodes. An answer is given only when Redis has
the beat.
"""

from __future__ import annotations

import asyncio

from computehub.fleet import Fleet, Verdict
from gridcore.wire import HeartbeatRequest

BATCH = 256
"""Keeps one script call under a few milliseconds, so that other callers of Redis do not notice."""


class Beats:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._waiting: list[tuple[HeartbeatRequest, asyncio.Future[Verdict]]] = []
        self._arrived = asyncio.Event()

    async def beat(self, request: HeartbeatRequest) -> Verdict:
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        while True:
            await self._arrived.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._arrived.clear()
            try:
                verdicts = await self._fleet.heartbeats([request for request, _ in batch])
            except Exception as error:  # noqa: BLE001  no caller's data may end it for all others
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
            else:
                for (_, answer), verdict in zip(batch, verdicts, strict=True):
                    if not answer.done():
                        answer.set_result(verdict)
