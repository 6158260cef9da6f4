"""How many calls a second does `import gridcore` make, what does it cost, and what do others do?

one by one       submit a call that does nothing, wait for its result, and again
in flight        submit 10,000 of them, then take all results
map              the same in the way that a system has for it, chunk size 1
actor            one by one and in flight with a method of one actor
init, first      the start alone, and with the first result
idle             memory of all processes (what n share counts as an n-th) and of a worker, and CPU
values           put and get of an array of 100 MB, get of one that a worker has returned
queued           a million calls at once: the driver's peak memory, and the rate

On this machine and on a grid (a hub, a node with two slots, Redis), beside Ray, Dask distributed,
ProcessPoolExecutor, multiprocessing.Pool and loky with as many workers. Each system is a program of
its own, which starts, measures and ends; in turn, round by round. Ratios are of the same round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import environments
from benchmarks.report import Table, only_figures, print_machine, say
from benchmarks.sdk_peers import descendants
from benchmarks.sdk_peers.measure import IDLE, PARTS, WORKERS, Figures, Plan

ROOT = Path(__file__).parents[1]
ENDS_WITHIN_S = 150.0
QUEUED_WITHIN_S = 300.0
PEERS_IDLE_S = 2.0
"""The longest for those whose idle CPU is not in question."""

OURS, EXECUTOR, GRID = "gridcore", "gridcore.Executor", "gridcore on a grid"
RAY, DASK, PROCESSES, POOL, LOKY = (
    "Ray",
    "Dask, 2,500 in flight",
    "ProcessPoolExecutor",
    "Pool",
    "loky",
)
QUEUED = "queued"


@dataclass(frozen=True)
class _System:
    module: str
    option: str
    """Its name for --only."""
    requirements: tuple[str, ...] = ()
    """Of a virtual environment of its own; none: ours."""
    environment: tuple[tuple[str, str], ...] = ()
    calls_at_most: int = 1_000_000
    """In flight; for what is too slow to have as many as the others in the time."""


SYSTEMS = {
    OURS: _System("with_gridcore", "local"),
    EXECUTOR: _System("with_gridcore_executor", "executor"),
    GRID: _System("with_gridcore_grid", "grid"),
    RAY: _System(
        "with_ray",
        "ray",
        ("ray==2.60.0", "numpy==2.4.6"),
        # It would tell its makers that it is used, and leave a token in the home.
        (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_AUTH_MODE", "disabled")),
    ),
    DASK: _System("with_dask", "dask", ("distributed==2026.8.0", "numpy==2.4.6"), (), 2500),
    PROCESSES: _System("with_processes", "processes"),
    POOL: _System("with_pool", "pool"),
    LOKY: _System("with_loky", "loky", ("loky==3.7.0", "joblib==1.6.0")),
}
OPTIONS = (*(system.option for system in SYSTEMS.values()), QUEUED)

Rounds = dict[str, list[Figures]]
"""System -> what each round has given."""


class _FailedError(Exception):
    """One line that says why there are no figures."""


@only_figures()
def main() -> None:
    chosen = _arguments()
    descendants.keep_orphans()  # that nothing is left of a system that failed
    print_machine()
    names = [name for name, system in SYSTEMS.items() if system.option in chosen.only]
    pythons, failed = _pythons(names)
    begun = time.monotonic()
    queued: list[Figures] = []
    if QUEUED in chosen.only:
        try:
            command = [sys.executable, "-m", "benchmarks.sdk_peers.queued", str(chosen.queued)]
            queued.append(_figures(command, {}, QUEUED_WITHIN_S))
        except _FailedError as error:
            failed[QUEUED] = str(error)
            say(f"{QUEUED}: {error}\n")
    rounds: Rounds = {name: [] for name in names if name not in failed}
    longest = 0.0
    for number in range(chosen.rounds):
        round_begun = time.monotonic()
        if number and round_begun + longest > begun + chosen.minutes * 60:
            say(f"{number} of {chosen.rounds} rounds: there is no time for more\n")
            break
        _round(rounds, failed, pythons, chosen)
        longest = max(longest, time.monotonic() - round_begun)
    rounds = {name: figures for name, figures in rounds.items() if name not in failed}
    _show(rounds, queued, failed, chosen)


def _round(
    rounds: Rounds,
    failed: dict[str, str],
    pythons: Mapping[str, Path],
    chosen: argparse.Namespace,
) -> None:
    for name in rounds:
        if name in failed:
            continue
        try:
            rounds[name].append(_measure(name, pythons[name], chosen))
        except _FailedError as error:
            failed[name] = str(error)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=OPTIONS, metavar="SYSTEM")
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=8.0, help="no round that ends later")
    parser.add_argument("--calls", type=int, default=10_000, help="in flight")
    parser.add_argument("--seconds", type=float, default=1.0, help="of calls one by one")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds; of others at most 2")
    parser.add_argument("--megabytes", type=int, default=100, help="of a large value")
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    parser.epilog = f"SYSTEM: {', '.join(OPTIONS)}"
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.calls, chosen.seconds = 1, 300, 0.2
        chosen.idle, chosen.megabytes, chosen.queued = 1.0, 10, 10_000
    return chosen


# --- programs


def _pythons(names: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Each one's interpreter, or why there is none."""
    pythons, failed = {}, {}
    for name in names:
        requirements = SYSTEMS[name].requirements
        if not requirements:
            pythons[name] = Path(sys.executable)
            continue
        say(f"{name}: {', '.join(requirements)}")
        try:
            pythons[name] = environments.made_for(requirements) / "bin" / "python"
        except subprocess.CalledProcessError as error:
            failed[name] = f"cannot be installed, pip ended with {error.returncode}"
    say()
    return pythons, failed


