"""Engines that the tests of this folder run against."""

from collections.abc import Callable, Iterator

import pytest

import gridcore


def _on_this_machine() -> None:
    gridcore.init(num_cpus=2)


ENGINES: dict[str, Callable[[], None]] = {"local": _on_this_machine}
"""Name -> how to start it with two workers."""


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Shared by a module, since a start takes longer than most tests."""
    ENGINES[request.param]()
    yield request.param
    gridcore.shutdown()
