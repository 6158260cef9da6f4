"""concurrent.futures.ProcessPoolExecutor: no retries, no actors, no values by reference."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from benchmarks.sdk_peers.futures import Futures
from benchmarks.sdk_peers.measure import WORKERS, run

if __name__ == "__main__":
    run(Futures(lambda: ProcessPoolExecutor(WORKERS)))
