"""Two sides of a comparison: plain consumers straight on Redis, and the same with a node between.

The consumers are what any image may hold: redis-py as it comes, in processes of their own, which
know nothing of us. By hand they are started as somebody would, or pinned to a core each as a node
does it. Through the gateway a real agent, of a real hub, runs them in its slots, with all that is
promised for their items; when it is over each item must be in the queue or among the results, and
there once.

What is measured is a window in the middle: the consumers have started, and items are left.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from types import TracebackType
from typing import Any, Self

import psutil
import redis

from benchmarks.report import SPREAD, Table, spread
from tests.support.programs import HubProgram, NodeProgram
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

FIRST_RESULT_WITHIN_S = 60.0
SETTLED_WITHIN_S = 60.0
WARM_UP_S = 0.7
LOOK_EVERY_S = 0.05
ENOUGH_SHARE = 0.9
"""A window ends when so much of the queue is done: its last items are another question."""

PUSH_AT_ONCE = 10_000

_CONNECT = """
import os, time, redis
source = redis.Redis.from_url(os.environ["INPUT_REDIS_URL"])
target = redis.Redis.from_url(os.environ["OUTPUT_REDIS_URL"])
items, results = os.environ["INPUT_QUEUE"], os.environ["OUTPUT_QUEUE"]
"""

Command = list[str]


def python(program: str) -> Command:
    """It finds `source` and `target` connected, and the names of `items` and `results`."""
    return [sys.executable, "-c", _CONNECT + program]


ONE_BY_ONE = python("""
while True:
    _, item = source.brpop(items)
    target.lpush(results, item)
""")

IN_BATCHES = python("""
while True:
    batch = source.lpop(items, 100)
    if batch:
        target.lpush(results, *batch)
    else:
        time.sleep(0.01)
""")


@dataclass(frozen=True)
class Window:
    items: int
    took_s: float
    cpu_s: Mapping[str, float]
    """Of those who take part, by name."""
    idle_share: float
    """Of all cores."""
    others_share: float
    """What neither idled nor took part: other programs of this machine, the host's other guests."""
    commands: Mapping[str, float]
    """Calls of each Redis command, those inside of scripts as well."""

    @property
    def per_s(self) -> float:
        return self.items / self.took_s

    @property
    def client_commands_per_item(self) -> float:
        inside = _commands_of_scripts() if "evalsha" in self.commands else set()
        calls = sum(calls for name, calls in self.commands.items() if name not in inside)
        return calls / self.items

    @property
    def all_commands_per_item(self) -> float:
        return sum(self.commands.values()) / self.items

    def cpu_us_per_item(self, who: str) -> float:
        return 1e6 * self.cpu_s.get(who, 0.0) / self.items


