"""Squares of many numbers: one call for each.

Shows that `.map` is used as the built-in `map`: results come in order, items are taken as they are
needed, and any number of them may follow. A call costs some 50 microseconds here, far more than a
square does: give a call of your own a millisecond of work or more.

    python examples/squares.py --numbers 100000 --time
"""

from __future__ import annotations

import argparse
import time

import gridcore


@gridcore.remote
def square(number: int) -> int:
    return number * number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--numbers", type=int, default=2000)
    parser.add_argument("--time", action="store_true")
    chosen = parser.parse_args()
    gridcore.init()

    begun = time.perf_counter()
    squares = list(square.map(range(chosen.numbers)))
    seconds = time.perf_counter() - begun

    print("the first ones:", *squares[:10])
    print(f"the sum of all {len(squares):,}: {sum(squares):,}")
    n = chosen.numbers
    if sum(squares) != (n - 1) * n * (2 * n - 1) // 6:
        raise SystemExit("which is wrong")
    if chosen.time:
        print(f"{seconds:.2f} s, {len(squares) / seconds:,.0f} calls a second")


if __name__ == "__main__":
    main()
