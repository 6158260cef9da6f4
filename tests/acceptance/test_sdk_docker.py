"""The SDK's calls in real containers, which have nothing but Python and cloudpickle."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

import gridcore
from gridcore.sdk.grid.messages import PYTHON
from tests.support.docker_engine import DockerEngine
from tests.support.fixtures import require
from tests.support.images import Architecture, ArmPython, Busybox, sdk_image
from tests.support.programs import TOKEN, HubProgram, NodeProgram

WITHIN_S = 60.0
IMAGE = "gridcore-test/worker:1"


@pytest.fixture(scope="module")
def image(docker_engine: DockerEngine) -> Iterator[str]:
    made = subprocess.run(
        [sys.executable, "-m", "gridnode", "worker-image", IMAGE, "--package", "numpy"],
        env=os.environ | {"DOCKER_HOST": docker_engine.host},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(f"{IMAGE}: Python 3.")
    yield IMAGE
    with docker_engine.client() as client:
        client.remove_image(IMAGE, force=True)


@pytest.fixture
def grid(
    hub_for_containers: HubProgram, start_docker_node: Callable[..., NodeProgram], image: str
) -> Iterator[HubProgram]:
    start_docker_node("n", parallelism=2, container_memory=256)
    gridcore.init(hub_for_containers.url, token=TOKEN, image=image)
    try:
        yield hub_for_containers
    finally:
        gridcore.shutdown()


@gridcore.remote
def whereabouts() -> tuple[str, int, list[str]]:
    modules = [name for name in ("pydantic", "redis", "httpx") if _is_there(name)]
    return gridcore.get_runtime_context().node_id, os.getuid(), modules


def _is_there(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


@gridcore.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@pytest.fixture(scope="module")
def arm64_image(
    docker_engine: DockerEngine, busybox: Busybox, arm64: Architecture
) -> Iterator[str]:
    python = ArmPython(busybox.path(arm64).parent)
    require(python.unavailable_reason())
    if python.version() != PYTHON:
        pytest.skip(f"Debian's Python is {python.version()}, and this one is {PYTHON}")
    with docker_engine.client() as client:
        tag = sdk_image(client, python)
        yield tag
        client.remove_image(tag, force=True)


@pytest.fixture
def arm64_grid(
    hub_for_containers: HubProgram, start_docker_node: Callable[..., NodeProgram], arm64_image: str
) -> Iterator[None]:
    start_docker_node("pi", architecture="aarch64", parallelism=1)
    gridcore.init(hub_for_containers.url, token=TOKEN, image=arm64_image)
    try:
        yield
    finally:
        gridcore.shutdown()


def run_of(client: docker.APIClient, hub: HubProgram) -> list[str]:
    task = hub.get("/api/tasks")["current"]
    found = client.containers(filters={"label": [f"io.gridcore.task={task}"]})
    return [container["Id"] for container in found]


def test_calls_values_and_actors_work_in_containers(grid: HubProgram) -> None:
    import numpy as np

    @gridcore.remote
    def scaled(values: Any, by: float) -> Any:
        return values * by

    node, user, modules = gridcore.get(whereabouts.remote(), timeout=WITHIN_S)
    assert (node, user, modules) == ("n", 65534, [])
    array = gridcore.put(np.arange(1_000_000, dtype=float))
    results = gridcore.get([scaled.remote(array, n) for n in range(4)], timeout=WITHIN_S)
    assert [float(result.sum()) for result in results] == [n * 499_999_500_000.0 for n in range(4)]
    counter = Counter.remote()
    assert gridcore.get([counter.add.remote(n) for n in range(5)], timeout=WITHIN_S)[-1] == 10


@pytest.mark.usefixtures("arm64_grid")
def test_so_they_do_on_another_architecture() -> None:
    @gridcore.remote
    def machine(n: int, large: bytes) -> tuple[str, int, int]:
        return os.uname().machine, n, len(large)

    @gridcore.remote
    def nested(n: int) -> bytes:
        return bytes(gridcore.get(machine.remote(n, b"small"))[1])

    large = gridcore.put(bytes(1_000_000))
    refs = [machine.remote(n, large) for n in range(20)]  # type: ignore[arg-type]
    expected = [("aarch64", n, 1_000_000) for n in range(20)]
    assert gridcore.get(refs, timeout=WITHIN_S) == expected
    assert gridcore.get(nested.remote(300_000), timeout=WITHIN_S) == bytes(300_000)
    counter = Counter.remote()
    assert gridcore.get([counter.add.remote(n) for n in range(5)], timeout=WITHIN_S)[-1] == 10
    ref = machine.remote(-1, large)  # type: ignore[arg-type]
    assert gridcore.get(ref, timeout=WITHIN_S) == ("aarch64", -1, 1_000_000)


def test_a_container_that_is_killed_has_its_calls_done_again(
    grid: HubProgram, docker_client: docker.APIClient
) -> None:
    assert gridcore.get(whereabouts.remote(), timeout=WITHIN_S)[0] == "n"

    @gridcore.remote
    def square(n: int) -> int:
        return n * n

    refs = [square.remote(n) for n in range(3000)]
    for container in run_of(docker_client, grid):
        docker_client.kill(container)
    assert gridcore.get(refs, timeout=WITHIN_S) == [n * n for n in range(3000)]


def test_a_call_that_takes_more_memory_than_its_container_has_says_so(grid: HubProgram) -> None:
    @gridcore.remote(max_retries=0)
    def eat() -> int:
        return len(bytearray(b"x") * (1 << 30))

    with pytest.raises(gridcore.OutOfMemory, match="memory"):
        gridcore.get(eat.remote(), timeout=WITHIN_S)
    with pytest.raises(gridcore.GridError, match="largest container has 268,435,456 bytes"):
        gridcore.get(whereabouts.options(memory="1 GiB").remote(), timeout=WITHIN_S)
    assert gridcore.get(whereabouts.remote(), timeout=WITHIN_S)[0] == "n"
