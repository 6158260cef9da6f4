"""What every system is asked, in the same order; the figures go to standard output as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar

from benchmarks.sdk_peers import descendants

WORKERS = 2
WARM_UP_CALLS = 200
SETTLES_WITHIN_S = 1.0
REPEATS = 3
"""Put and got one after another; all are kept, and copies too, so that each needs fresh pages."""

CALLS, MAP, ACTORS, LARGE_VALUES, IDLE = "calls", "map", "actors", "values", "idle"
PARTS = (IDLE, CALLS, MAP, ACTORS, LARGE_VALUES)
"""In this order, as what runs first is not what an idle engine is."""

Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Plan:
    parts: tuple[str, ...] = PARTS
    calls: int = 10_000
    """In flight at a time."""
    seconds: float = 1.0
    """For calls one by one."""
    idle_s: float = 3.0
    large: int = 100_000_000
    """Bytes."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def nothing(_: int = 0) -> None:
    pass


def where(_: int = 0) -> int:
    time.sleep(0.05)
    return os.getpid()


def zeros(size: int) -> Any:
    import numpy as np  # not a dependency of all systems

    return np.full(size, 1, dtype=np.uint8)


class Nothing:
    def nothing(self, _: int = 0) -> None:
        pass


class System:
    parts: ClassVar[tuple[str, ...]] = PARTS
    """What it has."""

    def start(self) -> None:
        """With WORKERS workers; until calls can be made, whatever is still under way."""
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def call(self, function: Callable[[int], Any]) -> Any:
        """One call, and its result."""
        raise NotImplementedError

    def in_flight(self, function: Callable[[int], Any], count: int) -> list[Any]:
        """Calls submitted one by one before the first result is taken."""
        raise NotImplementedError

    def map(self, function: Callable[[int], Any], count: int) -> None:
        """As many calls in the way made for that, a call for each number."""
        raise NotImplementedError

    def make_actor(self) -> Any:
        """Of the class Nothing."""
        raise NotImplementedError

    def actor_call(self, actor: Any) -> None:
        raise NotImplementedError

    def actor_in_flight(self, actor: Any, count: int) -> None:
        raise NotImplementedError

    def put(self, value: Any) -> Any:
        raise NotImplementedError

    def made_elsewhere(self, size: int) -> Any:
        """A reference to what `zeros` has returned in a worker, once it is there."""
        raise NotImplementedError

    def get(self, reference: Any) -> Any:
        raise NotImplementedError


def run(system: System) -> None:
    """The whole program: the plan is its argument."""
    plan = Plan(**json.loads(sys.argv[1]))
    descendants.keep_orphans()
    figures: Figures = {}
    with redirect_stdout(sys.stderr):
        _start(system, figures)
        try:
            for part, measure in _MEASURES.items():
                if part in plan.parts and part in system.parts:
                    measure(system, plan, figures)
        finally:
            system.stop()
    print(json.dumps(figures), file=sys.__stdout__, flush=True)


def _start(system: System, figures: Figures) -> None:
    begun = time.perf_counter()
    system.start()
    figures["init"] = [time.perf_counter() - begun]
    system.call(nothing)
    figures["first"] = [time.perf_counter() - begun]


def _idle(system: System, plan: Plan, figures: Figures) -> None:
    workers = sorted(set(system.in_flight(where, 8 * WORKERS)))
    time.sleep(min(SETTLES_WITHIN_S, plan.idle_s))
    everybody = descendants.everybody()
    before, begun = descendants.cpu_s(everybody), time.perf_counter()
    time.sleep(plan.idle_s)
    used, took = descendants.cpu_s(everybody) - before, time.perf_counter() - begun
    figures["cpu"] = [used / took * 100]
    figures["processes"] = [float(len(everybody))]
    figures["memory"] = [sum(map(descendants.proportional_mb, everybody))]
    figures["worker, resident"] = [descendants.resident_mb(pid) for pid in workers]
    figures["worker, proportional"] = [descendants.proportional_mb(pid) for pid in workers]


def _calls(system: System, plan: Plan, figures: Figures) -> None:
    system.in_flight(nothing, WARM_UP_CALLS)
    figures["one by one"] = [_one_by_one(lambda: system.call(nothing), plan.seconds)]
    figures["in flight"] = [_rate(plan.calls, lambda: system.in_flight(nothing, plan.calls))]


def _map(system: System, plan: Plan, figures: Figures) -> None:
    system.map(nothing, WARM_UP_CALLS)
    figures["map"] = [_rate(plan.calls, lambda: system.map(nothing, plan.calls))]


def _actors(system: System, plan: Plan, figures: Figures) -> None:
    actor = system.make_actor()
    system.actor_in_flight(actor, WARM_UP_CALLS)
    figures["actor, one by one"] = [_one_by_one(lambda: system.actor_call(actor), plan.seconds)]
    figures["actor, in flight"] = [
        _rate(plan.calls, lambda: system.actor_in_flight(actor, plan.calls))
    ]


def _large_values(system: System, plan: Plan, figures: Figures) -> None:
    value, kept = zeros(plan.large), []
    for _ in range(REPEATS):
        took, copy = _timed(lambda: bytearray(value))
        figures.setdefault("copy", []).append(plan.large / took / 1e9)
        took, ours = _timed(lambda: system.put(value))
        figures.setdefault("put", []).append(plan.large / took / 1e9)
        took, got = _timed(partial(system.get, ours))
        figures.setdefault("get", []).append(took * 1000)
        theirs = system.made_elsewhere(plan.large)
        took, result = _timed(partial(system.get, theirs))
        figures.setdefault("get of a result", []).append(took * 1000)
        assert got.nbytes == result.nbytes == plan.large
        kept.append((copy, ours, got, theirs, result))


_MEASURES = {
    IDLE: _idle,
    CALLS: _calls,
    MAP: _map,
    ACTORS: _actors,
    LARGE_VALUES: _large_values,
}


def _one_by_one(call: Callable[[], object], seconds: float) -> float:
    gc.collect()
    count, begun = 0, time.perf_counter()
    while (took := time.perf_counter() - begun) < seconds:
        call()
        count += 1
    return count / took


def _rate(count: int, calls: Callable[[], object]) -> float:
    gc.collect()
    return count / _timed(calls)[0]


def _timed(what: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    result = what()
    return time.perf_counter() - begun, result
