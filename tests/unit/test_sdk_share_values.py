"""Large values in a container: fetched once, kept within bounds, without a process or Redis."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gridcore.sdk.grid.keys import JobKeys
from gridcore.sdk.grid.letters import Command
from gridcore.sdk.grid.messages import CALL, PYTHON, Item
from gridcore.sdk.grid.share import Share, Worker
from gridcore.sdk.workers.crew import WorkerProcess
from gridcore.sdk.workers.frames import Outgoing


class FakeRun:
    """Answers when the test says so."""

    node = "n1"

    def __init__(self) -> None:
        self.asked: list[tuple[Command, Callable[[Any], None]]] = []
        self.forked = 0
        self.memory = 25

    def send(self, command: Command, then: Callable[[Any], None]) -> None:
        self.asked.append((command, then))

    def later(self, seconds: float, call: Callable[[], None]) -> None: ...

    def memory_for_values(self) -> int:
        return self.memory

    def now(self) -> float:
        return 0.0

    def fork(self, number: int) -> WorkerProcess:
        self.forked += 1
        return SimpleNamespace(number=number)  # type: ignore[return-value]

    def started(self, share: Share, worker: Worker) -> None: ...
    def kill(self, number: int) -> None: ...
    def write(self, worker: Worker, out: Outgoing) -> None: ...
    def is_done(self, place: str) -> None: ...
    def give_up(self, share: Share) -> None:
        raise AssertionError(share)

    def give_back(self, place: str) -> None: ...

    def answer(self, field: str, reply: bytes) -> int:
        """How often it was asked for."""
        due = [then for command, then in self.asked if command[-1] == field]
        self.asked = [entry for entry in self.asked if entry[0][-1] != field]
        for then in due:
            then(reply)
        return len(due)


def call(number: int, value: str) -> Item:
    return Item("job", CALL, number, 1, PYTHON, function=b"f", tickets=((value, 10),))


def test_a_value_that_several_calls_take_at_once_comes_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = FakeRun()
    share = Share("job", "run", JobKeys("q", "job"), run)
    for place, value in enumerate("abcabc"):
        share.take(call(place, value), f"item-{place}")
    run.answer("f:66", marshal.dumps(({}, b"function")))
    for value in "abc":
        assert run.answer(f"{value}:0", b"0123456789") == 1
    share.take(call(7, "c"), "item-7")
    share.take(call(8, "a"), "item-8")
    assert [command[-1] for command, _ in run.asked] == ["a:0"], "the oldest was let go"
    assert run.forked == 1
