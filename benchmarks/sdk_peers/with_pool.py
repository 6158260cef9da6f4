"""multiprocessing.Pool: who waits for the call of a worker that died waits for ever."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from benchmarks.sdk_peers.measure import CALLS, IDLE, MAP, WORKERS, System, run


class Pool(System):
    parts = (IDLE, CALLS, MAP)

    def start(self) -> None:
        self._pool = multiprocessing.Pool(WORKERS)

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def call(self, function: Callable[[int], Any]) -> Any:
        return self._pool.apply(function, (0,))

    def in_flight(self, function: Callable[[int], Any], count: int) -> list[Any]:
        results = [self._pool.apply_async(function, (number,)) for number in range(count)]
        return [result.get() for result in results]

    def map(self, function: Callable[[int], Any], count: int) -> None:
        self._pool.map(function, range(count), chunksize=1)


if __name__ == "__main__":
    run(Pool())
