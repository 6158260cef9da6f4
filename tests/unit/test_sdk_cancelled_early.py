"""Calls that were cancelled after a worker had taken them up, and before they had begun."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from gridcore.sdk.outcomes import DONE, STOPPED
from gridcore.sdk.packing import pack
from gridcore.sdk.workers.frames import Incoming, Message
from gridcore.sdk.workers.running import Interrupts, Runner
from gridcore.sdk.workers.worker_engine import WorkerEngine

NO_ARGUMENTS = cloudpickle.dumps(((), {}))


class Inside:
    """A worker's runner, and the driver's end of its socket."""

    def __init__(self, theirs: socket.socket, ours: socket.socket) -> None:
        interrupts = Interrupts()
        self.engine = WorkerEngine(1, theirs, interrupts, lambda *_: None, list)
        self.runner = Runner(self.engine, interrupts)
        self._incoming = Incoming(ours)

    def run(self, *message: Any) -> None:
        self.runner.run(message, [])
        self.engine.flush()

    def answers(self, count: int) -> dict[int, int]:
        """The number of each call that is over, and how it ended."""
        found: dict[int, int] = {}
        while len(found) < count:
            for messages, _ in self._incoming.receive():
                found |= {message[1]: message[3] for message in messages if message[0] == "d"}
        return found

    def create(self, kind: type, concurrency: int | None) -> None:
        self.engine.functions[b"kind"] = cloudpickle.dumps((kind, False))
        self.run("a", 1, b"kind", NO_ARGUMENTS, (), (), concurrency)
        assert self.answers(1) == {1: DONE}


@pytest.fixture
def inside() -> Iterator[Inside]:
    theirs, ours = socket.socketpair()
    ours.settimeout(20)
    with theirs, ours:
        made = Inside(theirs, ours)
        yield made
        made.runner.close()


def method(number: int, name: str) -> Message:
    return ("m", number, name, NO_ARGUMENTS, (), (), 1, None)


class Plain:
    def __init__(self) -> None:
        self.begun = 0

    def work(self) -> None:
        self.begun += 1

    def count(self) -> None:
        assert self.begun == 0


class Async:
    def __init__(self) -> None:
        self.begun = 0

    async def work(self) -> None:
        self.begun += 1

    async def count(self) -> None:
        assert self.begun == 0


@pytest.mark.parametrize(
    ("kind", "concurrency"),
    [(Plain, None), (Plain, 2), (Async, None)],
    ids=["in the main thread", "in a thread", "as a coroutine"],
)
def test_its_method_does_not_run_and_it_is_over(
    inside: Inside, kind: type, concurrency: int | None
) -> None:
    inside.create(kind, concurrency)
    inside.runner.unwanted[2] = 0
    inside.run(*method(2, "work"))
    assert inside.answers(1) == {2: STOPPED}
    inside.run(*method(3, "count"))
    assert inside.answers(1) == {3: DONE}
    assert not inside.runner.unwanted


def test_another_attempt_is_not_meant(inside: Inside) -> None:
    """It was to stop when it was over already, and is repeated."""
    inside.create(Plain, None)
    inside.runner.unwanted[2] = 0
    inside.run("m", 2, "work", NO_ARGUMENTS, (), (), 1, (1, ""))
    assert inside.answers(1) == {2: DONE}


def test_a_call_lets_go_of_its_large_arguments(inside: Inside) -> None:
    large = pack(bytes(1_000_000), "an argument")
    assert large.blob is not None
    fd = os.dup(large.blob.fd)
    inside.runner.unwanted[2] = 0
    message = ("c", 2, b"any", (0, large.blob.size), (), (), 1, None, None)
    inside.runner.run(message, [fd])
    inside.engine.flush()
    assert inside.answers(1) == {2: STOPPED}
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(fd)
