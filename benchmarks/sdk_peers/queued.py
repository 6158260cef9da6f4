"""A million calls that wait for two workers: what does the driver take, and how fast do they go?

dropped   submitted by a loop that keeps no reference
kept      submitted first, with every reference kept, then all results are got
"""

from __future__ import annotations

import json
import sys
import time

import gridcore
from benchmarks.sdk_peers import descendants
from benchmarks.sdk_peers.measure import WORKERS, Figures, nothing

EARLY_SHARE = 0.1
LAST = 100

remote_nothing = gridcore.remote(nothing)


def _dropped(calls: int, figures: Figures) -> None:
    before, begun = _base(), time.perf_counter()
    for number in range(calls - LAST):
        remote_nothing.remote(number)
        if number == int(calls * EARLY_SHARE):
            figures["early peak"] = [descendants.peak_mb() - before]
    gridcore.get([remote_nothing.remote(number) for number in range(LAST)])
    figures["dropped, rate"] = [calls / (time.perf_counter() - begun)]
    figures["dropped, peak"] = [descendants.peak_mb() - before]


def _kept(calls: int, figures: Figures) -> None:
    before, begun = _base(), time.perf_counter()
    references = [remote_nothing.remote(number) for number in range(calls)]
    gridcore.get(references)
    figures["kept, rate"] = [calls / (time.perf_counter() - begun)]
    figures["kept, peak"] = [descendants.peak_mb() - before]


def _base() -> float:
    descendants.forget_peak()
    return descendants.peak_mb()


def main() -> None:
    calls = int(sys.argv[1])
    figures: Figures = {}
    gridcore.init(num_cpus=WORKERS, local=True)
    gridcore.get([remote_nothing.remote(number) for number in range(LAST)])
    _dropped(calls, figures)
    _kept(calls, figures)
    gridcore.shutdown()
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
