"""`ActorPool`: work shared out among actors, each with one call at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gridcore.sdk.actors import ActorHandle
from gridcore.sdk.collecting import get, wait
from gridcore.sdk.errors import GetTimeout
from gridcore.sdk.refs import ObjectRef

Call = Callable[[Any, Any], ObjectRef[Any]]
"""Such as `lambda actor, value: actor.method.remote(value)`."""


class ActorPool:
    """Gives each free actor the next value.

    What is submitted while all are busy waits until `get_next` or another method that takes a
    result finds one free. Results are taken in order, or as they come, and not both in turn.
    """

    def __init__(self, actors: Iterable[ActorHandle[Any]]) -> None:
        self._idle: deque[ActorHandle[Any]] = deque()
        self._waiting: deque[tuple[Call, Any]] = deque()
        self._busy: dict[ObjectRef[Any], tuple[int, ActorHandle[Any]]] = {}
        self._refs: dict[int, ObjectRef[Any]] = {}
        """The busy actors' calls, by the order in which they were submitted."""
        self._submitted = 0
        self._next = 0
        for actor in actors:
            self.push(actor)

    def map(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The result of `fn(actor, value)` for each value, in their order.

        All is submitted at once. What was submitted before is waited for and dropped.
        """
        self._start(fn, values)
        return self._take_all(self.get_next)

    def map_unordered(self, fn: Call, values: Iterable[Any]) -> Iterator[Any]:
        """The same, as results come."""
        self._start(fn, values)
        return self._take_all(self.get_next_unordered)

    def submit(self, fn: Call, value: Any) -> None:
        """Calls `fn(actor, value)` with a free actor, now or later; `get_next` has its result."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.popleft()
        try:
            ref = fn(actor, value)
            if not isinstance(ref, ObjectRef):
                raise TypeError(
                    f"ActorPool: the function returned {type(ref).__name__} and no ObjectRef."
                    " Write lambda actor, value: actor.method.remote(value)"
                )
        except BaseException:
            self._idle.appendleft(actor)
            raise
        self._busy[ref] = self._submitted, actor
        self._refs[self._submitted] = ref
        self._submitted += 1

    def has_next(self) -> bool:
        """Whether there are results to take, now or later."""
        return bool(self._busy)

    def get_next(self, timeout: float | None = None) -> Any:
        """The next result in the order of `submit`; raises what its call raised, StopIteration if
        there is none, GetTimeout (a TimeoutError) if it is not there in time."""
        self._check_next()
        if self._next not in self._refs:
            raise ValueError("get_next after get_next_unordered: the order is lost by then")
        ref = self._refs[self._next]
        if timeout is not None and not wait([ref], timeout=timeout)[0]:
            raise _late("the next result", timeout)
        return self._take(ref)

    def get_next_unordered(self, timeout: float | None = None) -> Any:
        """Whichever result comes first; raises as `get_next` does."""
        self._check_next()
        over, _ = wait(list(self._busy), timeout=timeout)
        if not over:
            raise _late("any result", timeout or 0.0)
        return self._take(over[0])

    def has_free(self) -> bool:
        """Whether an actor has nothing to do."""
        return bool(self._idle) and not self._waiting

    def push(self, actor: ActorHandle[Any]) -> None:
        """One more actor; ValueError if it is in the pool already."""
        if actor in self._idle or any(actor == other for _, other in self._busy.values()):
            raise ValueError(f"{actor!r} belongs to this ActorPool already")
        self._release(actor)

    def pop_idle(self) -> ActorHandle[Any] | None:
        """Takes a free actor out of the pool; None if there is none."""
        return self._idle.popleft() if self.has_free() else None

    def _start(self, fn: Call, values: Iterable[Any]) -> None:
        self._waiting.clear()
        while self._busy:
            for ref in wait(list(self._busy), num_returns=len(self._busy))[0]:
                self._free(ref)
        for value in values:
            self.submit(fn, value)

    def _take_all(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _check_next(self) -> None:
        if not self.has_next():
            raise StopIteration("ActorPool: no more results to get")

    def _take(self, ref: ObjectRef[Any]) -> Any:
        wait([ref])
        self._free(ref)
        return get(ref)

    def _free(self, ref: ObjectRef[Any]) -> None:
        number, actor = self._busy.pop(ref)
        del self._refs[number]
        self._next = max(self._next, number + 1)
        self._release(actor)

    def _release(self, actor: ActorHandle[Any]) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())


def _late(what: str, timeout: float) -> GetTimeout:
    return GetTimeout(
        f"ActorPool: waiting for {what}",
        cause=f"not there after {timeout:g} s",
        next_step="The calls go on: ask again",
    )
