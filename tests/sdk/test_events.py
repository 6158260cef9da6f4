"""Events of calls and actors, and progress that is shown."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import gridcore
from gridcore.sdk.events import Events
from gridcore.sdk.listening import Event
from tests.sdk.conftest import ENGINES
from tests.sdk.signals import WITHIN_S, hold_all, reach, times_reached, wait_for, wait_reached

pytestmark = pytest.mark.usefixtures("engine")

TOP = Path(__file__).parents[2]


@gridcore.remote
def one() -> int:
    return 1


@gridcore.remote
def steps(n: int) -> int:
    for step in range(1, n + 1):
        gridcore.report_progress(step / n, f"step {step}")
    return n


@gridcore.remote
class Worker:
    def steps(self, n: int) -> int:
        return steps.local(n)

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def seen() -> Iterator[Events]:
    with gridcore.events() as subscription:
        yield subscription


def until(events: Events, is_last: Callable[[Event], bool]) -> list[Event]:
    found = []
    for event in events:
        found.append(event)
        if is_last(event):
            return found
    raise AssertionError(f"no more events; seen: {found}")


def is_end(event: Event) -> bool:
    return event.kind in ("finished", "failed", "cancelled")


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events]


def test_a_call_is_submitted_and_finished(seen: Events) -> None:
    before = time.time()
    ref = one.options(name="the one").remote()
    found = until(seen, is_end)
    assert kinds(found) == ["submitted", "finished"]
    assert {event.id for event in found} == {ref.id}
    assert {event.name for event in found} == {"the one"}
    assert before <= found[0].at <= found[1].at <= time.time()


def test_a_call_that_fails_says_with_what(seen: Events) -> None:
    @gridcore.remote
    def fails() -> None:
        raise KeyError("not there")

    fails.remote()
    found = until(seen, is_end)
    assert kinds(found) == ["submitted", "failed"]
    assert "not there" in found[1].text


def test_a_repeated_call_says_why(seen: Events, tmp_path: Path) -> None:
    @gridcore.remote(retry_exceptions=True)
    def third_time(point: Path) -> None:
        reach(point)
        if times_reached(point) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if times_reached(point) == 2:
            raise OSError("not yet")

    ref = third_time.remote(tmp_path / "p")
    found = until(seen, is_end)
    assert kinds(found) == ["submitted", "retried", "retried", "finished"]
    assert "SIGKILL" in found[1].text
    assert "not yet" in found[2].text
    gridcore.get(ref)


def test_a_cancelled_call_is_no_failure(seen: Events, tmp_path: Path) -> None:
    @gridcore.remote
    def waits(folder: Path) -> None:
        reach(folder / "begun")
        wait_for(folder / "never")

    ref = waits.remote(tmp_path)
    wait_reached(tmp_path / "begun")
    ref.cancel()
    assert kinds(until(seen, is_end)) == ["submitted", "cancelled"]


def test_calls_report_how_far_they_are(seen: Events) -> None:
    ref = steps.remote(4)
    found = until(seen, is_end)
    assert kinds(found) == ["submitted", *["progress"] * 4, "finished"]
    reports = found[1:-1]
    assert [event.fraction for event in reports] == [0.25, 0.5, 0.75, 1.0]
    assert reports[0].text == "step 1"
    assert {(event.id, event.name) for event in reports} == {(ref.id, "steps")}


def test_calls_below_others_and_actors_report_too(seen: Events) -> None:
    @gridcore.remote
    def outer() -> int:
        return gridcore.get(steps.remote(2))

    ref = outer.remote()
    found = until(seen, lambda event: is_end(event) and event.id == ref.id)
    assert [(event.name, event.fraction) for event in found if event.kind == "progress"] == [
        ("steps", 0.5),
        ("steps", 1.0),
    ]
    worker = Worker.remote()
    worker.steps.remote(1)
    found = until(seen, is_end)
    assert "actor_started" in kinds(found)
    assert [event.name for event in found if event.kind == "progress"] == ["Worker.steps"]


def test_an_actors_end_is_an_event_with_its_reason(seen: Events) -> None:
    worker = Worker.remote()
    ref = worker.die.remote()
    found = until(seen, lambda event: event.kind == "actor_died" and event.id in repr(worker))
    assert "SIGKILL" in found[-1].text
    assert found[-1].name == "Worker"
    assert isinstance(ref.exception(WITHIN_S), gridcore.ActorDied)


def test_a_subscription_that_is_closed_ends_its_loop() -> None:
    subscription = gridcore.events()
    found: list[Event] = []
    reader = threading.Thread(target=lambda: found.extend(subscription))
    reader.start()
    subscription.close()
    reader.join(WITHIN_S)
    assert not reader.is_alive()
    assert list(subscription) == []
    assert gridcore.get(one.remote(), timeout=WITHIN_S) == 1


def test_another_thread_hears_of_a_call_that_only_waits(seen: Events, tmp_path: Path) -> None:
    held = hold_all(tmp_path)
    assert [next(seen).kind for _ in held] == ["submitted"] * 2
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        event = reader.submit(next, seen)
        ref = one.remote()
        assert event.result(WITHIN_S).id == ref.id
    reach(tmp_path / "go")
    gridcore.get([*held, ref], timeout=WITHIN_S)


def test_shutdown_ends_subscriptions(engine: str) -> None:
    with gridcore.events() as subscription:
        gridcore.shutdown()
        assert list(subscription) == []
    ENGINES[engine]()


def test_events_are_for_programs() -> None:
    @gridcore.remote
    def subscribe() -> None:
        gridcore.events()

    with pytest.raises(RuntimeError, match="Subscribe there"):
        gridcore.get(subscribe.remote(), timeout=WITHIN_S)


def test_a_report_outside_of_calls_does_nothing() -> None:
    assert steps.local(3) == 3
    with pytest.raises(ValueError, match="from 0 to 1"):
        gridcore.report_progress(2)


def test_progress_returns_references_that_are_all_done(capsys: pytest.CaptureFixture[str]) -> None:
    refs = [one.remote() for _ in range(50)]
    assert gridcore.get(gridcore.progress(refs)) == [1] * 50
    assert capsys.readouterr().err.splitlines()[-1] == "50 of 50 (100 %) done"
    assert gridcore.progress([]) == []
    with pytest.raises(TypeError, match="int in the list"):
        gridcore.progress([1])  # type: ignore[arg-type]


def test_progress_passes_results_on_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    results = gridcore.progress(steps.map(range(10)), total=10)
    assert next(results) == 0
    assert capsys.readouterr().err == "1 of 10 (10 %) done\n"
    assert list(results) == list(range(1, 10))


def test_a_failed_call_is_done_as_well() -> None:
    @gridcore.remote
    def fails() -> None:
        raise LookupError

    (ref,) = gridcore.progress([fails.remote()])
    with contextlib.suppress(LookupError):
        gridcore.get(ref)


def test_in_a_terminal_it_is_a_bar(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import gridcore\n"
        "@gridcore.remote\n"
        "def one(): return 1\n"
        "print(sum(gridcore.get(gridcore.progress([one.remote() for _ in range(20)]))))\n"
    )
    ours, terminal = os.openpty()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        timeout=WITHIN_S,
        env={**os.environ, "PYTHONPATH": str(TOP), "TERM": "xterm"},
        check=False,
    )
    os.close(terminal)
    shown = os.read(ours, 1 << 20).decode()
    os.close(ours)
    assert done.stdout == "20\n"
    assert "20/20" in shown
