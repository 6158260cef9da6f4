"""Leased delivery to real containers: an unmodified image, and what may happen to it."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from tests.support.programs import HubProgram, NodeProgram
from tests.support.queues import Queue
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

StartNode = Callable[..., NodeProgram]

TASK_RUNS = {"label": ["io.gridcore.task=t"]}

POP_AND_EAT_MEMORY = r"""
rest=${INPUT_REDIS_URL#redis://}; password=${rest%@*}; password=${password#*:}
{ printf 'AUTH %s\r\nBRPOP %s 0\r\n' "$password" "$INPUT_QUEUE"; sleep 2; } | nc 127.0.0.1 6379 &
sleep 1
echo eating
x=aaaaaaaa
while :; do x=$x$x; done
"""


@pytest.fixture
def hub(hub_for_containers: HubProgram) -> HubProgram:
    return hub_for_containers


@pytest.fixture
def queue(redis_for_containers: RedisServer) -> Iterator[Queue]:
    queue = Queue(redis_for_containers, "t")
    yield queue
    queue.redis.close()


def soon(condition: Any, what: str, *, within_s: float = 40) -> Any:
    return wait_until(condition, within_s=within_s, what=what)


def runs(client: docker.APIClient) -> list[str]:
    return [c["Id"] for c in client.containers(filters=TASK_RUNS)]


def leased(queue: Queue) -> int:
    return int(queue.redis.hlen("gc:{t:input}:lease:n"))


def test_a_plain_image_gets_its_items_by_the_gateway_and_nothing_else(
    hub: HubProgram,
    start_docker_node: StartNode,
    queue: Queue,
    consumer_tag: str,
    docker_client: docker.APIClient,
) -> None:
    queue.push(*range(300))
    start_docker_node(heartbeat_interval=1)

    hub.submit("t", image=consumer_tag)

    queue.wait_for(*(f"{n}:x86_64:1" for n in range(300)))
    soon(lambda: leased(queue) == 0, "nothing is leased")
    soon(lambda: hub.node("n")["work"]["committed"] == 300, "the hub knows")
    assert hub.node("n")["isolation"] == "namespace"
    assert hub.task("t")["failures"] == []
    hub.post("/api/tasks/finish")
    soon(
        lambda: not docker_client.containers(all=True, filters={"label": ["io.gridcore.node=n"]}),
        "neither containers nor networks of slots are left",
    )


def test_containers_that_are_killed_in_mid_item_lose_nothing(
    hub: HubProgram,
    start_docker_node: StartNode,
    queue: Queue,
    consumer_tag: str,
    docker_client: docker.APIClient,
) -> None:
    items = range(3_000)
    queue.push(*items)
    start_docker_node(heartbeat_interval=1)
    hub.submit("t", image=consumer_tag)
    for done in (300, 900, 1_500, 2_100):
        soon(lambda done=done: len(queue.results) >= done, f"{done} are done")
        for container in soon(lambda: runs(docker_client), "containers run"):
            docker_client.kill(container, "SIGKILL")

    queue.wait_for(*(f"{n}:x86_64:1" for n in items), within_s=90)
    assert max(Counter(queue.results).values()) == 1
    soon(lambda: leased(queue) == 0, "nothing is leased")


def test_an_image_for_another_architecture_goes_the_same_way(
    hub: HubProgram, start_docker_node: StartNode, queue: Queue, consumer_arm64_tag: str
) -> None:
    queue.push(*range(40))
    start_docker_node(architecture="aarch64", parallelism=1)
    hub.submit("t", images={"linux/arm64": consumer_arm64_tag})
    queue.wait_for(*(f"{n}:aarch64:1" for n in range(40)))


def test_running_out_of_memory_is_told_in_the_dead_letter(
    hub: HubProgram, start_docker_node: StartNode, queue: Queue, consumer_tag: str
) -> None:
    queue.push("big")
    start_docker_node(container_memory=64, parallelism=1)
    hub.submit(
        "t",
        image=consumer_tag,
        max_attempts=1,
        command=["sh", "-c", POP_AND_EAT_MEMORY],
    )
    letters = soon(lambda: hub.get("/api/tasks/t/dead-letters")["dead_letters"], "the dead letter")
    assert letters[0]["payload"] == "big"
    assert letters[0]["reason"] == "out_of_memory"
    assert letters[0]["out_of_memory"] is True
    assert "eating" in letters[0]["log_lines"]
