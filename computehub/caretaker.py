"""Once a second: which nodes are lost, and is the running task drained.

Every replica does this. Each step is a script that only one of them can win.
"""

from __future__ import annotations

import asyncio

from computehub.census import Ledger
from computehub.drained import DrainWatch
from computehub.fleet import Fleet
from computehub.queue_lengths import QueueWatcher
from computehub.redis_store import StoreUnavailable
from computehub.task_list import Tasks
from gridcore.logs import EventLog
from gridcore.wire import QueueLengths

TICK_S = 1.0

OUTAGE_S = 10.0
"""No hub at work, or no Redis, for so long is an outage: nodes could not report."""

FORGET_EVERY_TICKS = 3600

log = EventLog("computehub")


class Caretaker:
    def __init__(
        self, fleet: Fleet, tasks: Tasks, queues: QueueWatcher, *, outage_grace_s: float
    ) -> None:
        self._fleet = fleet
        self._tasks = tasks
        self._queues = queues
        self._outage_grace_s = outage_grace_s
        self._drain_watch = DrainWatch()

    async def run(self) -> None:
        tick = 0
        while True:
            try:
                await self._look_for_lost_nodes()
                await self._look_for_drained_task()
                if tick % FORGET_EVERY_TICKS == 0:
                    for node in await self._fleet.forget_long_lost():
                        log.info("node_forgotten", node=node)
                tick += 1
            except StoreUnavailable:
                pass  # computehub.changes says so, once
            await asyncio.sleep(TICK_S)

    async def _look_for_lost_nodes(self) -> None:
        served_s = await self._fleet.served_without_gap_s(gap_s=OUTAGE_S)
        if served_s < self._outage_grace_s:
            return
        for node in await self._fleet.declare_lost():
            log.warning("node_lost", node=node)

    async def _look_for_drained_task(self) -> None:
        current = await self._tasks.current()
        if current.task is None or not current.task.auto_advance:
            return
        nodes = await self._fleet.nodes()
        look: Ledger | QueueLengths | None
        if current.task.delivery == "leased":
            look = await self._queues.ledger(current.task, [node.id for node in nodes])
            producers = look.producers if look else None
        else:
            producers = await self._queues.producers(current.task)
            look = await self._queues.lengths(current.task)
        age_s = 0.0
        if not current.has_had_work:
            age_s = await self._tasks.age_s(current.task.name)
        verdict = self._drain_watch.see(current, look, nodes, producers=producers, age_s=age_s)
        if verdict == "has_work":
            await self._tasks.note_work(current.version)
        if verdict != "drained":
            return
        move = await self._tasks.finish_if_still(current.version)
        if move:
            log.info(
                "task_drained",
                task=move.left,
                started=move.started or "",
                dead_letters=look.dead if isinstance(look, Ledger) else 0,
            )
