"""What the driver's side of every engine has in common: the lock, the waiting, and what `Engine`
offers to the API. Where calls run is said by those derived from it."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from gridcore.sdk.blobs import Blob
from gridcore.sdk.context import Node, RuntimeContext, id_of, parsed_id, worker_id_of
from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.inbox import Inbox
from gridcore.sdk.driver.place import Place
from gridcore.sdk.driver.pump import Poller, Pump
from gridcore.sdk.driver.records import DRIVER, Watch
from gridcore.sdk.engine import Arguments, Exported, Outcome
from gridcore.sdk.errors import GetTimeout, NotConnected, ObjectLost
from gridcore.sdk.listening import Listener
from gridcore.sdk.open_files import allow_as_many_as_possible
from gridcore.sdk.options import ActorOptions, CallOptions, TaskOptions
from gridcore.sdk.packing import Packed

MOST_OPEN_CALLS = 20_000
"""Beyond, `.remote()` waits for some to be over: queued calls take memory, and save no time."""

PATIENCE_S = 2.0
"""If none is over for so long, they may wait for what the caller does next: it goes on."""

LOOK_EVERY = 32
"""Calls that are submitted between two looks at what has come back."""


_log = logging.getLogger("gridcore")


def call_back(callback: Callable[[], object]) -> None:
    """As concurrent.futures does: whoever happens to run it is not to suffer from it."""
    try:
        callback()
    except Exception:  # noqa: BLE001 - a stranger's code
        _log.exception("a done callback raised; the call's result is as it was")


class DriverEngine:
    def __init__(
        self, make_place: Callable[[Core], Place], keep: Callable[[Blob], None], *, job: str
    ) -> None:
        allow_as_many_as_possible()
        self._lock = threading.RLock()
        self._released: deque[int] = deque()
        self._poller = Poller()
        self._process_id = os.getpid()
        self._name = job
        self._submitted = 0
        self._is_closed = False
        self._core = Core(self._name, make_place, keep)
        self._inbox = Inbox(self._core)
        self._pump = Pump(self._poller, self._on_events, self._next_time)

    # What engines differ in

    def _give_out(self) -> None:
        """What may run goes to where it can."""
        self._core.place.give_out()

    def _give_out_some(self) -> None:
        """A call was submitted."""
        self._give_out()

    def _on_round(self, *, is_quiet: bool) -> None:
        """Some messages were handled, or none had come in time."""
        raise NotImplementedError

    def _next_look(self) -> float | None:
        """In how many seconds at the latest `_on_round` is wanted, even if nothing comes."""
        raise NotImplementedError

    # Engine

    def submit(
        self, function: Exported, arguments: Arguments, options: TaskOptions
    ) -> tuple[int, ...]:
        core = self._core
        count = options.num_returns if isinstance(options.num_returns, int) else 1
        with self._lock:
            self._check()
            results = core.new_numbers(count)
            core.submit(function, arguments, options, results)
            self._give_out_some()
        self._after_submit()
        return results

    def submit_actor(
        self, made_by: Exported, arguments: Arguments, options: ActorOptions, handle: Packed
    ) -> int:
        with self._lock:
            self._check()
            number = -self._core.new_numbers(1)[0]
            return self._core.actors.submit(number, made_by, arguments, options, handle)

    def call_actor(
        self, actor: int, method: str, arguments: Arguments, options: CallOptions
    ) -> tuple[int, ...]:
        count = options.num_returns if isinstance(options.num_returns, int) else 1
        with self._lock:
            self._check()
            results = self._core.new_numbers(count)
            self._core.actors.call(actor, method, arguments, options, results)
        self._after_submit()
        return results

    def find_actor(self, name: str) -> tuple[int, Packed]:
        with self._lock:
            self._check()
            return self._core.actors.find(name)

    def kill(self, actor: int, *, no_restart: bool) -> None:
        with self._lock:
            self._check()
            self._core.actors.kill(actor, no_restart=no_restart)
        self._run_callbacks()
        if self._core.listeners:
            self._pump.wake()

    def put(self, packed: Packed) -> int:
        with self._lock:
            self._check()
            self._drop_released()
            number = self._core.new_numbers(1)[0]
            self._core.put(number, packed)
        return number

    def get(self, numbers: Sequence[int], timeout: float | None) -> list[Outcome]:
        core = self._core
        if not self._wait(numbers, len(numbers), timeout):
            open_names = self._names_of(numbers)
            raise GetTimeout(
                f"Waiting for {open_names}",
                cause=f"not over after {timeout:g} s",
                next_step="The calls go on: call get again, or cancel them",
            )
        with self._lock:
            return [Outcome(*core.outcome(number)) for number in numbers]

    def wait(
        self, numbers: Sequence[int], num_returns: int, timeout: float | None
    ) -> frozenset[int]:
        if timeout is not None and timeout <= 0:
            self._pump.look()
        else:
            self._wait(numbers, num_returns, timeout)
        with self._lock:
            return frozenset(n for n in numbers if self._core.is_over(n))

    def next_value(self, stream: int, index: int) -> int | None:
        with self._lock:
            self._check()
            found = self._core.streams.ask(stream, index)
        if not found.is_there(index):
            self._pump.run_until(lambda: found.is_there(index) or self._is_closed, None)
        with self._lock:
            self._check()
            number = found.find(index)
            if number is not None:
                self._core.objects.hold((number,))
        return number

    def when_value(self, stream: int, index: int, callback: Callable[[], object]) -> None:
        core = self._core
        with self._lock:
            self._check()
            found = core.streams.ask(stream, index)
            core.streams.when_there(found, index, lambda: core.fired.append(callback))
        self._run_callbacks()
        self._pump.read_in_background()

    def cancel(self, number: int, *, force: bool) -> None:
        with self._lock:
            self._check()
            self._core.cancel(number, force=force)
            self._give_out()
        self._run_callbacks()
        if self._core.listeners:
            self._pump.wake()

    def when_done(self, number: int, callback: Callable[[], object]) -> None:
        watch = Watch(1, lambda: self._core.fired.append(callback))
        with self._lock:
            self._check()
            self._core.watch_for((number,), 1, watch)
            is_over = watch.left <= 0
        if is_over:
            call_back(callback)
        else:
            self._pump.read_in_background()

    def hold(self, number: int) -> None:
        with self._lock:
            self._core.objects.hold((number,))

    def release(self, number: int) -> None:
        self._released.append(number)
        if len(self._released) == 1:
            self._pump.step_aside()  # and free it on the way, if nobody does anything else

    def identify(self, number: int) -> str:
        return id_of(self._name, number)

    def find(self, id: str) -> int:  # noqa: A002
        job, number = parsed_id(id)
        with self._lock:
            self._check()
            if job != self._name:
                return self._find_elsewhere(job, number)
            if self._core.objects.find(number) is None:
                raise ObjectLost(
                    f"Finding the value {id}",
                    cause="nothing refers to it any more, and so it was freed",
                    next_step="Keep an ObjectRef for as long as its value is needed",
                )
            self._core.objects.hold((number,))
        return number

    def _find_elsewhere(self, job: str, number: int) -> int:
        """A value of another program."""
        raise ObjectLost(
            f"Finding the value {id_of(job, number)}",
            cause="it is another program's, or of an engine that was shut down",
            next_step="On a grid programs can share values: see gridcore.init",
        )

    def nodes(self) -> list[Node]:
        with self._lock:
            self._check()
            return self._core.place.nodes()

    def resources(self, *, available: bool) -> dict[str, float]:
        self._pump.look()
        with self._lock:
            self._check()
            return self._core.place.resources(available=available)

    def context(self) -> RuntimeContext:
        self._check()
        return RuntimeContext(
            job_id=self._name,
            node_id=self._core.place.node_of(None),
            worker_id=worker_id_of(self._name, DRIVER),
        )

    def report(self, fraction: float, text: str) -> None:
        """No call runs here."""

    def subscribe(self, listener: Listener) -> None:
        with self._lock:
            self._check()
            self._core.listeners.append(listener)

    def unsubscribe(self, listener: Listener) -> None:
        with self._lock:
            listener.is_closed = True
            if listener in self._core.listeners:
                self._core.listeners.remove(listener)
        if not self._is_closed:
            self._pump.wake()

    def wait_for_note(self, listener: Listener) -> bool:
        if not listener:
            self._pump.run_until(
                lambda: bool(listener) or listener.is_closed or self._is_closed, None
            )
        return bool(listener) and not listener.is_closed

    def shutdown(self) -> None:
        if self._is_closed or os.getpid() != self._process_id:
            return
        self._is_closed = True
        self._pump.close()
        with self._lock:
            self._core.place.shutdown()
        self._poller.close()

    # Waiting

    def _wait(self, numbers: Sequence[int], least: int, timeout: float | None) -> bool:
        watch = Watch(0)
        with self._lock:
            self._check()
            self._core.watch_for(numbers, least, watch)
        if watch.left <= 0:
            if least < len(numbers):
                self._stop_watching(numbers, watch)
            return True
        try:
            if self._pump.run_until(lambda: watch.left <= 0 or self._is_closed, timeout):
                self._check()
                return True
            return False
        finally:
            if watch.left > 0 or least < len(numbers):
                self._stop_watching(numbers, watch)

    def _stop_watching(self, numbers: Sequence[int], watch: Watch) -> None:
        with self._lock:
            self._core.stop_watching(numbers, watch)

    def _names_of(self, numbers: Sequence[int]) -> str:
        with self._lock:
            entries = [self._core.objects.find(number) for number in numbers]
            names = sorted({e.call.name for e in entries if e is not None and e.call is not None})
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return f"{len(numbers)} results of {shown}" if len(numbers) > 1 else f"a result of {shown}"

    def _after_submit(self) -> None:
        self._submitted += 1
        self._pump.step_aside()
        if self._core.listeners:
            self._pump.wake()
        if self._submitted % LOOK_EVERY == 0:
            self._pump.look()
            if self._core.open_calls > MOST_OPEN_CALLS:
                self._hold_back()

    def _hold_back(self) -> None:
        core = self._core
        while core.open_calls > MOST_OPEN_CALLS:
            before = core.open_calls
            goal = max(MOST_OPEN_CALLS, before - before // 100)
            self._pump.run_until(lambda goal=goal: core.open_calls <= goal, PATIENCE_S)  # type: ignore[misc]
            if core.open_calls >= before:
                return

    # What comes

    def _on_events(self, events: list[tuple[int, int]]) -> None:
        core = self._core
        with self._lock:
            self._poller.handle(events)
            self._drop_released()
            self._on_round(is_quiet=not events)
            self._give_out()
        if core.fired:
            self._run_callbacks()

    def _next_time(self) -> float | None:
        if self._released:
            with self._lock:
                self._drop_released()  # it may be the last round for long
        return self._next_look()

    def _drop_released(self) -> None:
        released = self._released
        if released:
            numbers = [released.popleft() for _ in range(len(released))]
            self._core.objects.release(numbers)

    def _run_callbacks(self) -> None:
        """Without the lock: they may do anything."""
        core = self._core
        while core.fired:
            with self._lock:
                due, core.fired = core.fired, []
            for callback in due:
                call_back(callback)

    def _check(self) -> None:
        if self._is_closed:
            raise NotConnected(
                "Using the grid",
                cause="its engine was shut down",
                next_step="Call gridcore.init for a new one",
            )
