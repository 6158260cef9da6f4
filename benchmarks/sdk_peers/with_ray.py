"""Ray at its defaults, without a dashboard, and without telling anybody that it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

import ray  # type: ignore[import-not-found]

from benchmarks.sdk_peers.measure import (
    ACTORS,
    CALLS,
    IDLE,
    LARGE_VALUES,
    WORKERS,
    Nothing,
    System,
    run,
    zeros,
)

remote = functools.cache(ray.remote)


class Ray(System):
    parts = (IDLE, CALLS, ACTORS, LARGE_VALUES)

    def start(self) -> None:
        # Its sockets are in there, whose paths must be short.
        self._folder = TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        ray.init(
            num_cpus=WORKERS,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=self._folder.name,
        )

    def stop(self) -> None:
        ray.shutdown()
        self._folder.cleanup()

    def call(self, function: Callable[[int], Any]) -> Any:
        return ray.get(remote(function).remote(0))

    def in_flight(self, function: Callable[[int], Any], count: int) -> list[Any]:
        made = remote(function)
        results: list[Any] = ray.get([made.remote(number) for number in range(count)])
        return results

    def make_actor(self) -> Any:
        return remote(Nothing).remote()

    def actor_call(self, actor: Any) -> None:
        ray.get(actor.nothing.remote(0))

    def actor_in_flight(self, actor: Any, count: int) -> None:
        ray.get([actor.nothing.remote(number) for number in range(count)])

    def put(self, value: Any) -> Any:
        return ray.put(value)

    def made_elsewhere(self, size: int) -> Any:
        reference = remote(zeros).remote(size)
        ray.wait([reference])
        return reference

    def get(self, reference: Any) -> Any:
        return ray.get(reference)


if __name__ == "__main__":
    run(Ray())
