"""Nodes with real containers: limits seen from inside, images from a registry, engine faults."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import psutil
import pytest

from tests.acceptance.test_node import wait_active, wait_registered
from tests.support.docker_engine import DockerEngine
from tests.support.images import Busybox, busybox_image, push_image
from tests.support.programs import HubProgram, NodeProgram
from tests.support.queues import Queue
from tests.support.redis_server import RedisServer
from tests.support.registry import PASSWORD, USERNAME, FaultyRegistry, Registry
from tests.support.waiting import wait_until

StartNode = Callable[..., NodeProgram]

NODE_LABEL = "io.gridcore.node"

WAIT_FOR_SIGNAL = [
    "sh",
    "-c",
    "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done",
]


@pytest.fixture
def hub(hub_for_containers: HubProgram) -> HubProgram:
    return hub_for_containers


@pytest.fixture
def start_node(start_docker_node: StartNode) -> StartNode:
    return start_docker_node


@pytest.fixture
def queue(redis_for_containers: RedisServer) -> Iterator[Queue]:
    queue = Queue(redis_for_containers, "t")
    yield queue
    queue.redis.close()


def containers(client: docker.APIClient, node_id: str = "n") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.containers(
        all=True, filters={"label": f"{NODE_LABEL}={node_id}"}
    )
    return found


def running(client: docker.APIClient, node_id: str = "n") -> list[str]:
    return [c["Id"] for c in containers(client, node_id) if c["State"] == "running"]


def inside(client: docker.APIClient, container: str, script: str) -> str:
    """What a shell in the container prints."""
    execution = client.exec_create(container, ["sh", "-c", script])
    output: bytes = client.exec_start(execution["Id"])
    return output.decode().strip()


def test_a_task_runs_in_containers_and_every_result_is_there(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    consumer_tag: str,
    docker_client: docker.APIClient,
) -> None:
    queue.push(*range(300))
    start_node()

    hub.submit_direct("t", image=consumer_tag)

    queue.wait_for(*(f"{n}:x86_64:1" for n in range(300)))
    wait_active(hub, 0)
    wait_until(lambda: not containers(docker_client), within_s=10, what="no container is left")
    assert hub.task("t")["failures"] == []


def test_each_architecture_gets_its_own_image(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    consumer_tag: str,
    consumer_arm64_tag: str,
) -> None:
    images = {"linux/amd64": consumer_tag, "linux/arm64": consumer_arm64_tag}
    queue.push(*range(60))
    pi = start_node("pi", architecture="aarch64", parallelism=1)
    hub.submit_direct("t", images=images)
    queue.wait_for(*(f"{n}:aarch64:1" for n in range(60)))

    start_node("server", architecture="x86_64", parallelism=1)
    assert {n["platform"] for n in hub.nodes()} == {"linux/arm64", "linux/amd64"}
    hub.post("/api/nodes/pi/stop")
    assert pi.wait_ended(within_s=20) == 0
    queue.push(*range(60, 120))

    queue.wait_for(
        *(f"{n}:aarch64:1" for n in range(60)), *(f"{n}:x86_64:1" for n in range(60, 120))
    )
    assert hub.task("t")["failures"] == []


def test_a_container_has_one_core_little_memory_and_no_power(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox_tag: str,
    docker_client: docker.APIClient,
) -> None:
    """Seen from inside: what `docker inspect` says proves nothing."""
    queue.push("a", "b")
    start_node(container_memory=64)
    hub.submit_direct("t", image=busybox_tag, command=WAIT_FOR_SIGNAL)
    wait_until(lambda: len(running(docker_client)) == 2, within_s=20, what="two containers run")

    cores = set()
    for container in running(docker_client):
        assert inside(docker_client, container, "nproc") == "1"
        cores.add(inside(docker_client, container, "grep Cpus_allowed_list /proc/1/status"))
        status = inside(docker_client, container, "cat /proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert inside(docker_client, container, "env | grep ^OMP_NUM_THREADS") == (
            "OMP_NUM_THREADS=1"
        )
        forked = inside(
            docker_client,
            container,
            "i=0; while [ $i -lt 600 ]; do sleep 100 & i=$((i+1)); done; echo all",
        )
        assert "all" not in forked.splitlines()
    assert len(cores) == 2, "each is pinned to another core"


def test_too_much_memory_ends_a_container_and_is_reported_as_such(
    hub: HubProgram, start_node: StartNode, queue: Queue, busybox_tag: str
) -> None:
    queue.push("a")
    start_node(container_memory=32)

    eat = "echo eating; head -c 200m /dev/zero | tail"
    hub.submit_direct("t", image=busybox_tag, command=["sh", "-c", f"{eat}; exit $?"])

    wait_until(lambda: hub.task("t")["failures"], within_s=30, what="the failure is reported")
    failure = hub.task("t")["failures"][0]
    assert failure["reason"] == "out_of_memory"
    assert "container_memory in gridnode.toml" in failure["message"]
    assert "eating" in failure["log_lines"]


def test_a_crash_is_reported_with_exit_code_and_log(
    hub: HubProgram, start_node: StartNode, queue: Queue, busybox_tag: str
) -> None:
    queue.push("a")
    start_node()

    hub.submit_direct(
        "t", image=busybox_tag, command=["sh", "-c", "echo item 7 is bad >&2; exit 3"]
    )

    wait_until(lambda: len(hub.task("t")["failures"]) >= 2, within_s=30, what="two are reported")
    for failure in hub.task("t")["failures"]:
        assert failure["reason"] == "exit"
        assert failure["exit_code"] == 3
        assert failure["log_lines"] == ["item 7 is bad"]


def test_a_progress_bar_is_shown_as_it_was_last_on_the_screen(
    hub: HubProgram, start_node: StartNode, queue: Queue, busybox_tag: str
) -> None:
    """Its hundreds of carriage returns were once hundreds of lines, and ended the agent."""
    queue.push("a")
    start_node(parallelism=1)
    bar = r"i=0; while [ $i -lt 400 ]; do printf '\r%d done' $i; i=$((i+1)); done; echo; exit 4"

    hub.submit_direct("t", image=busybox_tag, command=["sh", "-c", bar])

    wait_until(lambda: hub.task("t")["failures"], within_s=30, what="the failure is reported")
    assert hub.task("t")["failures"][0]["log_lines"] == ["399 done"]


def test_an_image_that_was_tidied_away_is_fetched_again(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox: Busybox,
    registry: Registry,
    docker_client: docker.APIClient,
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
    node = start_node(parallelism=1)
    hub.submit_direct("t", image=f"{registry.address}/{name}", command=WAIT_FOR_SIGNAL)
    wait_until(lambda: hub.node("n")["task"] == "t", within_s=20, what="the image is there")
    docker_client.remove_image(f"{registry.address}/{name}", force=True)

    queue.push("a")

    wait_until(lambda: running(docker_client), within_s=20, what="a container runs")
    assert hub.task("t")["failures"] == []
    assert node.process.poll() is None


def test_a_killed_container_is_replaced(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox_tag: str,
    docker_client: docker.APIClient,
) -> None:
    queue.push("a")
    start_node(parallelism=1)
    hub.submit_direct("t", image=busybox_tag, command=WAIT_FOR_SIGNAL)
    (first,) = wait_until(lambda: running(docker_client), within_s=20, what="it runs")

    docker_client.kill(first)

    wait_until(
        lambda: (now := running(docker_client)) and first not in now,
        within_s=20,
        what="another container runs",
    )
    assert hub.task("t")["failures"][0]["exit_code"] == 137
    assert hub.task("t")["failures"][0]["reason"] == "exit"


def test_a_stopped_node_leaves_no_container_and_no_claim(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox_tag: str,
    docker_client: docker.APIClient,
) -> None:
    queue.push("a", "b")
    node = start_node()
    hub.submit_direct("t", image=busybox_tag, command=WAIT_FOR_SIGNAL)
    wait_until(lambda: len(running(docker_client)) == 2, within_s=20, what="two containers run")

    hub.post("/api/nodes/n/stop")

    assert node.wait_ended(within_s=20) == 0
    assert containers(docker_client) == []
    assert hub.nodes() == []


def test_leftovers_of_a_killed_agent_are_removed_at_the_next_start_and_no_others(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox_tag: str,
    docker_client: docker.APIClient,
) -> None:
    queue.push("a", "b")
    node = start_node()
    other = start_node("other", parallelism=1)
    hub.submit_direct("t", image=busybox_tag, command=WAIT_FOR_SIGNAL)
    wait_until(
        lambda: len(running(docker_client)) == 2 and running(docker_client, "other"),
        within_s=20,
        what="all run",
    )
    orphans, others = running(docker_client), running(docker_client, "other")
    node.kill()
    assert running(docker_client) == orphans

    queue.redis.delete("t:input")
    node.start()

    node.wait_logged("leftovers_removed count=2")
    assert not set(orphans) & {c["Id"] for c in docker_client.containers(all=True)}
    assert running(docker_client, "other") == others
    other.terminate()


def test_an_image_is_pulled_once_however_many_slots_want_it(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox: Busybox,
    registry: Registry,
    faulty_registry: FaultyRegistry,
    docker_client: docker.APIClient,
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
    queue.push(*range(4))
    start_node(parallelism=4)

    hub.submit_direct("t", image=f"{faulty_registry.address}/{name}", command=WAIT_FOR_SIGNAL)

    wait_until(lambda: len(running(docker_client)) == 4, within_s=30, what="four containers run")
    blobs = [p for m, p in faulty_registry.requests if m == "GET" and "/blobs/" in p]
    assert len(blobs) == len(set(blobs)) > 0


def test_a_pull_shows_its_progress(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox: Busybox,
    registry: Registry,
    faulty_registry: FaultyRegistry,
    docker_client: docker.APIClient,
) -> None:
    tag = busybox_image(docker_client, busybox, payload_bytes=12_000_000)
    name = push_image(docker_client, tag, registry)
    faulty_registry.stall_layers()
    queue.push("a")
    start_node()

    hub.submit_direct("t", image=f"{faulty_registry.address}/{name}", command=WAIT_FOR_SIGNAL)

    faulty_registry.wait_stalled()
    pull = wait_until(
        lambda: hub.node("n")["image_pull"], within_s=20, what="the hub shows the progress"
    )
    assert pull["image"].endswith(name)
    assert 0 < pull["downloaded_bytes"] < pull["total_bytes"]
    faulty_registry.go_on()
    wait_until(lambda: running(docker_client), within_s=40, what="the container runs")
    wait_until(lambda: hub.node("n")["image_pull"] is None, within_s=10, what="it is over")


def test_a_registry_that_fails_in_the_middle_of_a_pull_is_reported_and_tried_again(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox: Busybox,
    registry: Registry,
    faulty_registry: FaultyRegistry,
    docker_client: docker.APIClient,
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
    faulty_registry.lose_layers()
    queue.push("a")
    node = start_node()

    hub.submit_direct("t", image=f"{faulty_registry.address}/{name}", command=WAIT_FOR_SIGNAL)

    node.wait_logged("image_failed.*unknown blob")
    faulty_registry.behave()
    wait_until(lambda: running(docker_client), within_s=30, what="it runs at last")
    assert hub.task("t")["failures"][0]["reason"] == "image"


def test_a_local_image_is_used_when_its_registry_cannot_be_reached(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox: Busybox,
    docker_client: docker.APIClient,
) -> None:
    with Registry() as registry:
        name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
        reference = f"{registry.address}/{name}"
        docker_client.pull(reference)
    queue.push("a")
    node = start_node()

    hub.submit_direct("t", image=reference, command=WAIT_FOR_SIGNAL)

    wait_until(lambda: running(docker_client), within_s=30, what="it runs")
    assert "local_image_used" in node.log


def test_a_failing_image_is_reported_and_stops_nothing_else(
    hub: HubProgram,
    start_node: StartNode,
    redis_for_containers: RedisServer,
    queue: Queue,
    registry: Registry,
    consumer_tag: str,
) -> None:
    start_node()
    queue.push("a")
    hub.submit_direct("t", image=f"{registry.address}/no/such:image")
    wait_until(
        lambda: hub.node("n")["runtime_status"] == "Error", within_s=20, what="the node says so"
    )
    assert "no/such:image" in hub.node("n")["error"]
    assert hub.task("t")["failures"][0]["reason"] == "image"

    after = Queue(redis_for_containers, "after")
    after.push("b")
    hub.submit_direct("after", image=consumer_tag)
    hub.post("/api/tasks/next")

    after.wait_for("b:x86_64:1")
    wait_until(lambda: not hub.node("n")["error"], within_s=10, what="all is well again")
    assert queue.waiting == 1
    after.redis.close()


def test_an_image_for_another_architecture_is_refused_in_words(
    hub: HubProgram, start_node: StartNode, queue: Queue, busybox_arm64_tag: str
) -> None:
    queue.push("a")
    start_node()

    hub.submit_direct("t", image=busybox_arm64_tag)

    wait_until(lambda: hub.node("n")["error"], within_s=20, what="the node says so")
    assert "it is for linux/arm64" in hub.node("n")["error"]
    assert "this node needs linux/amd64" in hub.node("n")["error"]


def test_credentials_come_from_the_docker_config(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    busybox: Busybox,
    private_registry: Registry,
    docker_client: docker.APIClient,
    tmp_path: Path,
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), private_registry)
    config = tmp_path / "config.json"
    config.write_text("{}")
    queue.push("a")
    node = start_node(environment={"DOCKER_CONFIG": str(tmp_path)})
    hub.submit_direct("t", image=f"{private_registry.address}/{name}", command=WAIT_FOR_SIGNAL)
    node.wait_logged("image_failed.*no basic auth credentials")

    credentials = f"{USERNAME}:{PASSWORD}".encode()
    login = {"auth": base64.b64encode(credentials).decode()}
    config.write_text(json.dumps({"auths": {private_registry.address: login}}))

    wait_until(lambda: running(docker_client), within_s=40, what="it runs after the login")
    assert PASSWORD not in node.log


def test_the_next_image_is_pulled_while_the_last_containers_finish(
    hub: HubProgram,
    start_node: StartNode,
    queue: Queue,
    redis_for_containers: RedisServer,
    busybox: Busybox,
    busybox_tag: str,
    registry: Registry,
    faulty_registry: FaultyRegistry,
    docker_client: docker.APIClient,
) -> None:
    name = push_image(docker_client, busybox_image(docker_client, busybox), registry)
    queue.push("a")
    start_node(parallelism=1, stop_timeout=60)
    hub.submit_direct(
        "t", image=busybox_tag, command=["sh", "-c", "trap '' TERM; echo up; sleep 1000"]
    )
    (slow,) = wait_until(lambda: running(docker_client), within_s=20, what="it runs")
    wait_until(lambda: b"up" in docker_client.logs(slow), within_s=10, what="it ignores SIGTERM")
    after = Queue(redis_for_containers, "after")
    after.push("b")
    hub.submit_direct("after", image=f"{faulty_registry.address}/{name}", command=WAIT_FOR_SIGNAL)

    hub.post("/api/tasks/next")

    wait_until(
        lambda: faulty_registry.pulls_of("blobs"), within_s=20, what="the next image is pulled"
    )
    assert running(docker_client) == [slow], "and the last container still finishes"
    docker_client.kill(slow)
    wait_until(
        lambda: (now := running(docker_client)) and slow not in now, within_s=20, what="the next"
    )
    after.redis.close()


def test_a_restarted_engine_is_noticed_and_the_work_goes_on(
    hub: HubProgram,
    private_engine: DockerEngine,
    start_node: StartNode,
    queue: Queue,
    busybox_tag: str,
) -> None:
    queue.push("a", "b")
    node = start_node()
    hub.submit_direct("t", image=busybox_tag, command=WAIT_FOR_SIGNAL)
    wait_active(hub, 2)

    private_engine.stop()
    wait_until(
        lambda: hub.node("n")["runtime_status"] == "Error", within_s=20, what="the node says so"
    )
    assert "Docker" in hub.node("n")["error"]
    private_engine.start()

    wait_until(
        lambda: hub.node("n")["runtime_status"] == "Running", within_s=40, what="it works again"
    )
    with private_engine.client() as client:
        wait_until(lambda: len(running(client)) == 2, within_s=20, what="two containers run")
        assert len(containers(client)) == 2
        assert hub.task("t")["failures"] == [], "that was not the task's fault"
        node.terminate()
        assert containers(client) == []


def test_containers_that_survive_a_crash_of_the_engine_are_not_doubled(
    hub: HubProgram,
    private_engine: DockerEngine,
    start_node: StartNode,
    queue: Queue,
    busybox_tag: str,
) -> None:
    private_engine.restart(live_restore=True)
    queue.push("a")
    start_node(parallelism=1)
    hub.submit_direct("t", image=busybox_tag, command=WAIT_FOR_SIGNAL)
    with private_engine.client() as client:
        (before,) = wait_until(lambda: running(client), within_s=20, what="it runs")

    private_engine.kill()
    wait_until(
        lambda: hub.node("n")["runtime_status"] == "Error", within_s=20, what="the node says so"
    )
    private_engine.start(live_restore=True)

    wait_until(
        lambda: hub.node("n")["runtime_status"] == "Running", within_s=40, what="all is well again"
    )
    with private_engine.client() as client:
        assert [c["Id"] for c in containers(client)] == [before]
        assert running(client) == [before]


def test_a_node_without_an_engine_waits_for_one_and_says_what_to_do(
    hub: HubProgram, queue: Queue, tmp_path: Path
) -> None:
    with NodeProgram(
        hub.url, node_id="n", environment={"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    ) as node:
        wait_registered(hub, "n")
        wait_until(lambda: hub.node("n")["error"], within_s=15, what="the node says so")

        error = hub.node("n")["error"]
        assert f"{tmp_path}/docker.sock" in error
        assert 'runtime = "process"' in error
        assert node.terminate() == 0


def test_the_idle_agent_is_light(
    hub: HubProgram, start_node: StartNode, docker_engine: DockerEngine
) -> None:
    """Under 60 MB, as a Raspberry Pi wants it; the aim is a promise, so it is held here."""
    node = start_node()
    hub.submit_direct("t", image="not/for:anybody", images={}, auto_advance=False)
    process = psutil.Process(node.process.pid)

    wait_until(
        lambda: hub.node("n")["task"] or hub.node("n")["error"], within_s=20, what="it works"
    )

    assert process.memory_info().rss < 60 * 1024 * 1024
