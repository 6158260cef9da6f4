"""Watch calls while they run: how far all of them are, and what became of each.

Each call counts the primes of one slice and says after every piece how far it is. The program
subscribes to events, adds the pieces up, and prints a line for each quarter.

    python examples/events.py --below 1000000
"""

from __future__ import annotations

import argparse
import itertools

import gridcore


@gridcore.remote
def count_primes(begin: int, end: int, pieces: int) -> int:
    found = 0
    for piece in range(pieces):
        start = begin + (end - begin) * piece // pieces
        stop = begin + (end - begin) * (piece + 1) // pieces
        found += sum(is_prime(number) for number in range(start, stop))
        gridcore.report_progress((piece + 1) / pieces, f"up to {stop}")
    return found


def is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, int(number**0.5) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--below", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--pieces", type=int, default=5, help="of each call")
    chosen = parser.parse_args()
    gridcore.init()

    bounds = [chosen.below * number // chosen.calls for number in range(chosen.calls + 1)]
    pieces, done, ends = chosen.calls * chosen.pieces, 0, []
    with gridcore.events() as events:
        refs = [
            count_primes.remote(begin, end, chosen.pieces)
            for begin, end in itertools.pairwise(bounds)
        ]
        for event in events:
            if event.kind == "progress":
                done += 1
                if 4 * done // pieces > 4 * (done - 1) // pieces:
                    print(f"{done} of {pieces} pieces")
            elif event.kind in ("finished", "failed", "cancelled"):
                ends.append(event.kind)
                if len(ends) == len(refs):
                    break

    failed = len(ends) - ends.count("finished")
    print(f"{ends.count('finished')} calls finished, {failed or 'none'} failed")
    print(f"there are {sum(gridcore.get(refs))} primes below {chosen.below}")


if __name__ == "__main__":
    main()
