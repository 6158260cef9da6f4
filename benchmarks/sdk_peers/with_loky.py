"""loky's executor, which joblib uses; `map` is joblib.Parallel with a batch for each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import joblib
import loky  # type: ignore[import-not-found]

from benchmarks.sdk_peers.futures import Futures
from benchmarks.sdk_peers.measure import WORKERS, run


class Loky(Futures):
    def map(self, function: Callable[[int], Any], count: int) -> None:
        parallel = joblib.Parallel(WORKERS, backend="loky", batch_size=1, pre_dispatch="all")
        parallel(joblib.delayed(function)(number) for number in range(count))


if __name__ == "__main__":
    run(Loky(lambda: loky.get_reusable_executor(WORKERS, timeout=None)))
