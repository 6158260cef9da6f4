import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.support.fixtures"]

ON_DOCKER = {
    "tests/acceptance/test_chaos_docker.py",
    "tests/acceptance/test_doctor.py",
    "tests/acceptance/test_isolation.py",
    "tests/acceptance/test_local_grid.py",
    "tests/acceptance/test_node_docker.py",
    "tests/acceptance/test_node_docker_leased.py",
    "tests/acceptance/test_older_peers.py",
    "tests/acceptance/test_sdk_docker.py",
    "tests/integration/test_engine_support.py",
    "tests/integration/test_image_pulls.py",
    "tests/integration/test_python_image.py",
}
"""What has a Docker engine: one process runs all of these, so that one engine is started, and a
test that stops it stops nobody else's containers."""


class _Scheduling(LoadScopeScheduling):
    """A file stays together, because of what its tests share; and so does all that has Docker."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "docker" if file in ON_DOCKER else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _Scheduling:
    return _Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        file = item.nodeid.split("::", 1)[0]
        if "docker_engine" in getattr(item, "fixturenames", ()) and file not in ON_DOCKER:
            message = f"{file} has a Docker engine, and is not in ON_DOCKER of tests/conftest.py"
            raise pytest.UsageError(message)
