"""One core's loop: wait for work, run a container, see how it ends.

idle --work--> starting --> running --exit 0--> idle
                  |            |----crash-----> backing_off --pause--> idle
                  |            '----stop------> stopping --> (the slot's end)
                  '--cannot start--> backing_off
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Protocol

from gridcore.logs import EventLog
from gridcore.wire import FailureReason, SlotState, TaskConfig
from gridnode.cores import SlotPlace
from gridnode.delivery import Access, Delivery, EndReason
from gridnode.ending import Ended, RestartRule
from gridnode.interruptible import Interrupted, pause, unless
from gridnode.report import Report
from gridnode.runtimes import CannotStart, Listening, Run, RunOrder, Runtime, RuntimeUnavailable

UNAVAILABLE_PAUSE_S = 1.0
"""An engine that has just gone may not have been noticed yet."""

KILLED_WITHIN_S = 15.0
"""After SIGKILL the kernel may take a while; an engine that takes longer hangs."""

log = EventLog("gridnode")


class Announcer(Protocol):
    async def announce(self) -> None: ...


class Slot:
    def __init__(
        self,
        place: SlotPlace,
        task: TaskConfig,
        *,
        node_id: str,
        stop_timeout_s: float,
        runtime: Runtime,
        delivery: Delivery,
        report: Report,
        announcer: Announcer,
        stopping: asyncio.Event,
    ) -> None:
        self._place = place
        self._task = task
        self._node_id = node_id
        self._stop_timeout_s = stop_timeout_s
        self._runtime = runtime
        self._delivery = delivery
        self._report = report
        self._announcer = announcer
        self._stopping = stopping
        self._starts = 0

    async def run(self) -> None:
        """Returns when `stopping` is set and nothing of this slot runs any more."""
        rule = RestartRule()
        try:
            while True:
                self._set_state("idle")
                await unless(self._stopping, self._runtime.wait_available())
                access = await unless(
                    self._stopping, self._delivery.wait_for_work(self._place.number)
                )
                ended = await self._run_once(access)
                following = rule.after(ended, jitter=random.random())  # noqa: S311
                if following.failure:
                    self._report_failure(following.failure, following.message, ended)
                if following.pause_s:
                    self._set_state("backing_off", failed=True)
                    await pause(self._stopping, following.pause_s)
        except Interrupted:
            pass
        finally:
            self._set_state("idle")

    async def _run_once(self, access: Access) -> Ended:
        self._set_state("starting")
        ended: Ended | None = None
        try:
            if not self._report.is_known_active:
                # From here on the hub must not take the node for one that holds no item.
                await self._announcer.announce()
            ended = await self._start_and_watch(access)
        except RuntimeUnavailable as error:
            log.warning("start_failed", slot=self._place.number, error=error)
        except CannotStart as error:
            ended = Ended(None, 0.0, start_error=str(error))
        finally:
            ended = await access.close(ended)
        if ended is None:
            await pause(self._stopping, UNAVAILABLE_PAUSE_S)
            return Ended(None, 0.0, was_ours=True)
        return ended

    async def _start_and_watch(self, access: Access) -> Ended:
        listening = await access.open()
        began = time.monotonic()
        run = await self._runtime.start(self._order(access.urls(), listening))
        try:
            self._set_state("running")
            ended = await self._watch(run, access)
        finally:
            # Also when this task is cancelled: nothing may run on unwatched.
            await run.remove()
        return replace(ended, ran_s=time.monotonic() - began)

    async def _watch(self, run: Run, access: Access) -> Ended:
        try:
            reason = await unless(self._stopping, _until_due(run, access))
        except Interrupted:
            reason = "idle"
        if isinstance(reason, Ended):
            return reason
        self._set_state("stopping")
        if reason == "item_timeout":
            return replace(await self._kill(run), sat_on_an_item=True)
        if reason == "leases_lost":
            return replace(await self._kill(run), was_ours=True)
        access.drain()
        await run.terminate()
        try:
            async with asyncio.timeout(self._stop_timeout_s):
                drained = await _until_due(run, access, but="idle")
        except TimeoutError:
            log.warning("stop_timeout", slot=self._place.number, after_s=self._stop_timeout_s)
            drained = "drained"
        ended = drained if isinstance(drained, Ended) else await self._kill(run)
        return replace(ended, was_ours=True)

    async def _kill(self, run: Run) -> Ended:
        await run.kill()
        try:
            async with asyncio.timeout(KILLED_WITHIN_S):
                return await run.wait()
        except TimeoutError:
            return Ended(None, 0.0)

    def _order(self, urls: tuple[str, str], listening: Listening | None) -> RunOrder:
        self._starts += 1
        slot, task = self._place.number, self._task
        input_url, output_url = urls
        name = f"gridcore-{task.task_name}-{self._node_id}-{slot}"
        return RunOrder(
            name=name,
            task=task.task_name,
            slot=slot,
            core=self._place.core,
            image=task.image,
            command=task.command,
            listening=listening,
            environment={
                "TASK_NAME": task.task_name,
                "NODE_ID": self._node_id,
                "INSTANCE_ID": f"{self._node_id}-{slot}-{self._starts}",
                "INPUT_REDIS_URL": input_url,
                "OUTPUT_REDIS_URL": output_url,
                "INPUT_QUEUE": task.input_queue,
                "OUTPUT_QUEUE": task.output_queue,
                # It has one core: libraries that count the machine's would fight over it.
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
                "MKL_NUM_THREADS": "1",
                "NUMEXPR_NUM_THREADS": "1",
                "VECLIB_MAXIMUM_THREADS": "1",
                "GOMAXPROCS": "1",
                "RAYON_NUM_THREADS": "1",
            },
        )

    def _set_state(self, state: SlotState, *, failed: bool = False) -> None:
        self._report.set_slot(self._place.number, state, failed=failed)

    def _report_failure(self, failure: FailureReason, message: str, ended: Ended) -> None:
        log.warning(
            "run_failed",
            task=self._task.task_name,
            slot=self._place.number,
            reason=failure,
            message=message,
        )
        self._report.add_failure(
            failure,
            message,
            task=self._task.task_name,
            slot=self._place.number,
            exit_code=ended.exit_code,
            log_lines=ended.log_lines,
        )


async def _until_due(
    run: Run, access: Access, *, but: EndReason | None = None
) -> Ended | EndReason:
    """How the run ended, or why it should."""
    ending = asyncio.create_task(run.wait())
    due = asyncio.create_task(
        access.must_end.wait_until(lambda reason: reason is not None and reason != but)
    )
    try:
        await asyncio.wait({ending, due}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            return ending.result()
        reason = due.result()
        assert reason is not None
        return reason
    finally:
        for task in (ending, due):
            task.cancel()
        await asyncio.wait({ending, due})
