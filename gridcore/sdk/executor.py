"""`Executor`: functions run elsewhere, behind the interface of concurrent.futures.

A call is sent by the thread that submits it as long as fewer than the limit are open; the others
wait here. A collector thread takes results in and sends what waits. It asks the engine for the
oldest calls together, which costs a third of a callback for each call; those that outlast a tick
get a callback, so that nothing is polled while calls are long.

    waiting --> young --------------------> over
                  |                          ^
                  +--longer than TICK_S--> old
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, ParamSpec, TypeVar, Unpack

from gridcore.sdk import session
from gridcore.sdk.engine import Outcome
from gridcore.sdk.errors import GridError
from gridcore.sdk.functions import RemoteFunction, remote_function
from gridcore.sdk.mapping import MAX_IN_FLIGHT
from gridcore.sdk.options import FunctionOptions
from gridcore.sdk.refs import ObjectRef, engine_of, error_of, number_of, value_of

P = ParamSpec("P")
T = TypeVar("T")

TICK_S = 0.005

ASKED_AT_ONCE = 64
"""Calls end nearly in the order in which they began: those that are over are among the oldest."""

IDLE_S = 1.0
"""A collector without work stays so long: to start a thread for each call would be slow."""

LOOK_EVERY_S = 0.05
"""And looks so often whether the program ends, which waits for it."""

CHECK_EVERY_S = 1.0
"""How soon it is seen that the engine was shut down under calls that are old."""

MOST_KEPT = 64
"""Functions that are kept as they are sent; a program has few that it submits again and again."""


class GridFuture(concurrent.futures.Future[T]):
    """A future of the standard library that waits as `gridcore.get` does, and whose call can be
    cancelled while it runs."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self.executor = executor
        self.ref: ObjectRef[T] | None = None
        """Its call, while that is open."""

    def cancel(self) -> bool:
        """Its call does not start, or is interrupted. False if it is over."""
        if not super().cancel():
            return False
        ref = self.ref
        if ref is not None:
            ref.cancel()
        return True

    def result(self, timeout: float | None = None) -> T:
        left = self.executor.wait_for(self, timeout)
        try:
            return super().result(left)
        finally:
            # What it raises refers to this frame, and this object to what it raises.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self.executor.wait_for(self, timeout))


_Work = tuple[GridFuture[Any], RemoteFunction[..., Any], tuple[Any, ...], dict[str, Any]]


