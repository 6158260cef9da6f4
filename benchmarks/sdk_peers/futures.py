"""What systems with the interface of concurrent.futures have in common."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from benchmarks.sdk_peers.measure import CALLS, IDLE, MAP, System


class Futures(System):
    parts = (IDLE, CALLS, MAP)

    def __init__(self, make: Callable[[], Executor]) -> None:
        self._make = make

    def start(self) -> None:
        self._executor = self._make()

    def stop(self) -> None:
        self._executor.shutdown()

    def call(self, function: Callable[[int], Any]) -> Any:
        return self._executor.submit(function, 0).result()

    def in_flight(self, function: Callable[[int], Any], count: int) -> list[Any]:
        futures = [self._executor.submit(function, number) for number in range(count)]
        return [future.result() for future in futures]

    def map(self, function: Callable[[int], Any], count: int) -> None:
        for _ in self._executor.map(function, range(count), chunksize=1):
            pass
