"""How long from an item to its result when no container runs yet, and between two containers?

first item   the queue of a node that has been idle for a while gets one item
again        the same, but the container before has ended only just now
next         each container takes one item and exits 0 while work is left: from one result to the
             next, so it holds the end of one container and the start of another

All of it to the moment when the result is in the output queue. The node has one slot. With Docker
the program is the busybox consumer of the tests, and beside it stands what the engine alone takes
for the same image: create, start, wait and remove, with the limits that the node sets and without
any. With the process runtime it is a small Python program with redis-py, and beside it the same
command started by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import docker
import redis

from benchmarks.report import SPREAD, Table, only_figures, percentile, print_machine, spread
from gridnode.runtimes.docker import PIDS
from gridnode.runtimes.docker_engine import ContainerSpec, Engine
from gridnode.runtimes.slot_networks import HOST_GATEWAY
from tests.support import workers
from tests.support.docker_engine import DockerEngine
from tests.support.fixtures import CACHE, REDIS_PASSWORD
from tests.support.images import CONSUMER, Busybox, busybox_image
from tests.support.programs import HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

MEMORY_MB = 128
RESULT_WITHIN_S = 30

RESTED_S = 1.5
"""Enough for a node to have come to rest, and to look at its queue now and then."""

_END_OF_LOOP = "    done\n}"


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("parts", nargs="*", default=["docker", "engine", "process"])
    arguments.add_argument("--rounds", type=int, default=15)
    chosen = arguments.parse_args()
    engine = DockerEngine()
    try:
        with (
            engine.client() as client,
            RedisServer(
                password=REDIS_PASSWORD, bind=("127.0.0.1", engine.gateway), appendonly=True
            ) as server,
            redis.Redis.from_url(server.url, socket_timeout=60) as store,
        ):
            print_machine(redis_url=server.url, engine=client)
            image = _one_item_image(client)
            url = server.url_at(engine.gateway)
            if "docker" in chosen.parts:
                with HubProgram(redis_url=url) as hub, _node(hub, engine, "docker"):
                    _measure(hub, store, "docker", chosen.rounds, image=image)
            if "engine" in chosen.parts:
                _show_engine(client, engine, image, chosen.rounds)
            if "process" in chosen.parts:
                with HubProgram(redis_url=url) as hub, _node(hub, engine, "process"):
                    _measure(hub, store, "process", chosen.rounds, command=workers.ONE_ITEM)
                by_hand = [_by_hand(store, url) for _ in range(chosen.rounds)]
                table = Table("the same program started by hand, ms", *_COLUMNS)
                table.add("from start to end", *_figures(by_hand))
                table.print()
    finally:
        engine.close()


def _measure(
    hub: HubProgram, store: redis.Redis, runtime: str, rounds: int, **program: object
) -> None:
    queue = _Queue(hub, store, f"with-{runtime}")
    hub.submit(f"with-{runtime}", **program)
    chance = random.Random(1)
    queue.time_to_result(rested_s=0.0)  # cold caches: no round
    firsts = [queue.time_to_result(rested_s=RESTED_S + chance.random() / 2) for _ in range(rounds)]
    agains = [queue.time_to_result(rested_s=0.0) for _ in range(rounds)]
    following = queue.times_between_results(rounds)
    table = Table(f"a node with the {runtime} runtime, ms: {rounds} rounds", *_COLUMNS)
    table.add("first item", *_figures(firsts))
    table.add("again", *_figures(agains))
    table.add("next", *_figures(following))
    table.print()


class _Queue:
    def __init__(self, hub: HubProgram, store: redis.Redis, task: str) -> None:
        self._hub = hub
        self._store = store
        self._task = task
        self._pushed_at = 0.0

    def time_to_result(self, *, rested_s: float) -> float:
        """Seconds; the item comes so long after the last one, and when no container runs."""
        wait_until(
            lambda: self._hub.task(self._task)["active_containers"] == 0,
            within_s=RESULT_WITHIN_S,
            what="the node is idle",
        )
        # Not all rests are alike: a node that looks at its queue now and then has to be met at
        # any moment between two looks.
        time.sleep(max(0.0, self._pushed_at + rested_s - time.perf_counter()))
        self._pushed_at = time.perf_counter()
        self._store.lpush(f"{self._task}:input", "item")
        return self._result_at() - self._pushed_at

    def times_between_results(self, count: int) -> list[float]:
        # More than are looked at: how the last ones are handed out is another question.
        for _ in range(3 * count):
            self._store.lpush(f"{self._task}:input", "item")
        return _between([self._result_at() for _ in range(count + 1)])

    def _result_at(self) -> float:
        assert self._store.brpop([f"{self._task}:output"], timeout=RESULT_WITHIN_S), "no result"
        return time.perf_counter()


@contextmanager
def _node(hub: HubProgram, engine: DockerEngine, runtime: str) -> Iterator[None]:
    with NodeProgram(
        hub.url,
        node_id=f"bench-{runtime}",
        runtime=runtime,
        parallelism=1,
        container_memory=MEMORY_MB,
        environment={"DOCKER_HOST": engine.host},
    ):
        wait_until(lambda: len(hub.nodes()) == 1, within_s=30, what="the node registers")
        yield


def _one_item_image(client: docker.APIClient) -> str:
    """The tests' consumer, but it takes one item instead of all."""
    program = CONSUMER.read_text()
    assert program.count(_END_OF_LOOP) == 1, "consumer.sh is another than it was"
    program = program.replace(_END_OF_LOOP, f"        break\n{_END_OF_LOOP}")
    return busybox_image(
        client, Busybox(CACHE), files={"bin/consumer": program.encode()}, cmd=("/bin/consumer",)
    )


