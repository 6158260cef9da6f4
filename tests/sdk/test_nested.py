"""Calls that call, deeper than there are workers."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import gridcore
from tests.sdk.signals import WITHIN_S, reach, wait_for

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
def down(depth: int) -> int:
    return 0 if depth == 0 else 1 + gridcore.get(down.remote(depth - 1))


@gridcore.remote
def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return sum(gridcore.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


@gridcore.remote
def total(*numbers: int) -> int:
    return sum(numbers)


def test_recursion_deeper_than_the_workers_ends() -> None:
    assert gridcore.get(down.remote(50), timeout=WITHIN_S) == 50


def test_a_tree_of_calls_ends() -> None:
    assert gridcore.get(fibonacci.remote(10), timeout=WITHIN_S) == 55


def test_recursion_does_not_take_a_process_for_each_level(engine: str) -> None:
    @gridcore.remote
    def processes(depth: int) -> set[int]:
        below = gridcore.get(processes.remote(depth - 1)) if depth else set()
        return {os.getpid(), *below}

    taken = len(gridcore.get(processes.remote(60), timeout=WITHIN_S))
    # On a grid a level is on top of the one before only if the same container takes it.
    assert taken <= (15 if engine == "local" else 61)


def test_many_calls_that_each_wait_for_others_end() -> None:
    @gridcore.remote
    def parent(n: int) -> int:
        return gridcore.get(total.remote(total.remote(n, 1), total.remote(n, 2)))  # type: ignore[arg-type]

    refs = [parent.remote(n) for n in range(20)]
    assert gridcore.get(refs, timeout=WITHIN_S) == [2 * n + 3 for n in range(20)]


def test_a_call_can_put_wait_and_pass_references_on() -> None:
    @gridcore.remote
    def inside() -> tuple[int, int, gridcore.ObjectRef[int]]:
        kept = gridcore.put(5)
        refs = [total.remote(kept, n) for n in range(3)]  # type: ignore[arg-type]
        done, others = gridcore.wait(refs, num_returns=3)
        return sum(gridcore.get(done)), len(others), kept

    added, left, kept = gridcore.get(inside.remote(), timeout=WITHIN_S)
    assert (added, left) == (18, 0)
    assert gridcore.get(kept, timeout=WITHIN_S) == 5


def test_what_fails_below_is_raised_above_as_what_it_was() -> None:
    @gridcore.remote
    def bottom() -> None:
        raise ValueError("at the bottom")

    @gridcore.remote
    def top() -> None:
        gridcore.get(bottom.remote())

    with pytest.raises(ValueError, match="at the bottom") as caught:
        gridcore.get(top.remote(), timeout=WITHIN_S)
    assert isinstance(caught.value, gridcore.TaskError)
    assert "in bottom" in caught.value.remote_traceback
    assert "in top" in caught.value.remote_traceback


def test_a_wait_inside_a_call_can_run_out_of_time(tmp_path: Path) -> None:
    @gridcore.remote
    def blocks() -> None:
        wait_for(tmp_path / "go")

    @gridcore.remote
    def impatient() -> str:
        ref = blocks.remote()
        try:
            gridcore.get(ref, timeout=0.05)
        except TimeoutError:
            reach(tmp_path / "go")
            gridcore.get(ref)
            return "out of time, then over"
        return "over"

    assert gridcore.get(impatient.remote(), timeout=WITHIN_S) == "out of time, then over"


def test_threads_of_a_call_may_call_too() -> None:
    @gridcore.remote
    def with_threads() -> list[int]:
        results = [0] * 4

        def work(place: int) -> None:
            results[place] = gridcore.get(total.remote(place, 1))

        threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    assert gridcore.get(with_threads.remote(), timeout=WITHIN_S) == [1, 2, 3, 4]


def test_more_calls_whose_threads_wait_than_there_are_cores_end(engine: str) -> None:
    @gridcore.remote
    def in_thread(depth: int) -> set[int]:
        if not depth:
            return {os.getpid()}
        with ThreadPoolExecutor(1) as pool:
            below = pool.submit(lambda: gridcore.get(in_thread.remote(depth - 1)))
            return {os.getpid(), *below.result()}

    refs = [in_thread.remote(3) for _ in range(30)]
    pids = set().union(*gridcore.get(refs, timeout=WITHIN_S))
    if engine == "local":
        # Each that waits has a process of its own: they go down before the next one begins. On a
        # grid the queue's order sees to that as well, but unneeded processes end in between.
        assert len(pids) <= 32


def test_a_call_may_wait_in_an_event_loop() -> None:
    @gridcore.remote
    def with_loop(n: int) -> int:
        async def both() -> int:
            return sum(await asyncio.gather(total.remote(n, 1), total.remote(n, 2)))

        return asyncio.run(both())

    refs = [with_loop.remote(n) for n in range(10)]
    assert gridcore.get(refs, timeout=WITHIN_S) == [2 * n + 3 for n in range(10)]


def test_short_calls_do_not_wait_behind_one_that_turns_out_long(tmp_path: Path) -> None:
    """Calls are sent ahead to a worker whose calls were short so far. When one of them is long, the
    others go elsewhere."""

    @gridcore.remote
    def mostly_short(blocks: bool) -> None:
        if blocks:
            wait_for(tmp_path / "go")

    gridcore.get([mostly_short.remote(False) for _ in range(200)], timeout=WITHIN_S)
    long = mostly_short.remote(True)
    gridcore.get([mostly_short.remote(False) for _ in range(200)], timeout=WITHIN_S)
    assert not long.done()
    reach(tmp_path / "go")
    gridcore.get(long, timeout=WITHIN_S)
