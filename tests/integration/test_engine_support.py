"""The real parts that other tests stand on do what those tests take for granted."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import docker
import pytest
import redis
import requests
from docker.errors import APIError

from tests.support.docker_engine import LABELS, DockerEngine
from tests.support.images import Busybox, busybox_image, push_image
from tests.support.redis_server import RedisServer
from tests.support.registry import FaultyRegistry, Registry
from tests.support.waiting import wait_until, wait_until_async

PAYLOAD_BYTES = 3_000_000
"""Enough for a pull to show progress in the middle of it."""


@contextlib.contextmanager
def started(
    client: docker.APIClient,
    image: str,
    command: list[str] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    **limits: Any,
) -> Iterator[str]:
    container = client.create_container(
        image,
        command,
        environment=dict(environment or {}),
        host_config=client.create_host_config(init=True, **limits),
    )["Id"]
    try:
        client.start(container)
        yield container
    finally:
        client.remove_container(container, force=True, v=True)


def output_of(
    client: docker.APIClient,
    image: str,
    command: list[str] | None = None,
    **options: Any,
) -> tuple[int, str]:
    with started(client, image, command, **options) as container:
        code = client.wait(container, timeout=60)["StatusCode"]
        return code, client.logs(container).decode().strip()


def pull_errors(client: docker.APIClient, reference: str, **options: Any) -> list[str]:
    stream = client.pull(reference, stream=True, decode=True, **options)
    return [message["errorDetail"]["message"] for message in stream if "errorDetail" in message]


def is_running(client: docker.APIClient, container: str) -> bool:
    return bool(client.inspect_container(container)["State"]["Running"])


@pytest.fixture
def pushed(docker_client: docker.APIClient, busybox: Busybox, registry: Registry) -> str:
    tag = busybox_image(docker_client, busybox, payload_bytes=PAYLOAD_BYTES)
    return push_image(docker_client, tag, registry)


def test_the_engine_answers_with_its_version(docker_client: docker.APIClient) -> None:
    assert docker_client.version()["Os"] == "linux"


def test_the_exit_code_and_the_output_of_a_container_come_back(
    docker_client: docker.APIClient, busybox_tag: str
) -> None:
    assert output_of(docker_client, busybox_tag, ["sh", "-c", "echo hello; exit 3"]) == (3, "hello")


def test_containers_carry_the_labels_by_which_they_are_cleaned_up(
    docker_client: docker.APIClient, busybox_tag: str
) -> None:
    with started(docker_client, busybox_tag, ["sleep", "60"]) as container:
        labels = docker_client.inspect_container(container)["Config"]["Labels"]
    assert labels.items() >= LABELS.items()


def test_a_container_pinned_to_one_core_sees_one(
    docker_client: docker.APIClient, busybox_tag: str
) -> None:
    assert output_of(docker_client, busybox_tag, ["nproc"], cpuset_cpus="0") == (0, "1")


@pytest.mark.usefixtures("arm64")
def test_an_arm64_container_says_aarch64_and_sees_only_its_core(
    docker_client: docker.APIClient, busybox_arm64_tag: str
) -> None:
    command = ["sh", "-c", "uname -m; nproc"]
    done = output_of(docker_client, busybox_arm64_tag, command, cpuset_cpus="0")
    assert done == (0, "aarch64\n1")


def test_a_container_over_its_memory_limit_is_killed_and_marked(
    docker_client: docker.APIClient, busybox_tag: str
) -> None:
    # tail keeps what it has not printed: all of the endless line.
    command = ["tail", "-c", "200000000", "/dev/zero"]
    with started(
        docker_client, busybox_tag, command, mem_limit="16m", memswap_limit="16m"
    ) as container:
        code = docker_client.wait(container, timeout=60)["StatusCode"]
        state = docker_client.inspect_container(container)["State"]
    assert (code, state["OOMKilled"]) == (137, True)


def test_a_container_on_the_default_bridge_reaches_redis_on_the_host(
    docker_client: docker.APIClient,
    docker_engine: DockerEngine,
    redis_for_containers: RedisServer,
    busybox_tag: str,
) -> None:
    ask = f"printf 'AUTH %s\\r\\nPING\\r\\nQUIT\\r\\n' {redis_for_containers.password}"
    where = f"{docker_engine.gateway} {redis_for_containers.port}"
    done = output_of(docker_client, busybox_tag, ["sh", "-c", f"{ask} | nc {where}"])
    assert done == (0, "+OK\r\n+PONG\r\n+OK")


@pytest.mark.parametrize(
    ("image", "machine"),
    [("consumer_tag", "x86_64"), ("consumer_arm64_tag", "aarch64")],
)
def test_the_consumer_drains_a_queue_and_ends(
    request: pytest.FixtureRequest,
    docker_client: docker.APIClient,
    docker_engine: DockerEngine,
    redis_for_containers: RedisServer,
    image: str,
    machine: str,
) -> None:
    items = [f"item {number}" for number in range(50)]
    url = redis_for_containers.url_at(docker_engine.gateway)
    environment = {
        "INPUT_REDIS_URL": url,
        "INPUT_QUEUE": "in",
        "OUTPUT_REDIS_URL": url,
        "OUTPUT_QUEUE": "out",
    }
    with redis.Redis.from_url(redis_for_containers.url, decode_responses=True) as store:
        store.lpush("in", *items)
        done = output_of(
            docker_client,
            request.getfixturevalue(image),
            environment=environment,
            cpuset_cpus="0",
        )
        results = store.lrange("out", 0, -1)
        left = store.llen("in")
    assert (done, left) == ((0, ""), 0)
    assert sorted(results) == sorted(f"{item}:{machine}:1" for item in items)


def test_an_image_is_fetched_once_and_then_runs(
    docker_client: docker.APIClient, faulty_registry: FaultyRegistry, pushed: str
) -> None:
    reference = f"{faulty_registry.address}/{pushed}"
    assert pull_errors(docker_client, reference) == []
    assert output_of(docker_client, reference, ["echo", "pulled"]) == (0, "pulled")
    fetched = faulty_registry.pulls_of("blobs")
    assert pull_errors(docker_client, reference) == []
    assert (fetched, faulty_registry.pulls_of("blobs")) == (2, 2)


def test_a_lost_layer_shows_as_an_error_in_the_stream_of_the_pull(
    docker_client: docker.APIClient, faulty_registry: FaultyRegistry, pushed: str
) -> None:
    faulty_registry.lose_layers()
    reference = f"{faulty_registry.address}/{pushed}"
    assert pull_errors(docker_client, reference) == ["unknown blob"]


def test_a_pull_that_was_cut_each_time_fails_and_works_when_called_again(
    private_engine: DockerEngine,
    docker_client: docker.APIClient,
    faulty_registry: FaultyRegistry,
    pushed: str,
) -> None:
    assert private_engine.is_private, "another one may retry for minutes"
    faulty_registry.cut_layers(times=2)
    reference = f"{faulty_registry.address}/{pushed}"
    assert pull_errors(docker_client, reference) == ["unexpected EOF"]
    assert pull_errors(docker_client, reference) == []


def test_a_stalled_pull_ends_when_the_registry_goes_on(
    docker_client: docker.APIClient, faulty_registry: FaultyRegistry, pushed: str
) -> None:
    faulty_registry.stall_layers()
    errors: list[str] = []
    reference = f"{faulty_registry.address}/{pushed}"
    pull = threading.Thread(target=lambda: errors.extend(pull_errors(docker_client, reference)))
    pull.start()
    faulty_registry.wait_stalled()
    assert pull.is_alive()
    faulty_registry.go_on()
    pull.join(30)
    assert (pull.is_alive(), errors) == (False, [])


def test_a_registry_with_a_password_wants_it(
    docker_client: docker.APIClient, busybox: Busybox, private_registry: Registry
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), private_registry)
    reference = f"{private_registry.address}/{name}"
    with pytest.raises(APIError, match="no basic auth credentials"):
        pull_errors(docker_client, reference)
    assert pull_errors(docker_client, reference, auth_config=private_registry.auth_config) == []


def test_a_restarted_engine_has_its_images_and_no_running_container(
    private_engine: DockerEngine, docker_client: docker.APIClient, busybox_tag: str
) -> None:
    with started(docker_client, busybox_tag, ["sleep", "600"]) as container:
        private_engine.restart()
        assert not is_running(docker_client, container)
    assert docker_client.images(busybox_tag)


def test_an_engine_that_was_killed_comes_back(
    private_engine: DockerEngine, docker_client: docker.APIClient, busybox_tag: str
) -> None:
    with started(docker_client, busybox_tag, ["sleep", "600"]) as container:
        private_engine.kill()
        with pytest.raises(requests.ConnectionError):
            docker_client.ping()
        private_engine.start()
        assert not is_running(docker_client, container)


def test_containers_outlive_an_engine_with_live_restore(
    private_engine: DockerEngine, docker_client: docker.APIClient, busybox_tag: str
) -> None:
    private_engine.restart(live_restore=True)
    with started(docker_client, busybox_tag, ["sleep", "600"]) as container:
        process = docker_client.inspect_container(container)["State"]["Pid"]
        private_engine.kill()
        private_engine.start(live_restore=True)
        assert is_running(docker_client, container)
        assert docker_client.inspect_container(container)["State"]["Pid"] == process


def test_a_frozen_engine_answers_only_after_the_thaw(private_engine: DockerEngine) -> None:
    with private_engine.client(timeout_s=1) as client:
        with private_engine.frozen(), pytest.raises(requests.ReadTimeout):
            client.ping()
        assert client.ping()


@pytest.mark.parametrize("appendonly", [True, False])
def test_a_killed_redis_keeps_its_data_only_with_the_append_only_file(appendonly: bool) -> None:
    with RedisServer(appendonly=appendonly) as server:
        with redis.Redis.from_url(server.url) as store:
            store.set("key", "value")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as store:
            assert store.exists("key") == int(appendonly)


def test_waiting_in_vain_tells_what_was_seen_last() -> None:
    with pytest.raises(AssertionError, match=r"a full queue: not within 0 s; last seen: \[\]"):
        wait_until(list, within_s=0, what="a full queue")


@pytest.mark.anyio
async def test_waiting_in_a_loop_returns_what_was_waited_for() -> None:
    seen = iter(["", "", "ready"])

    async def condition() -> str:
        return next(seen)

    assert await wait_until_async(condition, within_s=5, what="readiness") == "ready"
