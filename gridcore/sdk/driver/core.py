"""The driver's state and every change of it. Who calls holds the driver's lock.

submit -> waits for its arguments -> its place -> over: its results are settled
                                       ^   |
                                       +---+ lost, to repeat
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from gridcore.sdk.blobs import Blob
from gridcore.sdk.context import id_of
from gridcore.sdk.driver.actors import Actors
from gridcore.sdk.driver.objects import Objects
from gridcore.sdk.driver.place import Place
from gridcore.sdk.driver.records import DRIVER, CallRecord, Peer, Watch
from gridcore.sdk.driver.streams import Streams
from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.errors import (
    GridError,
    ObjectLost,
    PayloadTooLarge,
    TaskCancelled,
    TaskTimeout,
    Unschedulable,
    WorkerDied,
)
from gridcore.sdk.listening import Kind, Listener
from gridcore.sdk.options import STREAMING, TaskOptions, repeats_timeouts
from gridcore.sdk.outcomes import DONE, MAY_REPEAT, STOPPED, packed_error
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.frames import MAX_FDS, Outgoing
from gridcore.sdk.workers.scheduler import Need

STOP_GRACE_S = 1.0
"""A call that was to stop and has not, as it may be inside C code: its worker is killed."""


class Core:
    def __init__(
        self, name: str, make_place: Callable[[Core], Place], keep: Callable[[Blob], None]
    ) -> None:
        """`name`: of the job; `keep`: told of every large value that comes."""
        self.name = name
        self._keep = keep
        self.actors = Actors(self)
        self.streams = Streams(self)
        self.objects = Objects(keep, self.actors.change_handles, self.streams)
        self.listeners: list[Listener] = []
        self.open_calls = 0
        self.fired: list[Callable[[], object]] = []
        """Callbacks that are due; run without the lock."""
        self._numbers = itertools.count(1)
        self._needs: dict[TaskOptions, Need] = {}
        self.deadlines: dict[int, CallRecord] = {}
        self.place = make_place(self)

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
        call = CallRecord(
            results[0] if results else next(self._numbers),
            function,
            need,
            arguments,
            results,
            name=options.name or function.name,
            given_name=options.name,
            retries=options.max_retries,
            priority=options.priority,
            timeout=options.timeout,
            retries_timeouts=repeats_timeouts(options),
            caller=caller,
        )
        if options.num_returns == STREAMING:
            self.streams.open(call)
        self.expect(call)
        if call.missing == 0:
            self._make_ready(call)

    def expect(self, call: CallRecord) -> None:
        """Its results will come. Holds what its arguments refer to until they do."""
        self.open_calls += 1
        if self.listeners:
            self.note("submitted", call)
        for number in call.results:
            self.objects.add(number, call)
        arguments = call.arguments
        if arguments.packed.blob is not None:
            self._keep(arguments.packed.blob)
        if arguments.packed.refs:
            self.objects.hold(arguments.packed.refs)
        if arguments.numbers:
            self.objects.hold(arguments.numbers)
            for number in arguments.numbers:
                entry = self.objects.find(number)
                if entry is not None and entry.packed is None:
                    call.missing += 1
                    if entry.call is not None and entry.call.stream is not None:
                        self.streams.want_all(entry.call.stream)
                    if entry.dependents is None:
                        entry.dependents = []
                    entry.dependents.append(call)

    def _make_ready(self, call: CallRecord) -> None:
        error = self.failed_argument(call)
        if error is not None:
            self.settle(call, [error] * len(call.results), is_error=True)
            return
        lack = self.place.lack(call.need)
        if lack is not None:
            self.fail(
                call,
                Unschedulable(
                    f"Running {call.name}",
                    cause=lack,
                    next_step=self.place.how_to_get_more,
                ),
            )
            return
        self.place.add(call)

    def failed_argument(self, call: CallRecord) -> Packed | None:
        """The error of a call whose result was to be an argument; or there are too many."""
        large = 1
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
            large += entry.packed.blob is not None
        if large > MAX_FDS:
            return packed_error(
                PayloadTooLarge(
                    f"Running {call.name}",
                    cause=f"more than {MAX_FDS - 1} of its arguments refer to large values",
                    next_step="Pass a list of the references, and get them inside of the call",
                )
            )
        return None

    def fail(self, call: CallRecord, error: GridError) -> None:
        self.settle(call, [packed_error(error)] * len(call.results), is_error=True)

    def settle(self, call: CallRecord, results: Sequence[Packed], *, is_error: bool) -> None:
        """The call is over."""
        self.open_calls -= 1
        self.deadlines.pop(call.number, None)
        if self.listeners:
            self._note_end(call, results, is_error=is_error)
        woken: list[CallRecord] = []
        for number, packed in zip(call.results, results, strict=True):
            woken += self.settle_value(number, packed, is_error=is_error)
        if call.stream is not None:
            self.streams.ended(call.stream, is_error=is_error)
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

    def settle_value(self, number: int, packed: Packed, *, is_error: bool) -> list[CallRecord]:
        dependents, watches = self.objects.settle(number, packed, is_error=is_error)
        for watch in watches:
            watch.left -= 1
            if watch.left == 0 and watch.fire is not None:
                watch.fire()
        return dependents

    def stopped(self, call: CallRecord) -> None:
        """It was cancelled, or out of time, which is a reason to repeat it if exceptions are."""
        assert call.ends_as is not None
        if call.is_late and call.retries_timeouts and call.may_repeat():
            call.ends_as, call.is_late = None, False
            self.note("retried", call, "it took longer than its timeout")
            self.place.add(call)
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

    def stop(
        self, call: CallRecord, error: Packed, *, kill: bool = False, order: str = "x"
    ) -> None:
        """Ends it with this error, wherever it is. `order`: what its worker is told."""
        call.ends_as = error
        process = self._where(call)
        if call.stream is not None:
            self.streams.let_go(call.stream)
        if process is None:
            if call.actor is None:
                if call.missing == 0 and not self.place.drop(call):
                    return
                call.missing = -1
            else:
                self.actors.forget(call)
            self.settle(call, [error] * len(call.results), is_error=True)
        elif kill:
            self.end_peer(process, "the call was cancelled by force")
        else:
            message = (order, call.number, call.attempt)
            self.place.tell(process, message)
            if call.actor is not None and order == "x":
                # In turn as well: what is called after this finds it stopped.
                out = self.place.outgoing()
                out.messages.append(message)
                self.place.send(process, out)

    def _where(self, call: CallRecord) -> Peer | None:
        return self.place.where(call) if call.actor is None else self.actors.where_sent(call)

    def over(self, call: CallRecord, status: int, results: list[Packed]) -> None:
        """A call of a function has run to its end, whatever that was."""
        self.deadlines.pop(call.number, None)
        if call.ends_as is not None and not (call.is_late and _is_whole(call, status)):
            self.stopped(call)
        elif status == MAY_REPEAT and call.may_repeat():
            self.note("retried", call, results[0])
            self.place.add(call)
        elif status == STOPPED:
            self.fail(call, TaskCancelled.of(call.name))
        elif status == DONE:
            self.settle(call, results, is_error=False)
        else:
            self.settle(call, results * len(call.results), is_error=True)

    def lost(self, call: CallRecord, error: WorkerDied) -> None:
        """Its worker is gone; `error` is what it ends with if it may not be repeated."""
        self.deadlines.pop(call.number, None)
        if call.ends_as is not None:
            self.stopped(call)
        elif call.may_repeat():
            self.note("retried", call, error.cause or "")
            self.place.add(call, first=True)
        else:
            self.fail(call, error)

    def note(self, kind: Kind, call: CallRecord, what: str | Packed = "") -> None:
        """For subscribers; what happens to an actor's constructor happens to the actor."""
        if call.actor is None or call.method:
            self.note_of(kind, call.number, call.name, what)

    def note_of(
        self,
        kind: Kind,
        number: int,
        name: str,
        what: str | Packed = "",
        fraction: float | None = None,
    ) -> None:
        for listener in self.listeners:
            listener.note(kind, id_of(self.name, number), name, what, fraction)

    def _note_end(self, call: CallRecord, results: Sequence[Packed], *, is_error: bool) -> None:
        if not is_error:
            self.note("finished", call)
        elif call.ends_as is not None and not call.is_late:
            self.note("cancelled", call)
        else:
            self.note("failed", call, results[0] if results else "")

    def watch_for(self, numbers: Sequence[int], least: int, watch: Watch) -> None:
        """Sets how many are left until `least` are over, and asks to be told."""
        over = 0
        for number in numbers:
            entry = self.objects.find(number)
            if entry is None or entry.packed is not None:
                over += 1
                continue
            if entry.call is not None and entry.call.stream is not None and least > 0:
                self.streams.want_all(entry.call.stream)
            if entry.watches is None:
                entry.watches = []
            entry.watches.append(watch)
        watch.left = least - over

    def stop_watching(self, numbers: Sequence[int], watch: Watch) -> None:
        for number in numbers:
            entry = self.objects.find(number)
            if entry is not None and entry.watches and watch in entry.watches:
                entry.watches.remove(watch)

    # Workers

    def values_of(self, arguments: Arguments, out: Outgoing) -> tuple[Any, ...]:
        values = []
        for number in arguments.numbers:
            entry = self.objects.find(number)
            assert entry is not None
            assert entry.packed is not None
            values.append(out.wire(entry.packed))
        return tuple(values)

    def add_function(self, peer: Peer, exported: Exported, out: Outgoing) -> None:
        if exported.id not in peer.functions:
            peer.functions.add(exported.id)
            out.messages.append(("f", exported.id, exported.data))

    def end_peer(self, peer: Peer, why: str) -> None:
        peer.end = why
        self.place.end(peer)

    def peer_gone(self, peer: Peer) -> None:
        """Nobody waits there any more, and what it held nobody holds."""
        for request in peer.requests.values():
            self.stop_watching(request.numbers, request.watch)
        peer.requests.clear()
        self.objects.release([*peer.held, *peer.pins])
        peer.held, peer.pins = set(), []

    def on_time(self, now: float) -> None:
        for call in [call for call in self.deadlines.values() if (call.deadline or 0) <= now]:
            process = self._where(call)
            if call.ends_as is None:
                call.is_late = True
                call.ends_as = packed_error(TaskTimeout.of(call.name, call.timeout or 0.0))
                call.deadline = now + STOP_GRACE_S
                if call.stream is not None:
                    self.streams.let_go(call.stream)
                if process is not None:
                    self.place.tell(process, ("x", call.number, call.attempt))
            else:
                self.deadlines.pop(call.number)
                if process is not None:
                    self.end_peer(process, "did not stop when its call was out of time")

    def next_deadline(self) -> float | None:
        return min((call.deadline or 0.0 for call in self.deadlines.values()), default=None)

    def expect_end(self, call: CallRecord) -> None:
        """It was sent, and has a timeout."""
        if call.timeout is not None:
            call.deadline = time.monotonic() + call.timeout
            self.deadlines[call.number] = call


def _is_whole(call: CallRecord, status: int) -> bool:
    """It ended by itself. One that yields ends so as well when it is told to yield no more."""
    return status == DONE and call.stream is None
