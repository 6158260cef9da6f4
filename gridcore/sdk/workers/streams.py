"""A call that yields: its values go out one by one, and not far ahead of who takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridcore.sdk.workers.worker_engine import WorkerEngine

MOST_AHEAD = 100
"""Values that nobody has asked for yet: enough to hide the way there and back, and few to keep."""

MOST_BYTES_AHEAD = 64 * 1024 * 1024


class Producer:
    """Of one call. It starts with all the room that there is, and asks for more when that is
    used up."""

    def __init__(self, engine: WorkerEngine, number: int, had: int, name: str) -> None:
        """`had`: values that the driver has from an attempt before this one."""
        self._engine = engine
        self._number = number
        self._had = had
        self._what = f"a value of {name}"
        self._room = (MOST_AHEAD, MOST_BYTES_AHEAD)
        self.count = 0
        self.is_unwanted = False
        """It ends where it next yields."""

    def drain(self, values: Iterable[Any]) -> int:
        """How many there were. The user's code runs here."""
        source = iter(self._checked(values))
        try:
            for value in source:
                if self._takes(value):
                    self._got_room(self._engine.room(self._number))
                del value
                if self.is_unwanted:
                    break
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        return self.count

    async def drain_async(self, values: Any) -> int:
        if hasattr(values, "__aiter__"):
            source = aiter(values)
        else:
            source = _one_by_one(self._checked(values))
        try:
            async for value in source:
                if self._takes(value):
                    self._got_room(await self._room_later())
                del value
                if self.is_unwanted:
                    break
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        return self.count

    def _checked(self, values: Any) -> Iterable[Any]:
        if not hasattr(values, "__iter__"):
            raise TypeError(
                f"a call with num_returns='streaming' returned {type(values).__name__}: yield its"
                " values, or return what can be iterated"
            )
        return values  # type: ignore[no-any-return]

    def _takes(self, value: object) -> bool:
        """Whether there is no more room after it."""
        self.count += 1
        if self.count <= self._had or self.is_unwanted:
            return False
        packed = self._engine.yielded(self._number, self.count - 1, value, self._what)
        values, size = self._room
        self._room = values - 1, size - packed.size
        return min(self._room) <= 0

    def _got_room(self, room: tuple[int, int]) -> None:
        self._room = room
        if room[0] <= 0:
            self.is_unwanted = True

    async def _room_later(self) -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[int, int]] = loop.create_future()

        def settle(values: int, size: int) -> None:
            if not answer.done():
                answer.set_result((values, size))

        self._engine.room_later(self._number, lambda room: loop.call_soon_threadsafe(settle, *room))
        return await answer


async def _one_by_one(values: Iterable[Any]) -> Any:
    for value in values:
        yield value
