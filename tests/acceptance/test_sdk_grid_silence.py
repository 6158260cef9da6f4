"""The SDK on a grid, when who is there is taken for gone, or is not heard of for a while."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest
import redis

import gridcore
from tests.acceptance.sdk_programs import (
    LONG_S,
    Counter,
    node_of,
    runners,
    square,
    start_driver,
)
from tests.sdk.signals import WITHIN_S, reach, wait_reached
from tests.support.grid import Grid
from tests.support.waiting import wait_until


def workers_of(grid: Grid) -> list[psutil.Process]:
    """What runs calls: the children of the processes that runners fork from."""
    return [
        process
        for runner in runners(node_of(grid))
        for process in runner.children(recursive=True)
        if process.ppid() != runner.pid
    ]


def sign_of_life(store: redis.Redis, job: str) -> bytes:
    (key,) = [key for key in store.scan_iter("sdk:*") if key.endswith(f":{job}".encode())]
    assert isinstance(key, bytes)
    return key


def test_a_driver_that_slept_has_its_calls_done_when_it_wakes_up(
    grid: Grid, tmp_path: Path
) -> None:
    driver = start_driver(grid, tmp_path, "a")
    wait_reached(tmp_path / "a", times=2)
    with redis.Redis.from_url(grid.redis.url) as store:
        job = (tmp_path / "a.id").read_bytes().rpartition(b"-")[0]
        alive = sign_of_life(store, job.decode())

        def letters() -> bytes:
            return repr(store.xrange(alive + b":up")).encode()

        wait_until(lambda: b"started" in letters(), within_s=WITHIN_S, what="the driver is told")
        wait_until(lambda: b"started" not in letters(), within_s=WITHIN_S, what="it has read that")
        psutil.Process(driver.pid).suspend()
        workers = workers_of(grid)
        assert len(workers) >= 3, "two calls and an actor"
        # As when it sleeps for longer.
        store.delete(alive)
    _, left = psutil.wait_procs(workers, timeout=LONG_S)
    assert not left
    reach(tmp_path / "go")
    psutil.Process(driver.pid).resume()
    said, _ = driver.communicate(timeout=LONG_S)
    assert (driver.returncode, said) == (0, "45\n")


def test_an_actor_outlives_a_long_absence_of_redis(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridcore.sdk.grid.runs.RUN_SILENT_S", 10.0)
    counter = Counter.remote()
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 1
    with redis.Redis.from_url(grid.redis.url) as store:
        # As when it is away for longer.
        store.delete(sign_of_life(store, gridcore.get_runtime_context().job_id))
    grid.redis.kill()
    away_until = time.monotonic() + 11
    wait_until(lambda: time.monotonic() > away_until, within_s=15, what="it was away for long")
    grid.redis.start()
    assert gridcore.get(counter.increment.remote(), timeout=LONG_S) == 2
    heard_until = time.monotonic() + 11
    wait_until(lambda: time.monotonic() > heard_until, within_s=15, what="they look for the lost")
    assert gridcore.get(counter.increment.remote(), timeout=LONG_S) == 3


def test_nothing_is_left_for_ever_by_a_program_that_has_ended(grid: Grid, tmp_path: Path) -> None:
    assert gridcore.get(square.remote(2), timeout=WITHIN_S) == 4
    reach(tmp_path / "go")
    driver = start_driver(grid, tmp_path, "a")
    driver.communicate(timeout=LONG_S)
    job = (tmp_path / "a.id").read_text().rpartition("-")[0]
    with redis.Redis.from_url(grid.redis.url) as store:

        def left() -> dict[bytes, int]:
            return {key: store.ttl(key) for key in store.scan_iter(f"sdk:*:{job}*")}

        up = f":{job}:up".encode()
        wait_until(
            lambda: any(
                key.endswith(up) and b"ended" in repr(store.xrange(key)).encode() for key in left()
            ),
            within_s=LONG_S,
            what="its containers have ended what they had of it",
        )
        wait_until(lambda: min(left().values()) > 0, within_s=WITHIN_S, what="all of it will go")
