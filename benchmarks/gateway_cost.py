"""What does the gateway cost besides speed: waiting, memory, and what it asks of Redis?

latency    one consumer that is in no hurry: how long its BRPOP and its LPUSH take while there are
           items, and how long an item takes from its push to a consumer that waits for it; by hand
           and through the gateway in turn
memory     an agent with 64 slots: idle, with 64 consumers that each have a connection and an item
           in hand, and while all of them work; and how many connections to Redis it has
commands   what Redis is asked for each item, for items that take longer and longer. A commit waits
           a hundredth of a second for others, so what comes seldom comes alone

Consumers of the last two are small programs without a client library, since 64 times redis-py would
measure that.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.plain_consumers import Command, Grid, python
from benchmarks.report import Table, only_figures, percentile, print_machine, say
from tests.support.waiting import wait_until

SLOTS = 64
PAUSE_S = 0.002
SKIPPED = 100
"""The first of a consumer's items: connections are made, and the agent learns its pace."""

WITHIN_S = 60.0
ARRIVES_WITHIN_S = 5.0

_TIMED = """
import json, sys
path, count, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
took = []
for _ in range(count):
    began = time.perf_counter()
    _, item = source.brpop(items)
    popped = time.perf_counter()
    target.lpush(results, item)
    took.append((popped - began, time.perf_counter() - popped))
    time.sleep(pause_s)
with open(path + ".new", "w") as file:
    json.dump(took, file)
os.rename(path + ".new", path)
time.sleep(3600)
"""

_WAITS = """
import sys
with open(sys.argv[1], "a", buffering=1) as file:
    while True:
        _, item = source.brpop(items)
        print(time.perf_counter_ns(), file=file)
        target.lpush(results, item)
"""

# One connection, and what a reply means does not matter: only that it is there.
_SMALL = """
import os, socket, sys, time, urllib.parse
url = urllib.parse.urlsplit(os.environ["INPUT_REDIS_URL"])
connection = socket.create_connection((url.hostname, url.port))
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def ask(*words):
    words = [word.encode() if isinstance(word, str) else word for word in words]
    packed = b"".join(b"$%d\\r\\n%b\\r\\n" % (len(word), word) for word in words)
    connection.sendall(b"*%d\\r\\n%b" % (len(words), packed))
    return connection.recv(65536)
ask("AUTH", url.username, urllib.parse.unquote(url.password))
items, results = os.environ["INPUT_QUEUE"], os.environ["OUTPUT_QUEUE"]
"""
_HOLDS = """
ask("BRPOP", items, "0")
open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
time.sleep(3600)
"""
_WORKS = """
while True:
    item = ask("BRPOP", items, "0").split(b"\\r\\n")[-2]
    time.sleep(float(sys.argv[1]))
    ask("LPUSH", results, item)
"""


def _small(program: str, *arguments: str) -> Command:
    return [sys.executable, "-I", "-S", "-c", _SMALL + program, *arguments]


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("parts", nargs="*", default=["latency", "memory", "commands"])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--items", type=int, default=1_500, help="of a round of latencies")
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each other measurement")
    chosen = arguments.parse_args()
    with Grid(slots=1) as grid, TemporaryDirectory(prefix="gridcore-bench-") as folder:
        print_machine(redis_url=grid.server.url)
        if "latency" in chosen.parts:
            _measure_latency(grid, Path(folder), chosen.rounds, chosen.items)
    if "memory" in chosen.parts:
        with Grid(slots=SLOTS) as grid, TemporaryDirectory(prefix="gridcore-bench-") as folder:
            _measure_memory(grid, Path(folder), chosen.seconds)
    if "commands" in chosen.parts:
        _measure_commands(chosen.seconds)


# --- latency