def _measure(name: str, python: Path, chosen: argparse.Namespace) -> Figures:
    system = SYSTEMS[name]
    plan = Plan(
        parts=tuple(chosen.parts),
        calls=min(chosen.calls, system.calls_at_most),
        seconds=chosen.seconds,
        idle_s=chosen.idle if name == OURS else min(chosen.idle, PEERS_IDLE_S),
        large=chosen.megabytes * 1_000_000,
    )
    command = [str(python), "-m", f"benchmarks.sdk_peers.{system.module}", plan.as_json()]
    return _figures(command, dict(system.environment), ENDS_WITHIN_S)


def _figures(command: Sequence[str], environment: Mapping[str, str], within_s: float) -> Figures:
    try:
        done = subprocess.run(
            command,
            # The working directory is where `python -m` looks, and its workers' path.
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environment),
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _FailedError(f"not done within {within_s:g} s") from None
    finally:
        _end_what_is_left()
    if done.returncode:
        print(done.stderr)
        last = done.stderr.strip().splitlines()[-1:]
        raise _FailedError(f"exit status {done.returncode}: {' '.join(last)}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _end_what_is_left() -> None:
    left = psutil.Process().children(recursive=True)
    _, left = psutil.wait_procs(left, timeout=2)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


# --- tables


def _show(
    rounds: Rounds, queued: Sequence[Figures], failed: Mapping[str, str], chosen: argparse.Namespace
) -> None:
    size = f"{chosen.megabytes} MB"
    done = max(map(len, rounds.values()), default=0)
    _table(
        f"calls a second, {WORKERS} workers, {chosen.calls:,} in flight, {done} rounds",
        rounds,
        failed,
        {
            "one by one": ("one by one", 0),
            "in flight": ("in flight", 0),
            "map": ("map", 0),
            "actor, one by one": ("actor, one by one", 0),
            "actor, in flight": ("actor, in flight", 0),
        },
    )
    _table(
        "start, s",
        rounds,
        failed,
        {"init alone": ("init", 3), "init to the first result": ("first", 3)},
    )
    if IDLE in chosen.parts:
        _table(
            "idle, the calling program and all that it has started",
            rounds,
            failed,
            {
                "processes": ("processes", 0),
                "memory of all, MB": ("memory", 1),
                "of a worker, resident": ("worker, resident", 1),
                "of a worker, its share": ("worker, proportional", 1),
                "CPU, % of a core": ("cpu", 2),
            },
        )
    _table(
        f"arrays of {size}",
        {name: figures for name, figures in rounds.items() if any("put" in one for one in figures)},
        failed,
        {
            "copy into fresh memory, GB/s": ("copy", 2),
            "put, GB/s": ("put", 2),
            "get, ms": ("get", 3),
            "get of a worker's result, ms": ("get of a result", 3),
        },
    )
    for figures in queued:
        table = Table(
            f"{chosen.queued:,} calls that do nothing, local engine",
            "driver's peak memory, MB more",
            "calls a second",
        )
        for what, key in (("no reference kept", "dropped"), ("all references kept", "kept")):
            table.add(
                what, f"{figures[f'{key}, peak'][0]:.1f}", f"{figures[f'{key}, rate'][0]:,.0f}"
            )
        table.print()
    _show_aims(rounds, queued)


def _table(
    title: str,
    rounds: Rounds,
    failed: Mapping[str, str],
    columns: Mapping[str, tuple[str, int]],
) -> None:
    """A row for each system: medians, with the least and the most."""
    if not any(
        key in one for figures in rounds.values() for one in figures for key, _ in columns.values()
    ):
        return
    table = Table(title, *columns)
    for name, figures in rounds.items():
        table.add(name, *(_cell(_all(figures, key), digits) for key, digits in columns.values()))
    for name, why in failed.items():
        if name in SYSTEMS:
            table.add(f"{name}: {why}", *("" for _ in columns))
    table.print()


def _all(figures: Sequence[Figures], key: str) -> list[float]:
    return [value for one in figures for value in one.get(key, ())]


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    median = f"{statistics.median(values):,.{digits}f}"
    if min(values) == max(values):
        return median
    return f"{median} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


@dataclass(frozen=True)
class _Aim:
    what: str
    values: Sequence[float]
    digits: int
    aim: str
    is_met: Callable[[float], bool]
    """By the median."""


def _show_aims(rounds: Rounds, queued: Sequence[Figures]) -> None:
    aims = [*_aims_beside_others(rounds), *_aims_of_costs(rounds), *_aims_of_queued(queued)]
    table = Table("the aims of issue 4, met by the median or not", "figure", "met")
    for one in aims:
        if one.values:
            met = "yes" if one.is_met(statistics.median(one.values)) else "NO"
            table.add(one.what, _cell(one.values, one.digits), met, aim=one.aim)
    table.print()


def _aims_beside_others(rounds: Rounds) -> list[_Aim]:
    def times(key: str, other: str, ours: str = OURS) -> list[float]:
        """In the same round."""
        pairs = zip(rounds.get(ours, ()), rounds.get(other, ()), strict=False)
        return [
            statistics.median(mine[key]) / statistics.median(theirs[key])
            for mine, theirs in pairs
            if key in mine and key in theirs
        ]

    aims = [
        _Aim(f"{key}, times {RAY}", times(key, RAY), 1, "10", lambda figure: figure >= 10)
        for key in ("one by one", "in flight", "actor, one by one", "actor, in flight")
    ]
    for ours in (OURS, EXECUTOR):
        aims += [
            _Aim(
                f"{ours}: {key}, times {other}",
                times(key, other, ours),
                2,
                "ahead: 1",
                lambda figure: figure > 1,
            )
            for other in (PROCESSES, LOKY)
            for key in ("one by one", "in flight", "map")
        ]
    return aims


def _aims_of_costs(rounds: Rounds) -> list[_Aim]:
    ours, grid = rounds.get(OURS, ()), rounds.get(GRID, ())
    copies = [
        put / copy
        for one in ours
        for put, copy in zip(one.get("put", ()), one.get("copy", ()), strict=True)
    ]
    return [
        _Aim("init, s", _all(ours, "init"), 3, "under 0.4", lambda figure: figure < 0.4),
        _Aim(
            "resident memory of an idle worker, MB",
            _all(ours, "worker, resident"),
            1,
            "under 40",
            lambda figure: figure < 40,
        ),
        _Aim(
            "CPU when idle, % of a core",
            _all(ours, "cpu"),
            2,
            "not measurable: 0.1 (a tick)",
            lambda figure: figure <= 0.11,
        ),
        _Aim("put, times the speed of a copy", copies, 2, "1, less noise: 0.9", lambda n: n >= 0.9),
        _Aim("get, ms", _all(ours, "get"), 3, "under 0.2", lambda figure: figure < 0.2),
        _Aim(
            "on a grid, calls a second in flight",
            _all(grid, "in flight"),
            0,
            "3,000",
            lambda figure: figure >= 3000,
        ),
    ]


def _aims_of_queued(queued: Sequence[Figures]) -> list[_Aim]:
    growth = [one["dropped, peak"][0] - one["early peak"][0] for one in queued]
    return [
        _Aim(
            "queued calls: peak after all, MB above that after a tenth",
            growth,
            1,
            "bounded: under 20",
            lambda figure: figure < 20,
        )
    ]


if __name__ == "__main__":
    main()
