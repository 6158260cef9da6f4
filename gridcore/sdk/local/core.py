"""The local engine's state and every change of it. Who calls holds the driver's lock.

submit -> waits for its arguments -> ready -> sent to a worker -> its results are settled
                                       ^                    |
                                       +-- died, to repeat --+
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.errors import (
    GridError,
    ObjectLost,
    TaskCancelled,
    TaskTimeout,
    Unschedulable,
    WorkerDied,
)
from gridcore.sdk.local.actors import Actors
from gridcore.sdk.local.capacity import Capacity
from gridcore.sdk.local.crew import Template, WorkerProcess
from gridcore.sdk.local.endings import how_it_ended
from gridcore.sdk.local.frames import MAX_FDS, Outgoing
from gridcore.sdk.local.objects import Keeper, Objects
from gridcore.sdk.local.records import DRIVER, Actor, LocalCall, Watch
from gridcore.sdk.local.running import packed_error
from gridcore.sdk.local.scheduler import READY, Given, Need, Scheduler
from gridcore.sdk.options import TaskOptions, repeats_timeouts
from gridcore.sdk.packing import Packed

MOST_FAILED_STARTS = 8
"""In a row."""

STOP_GRACE_S = 1.0
"""A call that was to stop and has not, as it may be inside C code: its worker is killed."""


class Core:
    def __init__(
        self,
        capacity: Capacity,
        *,
        watch: Callable[[WorkerProcess], None],
        unwatch: Callable[[WorkerProcess], None],
        wants_to_write: Callable[[WorkerProcess], None],
        template_started: Callable[[Template], None],
    ) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self._wants_to_write = wants_to_write
        self._template_started = template_started
        self.scheduler = Scheduler(capacity.cpus, capacity.memory, capacity.resources)
        self.keeper = Keeper(capacity.store_bytes, capacity.spill_folder)
        self.actors = Actors(self)
        self.objects = Objects(self.keeper, self.actors.change_handles)
        self.processes: dict[int, WorkerProcess] = {}
        self.template: Template | None = None
        self.open_calls = 0
        self.failed_starts = 0
        self.fired: list[Callable[[], object]] = []
        """Callbacks that are due; run without the lock."""
        self._numbers = itertools.count(1)
        self._seats = itertools.count(1)
        self._needs: dict[TaskOptions, Need] = {}
        self.deadlines: dict[int, LocalCall] = {}

    # Calls

    def new_numbers(self, count: int) -> tuple[int, ...]:
        return tuple(itertools.islice(self._numbers, count))

    def submit(
        self,
        function: Exported,
        arguments: Arguments,
        options: TaskOptions,
        results: tuple[int, ...],
        caller: int = DRIVER,
    ) -> None:
        need = self._needs.get(options)
        if need is None:
            need = Need(options.num_cpus, options.memory, options.resources)
            self._needs[options] = need
        call = LocalCall(
            results[0] if results else next(self._numbers),
            function,
            need,
            arguments,
            results,
            name=options.name or function.name,
            retries=options.max_retries,
            priority=options.priority,
            timeout=options.timeout,
            retries_timeouts=repeats_timeouts(options),
            caller=caller,
        )
        self.expect(call)
        if call.missing == 0:
            self._make_ready(call)

    def expect(self, call: LocalCall) -> None:
        """Its results will come. Holds what its arguments refer to until they do."""
        self.open_calls += 1
        for number in call.results:
            self.objects.add(number, call)
        arguments = call.arguments
        if arguments.packed.blob is not None:
            self.keeper.add(arguments.packed.blob)
        if arguments.packed.refs:
            self.objects.hold(arguments.packed.refs)
        if arguments.numbers:
            self.objects.hold(arguments.numbers)
            for number in arguments.numbers:
                entry = self.objects.find(number)
                if entry is not None and entry.packed is None:
                    call.missing += 1
                    if entry.dependents is None:
                        entry.dependents = []
                    entry.dependents.append(call)

    def _make_ready(self, call: LocalCall) -> None:
        error = self.failed_argument(call)
        if error is not None:
            self.settle(call, [error] * len(call.results), is_error=True)
            return
        lack = self.scheduler.can_ever_run(call.need)
        if lack is not None:
            self.fail(
                call,
                Unschedulable(
                    f"Running {call.name}",
                    cause=lack,
                    next_step="Ask for less, or pass more to gridcore.init",
                ),
            )
            return
        self.scheduler.add(call)

    def failed_argument(self, call: LocalCall) -> Packed | None:
        """The error of a call whose result was to be an argument."""
        for number in call.arguments.numbers:
            entry = self.objects.find(number)
            if entry is None or entry.packed is None:
                return packed_error(
                    ObjectLost(
                        f"Passing a reference to {call.name}",
                        cause="its value is gone",
                        next_step="Keep the reference until the call is over",
                    )
                )
            if entry.is_error:
                return entry.packed
        return None

    def fail(self, call: LocalCall, error: GridError) -> None:
        self.settle(call, [packed_error(error)] * len(call.results), is_error=True)

    def settle(self, call: LocalCall, results: Sequence[Packed], *, is_error: bool) -> None:
        """The call is over."""
        self.open_calls -= 1
        self.deadlines.pop(call.number, None)
        woken: list[LocalCall] = []
        for number, packed in zip(call.results, results, strict=True):
            woken += self.settle_value(number, packed, is_error=is_error)
        arguments = call.arguments
        if arguments.packed.refs:
            self.objects.release(arguments.packed.refs)
        if arguments.numbers:
            self.objects.release(arguments.numbers)
        for dependent in woken:
            dependent.missing -= 1
            if dependent.missing == 0:
                if dependent.actor is not None:
                    self.actors.send_calls(dependent.actor)
                elif dependent.ends_as is None:
                    self._make_ready(dependent)

    def settle_value(self, number: int, packed: Packed, *, is_error: bool) -> list[LocalCall]:
        dependents, watches = self.objects.settle(number, packed, is_error=is_error)
        for watch in watches:
            watch.left -= 1
            if watch.left == 0 and watch.fire is not None:
                watch.fire()
        return dependents

    def stopped(self, call: LocalCall) -> None:
        """It was cancelled, or out of time, which is a reason to repeat it if exceptions are."""
        assert call.ends_as is not None
        if call.is_late and call.retries_timeouts and call.may_repeat():
            call.ends_as, call.is_late = None, False
            self.scheduler.add(call)
        else:
            self.settle(call, [call.ends_as] * len(call.results), is_error=True)

    def put(self, number: int, packed: Packed) -> None:
        self.objects.add(number, None)
        self.settle_value(number, packed, is_error=False)

    def is_over(self, number: int) -> bool:
        entry = self.objects.find(number)
        return entry is None or entry.packed is not None

    def outcome(self, number: int) -> tuple[Packed, bool]:
        entry = self.objects.find(number)
        if entry is None or entry.packed is None:
            lost = ObjectLost(
                "Getting a value",
                cause="nothing referred to it any more, and so it was freed",
                next_step="Keep an ObjectRef for as long as its value is needed",
            )
            return packed_error(lost), True
        return entry.packed, entry.is_error

    def cancel(self, number: int, *, force: bool) -> None:
        entry = self.objects.find(number)
        call = entry.call if entry is not None else None
        if call is None or call.ends_as is not None:
            return
        self.stop(call, packed_error(TaskCancelled.of(call.name)), kill=force)

    def stop(self, call: LocalCall, error: Packed, *, kill: bool = False) -> None:
        """Ends it with this error, wherever it is."""
        call.ends_as = error
        seat = call.seat
        process = self.processes.get(seat.number) if seat is not None else None
        if call.actor is not None:
            process = self.actors.where_sent(call)
        if process is None:
            if call.actor is None:
                if call.missing == 0 and call.state == READY:
                    self.scheduler.drop(call)
                call.missing = -1
            else:
                self.actors.forget(call)
            self.settle(call, [error] * len(call.results), is_error=True)
        elif kill:
            self.end_process(process, "the call was cancelled by force")
        else:
            process.tell(("x", call.number))

    def watch_for(self, numbers: Sequence[int], least: int, watch: Watch) -> None:
        """Sets how many are left until `least` are over, and asks to be told."""
        over = 0
        for number in numbers:
            entry = self.objects.find(number)
            if entry is None or entry.packed is not None:
                over += 1
                continue
            if entry.watches is None:
                entry.watches = []
            entry.watches.append(watch)
        watch.left = least - over

    def stop_watching(self, numbers: Sequence[int], watch: Watch) -> None:
        for number in numbers:
            entry = self.objects.find(number)
            if entry is not None and entry.watches and watch in entry.watches:
                entry.watches.remove(watch)

    # Sending

    def give_out(self) -> None:
        if self.failed_starts >= MOST_FAILED_STARTS:
            self._fail_ready()
        for given in self.scheduler.give_out():
            self._send_calls(given)
        if self.scheduler.ready_count:
            for _ in range(self.scheduler.wanted_seats()):
                self.start_worker()

    def _send_calls(self, given: Given) -> None:
        process = self.processes[given.seat.number]
        out = Outgoing()
        for call in given.calls:
            assert isinstance(call, LocalCall)
            if len(out.fds) + len(call.arguments.numbers) + 1 > MAX_FDS:
                self.send(process, out)
                out = Outgoing()
            if call.timeout is not None:
                call.deadline = time.monotonic() + call.timeout
                self.deadlines[call.number] = call
            self.add_function(process, call.exported, out)
            arguments = call.arguments
            values = self.values_of(arguments, out) if arguments.numbers else ()
            out.messages.append(
                (
                    "c", call.number, call.function, out.wire(arguments.packed), arguments.places,
                    values, len(call.results), given.token,
                )
            )  # fmt: skip
        self.send(process, out)

    def values_of(self, arguments: Arguments, out: Outgoing) -> tuple[Any, ...]:
        values = []
        for number in arguments.numbers:
            entry = self.objects.find(number)
            assert entry is not None
            assert entry.packed is not None
            values.append(out.wire(entry.packed))
        return tuple(values)

    def add_function(self, process: WorkerProcess, exported: Exported, out: Outgoing) -> None:
        if exported.id not in process.functions:
            process.functions.add(exported.id)
            out.messages.append(("f", exported.id, exported.data))

    def send(self, process: WorkerProcess, out: Outgoing) -> None:
        try:
            if not process.sender.send(out):
                self._wants_to_write(process)
        except OSError:
            pass  # it is gone; its calls are seen to when the end of its socket is read

    def nudge(self) -> bool:
        """Workers in which calls wait behind a long one give them back. Whether there were any."""
        found = False
        for seat in self.scheduler.overloaded():
            seat.is_stalled = True
            self.processes[seat.number].tell(("b",))
            found = True
        return self.actors.nudge() or found

    def can_stall(self) -> bool:
        return bool(self.scheduler.overloaded()) or self.actors.can_stall()

    # Workers

    def start_worker(self, actor: Actor | None = None) -> WorkerProcess:
        number = next(self._seats)
        for attempt in range(2):
            if self.template is None:
                self.template = Template()
                self._template_started(self.template)
            try:
                process = self.template.fork(number)
                break
            except OSError:
                self.template = None
                if attempt:
                    raise
        else:
            raise AssertionError
        self.processes[number] = process
        process.actor = actor
        if actor is None:
            self.scheduler.coming += 1
        self._watch(process)
        return process

    def end_process(self, process: WorkerProcess, why: str) -> None:
        process.end = why
        if self.template is not None:
            self.template.kill(process.number)

    def on_exit(self, number: int, code: int | None) -> None:
        """A worker is gone. `code` as in subprocess; None if nobody knows."""
        process = self.processes.pop(number, None)
        if process is None:
            return
        self._unwatch(process)
        process.close()
        for request in process.requests.values():
            self.stop_watching(request.numbers, request.watch)
        if process.actor is not None:
            self.actors.on_exit(process, code)
        elif number in self.scheduler.seats:
            for call in self.scheduler.seat_went(process.seat):
                assert isinstance(call, LocalCall)
                self._lost(call, process, code)
        else:
            self.scheduler.coming = max(0, self.scheduler.coming - 1)
            self.failed_starts += process.end is None
        self.objects.release([*process.held, *process.pins])

    def _fail_ready(self) -> None:
        """Workers do not start here, and to try for ever would help nobody."""
        self.failed_starts = 0
        for call in [call for call in self.scheduler.everything() if call.seat is None]:
            assert isinstance(call, LocalCall)
            self.scheduler.drop(call)
            self.fail(
                call,
                WorkerDied(
                    f"Running {call.name}",
                    cause=f"{MOST_FAILED_STARTS} workers ended before they had begun",
                    next_step="What they printed, above, says why",
                ),
            )

    def _lost(self, call: LocalCall, process: WorkerProcess, code: int | None) -> None:
        self.deadlines.pop(call.number, None)
        if call.ends_as is not None:
            self.stopped(call)
        elif call.may_repeat():
            self.scheduler.add(call, first=True)
        else:
            self.fail(
                call,
                WorkerDied(
                    f"Running {call.name}",
                    cause=f"its worker (process {process.pid}) {how_it_ended(code, process.end)}",
                    next_step="It was tried as often as max_retries allows",
                ),
            )

    def on_template_gone(self) -> None:
        """The kernel ends its workers with it."""
        self.template = None
        for number in list(self.processes):
            self.on_exit(number, None)

    def end_surplus(self) -> None:
        for seat in self.scheduler.surplus():
            process = self.processes[seat.number]
            self.scheduler.retire(seat)
            self.end_process(process, "was not needed any more")

    def on_time(self, now: float) -> None:
        for call in [call for call in self.deadlines.values() if (call.deadline or 0) <= now]:
            seat = call.seat
            process = self.processes.get(seat.number) if seat is not None else None
            if call.actor is not None:
                process = self.actors.where_sent(call)
            if call.ends_as is None:
                call.is_late = True
                call.ends_as = packed_error(
                    TaskTimeout(
                        f"Running {call.name}",
                        cause=f"it took longer than its timeout of {call.timeout:g} s",
                        next_step="Give it more time, or less to do",
                    )
                )
                call.deadline = now + STOP_GRACE_S
                if process is not None:
                    process.tell(("x", call.number))
            else:
                self.deadlines.pop(call.number)
                if process is not None:
                    self.end_process(process, "did not stop when its call was out of time")

    def next_deadline(self) -> float | None:
        return min((call.deadline or 0.0 for call in self.deadlines.values()), default=None)

    def expect_end(self, call: LocalCall) -> None:
        """It was sent, and has a timeout."""
        if call.timeout is not None:
            call.deadline = time.monotonic() + call.timeout
            self.deadlines[call.number] = call

    def on_written(self, process: WorkerProcess) -> bool:
        try:
            return process.sender.send_more()
        except OSError:
            return True

    def shutdown(self) -> None:
        template, self.template = self.template, None
        for process in self.processes.values():
            self._unwatch(process)
            process.close()
        self.processes.clear()
        if template is not None:
            template.end()
