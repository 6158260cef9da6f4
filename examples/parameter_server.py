"""A linear model trained by many, its weights kept by one.

Shows an actor between calls: it holds the weights, each call asks it for them, works out a gradient
on its own part of the data, and pushes that. A step is taken when all parts have pushed, so the
result does not depend on who is first. Needs numpy.

    python examples/parameter_server.py --parts 8 --rounds 60
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

import gridcore

Vector = NDArray[np.float64]

TRUTH = np.array([3.0, -2.0, 0.5, 1.5])


@gridcore.remote
class ParameterServer:
    def __init__(self, size: int, parts: int, rate: float) -> None:
        self._weights = np.zeros(size)
        self._gradients: dict[int, Vector] = {}
        self._parts = parts
        self._rate = rate

    def weights(self) -> Vector:
        return self._weights

    def push(self, part: int, gradient: Vector) -> None:
        self._gradients[part] = gradient
        if len(self._gradients) == self._parts:
            ordered = [self._gradients[part] for part in range(self._parts)]
            self._weights = self._weights - self._rate * np.mean(ordered, axis=0)
            self._gradients = {}


@gridcore.remote
def push_gradient(
    server: gridcore.ActorHandle[ParameterServer], part: int, inputs: Vector, targets: Vector
) -> float:
    """The mean squared error before this round."""
    off = inputs @ gridcore.get(server.weights.remote()) - targets
    gridcore.get(server.push.remote(part, 2 * inputs.T @ off / len(off)))
    return float(np.mean(off**2))


def data_of(part: int, rows: int) -> tuple[Vector, Vector]:
    """Whose targets are those of TRUTH, and a little noise."""
    chance = np.random.default_rng(part)
    inputs = chance.normal(size=(rows, len(TRUTH)))
    return inputs, inputs @ TRUTH + chance.normal(scale=0.1, size=rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--rows", type=int, default=20_000, help="of each part")
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    gridcore.init()

    parts = [
        (gridcore.put(inputs), gridcore.put(targets))
        for inputs, targets in (data_of(part, chosen.rows) for part in range(chosen.parts))
    ]
    server = ParameterServer.remote(len(TRUTH), chosen.parts, rate=0.2)
    for done in range(chosen.rounds):
        errors = gridcore.get(
            [
                push_gradient.remote(server, part, inputs, targets)
                for part, (inputs, targets) in enumerate(parts)
            ]
        )
        if done % 5 == 0:
            print(f"round {done:2}: error {np.mean(errors):.4f}")
    weights = gridcore.get(server.weights.remote())
    print("weights:", *(f"{weight:.2f}" for weight in weights))


if __name__ == "__main__":
    main()
