"""`import gridcore` on this machine: the local engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cloudpickle

import gridcore
from benchmarks.sdk_peers import measure
from benchmarks.sdk_peers.measure import WORKERS, Nothing, System, nothing, run, where, zeros

# A program's own functions travel by value; these are in a module that not all workers have.
cloudpickle.register_pickle_by_value(measure)

REMOTE: dict[Callable[[int], Any], gridcore.RemoteFunction[[int], Any]] = {
    nothing: gridcore.remote(nothing),
    where: gridcore.remote(where),
}
remote_zeros = gridcore.remote(zeros)
RemoteNothing = gridcore.remote(Nothing)


class Gridcore(System):
    def start(self) -> None:
        gridcore.init(num_cpus=WORKERS, local=True)

    def stop(self) -> None:
        gridcore.shutdown()

    def call(self, function: Callable[[int], Any]) -> Any:
        return gridcore.get(REMOTE[function].remote(0))

    def in_flight(self, function: Callable[[int], Any], count: int) -> list[Any]:
        made = REMOTE[function]
        return gridcore.get([made.remote(number) for number in range(count)])

    def map(self, function: Callable[[int], Any], count: int) -> None:
        for _ in REMOTE[function].map(range(count)):
            pass

    def make_actor(self) -> Any:
        return RemoteNothing.remote()

    def actor_call(self, actor: Any) -> None:
        gridcore.get(actor.nothing.remote(0))

    def actor_in_flight(self, actor: Any, count: int) -> None:
        gridcore.get([actor.nothing.remote(number) for number in range(count)])

    def put(self, value: Any) -> Any:
        return gridcore.put(value)

    def made_elsewhere(self, size: int) -> Any:
        reference = remote_zeros.remote(size)
        gridcore.wait([reference])
        return reference

    def get(self, reference: Any) -> Any:
        return gridcore.get(reference)


if __name__ == "__main__":
    run(Gridcore())
