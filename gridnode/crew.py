"""All slots on one task, from the image to the last container.

A crew starts when its predecessor's last container is gone, but gets the image meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gridcore.backoff import full_jitter_s
from gridcore.logs import EventLog
from gridcore.wire import ImagePull, TaskConfig
from gridnode.cores import SlotPlace
from gridnode.delivery import Delivery
from gridnode.interruptible import Interrupted, pause, unless
from gridnode.report import Report
from gridnode.runtimes import CannotStart, ImageUnavailable, Runtime, RuntimeUnavailable
from gridnode.slot import Announcer, Slot

log = EventLog("gridnode")


@dataclass(frozen=True)
class Workplace:
    """What every crew of this node works with."""

    node_id: str
    slots: Sequence[SlotPlace]
    stop_timeout_s: float
    runtime: Runtime
    report: Report
    announcer: Announcer
    deliver: Callable[[TaskConfig, Callable[[str | None], None]], Delivery]


class Crew:
    def __init__(
        self, task: TaskConfig, workplace: Workplace, *, predecessor: Crew | None = None
    ) -> None:
        self.finished = asyncio.Event()
        """Set when nothing of this crew, nor of those before it, runs any more."""
        self._task = task
        self._workplace = workplace
        self._predecessor = predecessor
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """SIGTERM to every container, now; `finished` tells when they are gone."""
        self._stopping.set()

    async def run(self) -> None:
        report = self._workplace.report
        try:
            await self._get_image()
            await unless(self._stopping, self._await_predecessor())
            report.set_task(self._task)
            await self._work()
        except Interrupted:
            pass
        finally:
            await self._await_predecessor()
            for topic in ("image", "queue"):
                report.set_problem(self._topic(topic), None)
            self.finished.set()

    async def _await_predecessor(self) -> None:
        if self._predecessor:
            await self._predecessor.finished.wait()
            self._predecessor = None  # or every crew that ever was would be kept

    async def _work(self) -> None:
        place = self._workplace
        delivery = place.deliver(
            self._task, lambda problem: place.report.set_problem(self._topic("queue"), problem)
        )
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(delivery.run())
            async with asyncio.TaskGroup() as slots:
                for slot in place.slots:
                    slots.create_task(
                        Slot(
                            slot,
                            self._task,
                            node_id=place.node_id,
                            stop_timeout_s=place.stop_timeout_s,
                            runtime=place.runtime,
                            delivery=delivery,
                            report=place.report,
                            announcer=place.announcer,
                            stopping=self._stopping,
                        ).run()
                    )
            await delivery.finish()
            watching.cancel()

    async def _get_image(self) -> None:
        """Tries until it is there: a registry that fails must not stop the node."""
        report, runtime = self._workplace.report, self._workplace.runtime
        attempt = 0
        while True:
            await unless(self._stopping, runtime.wait_available())
            try:
                await unless(self._stopping, runtime.prepare(self._task, self._on_progress))
            except RuntimeUnavailable as error:
                log.warning("prepare_failed", task=self._task.task_name, error=error)
                await pause(self._stopping, full_jitter_s(attempt))
            except (ImageUnavailable, CannotStart) as error:
                log.warning("image_failed", task=self._task.task_name, error=error)
                report.set_problem(self._topic("image"), str(error))
                report.add_failure("image", str(error), task=self._task.task_name)
                # Never at once: a registry in trouble is helped by silence.
                await pause(self._stopping, 1.0 + full_jitter_s(attempt))
            else:
                report.set_problem(self._topic("image"), None)
                return
            finally:
                report.set_image_pull(None)
            attempt += 1

    def _topic(self, name: str) -> str:
        # Its own: the crew before may still be ending, and takes its problems with it.
        return f"{name} {id(self)}"

    def _on_progress(self, pull: ImagePull) -> None:
        self._workplace.report.set_image_pull(pull)
