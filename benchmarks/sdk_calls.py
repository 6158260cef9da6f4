"""How many calls a second does `import gridcore` make on this machine, and what does it cost?

one by one   submit a call that does nothing, wait for its result, and again
in flight    submit 10,000 of them, then take all results
map          the same through `.map`, against `ProcessPoolExecutor.map` with chunk size 1
actor        the same with a method of one actor
executor     the same through `gridcore.Executor`, without a limit and with as many calls as workers

Beside `concurrent.futures.ProcessPoolExecutor`, which has neither retries nor actors, with as many
processes; in turn, round by round. Then what an engine costs: its start, its memory and its CPU
while it is idle, values of 100 MB put and got, and the driver's memory with a million calls queued.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import gc
import pickle
import statistics
import time
from collections.abc import Callable
from typing import Any

import psutil

import gridcore
from benchmarks.report import SPREAD, Table, only_figures, print_machine, spread

WORKERS = 2
LARGE = 100 * 1000 * 1000
IDLE_S = 3.0


def nothing(_: int = 0) -> None:
    pass


class Nothing:
    def nothing(self, _: int = 0) -> None:
        pass


class Raw:
    """Pickles without a copy, as an array does."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Raw, (pickle.PickleBuffer(self.content),)


remote_nothing = gridcore.remote(nothing)
RemoteNothing = gridcore.remote(Nothing)

AIMS = {
    "one by one": "3,600",
    "in flight": "15,900",
    "map": "",
    "actor, one by one": "11,700",
    "actor, in flight": "36,500",
    "executor, one by one": "",
    "executor, in flight": "",
    "executor of 2, in flight": "",
}
"""Ten times what Ray 2.60 does on two cores like these."""


@only_figures()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=10_000, help="of a round in flight")
    parser.add_argument("--queued", type=int, default=1_000_000)
    chosen = parser.parse_args()
    print_machine()
    _speed(chosen.rounds, chosen.calls)
    _cost(chosen.rounds, chosen.queued)


def _speed(rounds: int, calls: int) -> None:
    gridcore.init(num_cpus=WORKERS)
    actor = RemoteNothing.remote()
    few = calls // 4
    executor = gridcore.Executor()
    limited = gridcore.Executor(WORKERS)
    ours: dict[str, tuple[int, Callable[[], object]]] = {
        "one by one": (few, lambda: [gridcore.get(remote_nothing.remote(n)) for n in range(few)]),
        "in flight": (
            calls,
            lambda: gridcore.get([remote_nothing.remote(n) for n in range(calls)]),
        ),
        "map": (calls, lambda: list(remote_nothing.map(range(calls)))),
        "actor, one by one": (
            few,
            lambda: [gridcore.get(actor.nothing.remote(n)) for n in range(few)],
        ),
        "actor, in flight": (
            calls,
            lambda: gridcore.get([actor.nothing.remote(n) for n in range(calls)]),
        ),
        "executor, one by one": (few, lambda: _one_by_one(executor, few)),
        "executor, in flight": (calls, lambda: _in_flight(executor, calls)),
        "executor of 2, in flight": (calls, lambda: _in_flight(limited, calls)),
    }
    with concurrent.futures.ProcessPoolExecutor(WORKERS) as pool:
        theirs: dict[str, Callable[[], object]] = {
            "one by one": lambda: _one_by_one(pool, few),
            "in flight": lambda: _in_flight(pool, calls),
            "map": lambda: list(pool.map(nothing, range(calls), chunksize=1)),
            "executor, one by one": lambda: _one_by_one(pool, few),
            "executor, in flight": lambda: _in_flight(pool, calls),
            "executor of 2, in flight": lambda: _in_flight(pool, calls),
        }
        for run in theirs.values():
            run()
        rates: dict[str, list[float]] = {name: [] for name in ours}
        peers: dict[str, list[float]] = {name: [] for name in theirs}
        for _ in range(rounds):
            for name, (count, run) in ours.items():
                rates[name].append(_rate(count, run))
                if name in theirs:
                    peers[name].append(_rate(count, theirs[name]))
    executor.shutdown()
    limited.shutdown()
    gridcore.shutdown()
    table = Table(
        f"calls a second, {WORKERS} workers", *SPREAD, "ProcessPoolExecutor, median", "ratio"
    )
    for name, values in rates.items():
        beside = peers.get(name)
        pairs = [ours / other for ours, other in zip(values, beside or (), strict=False)]
        table.add(
            name,
            *spread(values),
            f"{statistics.median(beside):,.0f}" if beside else "",
            f"{statistics.median(pairs):.1f}" if pairs else "",
            aim=AIMS[name],
        )
    table.print()


