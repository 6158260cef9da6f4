"""The engine inside a worker: it asks the driver for everything.

Calls, puts and releases are messages without an answer. `get` and `wait` have one, and whichever
thread waits reads the socket. While the main thread waits it runs calls on top of its own that the
driver sends for that wait. While another thread waits, its call has lent its core, and nothing is
kept behind it here.
"""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import select
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from gridcore.sdk.context import Node, RuntimeContext, id_of, parsed_id
from gridcore.sdk.engine import Arguments, Exported, Outcome
from gridcore.sdk.errors import GetTimeout, ObjectLost
from gridcore.sdk.listening import Listener
from gridcore.sdk.options import ActorOptions, CallOptions, TaskOptions, repeats_timeouts
from gridcore.sdk.packing import Packed, pack
from gridcore.sdk.workers.frames import (
    MAX_FDS,
    Incoming,
    Message,
    Outgoing,
    let_go,
    packed_from,
    send_all,
)
from gridcore.sdk.workers.spinning import Spinner

if TYPE_CHECKING:
    from gridcore.sdk.workers.running import Interrupts

SEAT_SHIFT = 40
"""Numbers that a worker gives out begin with that of its seat."""

current_call: ContextVar[int | None] = ContextVar("current_call", default=None)
"""Of a thread or coroutine; those of the main thread are on its stack."""

Taken = tuple[Message, list[int]]


