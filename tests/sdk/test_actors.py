"""Classes: actors, their order, their deaths."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gridcore
from tests.sdk.signals import WITHIN_S, reach, times_reached, wait_for, wait_reached
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def increment(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def process(self) -> int:
        return os.getpid()

    def die(self, point: Path, times: int) -> int:
        reach(point)
        if times_reached(point) <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.value

    def fail(self) -> None:
        raise KeyError("not there")

    def block(self, point: Path) -> None:
        reach(point.with_suffix(".begun"))
        wait_for(point)


def test_an_actor_keeps_its_state() -> None:
    counter = Counter.remote(10)
    refs = [counter.increment.remote() for _ in range(100)]
    assert gridcore.get(refs, timeout=WITHIN_S) == list(range(11, 111))
    assert gridcore.get(counter.increment.remote(by=5)) == 115


def test_what_a_caller_calls_runs_in_its_order_even_if_arguments_come_late(tmp_path: Path) -> None:
    @gridcore.remote
    def late() -> int:
        wait_for(tmp_path / "go")
        return 100

    counter = Counter.remote()
    first = counter.increment.remote(late.remote())
    second = counter.increment.remote()
    reach(tmp_path / "go")
    assert gridcore.get([first, second], timeout=WITHIN_S) == [100, 101]


def test_what_a_method_raises_leaves_the_actor_alive() -> None:
    counter = Counter.remote()
    with pytest.raises(KeyError, match="not there"):
        gridcore.get(counter.fail.remote(), timeout=WITHIN_S)
    assert gridcore.get(counter.increment.remote()) == 1


def test_a_handle_can_be_passed_to_calls() -> None:
    @gridcore.remote
    def use(handles: list[Any]) -> int:
        return int(gridcore.get(handles[0].increment.remote()))

    counter = Counter.remote()
    refs = [use.remote([counter]) for _ in range(5)]
    assert sorted(gridcore.get(refs, timeout=WITHIN_S)) == [1, 2, 3, 4, 5]


def test_a_call_can_make_an_actor_and_give_it_away() -> None:
    @gridcore.remote
    def make() -> Any:
        return Counter.remote(7)

    counter = gridcore.get(make.remote(), timeout=WITHIN_S)
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 8


def test_an_actor_whose_argument_is_a_large_error_says_so_to_its_callers() -> None:
    @gridcore.remote(max_retries=0)
    def fail() -> int:
        raise ValueError("x" * 300_000)

    failed = fail.remote()
    gridcore.wait([failed], timeout=WITHIN_S)
    with pytest.raises(gridcore.ActorDied, match="an argument of its constructor"):
        gridcore.get(Counter.remote(failed).increment.remote(), timeout=WITHIN_S)


def test_a_constructor_that_fails_is_the_reason_for_every_call() -> None:
    @gridcore.remote
    class Broken:
        def __init__(self) -> None:
            raise RuntimeError("no configuration")

        def method(self) -> None: ...

    broken = Broken.remote()
    for _ in range(2):
        with pytest.raises(gridcore.ActorDied, match="no configuration"):
            gridcore.get(broken.method.remote(), timeout=WITHIN_S)


def test_arguments_and_methods_that_do_not_fit_are_refused_at_the_call() -> None:
    with pytest.raises(TypeError, match="too many"):
        Counter.remote(1, 2, 3)
    counter = Counter.remote()
    with pytest.raises(AttributeError, match=r"no method 'nothing'\. It has: "):
        _ = counter.nothing
    with pytest.raises(TypeError, match=r"increment\.remote"):
        counter.increment()
    with pytest.raises(TypeError, match=r"Counter\.remote"):
        Counter()


def test_an_actor_whose_process_is_killed_is_dead(tmp_path: Path) -> None:
    counter = Counter.remote()
    with pytest.raises(gridcore.ActorDied, match="SIGKILL"):
        gridcore.get(counter.die.remote(tmp_path / "p", 100), timeout=WITHIN_S)
    with pytest.raises(gridcore.ActorDied, match="SIGKILL"):
        gridcore.get(counter.increment.remote(), timeout=WITHIN_S)


def test_it_is_made_anew_if_options_say_so(tmp_path: Path) -> None:
    counter = Counter.options(max_restarts=1).remote(5)
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 6
    with pytest.raises(gridcore.ActorUnavailable, match="may have run"):
        gridcore.get(counter.die.remote(tmp_path / "p", 100), timeout=WITHIN_S)
    assert gridcore.get(counter.increment.remote(), timeout=WITHIN_S) == 6, "from the start"
    with pytest.raises(gridcore.ActorDied):
        gridcore.get(counter.die.remote(tmp_path / "p", 100), timeout=WITHIN_S)


def test_methods_are_repeated_if_options_say_so(tmp_path: Path) -> None:
    counter = Counter.options(max_restarts=-1, max_task_retries=2).remote(5)
    refs = [counter.die.remote(tmp_path / "p", 2), counter.increment.remote()]
    assert gridcore.get(refs, timeout=WITHIN_S) == [5, 6], "in their order"
    assert times_reached(tmp_path / "p") == 3


def test_kill_ends_it_at_once(tmp_path: Path) -> None:
    counter = Counter.remote()
    ref = counter.block.remote(tmp_path / "never")
    wait_reached(tmp_path / "never.begun")
    gridcore.kill(counter)
    with pytest.raises(gridcore.ActorDied, match=r"gridcore.kill was called"):
        gridcore.get(ref, timeout=WITHIN_S)


def test_a_named_actor_is_found_by_its_name_until_it_is_gone() -> None:
    counter = Counter.options(name="tally").remote()
    assert gridcore.get(gridcore.get_actor("tally").increment.remote(), timeout=WITHIN_S) == 1

    @gridcore.remote
    def by_name() -> int:
        return int(gridcore.get(gridcore.get_actor("tally").increment.remote()))

    assert gridcore.get(by_name.remote(), timeout=WITHIN_S) == 2
    with pytest.raises(ValueError, match="'tally' already"):
        Counter.options(name="tally").remote()
    same = Counter.options(name="tally", get_if_exists=True).remote()
    assert same == counter
    gridcore.kill(counter)
    with pytest.raises(gridcore.ActorDied):
        gridcore.get(counter.increment.remote(), timeout=WITHIN_S)
    with pytest.raises(ValueError, match="no actor 'tally'"):
        gridcore.get_actor("tally")


def test_an_actor_ends_with_its_last_handle() -> None:
    counter = Counter.remote()
    process = gridcore.get(counter.process.remote(), timeout=WITHIN_S)
    last = counter.increment.remote()
    del counter
    assert gridcore.get(last, timeout=WITHIN_S) == 1, "what was called still runs"
    wait_until(lambda: not _is_alive(process), within_s=WITHIN_S, what="its process is gone")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_methods_run_at_the_same_time_if_options_say_so() -> None:
    @gridcore.remote(max_concurrency=3)
    class Meeting:
        def __init__(self) -> None:
            self.barrier = threading.Barrier(3)

        def meet(self) -> bool:
            self.barrier.wait(WITHIN_S)
            return True

    meeting = Meeting.remote()
    assert all(gridcore.get([meeting.meet.remote() for _ in range(3)], timeout=WITHIN_S))


def test_async_methods_run_at_the_same_time() -> None:
    @gridcore.remote
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def wait(self) -> str:
            await self.opened.wait()
            return "through"

        async def open(self) -> None:
            self.opened.set()

    gate = Gate.remote()
    waits = [gate.wait.remote() for _ in range(10)]
    gridcore.get(gate.open.remote(), timeout=WITHIN_S)
    assert gridcore.get(waits, timeout=WITHIN_S) == ["through"] * 10


def test_a_method_can_be_cancelled(tmp_path: Path) -> None:
    counter = Counter.remote()
    ref = counter.block.remote(tmp_path / "never")
    behind = counter.increment.remote()
    wait_reached(tmp_path / "never.begun")
    gridcore.cancel(ref)
    assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)
    assert gridcore.get(behind, timeout=WITHIN_S) == 1


@pytest.mark.parametrize("kind", ["one by one", "in threads", "as coroutines"])
def test_methods_that_are_cancelled_as_they_begin_end(kind: str, tmp_path: Path) -> None:
    class Waiter:
        def wait(self) -> None:
            wait_for(tmp_path / "never")

    class AsyncWaiter:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    of = AsyncWaiter if kind == "as coroutines" else Waiter
    actor = gridcore.remote(of).options(max_concurrency=1 if kind == "one by one" else 4).remote()
    for moment in range(40):
        ref = actor.wait.remote()
        begun = time.monotonic()
        while time.monotonic() < begun + moment * 0.0001:
            pass  # to meet it at different moments
        gridcore.cancel(ref)
        assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)


def test_an_actor_may_call_functions_and_wait_for_them() -> None:
    @gridcore.remote
    def square(x: int) -> int:
        return x * x

    @gridcore.remote
    class Summer:
        def squares(self, n: int) -> int:
            return sum(gridcore.get([square.remote(x) for x in range(n)]))

    assert gridcore.get(Summer.remote().squares.remote(10), timeout=WITHIN_S) == 285
