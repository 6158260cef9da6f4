"""What can go wrong with a call, and what its caller sees."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gridcore
from tests.sdk.signals import WITHIN_S, hold_all, reach, times_reached, wait_for, wait_reached

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
def kill_worker_until(point: Path, times: int) -> int:
    reach(point)
    if times_reached(point) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return times_reached(point)


@gridcore.remote
def one() -> int:
    return 1


@gridcore.remote
def sleep_for(seconds: float, point: Path) -> None:
    reach(point)
    time.sleep(seconds)


class Odd(Exception):
    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"odd {code}: {reason}")
        self.code = code


def test_an_exception_is_what_it_was_and_a_task_error() -> None:
    @gridcore.remote
    def fails() -> None:
        {}["key"]  # type: ignore[index]

    with pytest.raises(KeyError) as caught:
        gridcore.get(fails.remote(), timeout=WITHIN_S)
    error = caught.value
    assert isinstance(error, gridcore.TaskError)
    assert isinstance(error, gridcore.GridError)
    assert error.args == ("key",)
    assert type(error.cause) is KeyError
    assert '{}["key"]' in error.remote_traceback
    assert "running.py" not in error.remote_traceback, "only what the user wrote"
    assert "Raised in another process" in error.__notes__[0]


def test_attributes_of_exceptions_survive() -> None:
    @gridcore.remote
    def no_file() -> None:
        Path("/nowhere/at all").read_text()

    with pytest.raises(FileNotFoundError) as caught:
        gridcore.get(no_file.remote(), timeout=WITHIN_S)
    assert caught.value.errno == 2
    assert caught.value.filename == "/nowhere/at all"


def test_exceptions_that_cannot_be_made_again_are_still_task_errors() -> None:
    @gridcore.remote
    def odd() -> None:
        raise Odd(7, reason="so it is")

    with pytest.raises(gridcore.TaskError, match="odd 7: so it is") as caught:
        gridcore.get(odd.remote(), timeout=WITHIN_S)
    assert "so it is" in caught.value.remote_traceback


def test_sys_exit_in_a_call_ends_the_call_and_not_the_program() -> None:
    @gridcore.remote
    def leaves() -> None:
        raise SystemExit(3)

    with pytest.raises(gridcore.TaskError, match="SystemExit: 3"):
        gridcore.get(leaves.remote(), timeout=WITHIN_S)


def test_a_call_is_repeated_when_its_worker_is_killed(tmp_path: Path) -> None:
    assert gridcore.get(kill_worker_until.remote(tmp_path / "p", 2), timeout=WITHIN_S) == 3


def test_after_its_retries_it_says_how_the_worker_died(tmp_path: Path) -> None:
    call = kill_worker_until.options(max_retries=1).remote(tmp_path / "p", 100)
    with pytest.raises(gridcore.WorkerDied, match=r"killed by signal 9 \(SIGKILL\)"):
        gridcore.get(call, timeout=WITHIN_S)
    assert times_reached(tmp_path / "p") == 2

    @gridcore.remote(max_retries=0)
    def leaves() -> None:
        os._exit(5)

    with pytest.raises(gridcore.WorkerDied, match="exited with code 5"):
        gridcore.get(leaves.remote(), timeout=WITHIN_S)


def test_calls_that_were_sent_to_a_killed_worker_are_not_lost(tmp_path: Path) -> None:
    gridcore.get([one.remote() for _ in range(100)])
    refs: list[Any] = [one.remote() for _ in range(500)]
    refs.insert(250, kill_worker_until.remote(tmp_path / "p", 1))
    assert sum(gridcore.get(refs, timeout=WITHIN_S)) == 502


class KillsItsProcess:
    """The first time that it is pickled."""

    def __init__(self, point: Path) -> None:
        self._point = point

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        if not self._point.exists():
            reach(self._point)
            os.kill(os.getpid(), signal.SIGKILL)
        return Path, (str(self._point),)


def test_a_worker_that_is_killed_in_the_middle_of_a_put_has_its_call_repeated(
    tmp_path: Path,
) -> None:
    @gridcore.remote
    def put_much(point: Path) -> gridcore.ObjectRef[list[object]]:
        return gridcore.put([bytes(1_000_000), KillsItsProcess(point)])

    ref = gridcore.get(put_much.remote(tmp_path / "killed"), timeout=WITHIN_S)
    assert gridcore.get(ref, timeout=WITHIN_S) == [bytes(1_000_000), tmp_path / "killed"]


def test_a_wait_has_an_end_and_the_call_goes_on(tmp_path: Path) -> None:
    @gridcore.remote
    def when_told() -> str:
        wait_for(tmp_path / "go")
        return "done"

    ref = when_told.remote()
    with pytest.raises(gridcore.GetTimeout, match="when_told"):
        gridcore.get(ref, timeout=0.01)
    with pytest.raises(TimeoutError):
        ref.result(timeout=0)
    reach(tmp_path / "go")
    assert gridcore.get(ref, timeout=WITHIN_S) == "done"


def test_a_call_that_has_not_begun_can_be_cancelled(tmp_path: Path) -> None:
    held = hold_all(tmp_path)
    waits = sleep_for.remote(0, tmp_path / "never")
    depends = kill_worker_until.remote(tmp_path / "nor this", waits)  # type: ignore[arg-type]
    gridcore.cancel(waits)
    with pytest.raises(gridcore.TaskCancelled, match="sleep_for"):
        gridcore.get(waits, timeout=WITHIN_S)
    with pytest.raises(gridcore.TaskCancelled):
        gridcore.get(depends, timeout=WITHIN_S)
    reach(tmp_path / "go")
    gridcore.get(held, timeout=WITHIN_S)
    assert gridcore.get(one.remote(), timeout=WITHIN_S) == 1
    assert not (tmp_path / "never").exists()


def test_a_call_that_sleeps_can_be_cancelled(tmp_path: Path) -> None:
    ref = sleep_for.remote(1000, tmp_path / "p")
    wait_reached(tmp_path / "p")
    gridcore.cancel(ref)
    with pytest.raises(gridcore.TaskCancelled):
        gridcore.get(ref, timeout=WITHIN_S)
    gridcore.cancel(ref)  # once more does nothing


def test_a_call_that_computes_can_be_cancelled(tmp_path: Path) -> None:
    @gridcore.remote
    def for_ever() -> None:
        reach(tmp_path / "p")
        while True:
            pass

    ref = for_ever.remote()
    wait_reached(tmp_path / "p")
    ref.cancel()
    assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)


def test_a_call_that_waits_for_another_can_be_cancelled(tmp_path: Path) -> None:
    @gridcore.remote
    def waits_for(ref: list[gridcore.ObjectRef[None]]) -> None:
        reach(tmp_path / "outer")
        gridcore.get(ref[0])

    inner = sleep_for.remote(1000, tmp_path / "inner")
    wait_reached(tmp_path / "inner")
    outer = waits_for.remote([inner])
    wait_reached(tmp_path / "outer")
    gridcore.cancel(outer)
    assert isinstance(outer.exception(WITHIN_S), gridcore.TaskCancelled)
    gridcore.cancel(inner)
    assert isinstance(inner.exception(WITHIN_S), gridcore.TaskCancelled)
    assert gridcore.get([one.remote() for _ in range(10)], timeout=WITHIN_S) == [1] * 10


def test_a_function_in_c_can_be_cancelled() -> None:
    """There is no frame of the user's."""
    refs = [gridcore.remote(time.sleep).remote(1000) for _ in range(2)]
    gridcore.wait(refs, timeout=0.5)  # nobody says when they have begun
    for ref in refs:
        gridcore.cancel(ref)
        assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)
    assert gridcore.get(one.remote(), timeout=WITHIN_S) == 1