def _one_by_one(executor: concurrent.futures.Executor, calls: int) -> None:
    for n in range(calls):
        executor.submit(nothing, n).result()


def _in_flight(executor: concurrent.futures.Executor, calls: int) -> None:
    for future in [executor.submit(nothing, n) for n in range(calls)]:
        future.result()


def _rate(count: int, run: Callable[[], object]) -> float:
    gc.collect()
    begun = time.perf_counter()
    run()
    return count / (time.perf_counter() - begun)


def _cost(rounds: int, queued: int) -> None:
    table = Table("what it costs", *SPREAD)
    starts, firsts = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        gridcore.init(num_cpus=WORKERS)
        starts.append(time.perf_counter() - begun)
        gridcore.get(remote_nothing.remote())
        firsts.append(time.perf_counter() - begun)
        gridcore.shutdown()
    table.add("init, s", *spread(starts, 3), aim="0.4")
    table.add("init and the first result, s", *spread(firsts, 3))

    gridcore.init(num_cpus=WORKERS)
    gridcore.get([remote_nothing.remote() for _ in range(100)])
    children = psutil.Process().children(recursive=True)
    table.add(
        "resident memory of a process, MB",
        *spread([child.memory_info().rss / 1e6 for child in children], 1),
        aim="40",
    )
    table.add("CPU when idle, % of a core", *spread([_idle_percent(children)], 2), aim="0")
    puts, gets, again, copies = [], [], [], []
    content = bytearray(LARGE)
    for _ in range(rounds):
        begun = time.perf_counter()
        copy = bytearray(content)
        copies.append(LARGE / (time.perf_counter() - begun) / 1e9)
        del copy
        begun = time.perf_counter()
        ref = gridcore.put(Raw(content))
        puts.append(LARGE / (time.perf_counter() - begun) / 1e9)
        begun = time.perf_counter()
        gridcore.get(ref)
        gets.append((time.perf_counter() - begun) * 1000)
        begun = time.perf_counter()
        gridcore.get(ref)
        again.append((time.perf_counter() - begun) * 1000)
        del ref
    table.add("copy of 100 MB into fresh memory, GB/s", *spread(copies, 2))
    table.add("put of 100 MB, GB/s", *spread(puts, 2), aim="as a copy")
    table.add("get of 100 MB, ms", *spread(gets, 3), aim="0.2")
    table.add("get of it again, ms", *spread(again, 3))
    gc.collect()
    before = psutil.Process().memory_info().rss
    begun = time.perf_counter()
    most = 0
    for number in range(queued):
        remote_nothing.remote(number)
        if number % 1000 == 0:
            most = max(most, psutil.Process().memory_info().rss)
    rate = queued / (time.perf_counter() - begun)
    table.add(
        f"memory for {queued:,} calls that nobody awaits, MB", *spread([(most - before) / 1e6], 1)
    )
    table.add("their calls a second", *spread([rate]))
    gridcore.shutdown()
    table.print()


def _idle_percent(children: list[psutil.Process]) -> float:
    """Of driver, template and workers together."""
    everybody = [psutil.Process(), *children]

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in everybody)

    time.sleep(0.1)
    before = used()
    time.sleep(IDLE_S)
    return (used() - before) / IDLE_S * 100


if __name__ == "__main__":
    main()
