"""The same program on a grid: a hub, a node with plain processes in its slots, Redis, all here.

A call is an item of a task: it goes through Redis and the node's gateway to a runner, with lease,
fence, attempts and dead letter. Memory and CPU are of all these programs together.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import gridcore
from benchmarks.sdk_peers.measure import WORKERS, run
from benchmarks.sdk_peers.with_gridcore import Gridcore
from tests.support.grid import Grid


class OnAGrid(Gridcore):
    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def start(self) -> None:
        gridcore.init(self._grid.hub.url, token=self._grid.token)


if __name__ == "__main__":
    with redirect_stdout(sys.stderr), Grid(slots=WORKERS) as running:
        run(OnAGrid(running))
