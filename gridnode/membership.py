"""This node's place in the fleet: register, heartbeat, long poll, goodbye.

The hub may be away for any time. Heartbeat and poll then go on trying, each with its own backoff,
and everything else in the agent goes on as it was.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from gridcore.backoff import full_jitter_s
from gridcore.logs import EventLog
from gridcore.wire import RegisterReply, RegisterRequest, TaskConfig
from gridnode.hub_client import (
    HubClient,
    HubError,
    HubRefused,
    HubUnreachable,
    TaskAnswer,
    TokenRefused,
    UnknownNode,
)
from gridnode.report import Report
from gridnode.watched import Watched

POLL_WAIT_S = 50.0
"""Below the minute after which proxies like to cut a silent connection."""

ASK_EVERY_S = 10.0
"""For a hub that answers at once instead of waiting."""

CHANGE_SPACING_S = 1.0
"""Containers that end every few milliseconds must not become heartbeats."""

ANNOUNCE_WITHIN_S = 1.0
RETRY_WITHIN_S = 5.0
"""Longest pause before a failed heartbeat is repeated: the hub's grace is 10 s."""

GOODBYE_WITHIN_S = 5.0

log = EventLog("gridnode")


@dataclass(frozen=True)
class Assignment:
    """What this node is to work on; a change of `version` starts it afresh."""

    version: str
    task: TaskConfig | None


