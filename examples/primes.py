"""All primes below a limit, found in ranges.

Shows calls that take different times (the later a range, the longer it takes): there are many more
of them than cores, and whoever is done takes the next. `is_prime` is no remote function, just one
that a remote function uses: it travels with it.

    python examples/primes.py --limit 2000000 --time
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise

import gridcore


def is_prime(number: int) -> bool:
    if number < 4:
        return number > 1
    return number % 2 == 1 and all(number % d for d in range(3, math.isqrt(number) + 1, 2))


@gridcore.remote
def primes_in(start: int, stop: int) -> list[int]:
    return [number for number in range(start, stop) if is_prime(number)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=200_000)
    parser.add_argument("--range", type=int, default=5_000, help="numbers for each call")
    parser.add_argument("--time", action="store_true", help="compare with one process")
    chosen = parser.parse_args()
    gridcore.init()

    starts = range(0, chosen.limit, chosen.range)
    stops = [min(start + chosen.range, chosen.limit) for start in starts]
    begun = time.perf_counter()
    primes = [prime for found in primes_in.map(starts, stops) for prime in found]
    seconds = time.perf_counter() - begun

    print(f"{len(primes):,} primes below {chosen.limit:,}, found in {len(starts)} ranges")
    print("the largest:", *primes[-5:])
    gap, before = max((b - a, a) for a, b in pairwise(primes))
    print(f"the widest gap: {gap}, after {before}")
    if chosen.time:
        begun = time.perf_counter()
        primes_in.local(0, chosen.limit)
        print(f"{seconds:.2f} s, in one process {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()
