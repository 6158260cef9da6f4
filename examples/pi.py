"""π by throwing darts at a square: how many of them hit the circle inside?

Shows `@gridcore.remote` and `.map`. Each call has a seed of its own, so the result is the same on
any number of machines.

    python examples/pi.py --darts 4000000 --time
"""

from __future__ import annotations

import argparse
import math
import random
import time
from itertools import repeat

import gridcore


@gridcore.remote
def hits(seed: int, darts: int) -> int:
    throw = random.Random(seed).random
    return sum(throw() ** 2 + throw() ** 2 < 1 for _ in range(darts))


def parallel(calls: int, darts: int) -> int:
    return sum(hits.map(range(calls), repeat(darts)))


def serial(calls: int, darts: int) -> int:
    return sum(hits.local(seed, darts) for seed in range(calls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--darts", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--time", action="store_true", help="compare with one process")
    chosen = parser.parse_args()
    gridcore.init()

    darts = chosen.darts // chosen.calls
    begun = time.perf_counter()
    inside = parallel(chosen.calls, darts)
    seconds = time.perf_counter() - begun

    estimate = 4 * inside / (darts * chosen.calls)
    print(f"{darts * chosen.calls:,} darts in {chosen.calls} calls, {inside:,} inside")
    print(f"π is about {estimate:.5f}, which is off by {abs(estimate - math.pi):.5f}")
    if chosen.time:
        begun = time.perf_counter()
        serial(chosen.calls, darts)
        print(f"{seconds:.2f} s, in one process {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()
