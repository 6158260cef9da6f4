"""`Queue`: items handed from process to process, on whichever machines they are."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any, Generic, TypeVar, Unpack

from gridcore.sdk.actors import ActorHandle, actor_class, kill
from gridcore.sdk.collecting import get
from gridcore.sdk.options import ActorClassOptions
from gridcore.sdk.refs import ObjectRef

T = TypeVar("T")

MOST_WAITING = 10_000
"""Processes that wait in one queue at a time; each is a coroutine of the actor."""


class Queue(Generic[T]):
    """A queue with the interface of the standard library's, for any number of processes.

    It can be passed to calls, and raises `queue.Full` and `queue.Empty`. The items are with an
    actor, which ends with the last Queue that refers to it; `options` are those of actors. An item
    goes to one process, and is lost with that one.
    """

    def __init__(self, maxsize: int = 0, **options: Unpack[ActorClassOptions]) -> None:
        self.maxsize = maxsize
        """How many items it holds; 0 is without a limit."""
        options.setdefault("max_concurrency", MOST_WAITING)
        self._actor: ActorHandle[_Items] = actor_class(_Items, options).remote(maxsize)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Adds an item. Waits for room, for `timeout` seconds or as long as it takes."""
        # In a tuple, since an ObjectRef that is put is to come out again as one.
        if not self._ask("put", (item,), _patience(block, timeout)):
            raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Takes the oldest item. Waits for one, for `timeout` seconds or as long as it takes."""
        found: tuple[T] | None = self._ask("get", _patience(block, timeout))
        if found is None:
            raise queue.Empty
        return found[0]

    def put_nowait(self, item: T) -> None:
        self.put(item, block=False)

    def get_nowait(self) -> T:
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[T]) -> None:
        """Adds all items, or none and raises `queue.Full`."""
        if not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch: {items!r} is no iterable of items")
        batch = list(items)
        if not self._ask("put_batch", batch):
            raise queue.Full(f"no room for {len(batch)} items in a queue of {self.maxsize}")

    def get_nowait_batch(self, num_items: int) -> list[T]:
        """Takes so many items, or none and raises `queue.Empty`."""
        if not isinstance(num_items, int):
            raise TypeError(f"get_nowait_batch: num_items={num_items!r} is not a whole number")
        if num_items < 0:
            raise ValueError(f"get_nowait_batch: num_items={num_items!r} must be 0 or more")
        found: list[T] | None = self._ask("get_batch", num_items)
        if found is None:
            raise queue.Empty(f"there are fewer than {num_items} items")
        return found

    def qsize(self) -> int:
        """How many items it has; it may be another number by the time that it is here."""
        size: int = self._ask("size")
        return size

    __len__ = qsize

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return 0 < self.maxsize <= self.qsize()

    def shutdown(self) -> None:
        """Ends it and drops its items. Who uses it or waits in it gets ActorDied."""
        kill(self._actor)

    def _ask(self, method: str, *args: Any) -> Any:
        ref: ObjectRef[Any] = getattr(self._actor, method).remote(*args)
        try:
            return get(ref)
        except BaseException:
            ref.cancel()  # who was interrupted is not to take an item, or to add one
            raise


class _Items:
    """The actor. What cannot be done is an answer and not an exception, which would come with a
    traceback from here."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def put(self, item: tuple[Any], timeout: float | None) -> bool:
        if not self._items.full():
            self._items.put_nowait(item[0])
            return True
        if timeout == 0:
            return False
        try:
            async with asyncio.timeout(timeout):
                await self._items.put(item[0])
        except TimeoutError:
            return False
        return True

    async def get(self, timeout: float | None) -> tuple[Any] | None:
        if not self._items.empty():
            return (self._items.get_nowait(),)
        if timeout == 0:
            return None
        try:
            async with asyncio.timeout(timeout):
                return (await self._items.get(),)
        except TimeoutError:
            return None

    async def put_batch(self, items: list[Any]) -> bool:
        if 0 < self._maxsize < self._items.qsize() + len(items):
            return False
        for item in items:
            self._items.put_nowait(item)
        return True

    async def get_batch(self, count: int) -> list[Any] | None:
        if count > self._items.qsize():
            return None
        return [self._items.get_nowait() for _ in range(count)]

    async def size(self) -> int:
        return self._items.qsize()


def _patience(block: bool, timeout: float | None) -> float | None:
    if not block:
        return 0
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout={timeout!r} must be 0 or more, or None for as long as it takes")
    return timeout
