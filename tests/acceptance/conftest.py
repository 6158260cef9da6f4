"""A grid for the tests of the SDK, which this process is connected to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import gridcore
from tests.acceptance.sdk_programs import end_drivers
from tests.support.fixtures import require
from tests.support.grid import Grid
from tests.support.redis_server import unavailable_reason


@pytest.fixture
def grid() -> Iterator[Grid]:
    require(unavailable_reason())
    with Grid(slots=2, lease_time=3) as grid:
        gridcore.init(grid.hub.url, token=grid.token)
        try:
            yield grid
        finally:
            gridcore.shutdown()
            end_drivers()
