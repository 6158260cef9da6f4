"""What do agent, hub and store take, in memory and CPU, while there is nothing to do?

Four agents are idle at once, each with heartbeats every 30 s: with the process runtime and with
Docker (an engine of its own), at a hub without a task and at one whose task has an empty queue, so
that its nodes look for work. Both hubs run their embedded store. CPU is what a process used of one
core in windows of 20 s; memory is its resident set at the end of each, and what of that is shared
with nobody (USS), which is what the next such process costs a machine.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
import redis

from benchmarks.report import SPREAD, Table, only_figures, print_machine, say, spread
from tests.support.docker_engine import DockerEngine
from tests.support.fixtures import CACHE
from tests.support.images import Busybox, consumer_image
from tests.support.programs import HubProgram, NodeProgram
from tests.support.waiting import wait_until

SETTLES_WITHIN_S = 5.0
"""The start, the first heartbeats and what they change are over by then."""


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=20.0, help="of a round")
    chosen = arguments.parse_args()
    with ExitStack() as stack:
        engine = DockerEngine()
        stack.callback(engine.close)
        client = stack.enter_context(engine.client())
        idle_hub, processes = _start(stack, engine, "no task")
        busy_hub, others = _start(stack, engine, "an empty queue")
        image = consumer_image(client, Busybox(CACHE))
        busy_hub.submit("t", image=image, command=[sys.executable, "-c", "pass"])
        redis_url = idle_hub.run("redis-url").stdout.strip()
        print_machine(redis_url=redis_url, engine=client)
        time.sleep(SETTLES_WITHIN_S)
        rounds = [_look(processes | others, chosen.seconds) for _ in range(chosen.rounds)]
        with redis.Redis.from_url(redis_url) as store:
            used_mb = float(store.info("memory")["used_memory"]) / 2**20
    _show(rounds, chosen.seconds)
    say(f"of its memory the store counts {used_mb:.1f} MB as its own and its data")


def _start(
    stack: ExitStack, engine: DockerEngine, work: str
) -> tuple[HubProgram, dict[str, psutil.Process]]:
    """A hub with two nodes, and the processes that make it up."""
    hub = stack.enter_context(HubProgram())
    hub_process = psutil.Process(hub.process.pid)
    (store,) = hub_process.children()
    processes = {f"hub, 2 nodes, {work}": hub_process, f"embedded store, {work}": store}
    for runtime in ("process", "docker"):
        node = NodeProgram(
            hub.url,
            node_id=f"{runtime}-{hub.port}",
            runtime=runtime,
            heartbeat_interval=30,
            environment={"DOCKER_HOST": engine.host},
        )
        stack.enter_context(node)
        processes[f"agent, {runtime}, {work}"] = psutil.Process(node.process.pid)
    wait_until(lambda: len(hub.nodes()) == 2, within_s=30, what="both nodes register")
    return hub, processes


@dataclass(frozen=True)
class _Taken:
    resident_mb: float
    alone_mb: float
    cpu_percent: float


def _look(processes: Mapping[str, psutil.Process], seconds: float) -> dict[str, _Taken]:
    before = {name: _cpu_s(process) for name, process in processes.items()}
    time.sleep(seconds)
    after = {name: _cpu_s(process) for name, process in processes.items()}
    found = {}
    for name, process in processes.items():
        memory = process.memory_full_info()
        found[name] = _Taken(
            resident_mb=memory.rss / 2**20,
            alone_mb=memory.uss / 2**20,
            cpu_percent=100 * (after[name] - before[name]) / seconds,
        )
    return found


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _show(rounds: Sequence[Mapping[str, _Taken]], seconds: float) -> None:
    memory = Table("resident memory in MB", *SPREAD, "alone")
    cpu = Table(f"CPU in % of one core, over {seconds:.0f} s each", *SPREAD)
    for name in rounds[0]:
        is_agent = name.startswith("agent")
        memory.add(
            name,
            *spread([r[name].resident_mb for r in rounds], 1),
            f"{rounds[-1][name].alone_mb:.1f}",
            aim="below 60" if is_agent else "",
        )
        cpu.add(
            name,
            *spread([r[name].cpu_percent for r in rounds], 2),
            aim="near 0" if is_agent else "",
        )
    memory.print()
    cpu.print()


if __name__ == "__main__":
    main()
