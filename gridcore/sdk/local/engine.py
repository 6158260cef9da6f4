"""The engine on this machine: it reads and writes the sockets of its workers."""

from __future__ import annotations

import os
import time

from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.engine import LOOK_EVERY, DriverEngine
from gridcore.sdk.driver.objects import Keeper
from gridcore.sdk.driver.pump import STALL_S
from gridcore.sdk.local.capacity import Capacity
from gridcore.sdk.local.place import LocalPlace, LocalWorker
from gridcore.sdk.workers.crew import Template

FEW_READY = 16
"""With more that wait for a seat, not every call is a reason to look for one."""

SURPLUS_S = 1.0
"""Workers beyond the cores, started for those that waited, end after so long without messages."""


class LocalEngine(DriverEngine):
    def __init__(self, capacity: Capacity) -> None:
        self._seen_at = 0.0
        self.keeper = Keeper(capacity.store_bytes, capacity.spill_folder)

        def make_place(core: Core) -> LocalPlace:
            self._place = LocalPlace(
                core,
                capacity,
                watch=self._watch,
                unwatch=self._unwatch,
                wants_to_write=lambda worker: self._poller.also_write(_socket_of(worker), True),
                template_started=self._watch_template,
            )
            return self._place

        super().__init__(make_place, self.keeper.add, job=os.urandom(4).hex())
        with self._lock:
            for _ in range(capacity.cpus):
                self._place.start_worker()

    def _give_out_some(self) -> None:
        ready = self._place.scheduler.ready_count
        if ready <= FEW_READY or ready % LOOK_EVERY == 0:
            self._place.give_out()

    def _on_round(self, *, is_quiet: bool) -> None:
        now = time.monotonic()
        if not is_quiet:
            self._seen_at = now
            return
        self._core.on_time(now)
        self._place.nudge()
        if now - self._seen_at >= SURPLUS_S:
            self._place.end_surplus()

    def _next_look(self) -> float | None:
        deadline = self._core.next_deadline()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._place.can_stall() and (left is None or left > STALL_S):
            return STALL_S
        if left is None and self._place.scheduler.surplus():
            return SURPLUS_S
        return left

    # Sockets

    def _watch(self, worker: LocalWorker) -> None:
        def handle(can_read: bool) -> None:
            if not can_read:
                if self._place.on_written(worker):
                    self._poller.also_write(_socket_of(worker), False)
                return
            try:
                frames = worker.process.incoming.receive()
            except (EOFError, OSError):
                # How it ended comes from the template; if it lives without a socket, it must not.
                self._poller.forget(_socket_of(worker))
                self._place.end(worker)
                return
            for messages, fds in frames:
                for message in messages:
                    self._inbox.on_message(worker, message, fds)

        self._poller.watch(_socket_of(worker), handle)

    def _unwatch(self, worker: LocalWorker) -> None:
        self._poller.forget(_socket_of(worker))

    def _watch_template(self, template: Template) -> None:
        def handle(can_read: bool) -> None:
            del can_read
            try:
                frames = template.incoming.receive()
            except (EOFError, OSError):
                self._poller.forget(template.socket.fileno())
                template.end()
                self._place.on_template_gone()
                return
            for messages, _ in frames:
                for _, seat, code in messages:
                    self._place.on_exit(seat, code)

        self._poller.watch(template.socket.fileno(), handle)


def _socket_of(worker: LocalWorker) -> int:
    return worker.process.data.fileno()
