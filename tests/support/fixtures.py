"""The fixtures of the real parts: tests/conftest.py names this module in `pytest_plugins`.

What takes long to start is there once for all tests; Redis, which does not, is each test's own.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support import docker_engine as engines
from tests.support import emulation
from tests.support import redis_server as redis_servers
from tests.support import registry as registries
from tests.support.docker_engine import DockerEngine, EngineError
from tests.support.images import Architecture, Busybox, busybox_image, consumer_image
from tests.support.programs import NODES, HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.registry import FaultyRegistry, Registry
from tests.support.waiting import wait_until

CACHE = Path(__file__).parents[2] / ".cache" / "tests"
REDIS_PASSWORD = "between-containers-and-host"


def pytest_configure(config: pytest.Config) -> None:
    # docker-py does not close the socket with which it failed to reach an engine.
    never_connected = r"unclosed <socket\.socket fd=\d+, family=1, type=1, proto=0>"
    config.addinivalue_line("filterwarnings", f"ignore:{never_connected}:ResourceWarning")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(NODES, ignore_errors=True)


def require(missing: str | None) -> None:
    """Skips the test if something is missing, with that as the reason; with CI=true it fails."""
    if missing is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    require(engines.unavailable_reason())
    try:
        engine = DockerEngine()
    except EngineError as exc:
        require(str(exc))
        raise
    yield engine
    engine.close()


@pytest.fixture
def private_engine(docker_engine: DockerEngine) -> Iterator[DockerEngine]:
    """The engine of all tests, for a test that stops or kills it."""
    if not docker_engine.is_private:
        pytest.skip(f"the engine at {docker_engine.host} is not ours to stop")
    yield docker_engine
    if docker_engine.is_live_restoring:
        docker_engine.stop()
    docker_engine.start()


@pytest.fixture
def docker_client(docker_engine: DockerEngine) -> Iterator[docker.APIClient]:
    with docker_engine.client() as client:
        yield client


@pytest.fixture(scope="session")
def busybox() -> Busybox:
    folder = os.environ.get("GRIDCORE_TEST_CACHE")
    return Busybox(Path(folder) if folder else CACHE)


@pytest.fixture(scope="session")
def arm64(busybox: Busybox) -> Architecture:
    """Makes containers of this architecture run on this machine."""
    require(busybox.unavailable_reason("arm64") or emulation.unavailable_reason())
    emulation.enable_arm64()
    return "arm64"


@pytest.fixture(scope="session")
def busybox_tag(docker_engine: DockerEngine, busybox: Busybox) -> str:
    """A shell and its commands, for amd64."""
    require(busybox.unavailable_reason("amd64"))
    with docker_engine.client() as client:
        return busybox_image(client, busybox)


@pytest.fixture(scope="session")
def busybox_arm64_tag(docker_engine: DockerEngine, busybox: Busybox, arm64: Architecture) -> str:
    with docker_engine.client() as client:
        return busybox_image(client, busybox, architecture=arm64)


@pytest.fixture(scope="session")
def consumer_tag(docker_engine: DockerEngine, busybox: Busybox) -> str:
    """Drains the input queue, as consumer.sh says; for amd64."""
    require(busybox.unavailable_reason("amd64"))
    with docker_engine.client() as client:
        return consumer_image(client, busybox)


@pytest.fixture(scope="session")
def consumer_arm64_tag(docker_engine: DockerEngine, busybox: Busybox, arm64: Architecture) -> str:
    with docker_engine.client() as client:
        return consumer_image(client, busybox, architecture=arm64)


@pytest.fixture(scope="session")
def registry() -> Iterator[Registry]:
    require(registries.unavailable_reason())
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry() -> Iterator[Registry]:
    """One that wants a user and a password: its `auth_config`."""
    require(registries.unavailable_reason())
    with Registry(with_password=True) as registry:
        yield registry


@pytest.fixture
def faulty_registry(registry: Registry) -> Iterator[FaultyRegistry]:
    with FaultyRegistry(registry) as faulty:
        yield faulty


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    require(redis_servers.unavailable_reason())
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_for_containers(docker_engine: DockerEngine) -> Iterator[RedisServer]:
    """Has a password, and is reached by containers on the default bridge at
    `url_at(docker_engine.gateway)`."""
    require(redis_servers.unavailable_reason())
    with RedisServer(password=REDIS_PASSWORD, bind=("127.0.0.1", docker_engine.gateway)) as server:
        yield server


@pytest.fixture
def hub(redis_server: RedisServer) -> Iterator[HubProgram]:
    """A hub on a Redis of its own."""
    with HubProgram(redis_url=redis_server.url) as hub:
        yield hub


@pytest.fixture
def hub_for_containers(
    redis_for_containers: RedisServer, docker_engine: DockerEngine
) -> Iterator[HubProgram]:
    """Its tasks' Redis can be reached from containers, should they be allowed to."""
    with HubProgram(redis_url=redis_for_containers.url_at(docker_engine.gateway)) as hub:
        yield hub


@pytest.fixture
def start_docker_node(
    hub_for_containers: HubProgram, docker_engine: DockerEngine
) -> Iterator[Callable[..., NodeProgram]]:
    """Starts a node on the engine of the tests; all of them are stopped at the end."""
    hub = hub_for_containers
    with ExitStack() as nodes:

        def start(node_id: str = "n", **settings: Any) -> NodeProgram:
            environment = {"DOCKER_HOST": docker_engine.host} | settings.pop("environment", {})
            node = NodeProgram(hub.url, node_id=node_id, environment=environment, **settings)
            nodes.enter_context(node)
            wait_until(
                lambda: any(found["id"] == node_id for found in hub.nodes()),
                within_s=20,
                what=f"{node_id} is registered",
            )
            return node

        yield start
