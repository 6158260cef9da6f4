"""Running one call in a worker: its arguments, its function, its result or error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import inspect
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from gridcore.sdk.errors import GridError, NotPicklable, PayloadTooLarge, TaskError, describe
from gridcore.sdk.outcomes import ANY_ATTEMPT, DONE, FAILED, MAY_REPEAT, STOPPED, packed_error
from gridcore.sdk.packing import Packed, pack, unpack, unpack_bytes
from gridcore.sdk.workers import streams
from gridcore.sdk.workers.frames import MAX_FDS, Message, packed_from
from gridcore.sdk.workers.streams import Producer
from gridcore.sdk.workers.worker_engine import WorkerEngine, current_call

About = tuple[int, str] | None
"""Of a call: which attempt it is, and its name if its caller gave it one."""

ASYNC_CONCURRENCY = 1000

_OURS = (__file__, streams.__file__)

_OUR_FOLDER = str(Path(__file__).parents[1])

_CALLERS_OF_THEIRS = ("_in_main", "construct", "drain", "_call", "_call_each")
"""Here, in `streams` and in `executor`."""


class CallInterrupted(BaseException):
    """Raised in a call that is cancelled or took too long. Not an Exception: `except Exception` in
    the user's code must not swallow it."""


class Interrupts:
    """Which call of the main thread is to stop, and whether it may be interrupted just now.

    The signal's handler runs in the main thread between two of its instructions. It raises only
    while the user's code runs or waits: elsewhere half a message would be lost, or the reference to
    a call that was just made. So it may take several signals.
    """

    def __init__(self) -> None:
        self.stack: list[int] = []
        """The calls of the main thread, each on top of the one that waits for it."""
        self._asked: set[int] = set()
        self._is_open = False
        self._is_waiting = False

    def ask(self, number: int) -> bool:
        """False if no such call runs here."""
        if number not in self.stack:
            return False
        self._asked.add(number)
        return True

    @property
    def is_due(self) -> bool:
        """Another signal is wanted."""
        running = self.stack[-1:]
        return bool(running) and running[0] in self._asked

    def on_signal(self, _: int, frame: FrameType | None) -> None:
        if self._is_open and (self._is_waiting or not _is_ours(frame)):
            self._check()

    def _check(self) -> None:
        if self.stack and self.stack[-1] in self._asked:
            self._is_open = False
            self._asked.discard(self.stack[-1])
            raise CallInterrupted

    def open(self, *, is_waiting: bool = False) -> None:
        self._is_open, self._is_waiting = True, is_waiting
        if self._asked:
            self._check()

    def close(self) -> None:
        self._is_open = self._is_waiting = False

    def ended(self, number: int) -> None:
        self._is_open = False
        self.stack.pop()
        self._asked.discard(number)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Around what must not be cut in two; in other threads it changes nothing."""
        if not self._is_open or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._is_open = False
        try:
            yield
        finally:
            self._is_open = True


def _is_ours(frame: FrameType | None) -> bool:
    """Where it runs what the user wrote in C, there is no other frame."""
    if frame is None or frame.f_code.co_name in _CALLERS_OF_THEIRS:
        return False
    return frame.f_code.co_filename.startswith(_OUR_FOLDER)


def _attempt_of(about: About) -> int:
    return about[0] if about is not None else 0


class Runner:
    def __init__(self, engine: WorkerEngine, interrupts: Interrupts) -> None:
        self._engine = engine
        self._interrupts = interrupts
        self._functions: dict[bytes, Any] = {}
        self._seconds: dict[bytes, float] = {}
        self._actor: Any = None
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate: asyncio.Semaphore | None = None
        self.unwanted: dict[int, int] = {}
        """Those that were cancelled, for when they begin; which attempt of them, or ANY_ATTEMPT."""
        self._attempts: dict[int, int] = {}
        """Of those of the main thread."""
        self._beside: set[int] = set()
        """Methods that are, or will be, in threads or coroutines."""
        self._in_threads: dict[int, int] = {}
        self._threads_lock = threading.Lock()
        """A thread is only interrupted while it is at the call."""
        self._coroutines: dict[int, asyncio.Task[None]] = {}
        """In the loop's thread only."""
        self._producers: dict[int, Producer] = {}

    def is_short(self, message: Message, seconds: float) -> bool:
        name = message[2]
        known = self._seconds.get(name if isinstance(name, bytes) else name.encode())
        return known is not None and known < seconds

    def run(self, message: Message, fds: list[int]) -> None:
        kind = message[0]
        if kind == "c":
            _, number, function, wire, places, values, num_returns, about, _ = message
            self._in_main(
                number,
                function,
                lambda: self._function(function),
                wire,
                places,
                values,
                num_returns,
                about,
                fds,
            )
        elif kind == "m":
            _, number, name, wire, places, values, num_returns, about = message
            self._method(number, name, wire, places, values, num_returns, about, fds)
        elif kind == "a":
            _, number, function, wire, places, values, concurrency = message
            self._create(number, function, wire, places, values, concurrency, fds)

    def stop(self, number: int, *, is_gentle: bool) -> bool:
        """A method that runs in a thread or as a coroutine, or a call that yields, where it next
        does so; False if there is none. For another thread than the main one."""
        producer = self._producers.get(number)
        if producer is not None and (is_gentle or number not in self._interrupts.stack):
            producer.is_unwanted = True
            if is_gentle:
                return True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._cancel_coroutine, number)
            return True
        with self._threads_lock:
            thread = self._in_threads.get(number)
            if thread is None:
                # In a thread, one that yields is not interrupted: half a message might be lost.
                return producer is not None and producer.is_unwanted
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread), ctypes.py_object(CallInterrupted)
            )
        return True

    def is_another(self, number: int, attempt: int) -> bool:
        """What runs is not the attempt that was to stop: that is over."""
        return attempt != ANY_ATTEMPT and self._attempts.get(number, attempt) != attempt

    def stop_in_turn(self, number: int, attempt: int) -> None:
        """Coroutines that are called after it find it stopped. For the main thread."""
        if number not in self._beside:
            self.unwanted.pop(number, None)  # it is over
        elif self._loop is not None:
            self.unwanted[number] = attempt
            self._loop.call_soon_threadsafe(self._cancel_coroutine, number)

    def _cancel_coroutine(self, number: int) -> None:
        coroutine = self._coroutines.get(number)
        if coroutine is not None:
            coroutine.cancel()

    def _is_unwanted(self, number: int, about: About) -> bool:
        """It was cancelled before it began. Asked when a cancellation would find it otherwise."""
        return self.unwanted.get(number) in (ANY_ATTEMPT, _attempt_of(about))

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    # Functions

    def _function(self, function: bytes) -> tuple[Callable[..., Any], Any]:
        found = self._functions.get(function)
        if found is None:
            found = self._functions[function] = unpack_bytes(self._engine.functions[function])
        return found  # type: ignore[no-any-return]

    def _in_main(
        self,
        number: int,
        function: bytes,
        find: Callable[[], tuple[Callable[..., Any], Any]],
        wire: Any,
        places: tuple[int | str, ...],
        values: list[Any],
        num_returns: int,
        about: About,
        fds: list[int],
    ) -> None:
        interrupts = self._interrupts
        self._attempts[number] = _attempt_of(about)
        interrupts.stack.append(number)
        if self._is_unwanted(number, about):
            self._ended(number)
            self._engine.refuse(number)
            for unused in (wire, *values):
                packed_from(unused, fds)
            return
        status, results, kinds, name = FAILED, [], False, "a call"
        begun = time.perf_counter()
        try:
            call, kinds = find()
            name = getattr(call, "__qualname__", "a call")
            self._engine.calls[number] = name, about
            args, kwargs = arguments_from(wire, places, values, fds)
            del wire, values
            interrupts.open()
            try:
                result = call(*args, **kwargs)
                if num_returns < 0:
                    result = self._producer(number, num_returns, name).drain(result)
            finally:
                interrupts.close()
                del args, kwargs
            seconds = time.perf_counter() - begun
            results = packed_results(result, num_returns, name)
            status = DONE
            del result
        except CallInterrupted:
            seconds = time.perf_counter() - begun
            status = STOPPED
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            seconds = time.perf_counter() - begun
            status, results = failed(error, name, kinds)
        self._ended(number)
        self._engine.calls.pop(number, None)
        if num_returns < 0:
            self._producers.pop(number, None)
        before = self._seconds.get(function, seconds)
        self._seconds[function] = seconds if seconds > before else before + 0.2 * (seconds - before)
        self._engine.done(number, seconds, status, results)

    def _ended(self, number: int) -> None:
        self._interrupts.ended(number)
        del self._attempts[number]
        self.unwanted.pop(number, None)

    def _producer(self, number: int, num_returns: int, name: str) -> Producer:
        producer = Producer(self._engine, number, -1 - num_returns, name)
        self._producers[number] = producer
        producer.is_unwanted = number in self.unwanted
        return producer

    # Actors

    def _create(
        self,
        number: int,
        function: bytes,
        wire: Any,
        places: tuple[int | str, ...],
        values: list[Any],
        concurrency: int | None,
        fds: list[int],
    ) -> None:
        def find() -> tuple[Callable[..., Any], Any]:
            kind, _ = self._function(function)
            is_async = any(
                inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
                for member in (getattr(kind, name, None) for name in dir(kind))
            )
            if is_async:
                self._start_loop(concurrency or ASYNC_CONCURRENCY)
            elif concurrency is not None and concurrency > 1:
                self._threads = concurrent.futures.ThreadPoolExecutor(concurrency)

            def construct(*args: Any, **kwargs: Any) -> None:
                self._actor = kind(*args, **kwargs)

            construct.__qualname__ = kind.__qualname__
            return construct, False

        self._in_main(number, function, find, wire, places, values, 0, None, fds)
        self._engine.flush()

    def _method(
        self,
        number: int,
        name: str,
        wire: Any,
        places: tuple[int | str, ...],
        values: list[Any],
        num_returns: int,
        about: About,
        fds: list[int],
    ) -> None:
        actor = self._actor
        if self._loop is None and self._threads is None:
            self._in_main(
                number,
                name.encode(),
                lambda: (getattr(actor, name), False),
                wire,
                places,
                values,
                num_returns,
                about,
                fds,
            )
            return
        try:
            method = getattr(actor, name)
            args, kwargs = arguments_from(wire, places, values, fds)
        except BaseException as error:  # noqa: BLE001 - the user's code, as above
            self._engine.done(number, 0.0, *failed(error, name, False))
            return
        self._beside.add(number)
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(
                self._coroutine(number, method, args, kwargs, num_returns, about), self._loop
            )
        else:
            assert self._threads is not None
            self._threads.submit(self._in_thread, number, method, args, kwargs, num_returns, about)

    def _in_thread(
        self, number: int, method: Any, args: Any, kwargs: Any, num_returns: int, about: About
    ) -> None:
        name = getattr(method, "__qualname__", "a method")
        self._engine.calls[number] = name, about
        current_call.set(number)
        begun = time.perf_counter()
        try:
            if num_returns < 0:
                result = self._producer(number, num_returns, name).drain(method(*args, **kwargs))
            else:
                self._in_threads[number] = threading.get_ident()
                try:
                    if self._is_unwanted(number, about):
                        raise CallInterrupted
                    result = method(*args, **kwargs)
                finally:
                    with self._threads_lock:
                        self._in_threads.pop(number, None)
            status, results = DONE, packed_results(result, num_returns, name)
        except CallInterrupted:
            status, results = STOPPED, []
        except BaseException as error:  # noqa: BLE001 - the user's code, as above
            status, results = failed(error, name, False)
        self._ended_beside(number, begun, status, results)

    async def _coroutine(
        self, number: int, method: Any, args: Any, kwargs: Any, num_returns: int, about: About
    ) -> None:
        name = getattr(method, "__qualname__", "a method")
        self._engine.calls[number] = name, about
        current_call.set(number)
        begun = time.perf_counter()
        task = asyncio.current_task()
        assert task is not None
        assert self._gate is not None
        self._coroutines[number] = task
        try:
            if self._is_unwanted(number, about):
                raise asyncio.CancelledError
            async with self._gate:
                result = method(*args, **kwargs)
                if inspect.isawaitable(result):
                    result = await result
                if num_returns < 0:
                    producer = self._producer(number, num_returns, name)
                    result = await producer.drain_async(result)
            status, results = DONE, packed_results(result, num_returns, name)
        except asyncio.CancelledError:
            status, results = STOPPED, []
        except BaseException as error:  # noqa: BLE001 - the user's code, as above
            status, results = failed(error, name, False)
        del self._coroutines[number]
        self._ended_beside(number, begun, status, results)

    def _ended_beside(self, number: int, begun: float, status: int, results: list[Packed]) -> None:
        """A method that ran in a thread or as a coroutine."""
        self._beside.discard(number)
        self.unwanted.pop(number, None)
        self._producers.pop(number, None)
        self._engine.calls.pop(number, None)
        self._engine.done(number, time.perf_counter() - begun, status, results)
        self._engine.flush()

    def _start_loop(self, concurrency: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._gate = asyncio.Semaphore(concurrency)
        threading.Thread(target=self._loop.run_forever, name="gridcore-actor", daemon=True).start()


def arguments_from(
    wire: Any, places: tuple[int | str, ...], values: list[Any], fds: list[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(wire, bytes) and not places:
        return unpack_bytes(wire)  # type: ignore[no-any-return]
    args, kwargs = unpack(packed_from(wire, fds))
    args = list(args)
    for place, value in zip(places, values, strict=True):
        if isinstance(place, int):
            args[place] = unpack(packed_from(value, fds))
        else:
            kwargs[place] = unpack(packed_from(value, fds))
    return tuple(args), kwargs


def packed_results(result: Any, num_returns: int, name: str) -> list[Packed]:
    what = f"the result of {name}"
    if num_returns == 1 or num_returns < 0:
        return [pack(result, what)]
    if num_returns == 0:
        return []
    try:
        parts = tuple(result)
    except TypeError:
        parts = ()
    if len(parts) != num_returns:
        raise ValueError(
            f"{name} has num_returns={num_returns} and returned"
            f" {len(parts) if parts else type(result).__name__}: return a tuple of that many"
        )
    packed = [pack(part, what) for part in parts]
    if sum(part.blob is not None for part in packed) > MAX_FDS:
        raise PayloadTooLarge(
            f"Sending the results of {name}",
            cause=f"more than {MAX_FDS} of them are large",
            next_step="Return them in a list, or yield them",
        )
    return packed


def failed(
    error: BaseException, name: str, kinds: bool | tuple[type[Exception], ...]
) -> tuple[int, list[Packed]]:
    """The status and the error as it travels."""
    may_repeat = isinstance(error, Exception) and (
        kinds is True or (isinstance(kinds, tuple) and _is_one_of(error, kinds))
    )
    if isinstance(error, NotPicklable | PayloadTooLarge):
        travels: GridError = error
        error.__cause__ = None
    else:
        tail = error.__traceback__
        # The first lines are ours, and say nothing to the user.
        while tail is not None and tail.tb_frame.f_code.co_filename in _OURS:
            tail = tail.tb_next
        text = "".join(traceback.format_exception(type(error), error, tail))
        summary = f"{name} raised {describe(error)}"
        travels = TaskError.of(error, remote_traceback=text, summary=summary)
        error.__traceback__ = None
    return (MAY_REPEAT if may_repeat else FAILED), [packed_error(travels)]


def _is_one_of(error: Exception, kinds: tuple[type[Exception], ...]) -> bool:
    return isinstance(error, kinds)
