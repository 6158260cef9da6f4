"""The agent: joins the fleet, follows the hub from task to task, stops in order."""

from __future__ import annotations

import asyncio

from gridcore.logs import EventLog
from gridnode.crew import Crew, Workplace
from gridnode.interruptible import Interrupted, unless
from gridnode.membership import Assignment, Membership
from gridnode.report import Report
from gridnode.runtimes import Runtime, RuntimeUnavailable

log = EventLog("gridnode")


class Agent:
    def __init__(
        self, membership: Membership, runtime: Runtime, report: Report, workplace: Workplace
    ) -> None:
        self._membership = membership
        self._runtime = runtime
        self._report = report
        self._workplace = workplace
        self._stop = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Begins the orderly stop; `run` returns when it is over."""
        if not self._stop.is_set():
            log.info("stopping", reason=reason)
        self._stop.set()

    async def run(self) -> None:
        """Until `stop`, or the hub asks this node to stop. Cancelling it stops hard."""
        async with asyncio.TaskGroup() as group:
            # The hub goes on hearing from this node until the last container is gone, or it
            # would be taken for lost in the middle of an orderly stop.
            beside = [
                group.create_task(self._membership.run()),
                group.create_task(self._runtime.run()),
                # Before the first attempt to reach the engine there is nothing to report.
                group.create_task(self._report_engine_problems(self._runtime.problem.value)),
                group.create_task(self._heed_the_hub()),
                group.create_task(self._give_up_a_taken_id()),
            ]
            try:
                await unless(self._stop, self._clean_up_before())
                await self._follow_assignments()
            except Interrupted:
                pass
            for task in beside:
                task.cancel()
        # Last, and alone: a heartbeat after it would make the node register again.
        await self._membership.say_goodbye()
        log.info("stopped")

    async def _follow_assignments(self) -> None:
        """Returns when `stop` is set and nothing runs any more."""
        crew: Crew | None = None
        version = None
        async with asyncio.TaskGroup() as crews:
            while True:
                try:
                    assignment = await unless(self._stop, self._next_assignment(version))
                except Interrupted:
                    if crew:
                        crew.stop()
                    return
                version = assignment.version
                if crew:
                    crew.stop()
                if assignment.task is None:
                    log.info("nothing_assigned")
                    self._report.set_task(None)
                    continue
                log.info(
                    "assigned", task=assignment.task.task_name, image=assignment.task.image or ""
                )
                crew = Crew(assignment.task, self._workplace, predecessor=crew)
                crews.create_task(crew.run())

    async def _next_assignment(self, version: str | None) -> Assignment:
        return await self._membership.assignment.wait_until(lambda a: a.version != version)

    async def _clean_up_before(self) -> None:
        """Removes what an agent that was killed has left running."""
        while True:
            await self._runtime.wait_available()
            try:
                removed = await self._runtime.remove_leftovers()
            except RuntimeUnavailable as error:
                log.warning("cleaning_failed", error=error)
                continue
            if removed:
                log.info("leftovers_removed", count=removed)
            return

    async def _report_engine_problems(self, known: str | None) -> None:
        while True:
            known = await self._runtime.problem.wait_until(lambda p: p != known)  # noqa: B023
            self._report.set_problem("engine", known)

    async def _heed_the_hub(self) -> None:
        await self._membership.stop_requested.wait()
        self.stop("the hub asked for it")

    async def _give_up_a_taken_id(self) -> None:
        await self._membership.superseded.wait()
        self.stop("another agent has this node's id")
