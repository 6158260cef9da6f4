"""The engine on a grid: its driver."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gridcore.sdk.blobs import Blob
from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.engine import LOOK_EVERY, DriverEngine
from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.errors import NotConnected, ObjectLost
from gridcore.sdk.grid.fetched import RETRY_S
from gridcore.sdk.grid.guests import Guest, not_reachable
from gridcore.sdk.grid.hub import Task
from gridcore.sdk.grid.kept import LOSABLE_S
from gridcore.sdk.grid.messages import Ticket
from gridcore.sdk.grid.own_code import OwnCode
from gridcore.sdk.grid.place import GridPlace
from gridcore.sdk.grid.store import Store
from gridcore.sdk.grid.values import Names, StoredBlob, check_size
from gridcore.sdk.options import ActorOptions, CallOptions, TaskOptions
from gridcore.sdk.packing import Packed

LOOK_S = 5.0
"""For runs that are lost."""

FEW_OPEN = 16
"""With more calls under way, not every one is a reason to send it alone."""


class GridEngine(DriverEngine):
    def __init__(self, task: Task) -> None:
        """Raises NotConnected if the task's Redis cannot be reached."""
        self._task = task
        self._job = f"{os.urandom(8).hex()}"
        self._dropped: deque[Ticket] = deque()
        self._names = Names()
        self._own_code = OwnCode()
        self._own_code.look()
        self._guests: dict[str, Guest] = {}
        """By the jobs of other drivers."""
        self._unsent = 0
        self._looked_at = time.monotonic()

        def make_place(core: Core) -> GridPlace:
            self._store = Store(
                task.redis_url,
                task.queue,
                self._job,
                poller=self._poller,
                on_letter=lambda data: self._place.on_letter(data),
                on_forgotten=lambda: self._place.push_again(),
                on_repeated=lambda: self._place.may_come_twice(),
            )
            self._place = GridPlace(
                core,
                self._store,
                self._job,
                now=time.monotonic,
                stored=self._stored,
                on_message=lambda *what: self._inbox.on_message(*what),
            )
            self._place.set_fleet(task.fleet)
            return self._place

        super().__init__(make_place, _keep_nothing, job=self._job)
        try:
            with self._lock:
                self._store.start()
        except OSError as error:
            self._pump.close()
            raise NotConnected(
                f"Connecting to the grid's Redis ({task.shown_redis_url})",
                cause=str(error),
                next_step="This machine must reach it as nodes do: see `bind` and the firewall"
                " on the hub's machine",
            ) from None
        self._watch = threading.Thread(
            target=task.watch, args=(self,), name="gridcore-hub", daemon=True
        )
        self._watch.start()

    # Engine: large values go to the store first

    def submit(
        self, function: Exported, arguments: Arguments, options: TaskOptions
    ) -> tuple[int, ...]:
        return super().submit(function, self._sendable(arguments, function.name), options)

    def submit_actor(
        self, made_by: Exported, arguments: Arguments, options: ActorOptions, handle: Packed
    ) -> int:
        arguments = self._sendable(arguments, made_by.name)
        return super().submit_actor(made_by, arguments, options, handle)

    def call_actor(
        self, actor: int, method: str, arguments: Arguments, options: CallOptions
    ) -> tuple[int, ...]:
        numbers = super().call_actor(actor, method, self._sendable(arguments, method), options)
        with self._lock:
            self._give_out_some()
        return numbers

    def put(self, packed: Packed) -> int:
        return super().put(self._uploaded(packed, "a value"))

    def shutdown(self) -> None:
        if self._is_closed or os.getpid() != self._process_id:
            return
        self._task.stop_watching()
        self._own_code.forget()
        for guest in self._guests.values():
            guest.close()
        super().shutdown()

    def _sendable(self, arguments: Arguments, name: str) -> Arguments:
        if arguments.packed.blob is None:
            return arguments
        return arguments._replace(packed=self._uploaded(arguments.packed, f"an argument of {name}"))

    def _uploaded(self, packed: Packed, what: str) -> Packed:
        blob = packed.blob
        if blob is None or isinstance(blob, StoredBlob):
            return packed
        check_size(blob.size, what)
        with self._lock:
            self._check()
            ticket = self._store.put(self._names.new(), blob)
        self._pump.step_aside()
        return Packed(None, self._stored(ticket), packed.refs)

    def _stored(self, ticket: Ticket) -> StoredBlob:
        return StoredBlob(ticket, fetch=self._fetch, drop=self._dropped.append)

    def _fetch(self, ticket: Ticket) -> Blob:
        until = time.monotonic() + LOSABLE_S
        while True:
            found: list[Blob | Exception] = []
            with self._lock:
                self._check()
                self._store.fetch(ticket, found.append)
            self._pump.run_until(lambda: bool(found) or self._is_closed, None)  # noqa: B023
            self._check()
            if isinstance(found[0], Blob):
                return found[0]
            if not isinstance(found[0], ObjectLost) or time.monotonic() >= until:
                raise found[0]
            # If Redis has lost it just now, whoever had put it there does so again.
            self._pump.run_until(lambda: self._is_closed, RETRY_S)

    def _find_elsewhere(self, job: str, number: int) -> int:
        guest = self._guests.get(job)
        if guest is None or not guest.is_connected:
            try:
                guest = self._guests[job] = Guest(
                    self._task.redis_url,
                    self._task.queue,
                    job,
                    poller=self._poller,
                )
            except OSError as error:
                raise not_reachable(job, str(error)) from error
        (mine,) = self._core.new_numbers(1)
        self._core.objects.add(mine, None)

        def settle(packed: Packed, is_error: bool) -> None:
            found = self._uploaded(packed, "a value")
            self._core.settle_value(mine, found, is_error=is_error)

        guest.ask(number, settle)
        return mine

    # DriverEngine

    def _give_out_some(self) -> None:
        self._unsent += 1
        if self._core.open_calls <= FEW_OPEN or self._unsent >= LOOK_EVERY:
            self._give_out()

    def _give_out(self) -> None:
        self._unsent = 0
        self._place.give_out()
        self._store.flush()

    def _on_round(self, *, is_quiet: bool) -> None:
        del is_quiet
        now = time.monotonic()
        self._core.on_time(now)
        self._place.on_time(now)
        for guest in self._guests.values():
            guest.look(now)
        self._drop_values()
        if now - self._looked_at > LOOK_S:
            self._looked_at = now
            self._place.look_for_lost_runs(self._store.heard_at, self._store.heard_since)
        self._give_out()
        self._store.tick(now)

    def _next_look(self) -> float | None:
        with self._lock:
            self._drop_values()
            self._give_out()
            times = [self._store.next_time(), self._looked_at + LOOK_S]
            deadlines = (self._core.next_deadline(), self._place.next_time())
            times += [deadline for deadline in deadlines if deadline is not None]
        return max(0.0, min(times) - time.monotonic())

    def _drop_values(self) -> None:
        if self._dropped:
            self._store.drop([self._dropped.popleft() for _ in range(len(self._dropped))])

    # What the watch over the task asks

    @property
    def is_waiting(self) -> bool:
        """Calls are open, and no container has been heard of."""
        return self._core.open_calls > 0 and not self._place.runs

    @property
    def job(self) -> str:
        return self._job

    def in_turn(self, change: Callable[[GridPlace], Any]) -> None:
        """For another thread: a change of the state."""
        with self._lock:
            if not self._is_closed:
                change(self._place)
                self._give_out()
        self._run_callbacks()


def _keep_nothing(blob: Blob) -> None:
    """Redis has it."""
    del blob