class Executor(concurrent.futures.Executor):
    """Runs functions elsewhere: `submit`, `map` and `shutdown` of the standard library.

    No more than `max_workers` calls are with the grid at a time; without it, as many as keep it
    busy. `options` are those of `@remote` functions. A function that is submitted again is used as
    it was. To cancel a future interrupts its call if that runs. Inside of calls wait with `result`,
    `map` or `shutdown`, which let other calls have this one's core: `concurrent.futures.wait`
    does not.
    """

    def __init__(self, max_workers: int | None = None, **options: Unpack[FunctionOptions]) -> None:
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if options.get("num_returns", 1) != 1:
            raise ValueError(
                f"num_returns={options['num_returns']!r}: a future has one result. Return a tuple"
            )
        self._max_workers = max_workers
        self._most_open = max_workers or MAX_IN_FLIGHT
        self._options = options
        self._caller: RemoteFunction[..., Any] = remote_function(_call, options)
        self._callers: dict[str, RemoteFunction[..., Any]] = {}
        self._kept: dict[types.FunctionType, RemoteFunction[..., Any]] = {}
        self._seen: weakref.WeakSet[types.FunctionType] = weakref.WeakSet()
        self._changed = threading.Condition()
        self._waiting: deque[_Work] = deque()
        self._young: dict[ObjectRef[Any], GridFuture[Any]] = {}
        self._old: dict[ObjectRef[Any], GridFuture[Any]] = {}
        self._over: deque[ObjectRef[Any]] = deque()
        """The old ones that have been called back."""
        self._open = 0
        """Those with the grid, on their way there, or on their way out of it."""
        self._is_shut = False
        self._collector: threading.Thread | None = None

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """A future of `fn(*args, **kwargs)`. What cannot be sent is the future's exception."""
        function = self._as_sent(fn)
        if function is None:
            return self._submit(self._caller_of(fn), (fn, *args), kwargs)
        return self._submit(function, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Results in the order of the items, which are all submitted at once, or as results are
        taken if there is a `buffersize`. One call runs `chunksize` items."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else time.monotonic() + timeout
        items = zip(*iterables)  # noqa: B905 - as `map` does
        if chunksize == 1:
            call = self._fixed(fn)
            return _results((call(*given) for given in items), deadline, buffersize)
        chunks = iter(lambda: list(islice(items, chunksize)), [])
        call_each = self._fixed(_call_each)
        return chain.from_iterable(
            _results((call_each(fn, chunk) for chunk in chunks), deadline, buffersize)
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls are taken. `wait`: until all are over. `cancel_futures`: those that have
        not begun are cancelled; without `max_workers` all are, as nobody here knows which have."""
        dropped: list[GridFuture[Any]] = []
        sent: list[GridFuture[Any]] = []
        with self._changed:
            self._is_shut = True
            if cancel_futures:
                dropped = [work[0] for work in self._waiting]
                self._waiting.clear()
            if cancel_futures and not self._max_workers:
                sent = [*self._old.values(), *self._young.values()]
            self._changed.notify_all()
        for future in dropped:
            if future.cancel():
                future.set_running_or_notify_cancel()
        for future in reversed(sent):
            future.cancel()
        if wait:
            self._wait_for_all()

    def wait_for(self, future: GridFuture[Any], timeout: float | None) -> float | None:
        """Until it is done, or for so long; returns what is left of that.

        The waiting is the engine's: inside of a call it lets other calls have this one's core.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not future.done():
            ref = future.ref
            if ref is None:  # it waits here until another one is over
                with self._changed:
                    ref = next(chain(self._old, self._young), None)
            if ref is None or not _is_over(ref, _left(deadline)):
                break
            claimed = self._claim((ref,))
            if not claimed and ref is future.ref:
                break  # the collector is at it
            # To settle it here saves waking the collector, and being woken by it.
            self._settle(claimed)
        return _left(deadline)

    # What is sent

    def _as_sent(self, fn: Callable[..., Any]) -> RemoteFunction[..., Any] | None:
        """The function, if it is sent once for all its calls; None if it goes with each.

        What a closure, a method or any other object refers to may change between two calls. And
        workers keep what is sent once: a function that is made for a single call should not stay.
        """
        if type(fn) is not types.FunctionType or fn.__closure__ is not None:
            return None
        found = self._kept.get(fn)
        if found is None and fn in self._seen:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            found = self._kept[fn] = remote_function(fn, self._options)
        elif found is None:
            self._seen.add(fn)
        return found

    def _caller_of(self, fn: Callable[..., Any]) -> RemoteFunction[..., Any]:
        """What calls it there, by its name."""
        name = getattr(fn, "__qualname__", type(fn).__qualname__)
        found = self._callers.get(name)
        if found is None:
            if len(self._callers) >= MOST_KEPT:
                self._callers.clear()
            options: FunctionOptions = {"name": name, **self._options}
            found = self._callers[name] = self._caller.options(**options)
        return found

    def _fixed(self, fn: Callable[..., Any]) -> Callable[..., GridFuture[Any]]:
        """Submits calls of a function that stays the same for all of them."""
        if not isinstance(fn, types.FunctionType):
            caller = self._caller_of(fn)
            return lambda *args: self._submit(caller, (fn, *args), {})
        function = self._as_sent(fn) or remote_function(fn, self._options)
        return lambda *args: self._submit(function, args, {})

    def _submit(
        self, function: RemoteFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> GridFuture[Any]:
        future: GridFuture[Any] = GridFuture(self)
        with self._changed:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not threading.main_thread().is_alive():
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            if self._waiting or self._open >= self._most_open:
                self._waiting.append((future, function, args, kwargs))
                return future
            self._open += 1
        self._send(future, function, args, kwargs)
        return future

    def _send(
        self,
        future: GridFuture[Any],
        function: RemoteFunction[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        has_begun: bool = False,
    ) -> None:
        """`has_begun`: calls were made before, so the engine is there, or was shut down. A new one
        is not started behind the back of who did that."""
        try:
            if has_begun:
                session.require()
            ref = future.ref = function.remote(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the user's arguments may refuse in any way
            with self._changed:
                self._open -= 1
                self._changed.notify_all()
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return
        with self._changed:
            self._young[ref] = future
            if self._collector is None:
                self._collector = threading.Thread(target=self._collect, name="gridcore-executor")
                self._collector.start()
            else:
                self._changed.notify_all()
        if future.cancelled():
            ref.cancel()

    def _send_waiting(self) -> None:
        while self._waiting:
            with self._changed:
                if not self._waiting or self._open >= self._most_open:
                    return
                work = self._waiting.popleft()
                self._open += 1
            if work[0].cancelled():
                work[0].set_running_or_notify_cancel()
                with self._changed:
                    self._open -= 1
            else:
                self._send(*work, has_begun=True)

    # What comes back

    def _collect(self) -> None:
        while self._has_work():
            self._settle(self._taken_in())

    def _has_work(self) -> bool:
        """Waits for some; False if the collector is to end."""
        idle_since: float | None = None
        with self._changed:
            while not self._young and not self._over:
                if self._open:
                    if not self._changed.wait(CHECK_EVERY_S) and self._old:
                        self._check_engine()
                    continue
                now = time.monotonic()
                if idle_since is None:
                    idle_since = now
                is_late = now - idle_since > IDLE_S or not threading.main_thread().is_alive()
                if self._is_shut or is_late:
                    self._collector = None
                    return False
                self._changed.wait(LOOK_EVERY_S)
        return True

    def _check_engine(self) -> None:
        try:
            engine_of(next(iter(self._old)))
        except GridError:
            self._over.extend(self._old)

    def _taken_in(self) -> list[GridFuture[Any]]:
        with self._changed:
            young = list(islice(self._young, ASKED_AT_ONCE))
            over = self._claim(self._over)
            self._over.clear()
        ended = _ended(young, within_s=0 if over else TICK_S)
        if not ended and not over:
            self._make_old(young)
        return over + self._claim(ended)

    def _claim(self, refs: Iterable[ObjectRef[Any]]) -> list[GridFuture[Any]]:
        """Those that it is up to the caller to settle."""
        with self._changed:
            found = (self._young.pop(ref, None) or self._old.pop(ref, None) for ref in refs)
            return [future for future in found if future is not None]

    def _make_old(self, young: list[ObjectRef[Any]]) -> None:
        with self._changed:
            young = [ref for ref in young if ref in self._young]
            for ref in young:
                self._old[ref] = self._young.pop(ref)
        for ref in young:
            try:
                ref.add_done_callback(self._on_over)
            except GridError:  # the engine was shut down
                self._on_over(ref)

    def _on_over(self, ref: ObjectRef[Any]) -> None:
        with self._changed:
            self._over.append(ref)
            self._changed.notify_all()

    def _settle(self, futures: list[GridFuture[Any]]) -> None:
        refs = [future.ref for future in futures if future.ref is not None]
        outcomes: list[Outcome | GridError] = []
        if refs:
            try:
                outcomes += engine_of(refs[0]).get([number_of(ref) for ref in refs], None)
            except GridError as error:  # the engine was shut down
                outcomes += [error] * len(refs)
        with self._changed:
            self._open -= len(futures)
        self._send_waiting()  # first, as workers wait for it
        futures.reverse()
        for outcome in outcomes:
            # Out of the list: who has taken a result and dropped it is the last to have it.
            _finish(futures.pop(), outcome)

    # Waiting

    def _wait_for_all(self) -> None:
        while True:
            with self._changed:
                future = next(chain(self._old.values(), self._young.values()), None)
            if future is None:
                break
            self.wait_for(future, None)
            concurrent.futures.wait((future,))
        collector = self._collector
        if collector is not None and collector is not threading.current_thread():
            collector.join()


def _results(
    submitted: Iterator[GridFuture[Any]], deadline: float | None, buffersize: int | None
) -> Iterator[Any]:
    futures = deque(islice(submitted, buffersize))

    def results() -> Iterator[Any]:
        try:
            while futures:
                futures.extend(islice(submitted, 1))
                yield futures.popleft().result(_left(deadline))
        finally:
            for future in futures:
                future.cancel()

    return results()


def _ended(refs: list[ObjectRef[Any]], *, within_s: float) -> list[ObjectRef[Any]]:
    if not refs:
        return []
    try:
        over = engine_of(refs[0]).wait([number_of(ref) for ref in refs], 1, within_s)
    except GridError:
        return refs  # to settle them tells of it
    return [ref for ref in refs if number_of(ref) in over]


def _is_over(ref: ObjectRef[Any], within_s: float | None) -> bool:
    try:
        return bool(engine_of(ref).wait((number_of(ref),), 1, within_s))
    except GridError:
        return True  # to settle it tells of it


def _finish(future: GridFuture[Any], outcome: Outcome | GridError) -> None:
    future.ref = None
    if not future.set_running_or_notify_cancel():
        return
    try:
        error = error_of(outcome) if isinstance(outcome, Outcome) else outcome
        if error is None and isinstance(outcome, Outcome):
            future.set_result(value_of(outcome))
        else:
            future.set_exception(error)
    except Exception as refused:  # noqa: BLE001 - a stranger's class may not come back
        future.set_exception(refused)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _call(fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    return fn(*args, **kwargs)


def _call_each(fn: Callable[..., T], items: list[tuple[Any, ...]], /) -> list[T]:
    return [fn(*given) for given in items]
