"""A search for hyper-parameters that ends as soon as one set is good enough.

Shows `as_completed`, which gives results as they come, and `cancel`: what is not needed any more is
not started, or ends in the midst of it, and its core is free for something else.

    python examples/search.py --goal 0.001
"""

from __future__ import annotations

import argparse
import math
from itertools import product

import gridcore

DEGREES = (1, 3, 5, 7)
RATES = (1.0, 0.3, 0.1, 0.03, 0.01)
POINTS = [(x / 10, math.sin(3 * x / 10)) for x in range(-10, 11)]


@gridcore.remote
def train(degree: int, rate: float, goal: float, most_rounds: int) -> tuple[int, float]:
    """Fits a polynomial by gradient descent. The rounds that it took, and the error at the end."""
    weights = [0.0] * (degree + 1)
    speed = [0.0] * (degree + 1)
    error = math.inf
    for done in range(most_rounds):
        gradient = [0.0] * (degree + 1)
        error = 0.0
        for x, y in POINTS:
            powers = [x**power for power in range(degree + 1)]
            off = sum(w * p for w, p in zip(weights, powers, strict=True)) - y
            error += off * off / len(POINTS)
            gradient = [g + off * p / len(POINTS) for g, p in zip(gradient, powers, strict=True)]
        if error < goal:
            return done, error
        speed = [0.9 * s - rate * g for s, g in zip(speed, gradient, strict=True)]
        weights = [w + s for w, s in zip(weights, speed, strict=True)]
    return most_rounds, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goal", type=float, default=0.0001, help="the error that is good enough")
    parser.add_argument("--rounds", type=int, default=800, help="after which a set has failed")
    chosen = parser.parse_args()
    gridcore.init()

    candidates = {
        train.remote(degree, rate, chosen.goal, chosen.rounds): (degree, rate)
        for degree, rate in product(DEGREES, RATES)
    }
    print(f"{len(candidates)} sets of parameters, an error below {chosen.goal:g} is good enough")
    for ref, (rounds, error) in gridcore.as_completed(candidates, with_results=True):
        if error < chosen.goal:
            degree, rate = candidates.pop(ref)
            print(f"degree {degree} with rate {rate:g} gets there in {rounds} rounds")
            break
    else:
        print("none gets there")
        return
    for ref in candidates:
        gridcore.cancel(ref)
    ends = gridcore.gather(*candidates, return_exceptions=True)
    failed = [
        end for end in ends if isinstance(end, gridcore.TaskCancelled) or end[1] > chosen.goal
    ]
    print(f"the other {len(failed)} have failed or are cancelled")


if __name__ == "__main__":
    main()
