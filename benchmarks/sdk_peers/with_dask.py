"""Dask distributed: a scheduler and worker processes on this machine, without a dashboard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import distributed  # type: ignore[import-not-found]

from benchmarks.sdk_peers.measure import WORKERS, Nothing, System, run, zeros


class Dask(System):
    def start(self) -> None:
        self._cluster = distributed.LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs=logging.ERROR,
        )
        self._client = distributed.Client(self._cluster)

    def stop(self) -> None:
        self._client.close()
        self._cluster.close()

    def call(self, function: Callable[[int], Any]) -> Any:
        return self._client.submit(function, 0, pure=False).result()

    def in_flight(self, function: Callable[[int], Any], count: int) -> list[Any]:
        futures = [self._client.submit(function, number, pure=False) for number in range(count)]
        results: list[Any] = self._client.gather(futures)
        return results

    def map(self, function: Callable[[int], Any], count: int) -> None:
        self._client.gather(self._client.map(function, range(count), pure=False))

    def make_actor(self) -> Any:
        return self._client.submit(Nothing, actor=True).result()

    def actor_call(self, actor: Any) -> None:
        actor.nothing(0).result()

    def actor_in_flight(self, actor: Any, count: int) -> None:
        for result in [actor.nothing(number) for number in range(count)]:
            result.result()

    def put(self, value: Any) -> Any:
        return self._client.scatter(value, hash=False)

    def made_elsewhere(self, size: int) -> Any:
        future = self._client.submit(zeros, size, pure=False)
        distributed.wait([future])
        return future

    def get(self, reference: Any) -> Any:
        return reference.result()


if __name__ == "__main__":
    run(Dask())
