"""How fast does a plain program drain its queue with a node around it, and how fast without?

The program is that of `gridcore demo`: redis-py, one BRPOP and one LPUSH an item, and hardly any
work in between, so that all which stands between it and Redis shows. It runs as many times as there
are cores: started by hand, by hand and each pinned to its core as a node does it, by a node as
processes, and by a node in containers (an image made of this machine's Python). The time is from
the moment when the program is started, or its task submitted, to the last of 100,000 results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable

import redis

from benchmarks.report import SPREAD, Table, only_figures, print_machine, spread
from gridcore.local import worker
from tests.support.docker_engine import DockerEngine
from tests.support.fixtures import REDIS_PASSWORD
from tests.support.programs import HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

PROGRAM = [sys.executable, worker.__file__]
WAYS = ["by-hand", "pinned-by-hand", "process", "docker"]
CHUNK = 10_000
DRAINED_WITHIN_S = 120.0
ENDS_WITHIN_S = 30.0


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("ways", nargs="*", default=WAYS)
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=3)
    chosen = arguments.parse_args()
    engine = DockerEngine()
    try:
        with (
            engine.client() as client,
            RedisServer(
                password=REDIS_PASSWORD, bind=("127.0.0.1", engine.gateway), appendonly=True
            ) as server,
            redis.Redis.from_url(server.url) as store,
        ):
            url = server.url_at(engine.gateway)
            print_machine(redis_url=server.url, engine=client)
            table = Table(f"items/s, of {chosen.items:,} items", *SPREAD)
            rounds = [
                # In turn, so that what else the machine does meets all of them.
                [_drain(way, url, store, engine, chosen.items) for way in chosen.ways]
                for _ in range(chosen.rounds)
            ]
            for way, took_s in zip(chosen.ways, zip(*rounds, strict=True), strict=True):
                table.add(way, *spread([chosen.items / s for s in took_s]))
            table.print()
    finally:
        engine.close()


def _drain(way: str, url: str, store: redis.Redis, engine: DockerEngine, items: int) -> float:
    store.flushall()
    for first in range(1, items + 1, CHUNK):
        store.lpush("t:input", *range(first, min(first + CHUNK, items + 1)))
    if way.endswith("by-hand"):
        return _by_hand(url, store, items, is_pinned=way.startswith("pinned"))
    with (
        HubProgram(redis_url=url) as hub,
        NodeProgram(
            hub.url, node_id="bench", runtime=way, environment={"DOCKER_HOST": engine.host}
        ) as node,
    ):
        program: dict[str, object] = {"command": PROGRAM}
        if way == "docker":
            program = {"image": _python_image(node)}
        wait_until(lambda: len(hub.nodes()) == 1, within_s=30, what="the node registers")
        return _time(lambda: hub.submit("t", **program), store, items)


def _by_hand(url: str, store: redis.Redis, items: int, *, is_pinned: bool) -> float:
    queues = {"INPUT_QUEUE": "t:input", "OUTPUT_QUEUE": "t:output"}
    urls = {"INPUT_REDIS_URL": url, "OUTPUT_REDIS_URL": url}
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        environment = os.environ | queues | urls
        for core in sorted(os.sched_getaffinity(0)):
            pinned = ["taskset", "-c", str(core)] if is_pinned else []
            started.append(subprocess.Popen([*pinned, *PROGRAM], env=environment))

    try:
        return _time(start, store, items)
    finally:
        for process in started:
            process.wait(ENDS_WITHIN_S)


def _time(start: Callable[[], object], store: redis.Redis, items: int) -> float:
    began = time.perf_counter()
    start()
    while store.llen("t:output") < items:
        assert time.perf_counter() - began < DRAINED_WITHIN_S, "not drained in time"
        time.sleep(0.05)
    return time.perf_counter() - began


def _python_image(node: NodeProgram) -> str:
    made = node.run(
        *("python-image", "gridcore-bench:latest", "--package", "redis"),
        *("--file", f"{worker.__file__}:/worker.py", "--", "python3", "/worker.py"),
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


if __name__ == "__main__":
    main()
