"""Engines that the tests of this folder run against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

import gridcore
from tests.support.fixtures import require
from tests.support.grid import Grid
from tests.support.redis_server import unavailable_reason


@contextmanager
def _on_this_machine() -> Iterator[None]:
    gridcore.init(num_cpus=2, local=True)
    yield


@contextmanager
def _on_a_grid() -> Iterator[None]:
    require(unavailable_reason())
    with Grid(slots=2) as grid:
        gridcore.init(grid.hub.url, token=grid.token)
        yield


ENGINES: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "local": _on_this_machine,
    "grid": _on_a_grid,
}
"""Name -> starts it with two workers."""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Shared by a module, since a start takes longer than most tests."""
    with ENGINES[request.param]():
        yield request.param
        gridcore.shutdown()
