"""A value that others can wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Watched(Generic[_T]):
    def __init__(self, value: _T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> _T:
        return self._value

    def set(self, value: _T) -> None:
        self._value = value
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_until(self, is_wanted: Callable[[_T], bool]) -> _T:
        while not is_wanted(self._value):
            await self._changed.wait()
        return self._value