def _measure_latency(grid: Grid, folder: Path, rounds: int, count: int) -> None:
    sides = {"by hand": _by_hand, "through the gateway": _through_gateway}
    took_s: dict[str, list[list[float]]] = {name: [] for name in sides}
    woke_s: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, side in sides.items():
            path = folder / f"{name} {number}"
            took_s[name] += _times(grid, side, path, count)
            woke_s[name] += _wake_ups(grid, side, path.with_suffix(".woke"), count // 5)
    table = Table(
        f"µs, one consumer that pauses {1000 * PAUSE_S:g} ms: {rounds} rounds",
        *(f"{name}, {p}" for name in (*sides, "added") for p in ("p50", "p99")),
    )
    for what, seconds in (
        ("BRPOP, items are there", {n: [pop for pop, _ in took_s[n]] for n in sides}),
        ("LPUSH", {n: [push for _, push in took_s[n]] for n in sides}),
        ("both", {n: [pop + push for pop, push in took_s[n]] for n in sides}),
        ("from a push to a BRPOP that waits", woke_s),
    ):
        by_hand, ours = (
            [1e6 * percentile(seconds[name], percent) for percent in (50, 99)] for name in sides
        )
        added = [our - other for our, other in zip(ours, by_hand, strict=True)]
        table.add(what, *[f"{figure:,.0f}" for figure in (*by_hand, *ours, *added)])
    table.print()


@contextmanager
def _by_hand(grid: Grid, command: Command) -> Iterator[None]:
    with grid.by_hand(command, is_pinned=True):
        yield


@contextmanager
def _through_gateway(grid: Grid, command: Command) -> Iterator[None]:
    with grid.through_gateway(command):
        yield


_Side = Callable[[Grid, Command], AbstractContextManager[None]]


def _times(grid: Grid, side: _Side, path: Path, count: int) -> list[list[float]]:
    """Of each item: the seconds of its BRPOP, and of its LPUSH."""
    grid.fill(2 * (count + SKIPPED))
    command = [*python(_TIMED), str(path), str(count + SKIPPED), str(PAUSE_S)]
    with side(grid, command):
        wait_until(path.exists, within_s=WITHIN_S, what="the consumer is done")
    found: list[list[float]] = json.loads(path.read_text())[SKIPPED:]
    return found


def _wake_ups(grid: Grid, side: _Side, path: Path, count: int) -> list[float]:
    """Seconds from the push of an item to the consumer that has it."""
    chance = random.Random(1)
    # One is there already, as a node starts no program for an empty queue.
    grid.fill(1)
    pushed_ns = []
    with side(grid, [*python(_WAITS), str(path)]):
        for number in range(count):
            wait_until(
                lambda so_far=number: path.exists() and _lines(path) > so_far,  # type: ignore[misc]
                within_s=WITHIN_S,
                what="the item arrives",
            )
            # It asks again at once; and then a moment of rest, never the same.
            time.sleep(0.02 + 0.02 * chance.random())
            pushed_ns.append(time.perf_counter_ns())
            grid.push(b"wake %d" % number)
        wait_until(
            lambda: _lines(path) > count, within_s=ARRIVES_WITHIN_S, what="the last one arrives"
        )
    arrived_ns = map(int, path.read_text().split()[1:])
    return [(there - then) / 1e9 for then, there in zip(pushed_ns, arrived_ns, strict=True)]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


# --- memory


def _measure_memory(grid: Grid, folder: Path, seconds: float) -> None:
    idle_mb = _megabytes(grid.agent)
    grid.fill(SLOTS)
    with grid.through_gateway(_small(_HOLDS, str(folder))):
        wait_until(
            lambda: len(list(folder.iterdir())) == SLOTS,
            within_s=WITHIN_S,
            what=f"{SLOTS} consumers have an item each",
        )
        holding_mb, connections = _megabytes(grid.agent), grid.connections()
    table = Table(f"resident memory of an agent with {SLOTS} slots, MB", "MB", "KB/slot")
    table.add("idle, no task yet", f"{idle_mb:.1f}", "")
    in_hand = f"{SLOTS} connections, each with an item in hand"
    table.add(in_hand, f"{holding_mb:.1f}", f"{1024 * (holding_mb - idle_mb) / SLOTS:.0f}")
    grid.fill(int(10_000 * (seconds + 2)))
    with grid.through_gateway(_small(_WORKS, "0.02")) as processes:
        window = grid.measure(processes, seconds)
        working_mb, connections = _megabytes(grid.agent), max(connections, grid.connections())
    table.add(f"at {window.per_s:,.0f} items/s", f"{working_mb:.1f}", "")
    table.print()
    say(f"connections of the agent to Redis: {connections}\n")


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


# --- commands


def _measure_commands(seconds: float) -> None:
    table = Table(
        "what an item costs, by how long it takes",
        *("items/s", "agent, µs", "commands of clients", "with those inside scripts"),
    )
    for slots, item_s in ((2, 0.0), (2, 0.001), (2, 0.01), (2, 0.1), (SLOTS, 0.02), (SLOTS, 0.2)):
        with Grid(slots=slots) as grid:
            grid.fill(int(40_000 * (seconds + 2)))
            with grid.through_gateway(_small(_WORKS, str(item_s))) as processes:
                window = grid.measure(processes, seconds)
        table.add(
            f"{slots} slots, {1000 * item_s:g} ms",
            f"{window.per_s:,.0f}",
            f"{window.cpu_us_per_item('agent'):.0f}",
            f"{window.client_commands_per_item:.4f}",
            f"{window.all_commands_per_item:.2f}",
            aim="0.2 commands at most",
        )
    table.print()


if __name__ == "__main__":
    main()
