"""What the next heartbeat says."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from gridcore.wire import (
    MAX_LOG_LINE,
    MAX_LOG_LINES,
    Failure,
    FailureReason,
    HeartbeatRequest,
    ImagePull,
    Isolation,
    NodeStatus,
    SlotReport,
    SlotState,
    TaskConfig,
    WorkReport,
)
from gridnode.cores import SlotPlace

FAILURES_KEPT = 50
"""Reported late, if the hub is away; beyond that the oldest are dropped."""


class SlotCounters(Protocol):
    taken: int
    committed: int
    aborted: int
    seconds_per_item: float | None


class Report:
    """Everybody writes what concerns them; the heartbeat reads it all."""

    def __init__(self, slots: Sequence[SlotPlace]) -> None:
        self.changed = asyncio.Event()
        """Set when the hub should hear of it before the next regular heartbeat."""
        self._slots = [SlotReport(slot=s.number, core=s.core, state="idle") for s in slots]
        self._task: TaskConfig | None = None
        self._problems: dict[str, str] = {}
        self._image_pull: ImagePull | None = None
        self._failures: deque[Failure] = deque(maxlen=FAILURES_KEPT)
        self._heard_active = 0
        self._isolation: Isolation | None = None
        self._work: WorkReport | None = None

    @property
    def active_containers(self) -> int:
        # A run counts from before its container exists until after it is gone: the hub takes a
        # node without active containers for one that holds no item.
        return sum(slot.state in ("starting", "running", "stopping") for slot in self._slots)

    @property
    def is_known_active(self) -> bool:
        """The hub has been told of an active container, and not of its end."""
        return self._heard_active > 0

    @property
    def status(self) -> NodeStatus:
        if self._problems:
            return "Error"
        return "Running" if self.active_containers else "Idle"

    def set_task(self, task: TaskConfig | None) -> None:
        self._task = task
        self.changed.set()

    def set_slot(self, number: int, state: SlotState, *, failed: bool = False) -> None:
        before = self._slots[number]
        self._slots[number] = before.model_copy(
            update={
                "state": state,
                "starts": before.starts + (state == "starting"),
                "failures": before.failures + failed,
            }
        )
        self.changed.set()

    def set_problem(self, topic: str, problem: str | None) -> None:
        """What keeps this node from working, by topic; None when that is over."""
        if problem is None:
            if self._problems.pop(topic, None) is not None:
                self.changed.set()
        elif self._problems.get(topic) != problem:
            self._problems[topic] = problem
            self.changed.set()

    def set_isolation(self, isolation: Isolation) -> None:
        self._isolation = isolation

    def set_work(self, work: WorkReport | None, slots: Mapping[int, SlotCounters]) -> None:
        """What the gateway has done; told with the next regular heartbeat."""
        self._work = work
        for number, counters in slots.items():
            self._slots[number] = self._slots[number].model_copy(
                update={
                    "taken": counters.taken,
                    "committed": counters.committed,
                    "aborted": counters.aborted,
                    "seconds_per_item": counters.seconds_per_item,
                }
            )

    def set_image_pull(self, pull: ImagePull | None) -> None:
        self._image_pull = pull
        self.changed.set()

    def add_failure(
        self,
        reason: FailureReason,
        message: str,
        *,
        task: str,
        slot: int | None = None,
        exit_code: int | None = None,
        log_lines: Sequence[str] = (),
    ) -> None:
        self._failures.append(
            Failure(
                id=secrets.token_hex(8),
                task=task,
                reason=reason,
                message=_storable(message),
                slot=slot,
                exit_code=exit_code,
                at=datetime.now(UTC),
                log_lines=[_storable(line) for line in log_lines[-MAX_LOG_LINES:]],
            )
        )
        self.changed.set()

    def heartbeat(self, node_id: str, *, interval_s: float) -> HeartbeatRequest:
        return HeartbeatRequest(
            node_id=node_id,
            status=self.status,
            active_containers=self.active_containers,
            task=self._task.task_name if self._task else None,
            version=self._task.version if self._task else "",
            error=_storable("; ".join(self._problems.values())) or None,
            image_pull=self._image_pull,
            slots=list(self._slots),
            failures=list(self._failures),
            heartbeat_interval=interval_s,
            isolation=self._isolation,
            work=self._work,
        )

    def was_heard(self, heartbeat: HeartbeatRequest) -> None:
        """The hub has these failures now."""
        self._heard_active = heartbeat.active_containers
        heard = {failure.id for failure in heartbeat.failures}
        kept = [failure for failure in self._failures if failure.id not in heard]
        self._failures.clear()
        self._failures.extend(kept)


def _storable(text: str) -> str:
    """As the wire takes it, whatever a program has printed."""
    return text[:MAX_LOG_LINE].encode("utf-8", "replace").decode()
