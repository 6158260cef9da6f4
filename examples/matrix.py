"""The product of two matrices, block by block.

Shows `gridcore.put`: the first matrix is cut into bands of rows, the second into bands of columns,
and each band is stored once and used by many calls. Needs numpy.

    OMP_NUM_THREADS=1 python examples/matrix.py --size 4000 --time
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray

import gridcore

Matrix = NDArray[np.float64]


@gridcore.remote
def multiply(rows: Matrix, columns: Matrix) -> Matrix:
    return rows @ columns


def parallel(a: Matrix, b: Matrix, bands: int) -> Matrix:
    """As an argument a reference becomes its value, so the calls are written as without a grid."""
    # Only an array without gaps is shared by the calls of a machine: others are copied for each.
    gapless = map(np.ascontiguousarray, np.array_split(b, bands, axis=1))
    columns: list[gridcore.ObjectRef[Matrix]] = []
    blocks: list[list[gridcore.ObjectRef[Matrix]]] = []
    # Each band is stored when it is first needed: calls run while the next ones are.
    for row in map(gridcore.put, np.array_split(a, bands)):
        blocks.append([])
        for place in range(bands):
            if place == len(columns):
                columns.append(gridcore.put(next(gapless)))
            blocks[-1].append(multiply.remote(row, columns[place]))
    product = np.empty((len(a), b.shape[1]))
    for line, part in zip(blocks, np.array_split(product, bands), strict=True):
        np.concatenate(gridcore.get(line), axis=1, out=part)
    return product


def whole_numbers(size: int, seed: int) -> Matrix:
    """Their products are exact, in whatever order they are summed up."""
    return np.random.default_rng(seed).integers(0, 10, (size, size)).astype(np.float64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--bands", type=int, default=4, help="there are bands x bands calls")
    parser.add_argument("--time", action="store_true", help="compare with one process")
    chosen = parser.parse_args()
    gridcore.init()

    a, b = whole_numbers(chosen.size, seed=1), whole_numbers(chosen.size, seed=2)
    begun = time.perf_counter()
    product = parallel(a, b, chosen.bands)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    expected = a @ b
    serial_seconds = time.perf_counter() - begun

    print(f"{chosen.size} x {chosen.size}, {chosen.bands**2} blocks, trace {product.trace():,.0f}")
    print("the same as numpy's:", np.array_equal(product, expected))
    if chosen.time:
        print(f"{seconds:.2f} s, in one process {serial_seconds:.2f} s")


if __name__ == "__main__":
    main()
