"""Functions: calls, results, arguments, options."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from pathlib import Path
from typing import Any, assert_type

import pytest

import gridcore
from tests.sdk.conftest import ENGINES
from tests.sdk.signals import WITHIN_S, hold_all, reach, times_reached, wait_for
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
def add(x: int, y: int = 1) -> int:
    return x + y


@gridcore.remote
def echo(value: Any) -> Any:
    return value


def test_a_call_returns_its_result() -> None:
    ref = assert_type(add.remote(1, 2), gridcore.ObjectRef[int])
    assert assert_type(gridcore.get(ref), int) == 3
    assert gridcore.get(add.remote(1, y=3)) == 4
    assert gridcore.get(add.remote(1)) == 2


def test_results_come_in_the_order_of_the_references() -> None:
    refs = [add.remote(number, number) for number in range(1000)]
    assert gridcore.get(refs) == [2 * number for number in range(1000)]
    assert gridcore.get([]) == []


def test_a_function_still_runs_here() -> None:
    assert add.local(1, 2) == 3
    with pytest.raises(TypeError, match=r"call add.remote\(...\)"):
        add(1, 2)


def test_a_reference_as_an_argument_becomes_its_value() -> None:
    first = add.remote(1, 2)
    second = add.remote(first, y=first)  # type: ignore[arg-type]
    assert gridcore.get(add.remote(second, 1)) == 7  # type: ignore[arg-type]


def test_a_reference_inside_a_list_stays_a_reference() -> None:
    inner = add.remote(1, 2)
    (came_back,) = gridcore.get(echo.remote([inner]))
    assert came_back == inner
    assert gridcore.get(came_back) == 3


def test_a_call_waits_for_arguments_that_are_not_there_yet(tmp_path: Path) -> None:
    @gridcore.remote
    def when_told() -> int:
        wait_for(tmp_path / "go")
        return 5

    waits = add.remote(when_told.remote(), 1)  # type: ignore[arg-type]
    assert not waits.done()
    reach(tmp_path / "go")
    assert gridcore.get(waits) == 6


def test_what_an_argument_raised_is_what_the_call_raises() -> None:
    @gridcore.remote
    def fails() -> int:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        gridcore.get(add.remote(fails.remote(), 1), timeout=WITHIN_S)  # type: ignore[arg-type]


def test_arguments_that_do_not_fit_are_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        add.remote()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        add.remote(1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="too many"):
        add.remote(1, 2, 3)  # type: ignore[call-arg]


def test_an_argument_that_cannot_be_pickled_is_an_error_at_the_call() -> None:
    with pytest.raises(gridcore.NotPicklable, match="an argument of echo"):
        echo.remote(threading.Lock())
    with pytest.raises(TypeError, match="cannot pickle"):
        echo.remote(threading.Lock())


def test_a_result_that_cannot_be_pickled_is_an_error_that_names_the_function() -> None:
    @gridcore.remote
    def lock() -> object:
        return threading.Lock()

    with pytest.raises(gridcore.NotPicklable, match=r"the result of .*lock"):
        gridcore.get(lock.remote(), timeout=WITHIN_S)
    assert gridcore.get(add.remote(1, 2)) == 3, "the worker goes on"


def test_a_function_that_refers_to_what_cannot_be_pickled_says_so() -> None:
    lock = threading.Lock()

    @gridcore.remote
    def locked() -> bool:
        return lock.locked()

    with pytest.raises(gridcore.NotPicklable, match=r"Sending .*locked to a worker"):
        locked.remote()


def test_lambdas_closures_and_recursive_functions_travel() -> None:
    factor = 3
    assert gridcore.get(gridcore.remote(lambda x: x * factor).remote(2)) == 6

    @gridcore.remote
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * gridcore.get(factorial.remote(n - 1))

    assert gridcore.get(factorial.remote(10), timeout=WITHIN_S) == 3628800


def test_instances_of_local_classes_come_back_as_what_they_were() -> None:
    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    came_back = gridcore.get(echo.remote(Point(3)))
    assert isinstance(came_back, Point)
    assert came_back.x == 3


def test_several_results_are_several_references() -> None:
    @gridcore.remote(num_returns=2)
    def halves(text: str) -> tuple[str, str]:
        return text[:2], text[2:]

    refs: Any = halves.remote("abcd")
    assert gridcore.get(refs[::-1]) == ["cd", "ab"]
    refs = halves.options(num_returns=3).remote("abcd")
    for ref in refs:
        with pytest.raises(ValueError, match="num_returns=3 and returned 2"):
            gridcore.get(ref, timeout=WITHIN_S)
    assert halves.options(num_returns=0).remote("abcd") is None


def test_map_gives_results_in_order_and_takes_items_as_it_goes() -> None:
    taken = []

    def items() -> Any:
        for number in range(100):
            taken.append(number)
            yield number

    results = add.map(items(), max_in_flight=10)
    assert next(results) == 1
    assert len(taken) <= 10
    assert list(results) == list(range(2, 101))
    assert sorted(add.map(range(50), ordered=False)) == list(range(1, 51))
    assert list(add.map([1, 2], [10, 20])) == [11, 22]


def test_map_can_give_exceptions_as_results() -> None:
    @gridcore.remote
    def invert(x: int) -> float:
        return 1 / x

    results: list[Any] = list(invert.map([1, 0], return_exceptions=True))
    one, error = results
    assert one == 1
    assert isinstance(error, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        list(invert.map([1, 0]))


def test_wait_parts_what_is_over_from_what_is_not(tmp_path: Path) -> None:
    @gridcore.remote
    def when_told(number: int) -> int:
        wait_for(tmp_path / "go")
        return number

    slow, quick = when_told.remote(1), add.remote(1)
    assert gridcore.wait([slow, quick], timeout=WITHIN_S) == ([quick], [slow])
    assert gridcore.wait([slow], timeout=0) == ([], [slow])
    reach(tmp_path / "go")
    assert gridcore.wait([slow, quick], num_returns=2, timeout=WITHIN_S) == ([slow, quick], [])


def test_wait_refuses_what_makes_no_sense() -> None:
    ref = add.remote(1)
    with pytest.raises(TypeError, match="no list"):
        gridcore.wait(ref)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twice"):
        gridcore.wait([ref, ref])
    with pytest.raises(ValueError, match="num_returns=2"):
        gridcore.wait([ref], num_returns=2)
    with pytest.raises(TypeError, match="int in the list"):
        gridcore.get([1])  # type: ignore[arg-type]


def test_as_completed_gives_what_is_over_first(tmp_path: Path) -> None:
    @gridcore.remote
    def when_told() -> str:
        wait_for(tmp_path / "go")
        return "slow"

    slow, quick = when_told.remote(), echo.remote("quick")
    order = gridcore.as_completed([slow, quick], with_results=True, timeout=WITHIN_S)
    assert next(order) == (quick, "quick")
    reach(tmp_path / "go")
    assert list(order) == [(slow, "slow")]


def test_gather_can_give_exceptions_as_results() -> None:
    @gridcore.remote
    def fails() -> None:
        raise KeyError("k")

    assert gridcore.gather(add.remote(1), add.remote(2)) == [2, 3]
    two, error = gridcore.gather(add.remote(1), fails.remote(), return_exceptions=True)
    assert two == 2
    assert isinstance(error, KeyError)


def test_a_reference_is_a_future() -> None:
    ref = add.remote(1, 2)
    assert ref.result(timeout=WITHIN_S) == 3
    assert ref.done()
    assert ref.exception() is None
    assert ref.future().result(WITHIN_S) == 3

    called: concurrent.futures.Future[gridcore.ObjectRef[int]] = concurrent.futures.Future()
    later = add.remote(3, 4)
    later.add_done_callback(called.set_result)
    assert called.result(WITHIN_S) == later


def test_a_callback_that_raises_harms_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    ref = add.remote(1)
    ref.add_done_callback(lambda _: 1 / 0)
    assert gridcore.get(ref, timeout=WITHIN_S) == 2
    assert gridcore.get(add.remote(2), timeout=WITHIN_S) == 3
    wait_until(lambda: "ZeroDivisionError" in caplog.text, within_s=WITHIN_S, what="it is logged")


def test_a_reference_can_be_awaited() -> None:
    async def both() -> tuple[int, int]:
        one, two = add.remote(1), add.remote(2)
        return await one, await two

    assert asyncio.run(both()) == (2, 3)


def test_many_threads_may_call_and_wait_at_once() -> None:
    def calls(start: int) -> list[int]:
        return [gridcore.get(add.remote(start, n)) for n in range(50)]

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        for start, results in enumerate(threads.map(calls, range(8))):
            assert results == [start + n for n in range(50)]


def test_calls_of_a_higher_priority_start_first(tmp_path: Path) -> None:
    held = hold_all(tmp_path)
    many = [add.remote(n, n) for n in range(5000)]
    one = add.options(priority=1).remote(1, 2)
    reach(tmp_path / "go")
    assert gridcore.get(one, timeout=WITHIN_S) == 3
    # Nodes of a grid have taken a quarter of a second's work already, but not all.
    _, left = gridcore.wait(many, num_returns=len(many), timeout=0)
    assert left
    gridcore.get([*held, *many], timeout=WITHIN_S)


def test_what_can_never_run_says_why() -> None:
    with pytest.raises(gridcore.Unschedulable, match="num_cpus=1000"):
        gridcore.get(add.options(num_cpus=1000).remote(1), timeout=WITHIN_S)
    with pytest.raises(gridcore.Unschedulable, match="gpu=1"):
        gridcore.get(add.options(resources={"gpu": 1}).remote(1), timeout=WITHIN_S)


def test_an_exception_is_repeated_only_if_options_say_so(tmp_path: Path) -> None:
    @gridcore.remote
    def fails_twice(point: Path) -> int:
        reach(point)
        if times_reached(point) < 3:
            raise OSError("not yet")
        return times_reached(point)

    def outcome(name: str, **options: Any) -> object:
        return fails_twice.options(**options).remote(tmp_path / name).exception(WITHIN_S)

    assert isinstance(outcome("never"), OSError)
    assert outcome("always", retry_exceptions=True) is None
    assert outcome("listed", retry_exceptions=[OSError]) is None
    assert isinstance(outcome("others", retry_exceptions=[KeyError]), OSError)
    assert isinstance(outcome("too few", retry_exceptions=True, max_retries=1), OSError)
    assert times_reached(tmp_path / "too few") == 2


def test_what_calls_print_is_seen(engine: str, capfd: pytest.CaptureFixture[str]) -> None:
    @gridcore.remote
    def greet() -> None:
        print("hello from a worker")
        print("and an error", file=sys.stderr)

    # Workers keep the output that the engine was started with.
    gridcore.shutdown()
    ENGINES[engine]()
    gridcore.get(greet.remote(), timeout=WITHIN_S)
    printed = capfd.readouterr()
    assert "hello from a worker\n" in printed.out
    assert "and an error\n" in printed.err
