"""The SDK on a grid, when something goes wrong under it: results are there once, and right."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import redis

import gridcore
from gridcore.sdk.errors import NotConnected, ObjectLost, PayloadTooLarge, VersionMismatch
from tests.acceptance.sdk_programs import (
    LONG_S,
    Counter,
    node_of,
    runners,
    square,
    start_driver,
)
from tests.sdk.signals import WITHIN_S, reach, times_reached, wait_for, wait_reached
from tests.support.grid import Grid
from tests.support.waiting import wait_until


@gridcore.remote
def meet(folder: Path, value: int) -> int:
    """Says that it is here, and goes on when the test says so."""
    reach(folder / "here")
    wait_for(folder / "go")
    return value


@gridcore.remote
def large(size: int) -> bytes:
    return bytes(size)


@gridcore.remote
def size(value: bytes) -> int:
    return len(value)


def test_calls_end_while_the_hub_is_killed_and_started_again(grid: Grid) -> None:
    refs = [square.remote(n) for n in range(2000)]
    grid.hub.kill()
    assert gridcore.get(refs, timeout=WITHIN_S) == [n * n for n in range(2000)]
    grid.hub.start()
    assert gridcore.get(square.remote(7), timeout=WITHIN_S) == 49


def test_calls_end_while_redis_is_killed_and_started_again(grid: Grid, tmp_path: Path) -> None:
    counter = Counter.remote()
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 1
    waits = [meet.remote(tmp_path, n) for n in range(2)]
    wait_reached(tmp_path / "here", times=2)
    refs = [square.remote(n) for n in range(3000)]
    grid.redis.kill()
    later = [square.remote(n) for n in range(100)]
    grid.redis.start()
    reach(tmp_path / "go")
    assert gridcore.get(waits, timeout=LONG_S) == [0, 1]
    assert gridcore.get(refs, timeout=LONG_S) == [n * n for n in range(3000)]
    assert gridcore.get(later, timeout=LONG_S) == [n * n for n in range(100)]
    assert gridcore.get(counter.increment.remote(), timeout=LONG_S) == 2


def test_what_redis_loses_of_an_actors_calls_is_said_again(grid: Grid) -> None:
    """It comes back without its last seconds: without what the actor was asked, or answered, or
    both."""
    counter = Counter.remote()
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 1
    count = 1
    for _ in range(3):
        mark = grid.redis.mark()
        refs = []
        begun = time.monotonic()
        while time.monotonic() < begun + 0.5:
            refs += [counter.increment.remote() for _ in range(20)]
            gridcore.wait(refs, timeout=0.005)
        refs += [counter.increment.remote() for _ in range(500)]
        grid.redis.kill()
        assert grid.redis.forget_since(mark) > 0
        refs += [counter.increment.remote() for _ in range(20)]
        grid.redis.start()
        expected = list(range(count + 1, count + 1 + len(refs)))
        assert gridcore.get(refs, timeout=LONG_S) == expected, "each once, in their order"
        count += len(refs)


def test_large_values_that_redis_loses_are_there_again(grid: Grid) -> None:
    counter = Counter.remote()
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 1
    mark = grid.redis.mark()
    kept = gridcore.put(bytes(1_000_000))
    made = large.remote(2_000_000)
    assert gridcore.wait([made], timeout=WITHIN_S)[0]
    # A node ends a container that holds what Redis does not know to be held, with all its values.
    wait_until(
        lambda: grid.hub.task(task_name(grid))["queues"]["leased"] == 1,
        within_s=WITHIN_S,
        what="only the actor is in hand",
    )
    grid.redis.kill()
    assert grid.redis.forget_since(mark) > 3_000_000
    sizes = [size.remote(value) for value in (kept, made, bytes(500_000))]  # type: ignore[arg-type]
    grid.redis.start()
    assert gridcore.get(sizes, timeout=LONG_S) == [1_000_000, 2_000_000, 500_000]
    assert gridcore.get(made, timeout=WITHIN_S) == bytes(2_000_000)


def test_a_container_that_is_killed_in_mid_call_has_its_call_done_again(
    grid: Grid, tmp_path: Path
) -> None:
    ref = meet.remote(tmp_path, 5)
    wait_reached(tmp_path / "here")
    for runner in runners(node_of(grid)):
        runner.kill()
    wait_reached(tmp_path / "here", times=2)
    reach(tmp_path / "go")
    assert gridcore.get(ref, timeout=WITHIN_S) == 5


def test_a_call_that_kills_its_container_every_time_is_given_up(grid: Grid) -> None:
    @gridcore.remote(max_retries=0)
    def kill_container() -> None:
        os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
        time.sleep(1000)

    with pytest.raises(gridcore.WorkerDied, match="kill_container"):
        gridcore.get(kill_container.remote(), timeout=LONG_S)
    assert gridcore.get(square.remote(3), timeout=WITHIN_S) == 9
    wait_until(
        lambda: grid.hub.task(task_name(grid))["queues"]["dead"] == 0,
        within_s=WITHIN_S,
        what="its dead letter is settled",
    )


def task_name(grid: Grid) -> str:
    name: str = grid.hub.get("/api/tasks")["current"]
    return name


@pytest.mark.parametrize("max_restarts", [0, 1])
def test_an_actor_whose_node_is_lost_is_created_anew_if_it_may_be(
    grid: Grid, max_restarts: int
) -> None:
    counter = Counter.options(max_restarts=max_restarts).remote()
    assert gridcore.get([counter.increment.remote() for _ in range(3)], timeout=WITHIN_S)[-1] == 3
    host = psutil.Process(gridcore.get(counter.process.remote(), timeout=WITHIN_S))
    first = node_of(grid)
    grid.add_node()
    first.kill()
    psutil.wait_procs([host], timeout=WITHIN_S)

    def answer() -> int | str:
        try:
            return int(gridcore.get(counter.increment.remote(), timeout=1))
        except gridcore.GetTimeout:
            return ""
        except gridcore.GridError as error:
            return type(error).__name__

    wanted = 1 if max_restarts else "ActorDied"
    wait_until(lambda: answer() == wanted, within_s=LONG_S, what=f"the actor says {wanted}")
    assert gridcore.get(square.remote(4), timeout=LONG_S) == 16


def test_a_node_that_was_frozen_past_its_lease_does_no_harm(grid: Grid, tmp_path: Path) -> None:
    ref = meet.remote(tmp_path, 1)
    wait_reached(tmp_path / "here")
    stopped = [node_of(grid), *node_of(grid).children(recursive=True)]
    for process in stopped:
        process.suspend()
    grid.add_node()
    wait_reached(tmp_path / "here", times=2)
    reach(tmp_path / "go")
    assert gridcore.get(ref, timeout=WITHIN_S) == 1
    for process in stopped:
        process.resume()
    assert gridcore.get([square.remote(n) for n in range(500)], timeout=WITHIN_S) == [
        n * n for n in range(500)
    ]
    assert times_reached(tmp_path / "here") == 2


def test_several_programs_share_the_grid(grid: Grid, tmp_path: Path) -> None:
    drivers = [start_driver(grid, tmp_path, name) for name in "ab"]
    for name in "ab":
        wait_reached(tmp_path / f"{name}.actor")
    reach(tmp_path / "go")
    for driver in drivers:
        said, _ = driver.communicate(timeout=LONG_S)
        assert (driver.returncode, said) == (0, "45\n")
    assert times_reached(tmp_path / "a") == times_reached(tmp_path / "b") == 10


def test_a_driver_that_is_killed_leaves_nothing_running(grid: Grid, tmp_path: Path) -> None:
    driver = start_driver(grid, tmp_path, "a")
    wait_reached(tmp_path / "a", times=2)
    workers = [
        process
        for runner in runners(node_of(grid))
        for process in runner.children(recursive=True)
        if process.ppid() != runner.pid
    ]
    assert len(workers) >= 3, "two calls and an actor"
    driver.kill()
    driver.communicate()
    with redis.Redis.from_url(grid.redis.url, decode_responses=True) as store:
        job = (tmp_path / "a.id").read_text().rpartition("-")[0]
        (alive,) = [key for key in store.scan_iter("sdk:*") if key.endswith(f":{job}")]
        # It would go by itself.
        assert 0 < store.ttl(alive) <= 30
        store.delete(alive)
        _, left = psutil.wait_procs(workers, timeout=LONG_S)
        assert not left
        wait_until(
            lambda: grid.hub.task(task_name(grid))["queues"]["leased"] == 0,
            within_s=LONG_S,
            what="what it had pushed is gone from the queue",
        )
        assert 0 < store.ttl(f"{alive}:up") <= 600
    assert times_reached(tmp_path / "a") == 2
    assert gridcore.get(square.remote(2), timeout=WITHIN_S) == 4


def test_another_program_can_pick_up_a_result(grid: Grid, tmp_path: Path) -> None:
    driver = start_driver(grid, tmp_path, "a")
    wait_reached(tmp_path / "a.id")
    wait_until(lambda: (tmp_path / "a.id").read_text(), within_s=WITHIN_S, what="the id is there")
    ref = gridcore.ObjectRef.from_id((tmp_path / "a.id").read_text())
    assert not ref.done()
    reach(tmp_path / "go")
    assert gridcore.get(ref, timeout=WITHIN_S) == 0
    assert gridcore.get(square.remote(ref), timeout=WITHIN_S) == 0  # type: ignore[arg-type]
    driver.communicate(timeout=WITHIN_S)
    late = gridcore.ObjectRef.from_id((tmp_path / "a.id").read_text())
    with pytest.raises(ObjectLost, match="its driver has ended"):
        gridcore.get(late, timeout=WITHIN_S)


def test_a_container_with_another_python_says_so(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridcore.sdk.grid.place.PYTHON", "3.9")
    with pytest.raises(VersionMismatch, match=r"driver runs Python 3\.9, and the container 3\.1"):
        gridcore.get(square.remote(1), timeout=WITHIN_S)
    with pytest.raises(gridcore.ActorDied, match=r"driver runs Python 3\.9"):
        gridcore.get(Counter.remote().increment.remote(), timeout=WITHIN_S)


def test_a_value_that_the_store_does_not_take_is_an_error_that_says_so(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridcore.sdk.grid.values.MOST_BYTES", 1_000_000)
    with pytest.raises(PayloadTooLarge, match=r"2,000,\d+ bytes, and the grid's store takes 1,0"):
        gridcore.put(bytes(2_000_000))
    with pytest.raises(PayloadTooLarge, match="an argument of square"):
        square.remote(bytes(2_000_000))  # type: ignore[arg-type]
    assert gridcore.get(square.remote(3), timeout=WITHIN_S) == 9


def test_calls_go_on_when_somebody_has_moved_the_fleet_on(grid: Grid) -> None:
    assert gridcore.get(square.remote(2), timeout=WITHIN_S) == 4
    grid.hub.post("/api/tasks/finish")
    assert gridcore.get([square.remote(n) for n in range(100)], timeout=LONG_S) == [
        n * n for n in range(100)
    ]


def test_the_task_ends_with_its_last_driver(grid: Grid) -> None:
    assert gridcore.get(square.remote(2), timeout=WITHIN_S) == 4
    gridcore.shutdown()
    wait_until(
        lambda: grid.hub.get("/api/tasks")["current"] is None,
        within_s=WITHIN_S,
        what="the fleet is free again",
    )
    with redis.Redis.from_url(grid.redis.url) as store:
        assert list(store.scan_iter("sdk:*")) == []


def test_a_hub_that_is_not_there_or_knows_another_token_is_an_error_that_says_so() -> None:
    with pytest.raises(NotConnected, match=r"http://127\.0\.0\.1:1: .*Check that it runs"):
        gridcore.init("http://127.0.0.1:1", token="x")
    assert not gridcore.is_initialized()


def test_a_wrong_token_is_an_error_that_says_so(grid: Grid) -> None:
    gridcore.shutdown()
    with pytest.raises(NotConnected, match="does not know this token"):
        gridcore.init(grid.hub.url, token="wrong")