def test_a_call_can_be_cancelled_whatever_its_threads_and_questions(tmp_path: Path) -> None:
    @gridcore.remote
    def busy() -> None:
        threads = [
            threading.Thread(target=lambda: gridcore.get([one.remote() for _ in range(3)]))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gridcore.nodes()
        reach(tmp_path / "p")
        while True:
            time.sleep(0.001)

    ref = busy.remote()
    wait_reached(tmp_path / "p")
    ref.cancel()
    assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)


def test_a_call_that_fails_just_when_its_time_is_over_is_repeated(tmp_path: Path) -> None:
    """The word that it is to stop comes when the next attempt runs."""

    @gridcore.remote(timeout=0.05, max_retries=3, retry_exceptions=True)
    def fails_first(place: int) -> int:
        point = tmp_path / str(place)
        reach(point)
        if times_reached(point) == 1:
            time.sleep(0.049 + place * 0.0001)
            raise ValueError(place)
        return place

    refs = [fails_first.remote(place) for place in range(20)]
    assert gridcore.get(refs, timeout=WITHIN_S) == list(range(20))


def test_a_core_is_free_again_when_a_worker_dies_with_calls_on_top_of_each_other(
    tmp_path: Path,
) -> None:
    @gridcore.remote
    def elsewhere(point: Path) -> None:
        reach(point)
        wait_for(tmp_path / "go")

    @gridcore.remote(max_retries=0)
    def top(point: Path) -> None:
        gridcore.get(elsewhere.remote(point))

    @gridcore.remote(max_retries=0)
    def bottom(point: Path) -> None:
        (tmp_path / f"{point.name}.pid").write_text(str(os.getpid()))
        gridcore.get(top.remote(point))

    ref = bottom.remote(tmp_path / "elsewhere")
    wait_reached(tmp_path / "elsewhere")
    os.kill(int((tmp_path / "elsewhere.pid").read_text()), signal.SIGKILL)
    with pytest.raises(gridcore.WorkerDied):
        gridcore.get(ref, timeout=WITHIN_S)
    reach(tmp_path / "go")
    both = [meets.remote(tmp_path, place) for place in range(2)]
    assert gridcore.get(both, timeout=WITHIN_S) == [0, 1], "at the same time"


@gridcore.remote
def meets(folder: Path, place: int) -> int:
    reach(folder / "meets")
    wait_reached(folder / "meets", times=2)
    return place


def test_force_ends_a_call_that_cannot_be_interrupted(tmp_path: Path) -> None:
    @gridcore.remote
    def stubborn() -> None:
        reach(tmp_path / "p")
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(1000)

    ref = stubborn.remote()
    wait_reached(tmp_path / "p")
    gridcore.cancel(ref, force=True)
    assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)
    assert times_reached(tmp_path / "p") == 1, "it is not repeated"


def test_an_attempt_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    ref = sleep_for.options(timeout=0.05).remote(1000, tmp_path / "p")
    with pytest.raises(gridcore.TaskTimeout, match=r"longer than its timeout of 0.05 s"):
        gridcore.get(ref, timeout=WITHIN_S)
    assert times_reached(tmp_path / "p") == 1


def test_it_is_tried_again_if_exceptions_are(tmp_path: Path) -> None:
    options: Any = {"timeout": 0.05, "retry_exceptions": True, "max_retries": 2}
    ref = sleep_for.options(**options).remote(1000, tmp_path / "p")
    assert isinstance(ref.exception(WITHIN_S), gridcore.TaskTimeout)
    assert times_reached(tmp_path / "p") == 3


def test_nothing_is_left_to_run_or_hold_after_all_that() -> None:
    assert gridcore.get([one.remote() for _ in range(100)], timeout=WITHIN_S) == [1] * 100
