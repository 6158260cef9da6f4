"""How long from `POST /api/tasks/next` to SIGTERM in the running containers of 100 nodes?

100 real agents (`python -m gridnode`, process runtime, one slot each) wait in their long polls
beside one child each, which on SIGTERM tells the task's Redis at what nanosecond that came. Each
figure of a node is that moment less the one at which `next` was sent, by the same clock.

All agents share this machine's cores, which those of a real fleet do not: what an agent needs to
wake up and to signal is multiplied. In the first kind of round the next task has no items, so that
nothing else happens meanwhile; in the second it has, and the first nodes to switch start their next
child while the others have yet to hear of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import redis

from benchmarks.report import SPREAD, Table, only_figures, percentile, print_machine, say, spread
from computehub import keys
from tests.support.programs import HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

AIM = "p99 below 1,000"
STARTED_AT_ONCE = 4
"""More only wait for the cores, and the first would be quiet no sooner."""

ALL_UP_WITHIN_S = 90.0
LOOK_S = 2.0
"""After a change each node sends heartbeats, the last of them a second later."""

SETTLES_WITHIN_LOOKS, QUIET_BELOW_PERCENT = 5, 15

# Without a client library, which would cost 100 children 20 MB and 0.2 s of CPU each. SIGTERM is
# blocked before anyone is told that the child is up, so that none can come too early.
_CHILD = """
import os, signal, socket, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
host, _, port = os.environ["INPUT_REDIS_URL"].removeprefix("redis://").partition("/")[0].partition(":")
connection = socket.create_connection((host, int(port)))
def tell(what):
    words = [b"LPUSH", os.environ["OUTPUT_QUEUE"].encode(), what.encode()]
    connection.sendall(b"*3\\r\\n" + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in words))
    connection.recv(100)
tell("up")
signal.sigwait({signal.SIGTERM})
tell(str(time.time_ns()))
"""


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--nodes", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=3, help="of each kind")
    chosen = arguments.parse_args()
    with (
        RedisServer(appendonly=True) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as store,
        HubProgram(redis_url=server.url) as hub,
    ):
        print_machine(redis_url=server.url)
        line = _Line(hub, store)
        line.submit(with_work=True)
        began = time.monotonic()
        with _agents(hub, store, chosen.nodes) as agents:
            line.wait_all_up(chosen.nodes)
            took_s = time.monotonic() - began
            say(f"{chosen.nodes} nodes are at work {took_s:.0f} s after the first was started")
            say(f"{_megabytes(agents):.0f} MB resident an agent (median)\n")
            calm, busy = [], []
            for _ in range(chosen.rounds):
                calm.append(line.switch(chosen.nodes, next_has_work=False))
                line.give_work()
                line.wait_all_up(chosen.nodes)
            for _ in range(chosen.rounds):
                busy.append(line.switch(chosen.nodes, next_has_work=True))
                line.wait_all_up(chosen.nodes)
        _show("ms from `next` to SIGTERM, the next task has no items yet", calm)
        _show("ms from `next` to SIGTERM, the next task has items, so children start", busy)


@dataclass(frozen=True)
class _Switch:
    busy_percent: float
    """Of the machine, before."""
    answered_ms: float
    """When `next` itself was answered."""
    sigterm_ms: list[float]


class _Line:
    """The line of tasks, of which one runs and at most one waits."""

    def __init__(self, hub: HubProgram, store: redis.Redis) -> None:
        self._hub = hub
        self._store = store
        self._submitted = 0

    @property
    def _newest(self) -> str:
        return f"t{self._submitted}"

    def submit(self, *, with_work: bool) -> None:
        self._submitted += 1
        if with_work:
            self.give_work()
        # No site packages: the child needs none, and its start costs half.
        self._hub.submit(self._newest, command=[sys.executable, "-I", "-S", "-c", _CHILD])

    def give_work(self) -> None:
        """One item, which nobody takes, so that every node finds it."""
        self._store.lpush(f"{self._newest}:input", "item")

    def wait_all_up(self, nodes: int) -> None:
        """Returns when each node runs its child, and the hub knows it."""
        wait_until(
            lambda: (
                self._store.llen(f"{self._newest}:output") == nodes
                and sum(n["runtime_status"] == "Running" for n in self._hub.nodes()) == nodes
            ),
            within_s=ALL_UP_WITHIN_S,
            what=f"{nodes} nodes run a child",
        )

    def switch(self, nodes: int, *, next_has_work: bool) -> _Switch:
        left = f"{self._newest}:output"
        self.submit(with_work=next_has_work)
        busy_percent = _settle()
        sent_ns = time.time_ns()
        self._hub.post("/api/tasks/next")
        answered_ns = time.time_ns()
        # Not looked at until it is over: that would take a core from the nodes.
        time.sleep(1.0)
        wait_until(
            lambda: self._store.llen(left) == 2 * nodes,
            within_s=ALL_UP_WITHIN_S,
            what=f"{nodes} children tell of SIGTERM",
        )
        told = [said for said in self._store.lrange(left, 0, -1) if said != "up"]
        return _Switch(
            busy_percent=busy_percent,
            answered_ms=(answered_ns - sent_ns) / 1e6,
            sigterm_ms=[(int(at_ns) - sent_ns) / 1e6 for at_ns in told],
        )


@contextmanager
def _agents(hub: HubProgram, store: redis.Redis, count: int) -> Iterator[list[NodeProgram]]:
    agents = [
        NodeProgram(
            hub.url,
            node_id=f"n{number}",
            runtime="process",
            parallelism=1,
            heartbeat_interval=30,
        )
        for number in range(count)
    ]
    try:
        for started, agent in enumerate(agents, 1):
            agent.launch()
            _wait_registered(store, started - STARTED_AT_ONCE)
        _wait_registered(store, count)
        yield agents
    finally:
        with ThreadPoolExecutor(count) as threads:
            list(threads.map(NodeProgram.close, agents))


def _wait_registered(store: redis.Redis, count: int) -> None:
    # Asking the hub as often as this does would take a core from the agents.
    wait_until(
        lambda: store.hlen(keys.NODES) >= count, within_s=30, what=f"{count} agents register"
    )


def _settle() -> float:
    """How busy the machine is, in percent: at rest, unless somebody else keeps it from that."""
    psutil.cpu_percent()
    for _ in range(SETTLES_WITHIN_LOOKS):
        if (busy_percent := psutil.cpu_percent(interval=LOOK_S)) < QUIET_BELOW_PERCENT:
            return busy_percent
    return psutil.cpu_percent(interval=LOOK_S)


def _megabytes(agents: Sequence[NodeProgram]) -> float:
    sizes = [float(psutil.Process(a.process.pid).memory_info().rss) / 2**20 for a in agents]
    return percentile(sizes, 50)


def _show(title: str, switches: Sequence[_Switch]) -> None:
    table = Table(f"{title}: {len(switches)} rounds", *SPREAD)
    table.add("machine busy before, %", *spread([s.busy_percent for s in switches]))
    table.add("next is answered", *spread([s.answered_ms for s in switches]))
    table.add("first SIGTERM", *spread([min(s.sigterm_ms) for s in switches]))
    table.add("p50", *spread([percentile(s.sigterm_ms, 50) for s in switches]))
    table.add("p99", *spread([percentile(s.sigterm_ms, 99) for s in switches]), aim=AIM)
    table.add("last SIGTERM", *spread([max(s.sigterm_ms) for s in switches]))
    table.print()


if __name__ == "__main__":
    main()