class WorkerEngine:
    def __init__(
        self,
        seat: int,
        sock: socket.socket,
        interrupts: Interrupts,
        take: Callable[[Message, list[int]], None],
        unstarted: Callable[[], list[int]],
    ) -> None:
        self._seat = seat
        self._socket = sock
        self._interrupts = interrupts
        self._take = take
        self._unstarted = unstarted
        self.run_nested: Callable[[Message, list[int]], None] = take
        self.functions: dict[bytes, bytes] = {}
        self.has_results = False
        self._exported: set[bytes] = set()
        self._numbers = itertools.count(seat << SEAT_SHIFT | 1)
        self._tokens = itertools.count(1)
        self._incoming = Incoming(sock)
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._spinner = Spinner()
        # What goes out
        self._out = Outgoing()
        self._out_lock = threading.RLock()
        self._changes: deque[tuple[int, int]] = deque()
        """References that came and went: added to by the garbage collector, so without a lock."""
        self._counts: dict[int, int] = {}
        self._reported: set[int] = set()
        # What comes in
        self._turn = threading.Condition()
        self._is_reading = False
        self._has_taken = False
        """Another thread has read something that the main thread is to run."""
        self._answers: dict[int, list[Any]] = {}
        self._parts: dict[int, list[Any]] = defaultdict(list)
        self._nested: dict[int, deque[Taken]] = {}
        """Calls to run on top of the main thread's waits, by token."""
        self._main_waits: list[int] = []
        self._thread_waits: dict[int, tuple[int, ...]] = {}
        """By token: of one of these calls of the main thread."""
        self.is_actor = False
        self._forgotten: set[int] = set()
        self.calls: dict[int, tuple[str, tuple[int, str] | None]] = {}
        """Those that run here: their names, and what the driver says of them."""
        self._whereabouts: tuple[Any, ...] = ("", "", "", None, False)
        self._callbacks: dict[int, Callable[[Any], object]] = {}
        """What to do with an answer that no thread waits for."""

    # Engine

    def submit(
        self, function: Exported, arguments: Arguments, options: TaskOptions
    ) -> tuple[int, ...]:
        results = self._new_numbers(options.num_returns)
        with self._interrupts.closed(), self._out_lock:
            self._export(function)
            packed = arguments.packed
            wire = self._out.wire(packed)
            self._out.messages.append(
                ("s", results, function.id, wire, packed.refs, *arguments[1:], _as_bytes(options))
            )
            self.flush()
        return results

    def submit_actor(
        self, made_by: Exported, arguments: Arguments, options: ActorOptions, handle: Packed
    ) -> int:
        number = -next(self._numbers)
        token = next(self._tokens)
        with self._interrupts.closed(), self._out_lock:
            self._export(made_by)
            packed = arguments.packed
            wires = (self._out.wire(packed), self._out.wire(handle))
            self._counts[number] = 1
            self._reported.add(number)
            self._out.messages.append(
                (
                    "A", token, number, made_by.id, *wires, packed.refs, *arguments[1:],
                    _as_bytes(options),
                )
            )  # fmt: skip
            self.flush()
        if not options.name:
            return number
        with self._interrupts.closed():
            error, found = self._wait_for(token, None)
        if error is not None or found != number:
            del self._counts[number]
            self._reported.discard(number)
        if error is not None:
            raise ValueError(error)
        if found != number:
            self._adopt(found)
        return int(found)

    def call_actor(
        self, actor: int, method: str, arguments: Arguments, options: CallOptions
    ) -> tuple[int, ...]:
        results = self._new_numbers(options.num_returns)
        with self._interrupts.closed(), self._out_lock:
            packed = arguments.packed
            wire = self._out.wire(packed)
            self._out.messages.append(
                ("M", results, actor, method, wire, packed.refs, *arguments[1:], _as_bytes(options))
            )
            self.flush()
        return results

    def find_actor(self, name: str) -> tuple[int, Packed]:
        token = next(self._tokens)
        error, number, handle = self._answer_to(token, ("q", token, name))
        if error is not None:
            raise ValueError(error)
        self._adopt(number)
        return number, Packed(handle, None)

    def _adopt(self, number: int) -> None:
        """An actor that the driver keeps for us until our own hold is there."""
        self.hold(number)
        self.send(("u", number))

    def kill(self, actor: int, *, no_restart: bool) -> None:
        self.send(("k", actor, no_restart))

    def put(self, packed: Packed) -> int:
        number = self._new_numbers(1)[0]
        with self._interrupts.closed(), self._out_lock:
            self._out.messages.append(("p", number, self._out.wire(packed), packed.refs))
            self.flush()
        return number

    def get(self, numbers: Sequence[int], timeout: float | None) -> list[Outcome]:
        token = next(self._tokens)
        # What runs on top of a call cannot be left when time is up.
        is_for_calls = timeout is None or not self._is_main
        answer = self._ask(token, ("g", token, tuple(numbers)), is_for_calls, timeout)
        if answer is None:
            raise GetTimeout(
                f"Waiting for {len(numbers)} results",
                cause=f"they were not there after {timeout:g} s",
                next_step="The calls go on: call get again, or cancel them",
            )
        return [Outcome(packed, is_error) for packed, is_error in answer]

    def wait(
        self, numbers: Sequence[int], num_returns: int, timeout: float | None
    ) -> frozenset[int]:
        if timeout is not None and timeout <= 0:
            num_returns = 0
        token = next(self._tokens)
        message = ("w", token, tuple(numbers), num_returns)
        answer = self._ask(token, message, not self._is_main, timeout)
        if answer is None:  # time is over; what is there now?
            token = next(self._tokens)
            answer = self._ask(token, ("w", token, tuple(numbers), 0), False, None)
        assert answer is not None
        return frozenset(answer[0])

    def next_value(self, stream: int, index: int) -> int | None:
        token = next(self._tokens)
        answer = self._ask(token, ("i", token, stream, index), False, None)
        assert answer is not None
        number: int | None = answer[0]
        if number is not None:
            # The stream holds it until the next one is asked for, and our hold goes before that.
            self.hold(number)
        return number

    def when_value(self, stream: int, index: int, callback: Callable[[], object]) -> None:
        self.hold(stream)

        def wait_and_call() -> None:
            number = self.next_value(stream, index)
            for held in (stream, number):
                if held is not None:
                    self.release(held)
            callback()

        threading.Thread(target=wait_and_call, name="gridcore-callback", daemon=True).start()

    def cancel(self, number: int, *, force: bool) -> None:
        self.send(("x", number, force))

    def when_done(self, number: int, callback: Callable[[], object]) -> None:
        self.hold(number)

        def wait_and_call() -> None:
            self.wait((number,), 1, None)
            self.release(number)
            callback()

        threading.Thread(target=wait_and_call, name="gridcore-callback", daemon=True).start()

    def hold(self, number: int) -> None:
        self._changes.append((number, 1))

    def release(self, number: int) -> None:
        self._changes.append((number, -1))

    def identify(self, number: int) -> str:
        return id_of(self._whereabouts[0], number)

    def find(self, id: str) -> int:  # noqa: A002
        job, number = parsed_id(id)
        if job != self._whereabouts[0]:
            raise ObjectLost(
                f"Finding the value {id}",
                cause="it is another program's, and this call belongs to the one that made it",
                next_step="Find it in the program itself, and pass it to the call",
            )
        self.hold(number)
        return number

    def nodes(self) -> list[Node]:
        found: list[Node] = self._state("nodes")
        return found

    def resources(self, *, available: bool) -> dict[str, float]:
        found: dict[str, float] = self._state("available" if available else "total")
        return found

    def _state(self, what: str) -> Any:
        token = next(self._tokens)
        return self._answer_to(token, ("N", token, what))[0]

    def _answer_to(self, token: int, message: Message) -> Any:
        """To a question that is answered at once."""
        with self._interrupts.closed():
            self.send(message)
            return self._wait_for(token, None)

    def context(self) -> RuntimeContext:
        job, node, worker, actor, was_restarted = self._whereabouts
        call = self._current()
        if call is None:
            return RuntimeContext(
                job, node, worker, actor_id=actor, was_current_actor_restarted=was_restarted
            )
        number, name, attempt = call
        return RuntimeContext(
            job, node, worker, id_of(job, number), name, actor, attempt, was_restarted
        )

    def _current(self) -> tuple[int, str, int] | None:
        """The call of this thread or coroutine: its number, its name, which attempt it is."""
        number = current_call.get()
        if number is None and self._interrupts.stack:
            number = self._interrupts.stack[-1]
        if number is None or number not in self.calls:
            return None
        name, about = self.calls[number]
        attempt, given_name = about or (0, "")
        return number, given_name or name, attempt

    def report(self, fraction: float, text: str) -> None:
        call = self._current()
        if call is not None:
            self.send(("P", call[0], call[1], fraction, text))

    def subscribe(self, listener: Listener) -> None:
        del listener
        raise RuntimeError(
            "gridcore.events: they are about the calls of the whole program. Subscribe there, and"
            " not in one of its calls"
        )

    def unsubscribe(self, listener: Listener) -> None:
        """There is none."""

    def wait_for_note(self, listener: Listener) -> bool:
        return bool(listener)

    def shutdown(self) -> None:
        """The driver's affair."""

    # What goes out

    @property
    def _is_main(self) -> bool:
        return threading.current_thread() is threading.main_thread()

    def _new_numbers(self, num_returns: int | str) -> tuple[int, ...]:
        count = num_returns if isinstance(num_returns, int) else 1
        numbers = tuple(next(self._numbers) for _ in range(count))
        for number in numbers:
            self._counts[number] = 1
            self._reported.add(number)
        return numbers

    def _export(self, function: Exported) -> None:
        if function.id not in self._exported:
            self._exported.add(function.id)
            self._out.messages.append(("f", function.id, function.data, function.name))

    def send(self, message: Message) -> None:
        with self._interrupts.closed(), self._out_lock:
            self._out.messages.append(message)
            self.flush()

    def yielded(self, number: int, index: int, value: object, what: str) -> Packed:
        """One value of a call that yields."""
        with self._interrupts.closed():
            packed = pack(value, what)
            with self._out_lock:
                wire = self._out.wire(packed)
                self._out.messages.append(("y", number, index, wire, packed.refs))
                self.flush()
        return packed

    def room(self, number: int) -> tuple[int, int]:
        """Waits until a call that yields may send more: so many values, so many bytes; none if
        nobody wants them."""
        token = next(self._tokens)
        values, size = self._ask(token, ("z", token, number), False, None) or (0, 0)
        return values, size

    def room_later(self, number: int, callback: Callable[[Any], object]) -> None:
        """For a coroutine; the main thread of its actor reads what comes."""
        token = next(self._tokens)
        self._callbacks[token] = callback
        self.send(("z", token, number, False, False))

    def done(self, number: int, seconds: float, status: int, results: list[Packed]) -> None:
        with self._out_lock:
            if len(self._out.fds) + len(results) > MAX_FDS:
                self.flush()
            out = self._out
            wires = [out.wire(packed) for packed in results]
            refs = [packed.refs for packed in results] if any(p.refs for p in results) else None
            out.messages.append(("d", number, seconds, status, wires, refs))
            self.has_results = True
            if len(out.fds) >= MAX_FDS // 2:
                self.flush()

    def refuse(self, number: int) -> None:
        """A call that was cancelled before it began."""
        self.done(number, -1.0, 3, [])

    def give_back(self, numbers: list[int]) -> None:
        with self._out_lock:
            self._out.messages.append(("b", numbers))

    def flush(self) -> None:
        with self._out_lock:
            self.has_results = False
            if self._changes:
                self._count_references()
            out = self._out
            if not out.messages:
                return
            self._out = Outgoing()
            send_all(self._socket, out)

    def _count_references(self) -> None:
        """Holds go before all else in the frame: a call's result may be what releases its
        arguments. Releases go last."""
        touched = set()
        while self._changes:
            number, change = self._changes.popleft()
            self._counts[number] = self._counts.get(number, 0) + change
            touched.add(number)
        held, released = [], []
        for number in touched:
            if self._counts[number] > 0:
                if number not in self._reported:
                    self._reported.add(number)
                    held.append(number)
            else:
                del self._counts[number]
                if number in self._reported:
                    self._reported.discard(number)
                    released.append(number)
        if held:
            self._out.messages.insert(0, ("h", held))
        if released:
            self._out.messages.append(("r", released))

    # What comes in

    def read(self) -> None:
        """Waits until something came. For the main thread, between calls."""
        with self._turn:
            if self._has_taken:
                self._has_taken = False
                return
            if self._is_reading:  # a thread that a call has left behind
                self._turn.wait()
                return
            self._is_reading = True
        try:
            self._spinner.wait(self._look, None)
            self._receive(0)
        finally:
            with self._turn:
                self._is_reading = self._has_taken = False
                self._turn.notify_all()

    def _look(self, timeout: float | None) -> list[tuple[int, int]]:
        return self._poll.poll(None if timeout is None else timeout * 1000)

    def read_what_is_there(self) -> bool:
        """For another thread, while the main thread runs a call and leaves its calls unread. False
        if somebody reads already."""
        with self._turn:
            if self._is_reading:
                return False
            self._is_reading = True
        try:
            while self._poll.poll(0):
                self._receive(socket.MSG_DONTWAIT)
        except EOFError:
            pass  # the main thread reads it again
        finally:
            with self._turn:
                self._is_reading = False
                self._turn.notify_all()
        return True

    def _ask(
        self, token: int, message: Message, is_for_calls: bool, timeout: float | None
    ) -> list[Any] | None:
        """None if there is no answer in time."""
        is_main = self._is_main
        with self._interrupts.closed():
            with self._out_lock:
                # What waits behind this call may be what it waits for.
                if is_main:
                    self._main_waits.append(token)
                    self._nested[token] = deque()
                else:
                    self._thread_waits[token] = tuple(self._interrupts.stack)
                numbers = self._unstarted()
                if numbers:
                    self._out.messages.append(("b", numbers))
                self._out.messages.append((*message, is_main, is_for_calls))
                self.flush()
            answer: list[Any] | None = None
            try:
                answer = self._wait_for(token, timeout)
            finally:
                if answer is None:
                    self._forgotten.add(token)
                    self.send(("n", token))
                if is_main:
                    if token in self._main_waits:
                        self._main_waits.remove(token)
                    for nested, fds in self._nested.pop(token):
                        let_go(nested, fds)
                        self.give_back([nested[1]])
                else:
                    self._thread_waits.pop(token, None)
            return answer

    def _wait_for(self, token: int, timeout: float | None) -> Any:
        is_main = self._is_main
        deadline = None if timeout is None else time.monotonic() + timeout
        in_call = is_main and bool(self._interrupts.stack)
        while True:
            nested = self._nested.get(token)
            while nested and is_main:
                self.run_nested(*nested.popleft())
                self.flush()
            left = None if deadline is None else deadline - time.monotonic()
            with self._turn:
                if token in self._answers:
                    return self._answers.pop(token)
                if left is not None and left <= 0:
                    return None
                if self._is_reading:
                    if in_call:
                        self._interrupts.open(is_waiting=True)
                    self._turn.wait(left)
                    if in_call:
                        self._interrupts.close()
                    continue
                self._is_reading = True
            try:
                if in_call:
                    self._interrupts.open(is_waiting=True)
                ready = self._spinner.wait(self._look, None if left is None else max(0.0, left))
                if in_call:
                    self._interrupts.close()
                if ready:
                    self._receive(socket.MSG_DONTWAIT)
            finally:
                if in_call:
                    self._interrupts.close()
                with self._turn:
                    self._is_reading = False
                    self._turn.notify_all()

    def _receive(self, flags: int) -> None:
        for messages, fds in self._incoming.receive(flags):
            for message in messages:
                self._handle(message, fds)

    def _handle(self, message: Message, fds: list[int]) -> None:
        kind = message[0]
        if kind == "c":
            token = message[-1]
            if token is not None and token in self._nested:
                self._nested[token].append((message, fds))
            elif token is not None or self._main_waits or self._waits_in_thread():
                # It crossed with the word that this worker waits, or waits no more.
                let_go(message, fds)
                self.give_back([message[1]])
                self.flush()
            else:
                self._has_taken = True
                self._take(message, fds)
        elif kind in ("m", "a", "x"):
            self.is_actor = True
            self._has_taken = True
            self._take(message, fds)
        elif kind == "j":
            self._whereabouts = message[1:]
        elif kind == "f":
            self.functions[message[1]] = message[2]
        elif kind == "v":
            _, token, values, is_last = message
            part = self._parts[token]
            part += [(packed_from(wire, fds), is_error) for wire, is_error in values]
            if is_last:
                self._answer(token, self._parts.pop(token))
        elif kind == "o":
            self._answer(message[1], list(message[2:]))

    def _waits_in_thread(self) -> bool:
        """One that a call has started which is not over."""
        running = set(self._interrupts.stack)
        return any(not running.isdisjoint(calls) for calls in list(self._thread_waits.values()))

    def _answer(self, token: int, answer: list[Any]) -> None:
        if token in self._main_waits:
            self._main_waits.remove(token)
        if token in self._forgotten:
            self._forgotten.discard(token)
        elif token in self._callbacks:
            self._callbacks.pop(token)(answer)
        else:
            self._answers[token] = answer


_options: dict[Any, bytes] = {}


def _as_bytes(options: TaskOptions | CallOptions | ActorOptions) -> bytes:
    """What the driver must know of them; which exceptions are retried is with the function."""
    found = _options.get(options)
    if found is None:
        sent = options
        if isinstance(sent, TaskOptions):
            sent = dataclasses.replace(sent, retry_exceptions=repeats_timeouts(sent))
        found = _options[options] = pickle.dumps(sent, 5)
    return found