class Membership:
    def __init__(
        self,
        hub: HubClient,
        report: Report,
        registration: RegisterRequest,
        *,
        platform: str,
        on_node_id: Callable[[str], None],
    ) -> None:
        self._hub = hub
        self._report = report
        self._registration = registration
        self._platform = platform
        self._on_node_id = on_node_id
        self._interval_s = registration.heartbeat_interval
        self._asked_beats = 0
        self._answered_beats = Watched(0)
        self._beat_now = asyncio.Event()
        self.assignment = Watched(Assignment("", None))
        self.stop_requested = asyncio.Event()
        """Set when a person has asked this node to stop."""
        self.superseded = asyncio.Event()
        """Set when another agent has registered with this node's id since."""

    @property
    def node_id(self) -> str:
        assert self._registration.node_id is not None, "join() comes first"
        return self._registration.node_id

    async def join(self) -> None:
        """Registers; tries until it works, but raises HubRefused if it never will."""
        attempt = 0
        while True:
            try:
                await self._register()
            except HubUnreachable as error:
                pause_s = full_jitter_s(attempt)
                if attempt == 0:
                    log.warning("hub_unreachable", error=error, then="it is tried again")
                attempt += 1
                await asyncio.sleep(pause_s)
            else:
                return

    async def run(self) -> None:
        """Keeps the hub informed and the assignment up to date, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send_heartbeats())
            group.create_task(self._follow_task())

    async def announce(self) -> None:
        """Returns when the hub knows what the report says now, or cannot be told in time."""
        self._asked_beats += 1
        mine = self._asked_beats
        self._beat_now.set()
        try:
            async with asyncio.timeout(ANNOUNCE_WITHIN_S):
                await self._answered_beats.wait_until(lambda answered: answered >= mine)
        except TimeoutError:
            log.debug("announcement_unanswered")

    async def say_goodbye(self) -> None:
        try:
            async with asyncio.timeout(GOODBYE_WITHIN_S):
                await self._hub.goodbye(self.node_id, self._registration.agent)
        except (HubError, TimeoutError) as error:
            log.info("goodbye_unheard", error=error)

    async def _register(self) -> None:
        reply = await self._hub.register(self._registration)
        if reply.node_id != self._registration.node_id:
            self._on_node_id(reply.node_id)
            self._registration = self._registration.model_copy(update={"node_id": reply.node_id})
        self._interval_s = reply.heartbeat_interval or self._registration.heartbeat_interval
        self._take_over_from_registration(reply)
        log.info("registered", node=reply.node_id, heartbeat_interval=self._interval_s)

    def _take_over_from_registration(self, reply: RegisterReply) -> None:
        # Without a task the version is not known yet; the poll brings it.
        task = reply.current_task
        if task and task.version and task.version != self.assignment.value.version:
            self.assignment.set(Assignment(task.version, task))

    async def _send_heartbeats(self) -> None:
        attempt = forgotten = 0
        while True:
            self._report.changed.clear()
            self._beat_now.clear()
            answers = self._asked_beats
            beat = self._report.heartbeat(
                self.node_id, interval_s=self._registration.heartbeat_interval
            ).model_copy(update={"agent": self._registration.agent})
            try:
                reply = await self._hub.heartbeat(beat)
            except UnknownNode:
                log.info("registering_again", reason="the hub does not know this node")
                await self._register_again()
                # Once at once; a hub that forgets it again and again is not stormed.
                await asyncio.sleep(full_jitter_s(forgotten) if forgotten else 0)
                forgotten += 1
                continue
            except HubError as error:
                if attempt == 0:
                    log.warning("heartbeat_failed", error=error)
                await self._until_due(self._retry_pause_s(error, attempt))
                attempt += 1
                continue
            if attempt:
                log.info("hub_back")
            attempt = forgotten = 0
            if reply.superseded:
                log.warning("node_id_taken", node=self.node_id, then="this one gets a new id")
                self.superseded.set()
                return
            self._report.was_heard(beat)
            self._answered_beats.set(answers)
            self._interval_s = reply.heartbeat_interval or beat.heartbeat_interval
            if reply.stop_requested:
                self.stop_requested.set()
            await self._until_due(self._interval_s * random.uniform(0.9, 1.0))  # noqa: S311

    def _retry_pause_s(self, error: HubError, attempt: int) -> float:
        if isinstance(error, HubRefused):
            return self._interval_s
        most_s = RETRY_WITHIN_S if attempt < 8 else self._interval_s
        return min(full_jitter_s(attempt, most_s=most_s), self._interval_s)

    async def _register_again(self) -> None:
        try:
            await self._register()
        except HubError as error:
            log.warning("registration_failed", error=error)
            await asyncio.sleep(self._retry_pause_s(error, 3))

    async def _until_due(self, pause_s: float) -> None:
        """Until the next regular heartbeat; soon after a change; at once when asked."""
        spacing_s = min(CHANGE_SPACING_S, pause_s)
        try:
            async with asyncio.timeout(spacing_s):
                await self._beat_now.wait()
        except TimeoutError:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s - spacing_s):
                    await self._wait_for_change()

    async def _wait_for_change(self) -> None:
        asked = asyncio.create_task(self._beat_now.wait())
        changed = asyncio.create_task(self._report.changed.wait())
        try:
            await asyncio.wait({asked, changed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            changed.cancel()

    async def _follow_task(self) -> None:
        version: str | None = None
        attempt, was_refused = 0, False
        while True:
            try:
                answer = await self._hub.wait_for_task(
                    platform=self._platform,
                    runtime=self._registration.runtime,
                    node_id=self.node_id,
                    version=version,
                    wait_s=POLL_WAIT_S,
                )
            except TokenRefused as error:
                if not was_refused:
                    log.error("token_refused", error=error)
                was_refused = True
                await asyncio.sleep(self._interval_s)
            except HubError as error:
                log.debug("poll_failed", error=error)
                await asyncio.sleep(full_jitter_s(attempt, most_s=RETRY_WITHIN_S))
                attempt += 1
            else:
                attempt, was_refused = 0, False
                version = answer.version
                self._take_over(answer)
                if answer.stop_requested:
                    self.stop_requested.set()
                    return
                if version is None:
                    await asyncio.sleep(min(ASK_EVERY_S, self._interval_s))

    def _take_over(self, answer: TaskAnswer) -> None:
        # A hub that names no version changes the task when it sends another one.
        version = answer.version
        if version is None:
            version = answer.task.model_dump_json() if answer.task else ""
        if version != self.assignment.value.version:
            self.assignment.set(Assignment(version, answer.task))
