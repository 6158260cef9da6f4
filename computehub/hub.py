"""One hub process's collaborators, wired once, and the tasks that run beside its HTTP server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from computehub.beats import Beats
from computehub.caretaker import Caretaker
from computehub.changes import Changes
from computehub.dead_letters import DeadLetters
from computehub.fleet import Fleet
from computehub.queue_lengths import QueueWatcher
from computehub.reaper import Reaper
from computehub.redis_store import RedisStore
from computehub.task_list import Tasks


@dataclass(frozen=True)
class Hub:
    redis_url: str
    store: RedisStore
    tasks: Tasks
    fleet: Fleet
    beats: Beats
    changes: Changes
    queues: QueueWatcher
    dead_letters: DeadLetters
    caretaker: Caretaker
    reaper: Reaper
    lease_s: float

    @classmethod
    def connect(
        cls, redis_url: str, *, node_grace_s: float, outage_grace_s: float, lease_s: float
    ) -> Hub:
        store = RedisStore(redis_url)
        tasks = Tasks(store)
        fleet = Fleet(store, node_grace_s=node_grace_s)
        queues = QueueWatcher(redis_url)
        return cls(
            redis_url=redis_url,
            store=store,
            tasks=tasks,
            fleet=fleet,
            beats=Beats(fleet),
            changes=Changes(store, tasks),
            queues=queues,
            dead_letters=DeadLetters(store, redis_url),
            caretaker=Caretaker(fleet, tasks, queues, outage_grace_s=outage_grace_s),
            reaper=Reaper(store, tasks, fleet, hub_redis_url=redis_url, lease_s=lease_s),
            lease_s=lease_s,
        )

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.beats.run())
                group.create_task(self.changes.run())
                group.create_task(self.caretaker.run())
                group.create_task(self.reaper.run())
        finally:
            await self.store.aclose()
