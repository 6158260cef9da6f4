"""`Executor`: futures of the standard library whose calls run elsewhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future
from pathlib import Path
from typing import Any

import pytest

import gridcore
from tests.sdk.signals import WITHIN_S, reach, times_reached, wait_for, wait_reached
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("engine")


def add(a: int, b: int = 0) -> int:
    return a + b


def block(begun: Path, go: Path) -> str:
    reach(begun)
    wait_for(go)
    return "went on"


class Adder:
    def __init__(self, by: int) -> None:
        self.by = by

    def add(self, number: int) -> int:
        return number + self.by


@pytest.fixture
def executor() -> Iterator[gridcore.Executor]:
    with gridcore.Executor() as executor:
        yield executor


def test_what_is_submitted_runs_in_another_process(executor: gridcore.Executor) -> None:
    future = executor.submit(os.getpid)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(WITHIN_S) != os.getpid()
    assert executor.submit(add, 1, b=2).result(WITHIN_S) == 3


def test_anything_that_can_be_called_can_be_submitted(executor: gridcore.Executor) -> None:
    by = 10

    def closure(number: int) -> int:
        return number + by

    callables: list[Callable[[int], int]] = [
        lambda n: n + 10,
        closure,
        Adder(10).add,
        functools.partial(add, 10),
        (10).__add__,
    ]
    for function in callables:
        for number in range(3):
            assert executor.submit(function, number).result(WITHIN_S) == number + 10
    assert executor.submit(Adder, 3).result(WITHIN_S).by == 3


def test_arguments_may_have_any_name(executor: gridcore.Executor) -> None:
    def named(**given: int) -> dict[str, int]:
        return given

    for _ in range(3):
        assert executor.submit(named, self=1, fn=2, args=3).result(WITHIN_S) == {
            "self": 1,
            "fn": 2,
            "args": 3,
        }


def test_what_a_closure_or_an_object_refers_to_is_what_it_is_at_each_call(
    executor: gridcore.Executor,
) -> None:
    adder, by = Adder(1), 1

    def closure() -> int:
        return by

    first = [executor.submit(closure), executor.submit(adder.add, 0)]
    adder.by = by = 2
    second = [executor.submit(closure), executor.submit(adder.add, 0)]
    assert [future.result(WITHIN_S) for future in first + second] == [1, 1, 2, 2]


def test_references_are_arguments_as_for_remote_functions(executor: gridcore.Executor) -> None:
    assert executor.submit(add, gridcore.put(1), b=gridcore.put(2)).result(WITHIN_S) == 3  # type: ignore[arg-type]


def test_what_a_call_raises_is_the_futures_exception(executor: gridcore.Executor) -> None:
    future = executor.submit(divmod, 1, 0)
    assert isinstance(future.exception(WITHIN_S), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError) as caught:
        future.result()
    assert isinstance(caught.value, gridcore.TaskError)


def test_what_cannot_be_sent_is_the_futures_exception(executor: gridcore.Executor) -> None:
    future = executor.submit(add, threading.Lock())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cannot be pickled"):
        future.result(WITHIN_S)
    assert executor.submit(add, 1).result(WITHIN_S) == 1


def test_a_result_can_be_waited_for_in_vain(executor: gridcore.Executor, tmp_path: Path) -> None:
    future = executor.submit(block, tmp_path / "begun", tmp_path / "go")
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0)
    reach(tmp_path / "go")
    assert future.result(WITHIN_S) == "went on"


def test_short_calls_behind_long_ones_come_back(
    executor: gridcore.Executor, tmp_path: Path
) -> None:
    long = executor.submit(block, tmp_path / "begun", tmp_path / "go")
    wait_reached(tmp_path / "begun")
    short = [executor.submit(add, n) for n in range(200)]
    both: set[Future[Any]] = {long, *short}
    assert concurrent.futures.wait(both, WITHIN_S, FIRST_COMPLETED).done <= set(short)
    assert [future.result(WITHIN_S) for future in short] == list(range(200))
    assert not long.done()
    reach(tmp_path / "go")
    assert long.result(WITHIN_S) == "went on"


def test_more_calls_than_are_sent_at_once_all_come_back(executor: gridcore.Executor) -> None:
    futures = [executor.submit(add, n, 1) for n in range(3000)]
    assert sum(f.result() for f in concurrent.futures.as_completed(futures, WITHIN_S)) == sum(
        range(3001)
    )


def test_no_more_calls_than_max_workers_are_open(tmp_path: Path) -> None:
    with gridcore.Executor(max_workers=1, num_cpus=0) as executor:
        first = executor.submit(block, tmp_path / "first", tmp_path / "go")
        second = executor.submit(block, tmp_path / "second", tmp_path / "go")
        wait_reached(tmp_path / "first")
        gridcore.get([gridcore.remote(add).remote(n) for n in range(50)], timeout=WITHIN_S)
        assert times_reached(tmp_path / "second") == 0
        reach(tmp_path / "go")
        assert [first.result(WITHIN_S), second.result(WITHIN_S)] == ["went on", "went on"]


@pytest.mark.parametrize("max_workers", [0, -1])
def test_there_are_workers(max_workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        gridcore.Executor(max_workers)


def test_options_are_those_of_functions() -> None:
    with pytest.raises(TypeError, match="has no option 'cores'"):
        gridcore.Executor(cores=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="a future has one result"):
        gridcore.Executor(num_returns=2)
    with gridcore.Executor(num_cpus=1000) as executor:
        future = executor.submit(add, 1)
        with pytest.raises(gridcore.GridError, match="1000"):
            future.result(WITHIN_S)


class TestMap:
    def test_results_come_in_the_order_of_the_items(self, executor: gridcore.Executor) -> None:
        assert list(executor.map(add, range(100), range(100))) == list(range(0, 200, 2))
        assert list(executor.map(add, range(10), range(7))) == list(range(0, 14, 2))

    @pytest.mark.parametrize("chunksize", [1, 3, 100])
    def test_items_can_share_a_call(self, executor: gridcore.Executor, chunksize: int) -> None:
        by = 5
        results = executor.map(lambda n: n + by, range(10), chunksize=chunksize)
        assert list(results) == list(range(5, 15))

    def test_items_are_taken_as_results_are(self, executor: gridcore.Executor) -> None:
        taken = []

        def items() -> Iterator[int]:
            for n in range(100):
                taken.append(n)
                yield n

        results = executor.map(add, items(), buffersize=3)
        assert taken == [0, 1, 2]
        assert [next(results), next(results)] == [0, 1]
        assert taken == [0, 1, 2, 3, 4]
        assert list(results) == list(range(2, 100))

    def test_time_is_counted_from_the_call(
        self, executor: gridcore.Executor, tmp_path: Path
    ) -> None:
        results = executor.map(block, [tmp_path / "begun"], [tmp_path / "go"], timeout=0.01)
        with pytest.raises(TimeoutError):
            next(results)
        reach(tmp_path / "go")

    def test_who_takes_no_more_results_cancels_the_rest(self, tmp_path: Path) -> None:
        reach(tmp_path / "go")
        goes_on = [tmp_path / "go", tmp_path / "never", tmp_path / "never"]
        with gridcore.Executor(max_workers=1) as executor:
            results = executor.map(block, [tmp_path / name for name in "abc"], goes_on)
            assert next(results) == "went on"
            results.close()  # type: ignore[attr-defined]
        assert times_reached(tmp_path / "c") == 0

    def test_sizes_are_one_or_more(self, executor: gridcore.Executor) -> None:
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(add, [1], chunksize=0)
        with pytest.raises(ValueError, match="buffersize"):
            executor.map(add, [1], buffersize=0)

    def test_results_that_were_taken_are_not_kept(self, executor: gridcore.Executor) -> None:
        for result in executor.map(Adder, range(10)):
            watch = weakref.ref(result)
            del result
            gc.collect()
            assert watch() is None


class TestCancel:
    def test_a_call_that_waits_does_not_start(self, tmp_path: Path) -> None:
        with gridcore.Executor(max_workers=1) as executor:
            first = executor.submit(block, tmp_path / "first", tmp_path / "go")
            second = executor.submit(reach, tmp_path / "second")
            assert second.cancel()
            reach(tmp_path / "go")
            assert first.result(WITHIN_S) == "went on"
            with pytest.raises(CancelledError):
                second.result(WITHIN_S)
        assert times_reached(tmp_path / "second") == 0

    def test_a_call_that_runs_is_interrupted(
        self, executor: gridcore.Executor, tmp_path: Path
    ) -> None:
        future = executor.submit(block, tmp_path / "begun", tmp_path / "never")
        wait_reached(tmp_path / "begun")
        assert future.cancel()
        done, _ = concurrent.futures.wait([future], WITHIN_S)
        assert done == {future}
        assert executor.submit(add, 1).result(WITHIN_S) == 1

    def test_what_is_over_stays_as_it_is(self, executor: gridcore.Executor) -> None:
        future = executor.submit(add, 1)
        assert future.result(WITHIN_S) == 1
        assert not future.cancel()

    def test_asyncio_cancels_what_it_does_not_wait_for(
        self, executor: gridcore.Executor, tmp_path: Path
    ) -> None:
        async def impatient() -> int:
            loop = asyncio.get_running_loop()
            awaited = loop.run_in_executor(executor, block, tmp_path / "begun", tmp_path / "never")
            await asyncio.to_thread(wait_reached, tmp_path / "begun")
            awaited.cancel()
            return await loop.run_in_executor(executor, add, 1, 2)

        assert asyncio.run(impatient()) == 3


class TestShutdown:
    def test_it_waits_for_what_was_submitted(self) -> None:
        executor = gridcore.Executor(max_workers=2)
        futures = [executor.submit(add, n) for n in range(50)]
        executor.shutdown()
        assert [future.result(0) for future in futures] == list(range(50))
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            executor.submit(add, 1)
        executor.shutdown()

    def test_without_waiting_all_is_still_done(self) -> None:
        executor = gridcore.Executor(max_workers=2)
        futures = [executor.submit(add, n) for n in range(50)]
        executor.shutdown(wait=False)
        assert [future.result(WITHIN_S) for future in futures] == list(range(50))

    def test_what_has_not_begun_can_be_cancelled(self, tmp_path: Path) -> None:
        executor = gridcore.Executor(max_workers=2)
        futures = [executor.submit(block, tmp_path / "begun", tmp_path / "go") for _ in range(20)]
        wait_reached(tmp_path / "begun", times=2)
        executor.shutdown(wait=False, cancel_futures=True)
        reach(tmp_path / "go")
        executor.shutdown()
        assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 18
        assert [future.result() for future in futures[:2]] == ["went on"] * 2

    def test_without_a_limit_all_is_cancelled(self, tmp_path: Path) -> None:
        executor = gridcore.Executor()
        futures = [
            executor.submit(block, tmp_path / "begun", tmp_path / "never") for _ in range(20)
        ]
        wait_reached(tmp_path / "begun", times=2)
        executor.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in futures)

    def test_its_thread_ends(self) -> None:
        with gridcore.Executor() as executor:
            executor.submit(add, 1).result(WITHIN_S)
        assert "gridcore-executor" not in [thread.name for thread in threading.enumerate()]

    def test_the_thread_of_one_that_was_forgotten_ends(self) -> None:
        executor = gridcore.Executor()
        executor.submit(add, 1).result(WITHIN_S)
        watch = weakref.ref(executor)
        del executor
        wait_until(
            lambda: gc.collect() is not None and watch() is None,
            within_s=WITHIN_S,
            what="the executor is gone",
        )


def test_nothing_that_was_submitted_is_kept(executor: gridcore.Executor) -> None:
    adder = Adder(1)
    watch = weakref.ref(adder)
    executor.submit(adder.add, 1)
    del adder
    wait_until(lambda: watch() is None, within_s=WITHIN_S, what="the object is freed")


def test_calls_may_use_an_executor_of_their_own() -> None:
    """As many as there are workers wait at the same time, and each needs a place for its own."""

    def outer(count: int) -> int:
        with gridcore.Executor(max_workers=2) as inner:
            futures = [inner.submit(add, n, 1) for n in range(count)]
            return sum(future.result() for future in futures) + sum(inner.map(add, range(count)))

    with gridcore.Executor() as executor:
        futures = [executor.submit(outer, 10) for _ in range(4)]
        assert [future.result(WITHIN_S) for future in futures] == [100] * 4


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_program_ends_when_what_it_submitted_is_over(tmp_path: Path) -> None:
    ended = _run(
        "import gridcore\n"
        "from tests.sdk.signals import reach\n"
        "from pathlib import Path\n"
        "gridcore.init(num_cpus=1)\n"
        "executor = gridcore.Executor(1)\n"
        "for _ in range(20):\n"
        f"    executor.submit(reach, Path({str(tmp_path / 'reached')!r}))\n"
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert times_reached(tmp_path / "reached") == 20


@pytest.mark.parametrize(
    "collector",
    ["", "gridcore.Executor._collect = lambda self: None\n"],
    ids=["its thread", "who waits"],
)
def test_a_program_that_shut_the_grid_down_under_it_ends(collector: str) -> None:
    """Whether the executor's thread or who waits for a result is the first to see it."""
    ended = _run(
        f"import gridcore, time\n{collector}"
        "gridcore.init(num_cpus=1)\n"
        "executor = gridcore.Executor(1)\n"
        "futures = [executor.submit(time.sleep, 3600) for _ in range(2)]\n"
        "gridcore.shutdown()\n"
        "print(type(futures[0].exception()).__name__)\n"
        "futures[1].cancel()\n"
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "NotConnected\n")


def test_errors_name_the_function_that_was_submitted() -> None:
    def takes_long(moment: float) -> float:
        time.sleep(1000)
        return moment

    with gridcore.Executor(timeout=0.1) as executor:
        error = executor.submit(takes_long, time.monotonic()).exception(WITHIN_S)
    assert isinstance(error, gridcore.TaskTimeout)
    assert "takes_long" in str(error)