def _show_engine(client: docker.APIClient, engine: DockerEngine, image: str, rounds: int) -> None:
    ours = asyncio.run(_engine_alone(client, engine.host, image, rounds))
    plain = [_engine_plain(client, image) for _ in range(rounds)]
    for title, steps in (
        ("the engine alone, with the node's limits, ms", ours),
        ("the engine alone, no limits, ms", plain),
    ):
        table = Table(title, *_COLUMNS)
        for number, name in enumerate(("create", "start", "wait", "remove")):
            table.add(name, *_figures([step[number] for step in steps]))
        table.add("all four", *_figures([sum(step) for step in steps]))
        table.print()


async def _engine_alone(
    client: docker.APIClient, host: str, image: str, rounds: int
) -> list[list[float]]:
    engine = Engine(host)
    await engine.connect()
    spec = ContainerSpec(
        name="gridcore-bench",
        image=image,
        command=["true"],
        environment={},
        labels={},
        core=0,
        memory_bytes=MEMORY_MB * 2**20,
        pids=PIDS,
        hosts=HOST_GATEWAY,
    )
    steps = []
    for _ in range(rounds):
        at = [time.perf_counter()]
        container = await engine.create(spec)
        at.append(time.perf_counter())
        await engine.start(container)
        at.append(time.perf_counter())
        await asyncio.to_thread(client.wait, container)
        at.append(time.perf_counter())
        await engine.remove(container)
        at.append(time.perf_counter())
        steps.append(_between(at))
    await engine.aclose()
    return steps


def _engine_plain(client: docker.APIClient, image: str) -> list[float]:
    at = [time.perf_counter()]
    container = client.create_container(image, ["true"])["Id"]
    calls: list[Callable[[], object]] = [
        lambda: client.start(container),
        lambda: client.wait(container),
        lambda: client.remove_container(container),
    ]
    at.append(time.perf_counter())
    for call in calls:
        call()
        at.append(time.perf_counter())
    return _between(at)


def _by_hand(store: redis.Redis, url: str) -> float:
    store.lpush("by-hand:input", "item")
    queues = {"INPUT_QUEUE": "by-hand:input", "OUTPUT_QUEUE": "by-hand:output"}
    urls = {"INPUT_REDIS_URL": url, "OUTPUT_REDIS_URL": url}
    began = time.perf_counter()
    subprocess.run(workers.ONE_ITEM, env=os.environ | queues | urls, check=True)
    return time.perf_counter() - began


def _between(at: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(at)]


_COLUMNS = (*SPREAD, "p90")


def _figures(seconds: Sequence[float]) -> tuple[str, ...]:
    in_ms = [1000 * s for s in seconds]
    return (*spread(in_ms), f"{percentile(in_ms, 90):,.0f}")


if __name__ == "__main__":
    main()
