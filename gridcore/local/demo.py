"""`gridcore demo`: a real task on a grid of its own, and every single result checked."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gridcore.errors import GridCoreError
from gridcore.local import worker
from gridcore.local.grid import Engine, LocalGrid, make_python_image

if TYPE_CHECKING:
    from redis import Redis

TASK = "demo"
IMAGE = "gridcore-demo:latest"
WORKER_IN_IMAGE = "/worker.py"

CHUNK = 10_000
LOOK_EVERY_S = 0.2
STUCK_AFTER_S = 120.0


class WrongResultError(GridCoreError):
    """The one thing that must not happen."""


class StuckError(GridCoreError):
    """No result for too long."""


@click.command()
@click.option("--items", default=100_000, show_default=True, type=click.IntRange(min=1))
def demo(items: int) -> None:
    """Starts a grid, runs a task of 100,000 items to its end, and checks every result."""
    engine = Engine.look_for()
    image = None
    if engine.is_there:
        click.echo(f"Docker is there: {engine.said}.")
        click.echo("Making an image of this machine's Python, without a registry ...")
        problem = make_python_image(IMAGE, Path(worker.__file__), WORKER_IN_IMAGE)
        if problem:
            click.echo(f"That did not work, so plain processes do the work. {problem}")
        else:
            image = IMAGE
    else:
        click.echo("No Docker here: plain processes do the work, without isolation.")
        click.echo(f"  ({engine.said})")
    # Containers reach the store by this machine's address, not by its loopback.
    host, runtime = ("0.0.0.0", "docker") if image else ("127.0.0.1", "process")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="gridcore-demo-") as folder,
            LocalGrid(Path(folder), host=host, port=_free_port(), runtime=runtime) as grid,
        ):
            click.echo(f"The grid is up: its API is at {grid.url}/docs, the token {grid.token}")
            _run(grid, items, image)
        kept = f"; the image {IMAGE} stays, for the next time" if image else ""
        click.echo(f"The grid has stopped and left nothing running{kept}.")
    except KeyboardInterrupt:
        click.echo("Stopped; nothing is left running.")
        sys.exit(130)


def _run(grid: LocalGrid, items: int, image: str | None) -> None:
    import redis

    with redis.Redis.from_url(grid.redis_url(), socket_timeout=30, protocol=2) as store:
        click.echo(f"Pushing {items:,} items to the queue '{TASK}:input' ...")
        for first in range(1, items + 1, CHUNK):
            store.lpush(f"{TASK}:input", *range(first, min(first + CHUNK, items + 1)))
        body = {"name": TASK}
        what = {"image": image} if image else {"command": [sys.executable, worker.__file__]}
        began = time.monotonic()
        grid.call("POST", "/api/tasks", body | what)
        _watch(grid, store, items)
        took_s = time.monotonic() - began
        click.echo(
            f"Done in {took_s:.1f} s: {items / took_s:,.0f} items/s. Checking each result ..."
        )
        check_results(_results(store), items)
        click.echo(f"All {items:,} results are there, each once, and each is right.")
        grid.call("POST", "/api/tasks/finish")


def _watch(grid: LocalGrid, store: Redis, items: int) -> None:
    """Shows the progress until all results are there."""
    from gridcore.local.progress import Progress

    with Progress(items, live=sys.stdout.isatty()) as progress:
        done, moved = 0, time.monotonic()
        while done < items:
            grid.check()
            before, done = done, _length(store, f"{TASK}:output")
            now = time.monotonic()
            progress.update(done=done, waiting=_length(store, f"{TASK}:input"), now_s=now)
            if done > before:
                moved = now
            elif now - moved > STUCK_AFTER_S:
                raise _stuck(grid, done, items)
            time.sleep(LOOK_EVERY_S)


def _length(store: Redis, queue: str) -> int:
    return int(store.llen(queue))


def _results(store: Redis) -> Iterator[str]:
    for first in range(0, _length(store, f"{TASK}:output"), CHUNK):
        for result in store.lrange(f"{TASK}:output", first, first + CHUNK - 1):
            yield result.decode() if isinstance(result, bytes) else result


def check_results(results: Iterator[str], items: int) -> None:
    """Raises WrongResultError unless there is exactly one right result for each item."""
    times: Counter[int] = Counter()
    for result in results:
        number, steps = map(int, result.split())
        if steps != worker.steps_to_1(number):
            raise _wrong(f"the result for {number} is {steps}, not {worker.steps_to_1(number)}")
        times[number] += 1
    missing = [number for number in range(1, items + 1) if not times[number]]
    if missing:
        raise _wrong(f"{len(missing)} results are missing, the first for {missing[0]}")
    if len(times) != items or times.total() != items:
        number, count = times.most_common(1)[0]
        raise _wrong(f"there are {times.total()} results for {items} items: {number} has {count}")


def _wrong(cause: str) -> WrongResultError:
    return WrongResultError(
        "checking the results", cause=cause, next_step="That is a bug in GridCore: please report it"
    )


def _stuck(grid: LocalGrid, done: int, items: int) -> StuckError:
    details = grid.call("GET", f"/api/tasks/{TASK}") or {}
    nodes = grid.call("GET", "/api/nodes") or []
    reasons = [failure["message"] for failure in details.get("failures", [])[:1]]
    reasons += [node["error"] for node in nodes if node["error"]]
    return StuckError(
        f"waiting for results ({done} of {items} are there)",
        cause="; ".join(reasons) or f"none has come for {STUCK_AFTER_S:.0f} s",
        next_step="'gridnode doctor' checks this machine",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
