"""How much faster do the examples run in parallel than in one process, and how well are cores used?

pi       darts in pure Python; a call gets two numbers and returns one
matrix   a product of 5000 x 5000, of which each call gets two bands and returns a block
image    a blur of a 4K picture in bands, every byte of which goes to a call and comes back

Serial in this process and parallel, in turn, round by round. Efficiency is serial time over workers
times parallel time, the median of the rounds. BLAS has one thread on both sides, as a call has one
core.

Bare processes say what the machine has to give: as many as there are workers, forked with all that
they need, each with its share, and nothing is sent back. Cores that share caches, memory and a host
are slower together than alone.
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import statistics
import time
from collections.abc import Callable

import cloudpickle

import gridcore
from benchmarks.report import Table, only_figures, print_machine

DARTS = 16_000_000
PI_CALLS = 64
SIZE = 5000
BANDS = 4
RADIUS = 16
ROWS = 180
AIM = 0.9


@only_figures()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--engine",
        choices=("local", "grid"),
        default="local",
        help="grid: the one that GRIDCORE_HUB and GRIDCORE_TOKEN name",
    )
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="cores of the engine"
    )
    chosen = parser.parse_args()
    if chosen.engine == "grid" and "GRIDCORE_HUB" not in os.environ:
        parser.error("--engine grid: GRIDCORE_HUB is not set")
    if chosen.engine == "local":
        os.environ.pop("GRIDCORE_HUB", None)
    # Read when numpy is imported, here and in workers, which inherit it.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    print_machine()
    _compare(chosen.engine, chosen.workers, chosen.rounds)


def _compare(engine: str, workers: int, rounds: int) -> None:
    table = Table(
        f"engine {engine}, {workers} workers, median of {rounds} rounds",
        "serial, s",
        "parallel, s",
        "speed-up",
        "efficiency",
        "least",
        "most",
        "of bare processes",
        "share of what they reach",
    )
    gridcore.init(num_cpus=workers if engine == "local" else None)
    for name, (serial, parallel, share) in _examples(workers).items():
        serial()
        parallel()
        bare = functools.partial(_in_bare_processes, share, workers)
        times = [(_seconds(serial), _seconds(parallel), _seconds(bare)) for _ in range(rounds)]
        ratios = [alone / together for alone, together, _ in times]
        efficiencies = [ratio / workers for ratio in ratios]
        of_bare = statistics.median(alone / bare / workers for alone, _, bare in times)
        table.add(
            name,
            *(f"{statistics.median(column):.2f}" for column in list(zip(*times, strict=True))[:2]),
            f"{statistics.median(ratios):.2f}",
            f"{statistics.median(efficiencies):.2f}",
            f"{min(efficiencies):.2f}",
            f"{max(efficiencies):.2f}",
            f"{of_bare:.2f}",
            f"{statistics.median(bare / together for _, together, bare in times):.2f}",
            aim=f"{AIM:g}",
        )
    gridcore.shutdown()
    table.print()


Example = tuple[Callable[[], object], Callable[[], object], Callable[[int], object]]
"""Serial, parallel, and the share of one of the workers."""


def _examples(workers: int) -> dict[str, Example]:
    import numpy as np  # late, as it must find the variables above

    from examples import image_filter, matrix, pi

    for module in (image_filter, matrix, pi):
        # A program's own functions travel by value; these are in modules that workers do not have.
        cloudpickle.register_pickle_by_value(module)
    a, b = matrix.whole_numbers(SIZE, seed=1), matrix.whole_numbers(SIZE, seed=2)
    picture = image_filter.generated(*image_filter.SIZES["4K"])
    rows = np.array_split(a, workers)
    bands = image_filter.bands_of(picture, -(-len(picture) // workers), RADIUS)
    return {
        f"pi, {DARTS:,} darts in {PI_CALLS} calls": (
            lambda: pi.serial(PI_CALLS, DARTS // PI_CALLS),
            lambda: pi.parallel(PI_CALLS, DARTS // PI_CALLS),
            lambda worker: [
                pi.hits.local(seed, DARTS // PI_CALLS) for seed in range(worker, PI_CALLS, workers)
            ],
        ),
        f"matrix, {SIZE} x {SIZE} in {BANDS * BANDS} blocks": (
            lambda: a @ b,
            lambda: matrix.parallel(a, b, BANDS),
            lambda worker: rows[worker] @ b,
        ),
        f"image, 4K, blur with radius {RADIUS}": (
            lambda: image_filter.serial(picture, "blur", RADIUS),
            lambda: image_filter.parallel(picture, "blur", ROWS, RADIUS),
            lambda worker: image_filter.filtered.local(bands[worker], "blur", RADIUS),
        ),
    }


def _in_bare_processes(share: Callable[[int], object], workers: int) -> None:
    pids = []
    for worker in range(workers):
        pid = os.fork()
        if pid == 0:
            try:
                share(worker)
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)


def _seconds(run: Callable[[], object]) -> float:
    gc.collect()
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