class Grid:
    """A Redis of the measurement's own, a hub with its embedded store, and one process node."""

    def __init__(self, *, slots: int = 2) -> None:
        self.slots = slots
        self._tasks = 0
        self._items = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.server = stack.enter_context(RedisServer(appendonly=True))
            self.store: redis.Redis = stack.enter_context(redis.Redis.from_url(self.server.url))
            self.hub = stack.enter_context(HubProgram())
            self.node = stack.enter_context(
                NodeProgram(
                    self.hub.url, node_id="bench", runtime="process", parallelism=self.slots
                )
            )
            wait_until(lambda: self.hub.nodes(), within_s=30, what="the node registers")
            self.agent = psutil.Process(self.node.process.pid)
            self.redis = psutil.Process(int(self.store.info("server")["process_id"]))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def items(self) -> str:
        return f"t{self._tasks}:input"

    @property
    def results(self) -> str:
        return f"t{self._tasks}:output"

    def fill(self, count: int) -> None:
        """A new queue of so many distinct items; those before are gone."""
        self.store.delete(self.items, self.results)
        self._tasks += 1
        self._items = count
        for first in range(0, count, PUSH_AT_ONCE):
            numbers = range(first, min(first + PUSH_AT_ONCE, count))
            self.store.lpush(self.items, *[b"item %d" % number for number in numbers])

    def push(self, item: bytes) -> None:
        self.store.lpush(self.items, item)
        self._items += 1

    @contextmanager
    def by_hand(
        self, command: Command, *, is_pinned: bool, count: int | None = None, url: str | None = None
    ) -> Iterator[dict[str, list[psutil.Process]]]:
        """Consumers straight on Redis."""
        cores = sorted(os.sched_getaffinity(0))
        url = url or self.server.url
        environment = os.environ | {
            "INPUT_REDIS_URL": url,
            "OUTPUT_REDIS_URL": url,
            "INPUT_QUEUE": self.items,
            "OUTPUT_QUEUE": self.results,
        }
        started: list[subprocess.Popen[bytes]] = []
        try:
            for number in range(count or self.slots):
                pinned = ["taskset", "-c", str(cores[number % len(cores)])] if is_pinned else []
                started.append(subprocess.Popen([*pinned, *command], env=environment))
            yield {
                "Redis": [self.redis],
                "consumers": [psutil.Process(process.pid) for process in started],
            }
        finally:
            for process in started:
                process.kill()
                process.wait()

    @contextmanager
    def through_gateway(
        self, command: Command, *, url: str | None = None
    ) -> Iterator[dict[str, list[psutil.Process]]]:
        """Consumers in the node's slots."""
        name = f"t{self._tasks}"
        self.hub.submit(name, command=command, input_redis=url or self.server.url)
        try:
            wait_until(
                lambda: len(self.agent.children()) == self.slots,
                within_s=FIRST_RESULT_WITHIN_S,
                what=f"{self.slots} slots are at work",
            )
            yield {
                "agent": [self.agent],
                "Redis": [self.redis],
                "consumers": self.agent.children(),
            }
        finally:
            self.hub.post("/api/tasks/finish")
            wait_until(
                lambda: not self.agent.children(),
                within_s=SETTLED_WITHIN_S,
                what="the slots are empty again",
            )
        self._check_each_is_there_once()

    def measure(
        self, processes: dict[str, list[psutil.Process]], seconds: float, *, warm_up: int = 1
    ) -> Window:
        """The next seconds, or until most of the queue is done; `warm_up` results come before."""
        wait_until(
            lambda: self._done() >= warm_up,
            within_s=FIRST_RESULT_WITHIN_S,
            what="the first results come",
        )
        time.sleep(WARM_UP_S)
        before, began_at, done_before = self._look(processes), time.perf_counter(), self._done()
        enough = ENOUGH_SHARE * self._items
        done, now = done_before, began_at
        while now - began_at < seconds and done < enough:
            time.sleep(LOOK_EVERY_S)
            done, now = self._done(), time.perf_counter()
        after = self._look(processes)
        assert done > done_before, "no item was done, or all were before the window began"
        cpu_s = {who: after.cpu_s[who] - before.cpu_s[who] for who in processes}
        total_s = after.total_s - before.total_s
        idle_s = after.idle_s - before.idle_s
        ours_s = sum(cpu_s.values()) + after.own_s - before.own_s
        return Window(
            items=done - done_before,
            took_s=now - began_at,
            cpu_s=cpu_s,
            idle_share=idle_s / total_s,
            others_share=max(0.0, total_s - idle_s - ours_s) / total_s,
            commands=after.commands - before.commands,
        )

    def connections(self) -> int:
        """Of the agent to the Redis of the task."""
        return sum(
            bool(connection.raddr) and connection.raddr.port == self.server.port
            for connection in self.agent.net_connections("tcp")
        )

    def _done(self) -> int:
        return int(self.store.llen(self.results))

    def _look(self, processes: Mapping[str, Sequence[psutil.Process]]) -> _Look:
        machine = psutil.cpu_times()
        guests = machine.guest + machine.guest_nice  # which are in user and nice as well
        return _Look(
            cpu_s={who: sum(map(cpu_s, theirs)) for who, theirs in processes.items()},
            own_s=time.process_time(),
            idle_s=machine.idle + machine.iowait,
            total_s=sum(machine) - guests,
            commands=self._commands(),
        )

    def _commands(self) -> Counter[str]:
        stats: dict[str, Any] = self.store.info("commandstats")
        calls = Counter({name.removeprefix("cmdstat_"): s["calls"] for name, s in stats.items()})
        for ours in ("info", "llen"):
            del calls[ours]
        return calls

    def _check_each_is_there_once(self) -> None:
        """A moment after the end: what the node held goes back first."""
        store = self.store
        wait_until(
            lambda: store.llen(self.items) + store.llen(self.results) == self._items,
            within_s=SETTLED_WITHIN_S,
            what=f"all {self._items} items are in the queue or among the results",
        )
        found = set()
        for name in (self.items, self.results):
            for first in range(0, int(store.llen(name)), PUSH_AT_ONCE):
                found.update(store.lrange(name, first, first + PUSH_AT_ONCE - 1))
        assert len(found) == self._items, "an item is lost, and another one doubled"


@dataclass(frozen=True)
class _Look:
    cpu_s: dict[str, float]
    own_s: float
    idle_s: float
    total_s: float
    commands: Counter[str]


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


Side = Callable[[], Window]


def in_turn(sides: Mapping[str, Side], rounds: int) -> dict[str, list[Window]]:
    """So that what else the machine does meets all of them."""
    found: dict[str, list[Window]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            found[name].append(measure())
    return found


def ratios(ours: Sequence[Window], theirs: Sequence[Window]) -> list[float]:
    """Round by round."""
    return [our.per_s / their.per_s for our, their in zip(ours, theirs, strict=True)]


def show_speed(title: str, found: Mapping[str, Sequence[Window]], aims: Mapping[str, str]) -> None:
    table = Table(f"{title}, items/s", *SPREAD)
    for name, windows in found.items():
        table.add(name, *spread([w.per_s for w in windows]), aim=aims.get(name, ""))
    table.print()


def show_cost(title: str, found: Mapping[str, Sequence[Window]]) -> None:
    """Medians of the rounds."""
    table = Table(f"{title}: CPU in µs an item, shares of both cores, Redis commands", *found)

    def add(what: str, figure: Callable[[Window], float], digits: int) -> None:
        medians = [statistics.median(map(figure, windows)) for windows in found.values()]
        table.add(what, *[f"{median:,.{digits}f}" for median in medians])

    for who in ("agent", "Redis", "consumers"):
        add(f"{who}, µs/item", lambda w, who=who: w.cpu_us_per_item(who), 1)  # type: ignore[misc]
    add("idle, %", lambda w: 100 * w.idle_share, 0)
    add("others on this machine, %", lambda w: 100 * w.others_share, 0)
    add("commands of clients/item", lambda w: w.client_commands_per_item, 4)
    add("with those inside scripts", lambda w: w.all_commands_per_item, 2)
    table.print()


def _commands_of_scripts() -> set[str]:
    """What the lease queue's scripts call: of these the server cannot tell who has called them."""
    found = {"lpush", "rpush", "lpop", "rpop"}  # by a variable
    for file in resources.files("gridcore.lease_queue.scripts").iterdir():
        found |= set(re.findall(r"redis\.call\('(\w+)'", file.read_text("utf-8").lower()))
    return found
