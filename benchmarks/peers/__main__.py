from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import redis

from benchmarks import environments, peers
from benchmarks.plain_consumers import IN_BATCHES, ONE_BY_ONE, Command, Grid
from benchmarks.report import Table, only_figures, print_machine, say, spread
from tests.support.processes import end_process, start_process, tail
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_until

HERE = Path(__file__).parent

STARTS_WITHIN_S = 30.0
WARM_UP_S = 0.7
LOOK_EVERY_S = 0.05
LEFT_SHARE = 0.05
"""A window ends when so little is left: what is fetched ahead would be counted as done."""

MANY_ERRORS = 10
"""Then it is the jobs that fail."""

Depth = Callable[[redis.Redis], int]


@dataclass(frozen=True)
class _Peer:
    requirements: tuple[str, ...]
    worker: tuple[str, ...]
    """Of its virtual environment."""
    workers: int
    """How often to start it."""
    depth: Depth
    """Jobs that are not done yet."""
    at_most_per_s: int
    """It does not do more, so that enough are put in."""
    settings: str
    killed: str
    """What happens to the job of a worker that is killed with SIGKILL."""
    environment: tuple[tuple[str, str], ...] = ()


def _stream_depth(store: redis.Redis) -> int:
    (group,) = store.xinfo_groups("taskiq")
    return int(store.xlen("taskiq")) - int(group["entries-read"] or 0) + int(group["pending"])


