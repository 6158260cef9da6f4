"""The local engine through `gridcore.Executor`, the interface of concurrent.futures."""

from __future__ import annotations

from concurrent.futures import Executor

import gridcore
from benchmarks.sdk_peers.futures import Futures
from benchmarks.sdk_peers.measure import WORKERS, run


class GridcoreExecutor(Futures):
    def stop(self) -> None:
        super().stop()
        gridcore.shutdown()


def make() -> Executor:
    gridcore.init(num_cpus=WORKERS, local=True)
    return gridcore.Executor()


if __name__ == "__main__":
    run(GridcoreExecutor(make))