PEERS = {
    "Celery": _Peer(
        ("celery[redis]==5.7.0", "redis==8.1.0", "hiredis==3.5.0"),
        (
            *("celery", "-A", "with_celery", "worker", "-P", "solo", "-l", "ERROR"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat"),
        ),
        2,
        lambda store: store.llen("celery") + store.hlen("unacked"),
        4_000,
        "solo pool, 100 fetched ahead",
        "lost (acked before it ran); with late acks it runs again after an hour, unfenced",
    ),
    "Dramatiq": _Peer(
        ("dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0"),
        ("dramatiq", "with_dramatiq", "--processes", "2", "--threads", "1"),
        1,
        lambda store: store.hlen("dramatiq:default.msgs"),
        25_000,
        "1 thread, no middleware, 200 fetched ahead",
        "runs again a minute or more later, without a limit to how often",
        (("dramatiq_queue_prefetch", "200"),),
    ),
    "RQ": _Peer(
        ("rq==2.12.0", "redis==8.1.0", "hiredis==3.5.0"),
        (
            *("rq", "worker", "--quiet", "-w", "rq.worker.SimpleWorker"),
            *("--disable-job-desc-logging", "--path", str(HERE)),
        ),
        2,
        lambda store: store.llen("rq:queue:default"),
        1_500,
        "SimpleWorker, which does not fork",
        "found by maintenance after 10 minutes or more, and marked as failed",
    ),
    "SAQ": _Peer(
        ("saq[redis,hiredis]==0.26.4", "uvloop==0.23.0", "typing_extensions==4.16.0"),
        ("saq", "with_saq.settings", "--workers", "2", "--quiet"),
        1,
        lambda store: store.llen("saq:default:queued") + store.llen("saq:default:active"),
        8_000,
        "20 at once, uvloop",
        "not run again at its defaults (one try); with retries after its timeout, unfenced",
    ),
    "arq": _Peer(
        ("arq==0.28.0", "hiredis==3.5.0", "uvloop==0.23.0"),
        ("arq", "with_arq.WorkerSettings"),
        2,
        lambda store: store.zcard("arq:queue"),
        4_000,
        "100 at once, polls each ms",
        "runs again after its longest timeout (5 minutes and 10 s), unfenced",
    ),
    "taskiq": _Peer(
        (
            *("taskiq==0.13.0", "taskiq-redis==1.2.4"),
            *("hiredis==3.5.0", "uvloop==0.23.0", "orjson==3.13.0"),
        ),
        (
            *("taskiq", "worker", "with_taskiq:broker", "--workers", "2", "--log-level", "ERROR"),
            *("--max-async-tasks", "100", "--max-prefetch", "100", "--no-parse"),
        ),
        1,
        _stream_depth,
        15_000,
        "streams, 100 at once and 100 fetched ahead",
        "runs again after 10 minutes, unfenced; a kill at the wrong moment ends that for good",
    ),
    "Huey": _Peer(
        ("huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"),
        ("huey_consumer", "with_huey.huey", "-k", "process", "-w", "2", "--no-periodic", "--quiet"),
        1,
        lambda store: store.llen("huey.redis.jobs"),
        15_000,
        "2 processes, no schedule",
        "lost",
    ),
}

OURS_KILLED = "runs again a second later, after its lease if the node is lost; one result"


@only_figures()
def main() -> None:
    arguments = argparse.ArgumentParser(description=(peers.__doc__ or "").splitlines()[0])
    arguments.add_argument("names", nargs="*", default=list(PEERS))
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of a round")
    chosen = arguments.parse_args()
    homes = {name: environments.made_for(PEERS[name].requirements) for name in chosen.names}
    per_s: dict[str, list[float]] = {}
    with Grid(slots=2) as grid:
        print_machine(redis_url=grid.server.url)
        for name in chosen.names:
            say(f"{name}: {', '.join(PEERS[name].requirements)}")
        say()
        for _ in range(chosen.rounds):
            for name, figure in _our_round(grid, chosen.seconds):
                per_s.setdefault(name, []).append(figure)
            for name, home in homes.items():
                figure = _round(PEERS[name], name, home, chosen.seconds)
                per_s.setdefault(name, []).append(figure)
    _show(per_s, chosen.rounds)


def _show(per_s: Mapping[str, Sequence[float]], rounds: int) -> None:
    table = Table(
        f"no-op jobs/s with two workers: {rounds} rounds",
        *("min", "median", "max", "settings", "the job of a worker killed with SIGKILL"),
    )
    for name, figures in sorted(per_s.items(), key=lambda one: -statistics.median(one[1])):
        if name in PEERS:
            table.add(name, *spread(figures), PEERS[name].settings, PEERS[name].killed)
        else:
            killed = "lost" if "by hand" in name else OURS_KILLED
            table.add(name, *spread(figures), "plain consumers, one on each core", killed)
    table.print()


# --- ours


def _our_round(grid: Grid, seconds: float) -> Iterator[tuple[str, float]]:
    sides: list[tuple[str, Command, int]] = [
        ("item by item", ONE_BY_ONE, 40_000),
        ("batches of 100", IN_BATCHES, 600_000),
    ]
    for what, command, at_most_per_s in sides:
        items = int(at_most_per_s * (seconds + 1))
        grid.fill(items)
        with grid.through_gateway(command) as processes:
            yield f"IDM-GridCore, {what}", grid.measure(processes, seconds).per_s
        grid.fill(items)
        with grid.by_hand(command, is_pinned=True) as processes:
            yield f"by hand, {what}", grid.measure(processes, seconds).per_s


# --- peers


def _round(peer: _Peer, name: str, home: Path, seconds: float) -> float:
    jobs, module = int(peer.at_most_per_s * (seconds + WARM_UP_S + 1)), f"with_{name.lower()}"
    with (
        RedisServer(appendonly=True) as server,
        redis.Redis.from_url(server.url) as store,
        TemporaryDirectory(prefix="gridcore-bench-") as folder,
    ):
        environment = _environment(home, server.url, peer)
        subprocess.run(
            # Not as a program: some name a job after the module that it is in.
            [home / "bin" / "python", "-c", f"import {module}; {module}.put_in({jobs})"],
            env=environment,
            check=True,
        )
        with _workers(peer, environment, Path(folder) / "log") as log:
            wait_until(
                lambda: peer.depth(store) < jobs or "Traceback" in log.read_text(),
                within_s=STARTS_WITHIN_S,
                what=f"{name} works",
            )
            time.sleep(WARM_UP_S)
            before, began = peer.depth(store), time.perf_counter()
            left, now = before, began
            while now - began < seconds and left > LEFT_SHARE * jobs:
                time.sleep(LOOK_EVERY_S)
                left, now = peer.depth(store), time.perf_counter()
            assert before > left, f"{name} does nothing:\n{tail(log)}"
            # Now and then SAQ's sweeper stumbles over a job that is done meanwhile.
            assert log.read_text().count("Traceback") < MANY_ERRORS, tail(log)
    return (before - left) / (now - began)


def _environment(home: Path, url: str, peer: _Peer) -> dict[str, str]:
    path = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
    ours = {"REDIS_URL": url, "RQ_REDIS_URL": url, "PATH": path, "PYTHONPATH": str(HERE)}
    return os.environ | ours | dict(peer.environment)


@contextmanager
def _workers(peer: _Peer, environment: Mapping[str, str], log: Path) -> Iterator[Path]:
    settings = [f"{name}={value}" for name, value in environment.items()]
    started = []
    try:
        for _ in range(peer.workers):
            command = ["env", "-C", str(log.parent), *settings, *peer.worker]
            started.append(start_process(command, log=log))
        yield log
    finally:
        for process in started:
            # What they have started as well, and at once: they might want to finish their jobs.
            children = psutil.Process(process.pid).children(recursive=True)
            for child in children:
                child.kill()
            process.kill()
            end_process(process)


if __name__ == "__main__":
    main()
