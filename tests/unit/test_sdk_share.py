"""What a container does for one driver: calls run once each, and nothing is done before it is told.

Worker processes are sockets, of which the tests have the other ends.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gridcore.sdk.grid import fetched
from gridcore.sdk.grid import share as grid_share
from gridcore.sdk.grid.kept import LOSABLE_S
from gridcore.sdk.grid.keys import JobKeys
from gridcore.sdk.grid.letters import Command
from gridcore.sdk.grid.messages import (
    ACTOR,
    CALL,
    LATE,
    PYTHON,
    UNNUMBERED,
    Item,
    Part,
    Ticket,
    read_letter,
)
from gridcore.sdk.grid.resp import ReplyError
from gridcore.sdk.grid.share import STARTED_AFTER_S, STOP_GRACE_S, STUCK_S, Share, Worker
from gridcore.sdk.grid.versions import function_field
from gridcore.sdk.outcomes import DONE, FAILED, STOPPED
from gridcore.sdk.workers.crew import WorkerProcess
from gridcore.sdk.workers.frames import Incoming, Message, Outgoing

FUNCTION = b"id"
KEYS = JobKeys("queue", "job")
SHORT = 1e-5


class FarWorker:
    """A worker process, played by the test."""

    def __init__(self, container: Container, number: int) -> None:
        self.container = container
        self.number = number
        self.worker: Worker | None = None
        self._data, data = socket.socketpair()
        self._control, control = socket.socketpair()
        self.process = WorkerProcess(number, data, control)
        self._incoming = Incoming(self._data)
        self._orders = Incoming(self._control)

    def says(self, *messages: Message, large: bytes | list[bytes] = b"") -> None:
        assert self.worker is not None
        values = [large] if isinstance(large, bytes) else large
        fds = [self._descriptor(value) for value in values if value]
        self.container.share.on_frame(self.worker, list(messages), fds)

    def comes(self) -> FarWorker:
        self.says(("hello", 99))
        return self

    def ends(self, *numbers: int, status: int = DONE, seconds: float = 1.0) -> None:
        self.says(*(("d", number, seconds, status, [b"result"], None) for number in numbers))

    def dies(self, code: int | None = -9) -> None:
        self.container.share.on_exit(self.number, code, is_out_of_memory=False)

    def got(self) -> list[Message]:
        """What it was sent since it was asked last, but for who and where it is."""
        found = []
        for messages, fds in self._frames(self._incoming):
            self._read(fds)
            found += [message for message in messages if message[0] != "j"]
        return found

    def calls(self) -> list[int]:
        return [message[1] for message in self.got() if message[0] in ("c", "m", "a")]

    def values(self) -> list[bytes]:
        """The large ones that it was sent."""
        return [value for _, fds in self._frames(self._incoming) for value in self._read(fds)]

    def told(self) -> list[Message]:
        return [m for messages, _ in self._frames(self._orders) for m in messages]

    def close(self) -> None:
        for end in (self._data, self._control):
            end.close()
        self.process.close()

    def _frames(self, incoming: Incoming) -> Iterator[tuple[list[Message], list[int]]]:
        with contextlib.suppress(BlockingIOError, EOFError):
            while True:
                yield from incoming.receive(socket.MSG_DONTWAIT)

    def _read(self, fds: list[int]) -> list[bytes]:
        values = []
        for fd in fds:
            with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor
                file.seek(0)
                values.append(file.read())
        return values

    def _descriptor(self, content: bytes) -> int:
        fd = os.memfd_create("value") if hasattr(os, "memfd_create") else -1
        os.write(fd, content)
        return fd


class Container:
    """What is around a share: a Redis, a clock, and processes that do what the test says."""

    node = "node"

    def __init__(self) -> None:
        self.clock = 1000.0
        self.memory = 1 << 30
        self.hash: dict[str, bytes] = {function_field(FUNCTION): function_needing({})}
        self.held: set[str] = set()
        """Commands that are not answered for now."""
        self.refused: set[str] = set()
        self.asked: list[tuple[Command, Callable[[Any], None]]] = []
        self.fetched: list[str] = []
        self.log: list[str] = []
        self.letters: list[tuple[int, Message]] = []
        """All that the driver was told, and by which worker."""
        self.workers: list[FarWorker] = []
        self.killed: list[int] = []
        self.done: list[str] = []
        self.given_back: list[str] = []
        self.timers: list[Callable[[], None]] = []
        self._orders = 0
        self.given_up = False
        self.share = Share("job", "run", KEYS, self)

    # Outside

    def send(self, command: Command, then: Callable[[Any], None]) -> None:
        self.asked.append((command, then))
        self._answer()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        del seconds
        self.timers.append(call)

    def memory_for_values(self) -> int:
        return self.memory

    def now(self) -> float:
        return self.clock

    def fork(self, number: int) -> WorkerProcess:
        self.workers.append(FarWorker(self, number))
        return self.workers[-1].process

    def started(self, share: Share, worker: Worker) -> None:
        assert share is self.share
        self.workers[-1].worker = worker

    def kill(self, number: int) -> None:
        self.killed.append(number)

    def write(self, worker: Worker, out: Outgoing) -> None:
        assert worker.process.sender.send(out)

    def is_done(self, place: str) -> None:
        self.done.append(place)

    def give_back(self, place: str) -> None:
        self.given_back.append(place)

    def give_up(self, share: Share) -> None:
        share.begin_anew()
        self.given_up = True

    # What tests do

    def hold(self, *commands: str) -> None:
        self.held = set(commands)

    def let_through(self) -> None:
        self.held = set()
        self._answer()

    def _answer(self) -> None:
        while due := [one for one in self.asked if str(one[0][0]) not in self.held]:
            self.asked = [one for one in self.asked if str(one[0][0]) in self.held]
            for command, then in due:
                then(self._reply(command))

    def _reply(self, command: Command) -> Any:
        kind, key, *rest = command
        self.log.append(str(kind))
        if kind in self.refused:
            return ReplyError("LOADING")
        if kind == "HGET":
            self.fetched.append(str(rest[0]))
            return self.hash.get(str(rest[0]))
        if kind == "HSET":
            self.hash[str(rest[0])] = bytes(rest[1])  # type: ignore[arg-type]
        if kind == "XADD":
            assert key == KEYS.up
            for part in read_letter(rest[-1])[2]:  # type: ignore[arg-type]
                self.letters += [(part.worker, message) for message in part.messages]
        return 1

    def take(self, number: int, *, attempt: int = 0, kind: str = CALL, **about: Any) -> str:
        about = {"python": PYTHON, "function": FUNCTION, "arguments": b"arguments", **about}
        place = f"item-{number}-{attempt}"
        self.share.take(Item("job", kind, number, attempt, **about), place)
        return place

    def worker(self) -> FarWorker:
        """The one that was forked last, and has come."""
        return self.workers[-1].comes()

    def at_work(self, number: int, **about: Any) -> FarWorker:
        """A worker that runs this call."""
        self.take(number, **about)
        worker = self.worker()
        assert worker.calls() == [number]
        return worker

    def with_short_calls(self) -> FarWorker:
        """A worker that is free, and whose calls are known to be short."""
        worker = self.at_work(1000)
        worker.ends(1000, seconds=SHORT)
        self.heard()
        self.done.clear()
        return worker

    def actor(self, number: int = -1, **about: Any) -> FarWorker:
        self.take(number, kind=ACTOR, cpus=0.0, **about)
        return self.worker()

    def order(self, message: Message, worker: int = 0, tickets: list[Ticket] | None = None) -> None:
        self._orders += 1
        self.share.on_order(self._orders, [Part(worker, [message], tickets or [])])

    def wait(self, seconds: float) -> None:
        self.clock += seconds
        self.share.tick(self.clock)

    def heard(self) -> list[Message]:
        """What the driver was told since it was asked last."""
        self.share.flush()
        heard, self.letters = self.letters, []
        return [message for _, message in heard]

    def has_a_free_core(self) -> bool:
        return not self.share.is_at_work

    def ring(self) -> None:
        due, self.timers = self.timers, []
        for call in due:
            call()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


def function_needing(packages: dict[str, str]) -> bytes:
    return marshal.dumps((packages, b"pickled"), 4)


@pytest.fixture
def container() -> Iterator[Container]:
    container = Container()
    yield container
    container.close()


def outcomes(messages: list[Message]) -> list[tuple[str, int]]:
    return [(message[0], message[1]) for message in messages]


# Calls


def test_a_call_is_sent_with_its_function_once_and_its_result_is_told(container: Container) -> None:
    place = container.take(1)
    worker = container.worker()
    assert worker.got() == [
        ("f", FUNCTION, b"pickled"),
        ("c", 1, FUNCTION, b"arguments", (), (), 1, None, None),
    ]
    worker.ends(1)
    assert container.heard() == [("over", 1, 0, DONE, [b"result"], None)]
    assert container.done == [place]
    assert container.share.is_idle
    container.take(2)
    assert [message[0] for message in worker.got()] == ["c"], "nor is there another worker"
    assert len(container.workers) == 1


def test_an_item_is_done_when_its_letter_has_arrived_and_no_sooner(container: Container) -> None:
    worker = container.at_work(1)
    container.hold("XADD")
    worker.ends(1)
    container.share.flush()
    assert container.done == []
    assert not container.share.is_idle
    container.let_through()
    assert container.done == ["item-1-0"]
    assert container.share.is_idle


def test_so_are_those_of_letters_that_wait_for_others(container: Container) -> None:
    worker = container.with_short_calls()
    container.hold("XADD")
    for number in (1, 2, 3):
        container.take(number)
        worker.ends(number)
        container.share.flush()
    assert container.done == []
    container.held = set()
    container.let_through()
    assert container.done == ["item-1-0", "item-2-0", "item-3-0"]
    assert outcomes(container.heard()) == [("over", 1), ("over", 2), ("over", 3)]


def test_a_large_result_is_in_the_store_before_the_driver_hears_of_it(container: Container) -> None:
    worker = container.at_work(1)
    container.log.clear()
    worker.says(("d", 1, 1.0, DONE, [(0, 5)], None), large=b"large")
    assert container.heard() == [("over", 1, 0, DONE, [(0, 5)], None)]
    assert container.log[:2] == ["HSET", "XADD"]
    assert b"large" in container.hash.values()


def test_a_result_that_the_store_does_not_take_is_an_error(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_share, "MOST_BYTES", 4)
    worker = container.at_work(1)
    worker.says(("d", 1, 1.0, DONE, [(0, 5)], None), large=b"large")
    ((_, _, _, status, (error,), _),) = container.heard()
    assert status == FAILED
    assert b"PayloadTooLarge" in error
    assert b"large" not in container.hash.values()


def test_others_that_come_with_it_are_as_they_were(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid_share, "MOST_BYTES", 4)
    worker = container.with_short_calls()
    container.take(1)
    container.take(2)
    container.take(3)
    worker.says(
        ("d", 1, SHORT, DONE, [(0, 4)], None),
        ("d", 2, SHORT, DONE, [(1, 5)], None),
        ("d", 3, SHORT, DONE, [b"small"], None),
        large=[b"fits", b"large"],
    )
    ended = container.heard()
    assert [(message[1], message[3]) for message in ended] == [(1, DONE), (2, FAILED), (3, DONE)]
    assert (ended[0][4], ended[2][4]) == ([(0, 4)], [b"small"])
    assert list(container.hash.values()).count(b"fits") == 1
    assert b"large" not in container.hash.values()


def test_a_value_that_the_store_does_not_take_ends_its_worker(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was in the middle of a call, and would have waited for ever."""
    monkeypatch.setattr(grid_share, "MOST_BYTES", 4)
    worker = container.at_work(1)
    worker.says(("p", 5, (0, 5), ()), large=b"large")
    assert container.killed == [worker.number]
    worker.dies()
    died, _ = container.heard()
    assert died[:2] == ("died", 1)
    assert "it has 5 bytes" in died[4]


def test_a_call_that_comes_twice_runs_once(container: Container) -> None:
    worker = container.at_work(1)
    container.share.take(Item("job", CALL, 1, 0, PYTHON, FUNCTION), "again")
    assert container.done == ["again"]
    worker.ends(1)
    assert outcomes(container.heard()) == [("over", 1)]
    assert worker.calls() == []


def test_of_a_call_that_runs_already_the_newer_attempt_counts(container: Container) -> None:
    """Another container had it as well, and lost it. Of the older attempt the driver did not want
    to hear any more, and the newer one was thrown away: the call never ended."""
    worker = container.at_work(1)
    newer = container.take(1, attempt=1)
    assert container.done == ["item-1-0"]
    worker.ends(1, status=FAILED)
    assert container.heard() == [("over", 1, 1, FAILED, [b"result"], None)]
    assert container.done == ["item-1-0", newer]


# Calls that wait here


def test_a_call_that_is_long_lets_the_others_go_back(container: Container) -> None:
    worker = container.at_work(1)
    waiting = container.take(2)
    container.wait(STUCK_S / 2)
    assert container.given_back == []
    container.wait(STUCK_S)
    assert container.given_back == [waiting]
    worker.ends(1)
    assert worker.calls() == []
    assert outcomes(container.heard()) == [("over", 1)]
    assert container.done == ["item-1-0"]


def test_what_was_sent_ahead_of_time_is_taken_back_from_behind_a_long_one(
    container: Container,
) -> None:
    worker = container.with_short_calls()
    for number in (1, 2, 3):
        container.take(number)
    assert worker.calls() == [1, 2, 3]
    container.wait(0.01)
    assert worker.told() == [("b",)]
    worker.says(("b", [2, 3]))
    assert worker.calls() == []
    container.wait(2 * STUCK_S)
    assert sorted(container.given_back) == ["item-2-0", "item-3-0"]


def test_what_came_back_runs_here_if_the_long_one_is_over_soon(container: Container) -> None:
    worker = container.with_short_calls()
    for number in (1, 2, 3):
        container.take(number)
    worker.got()
    container.wait(0.01)
    worker.says(("b", [2, 3]))
    worker.ends(1, seconds=SHORT)
    assert worker.calls() == [2, 3]
    container.wait(2 * STUCK_S)
    assert container.given_back == []


def test_a_call_that_runs_for_a_while_is_worth_a_word_and_one_only(container: Container) -> None:
    container.at_work(1)
    container.wait(STARTED_AFTER_S / 2)
    assert container.heard() == []
    container.wait(STARTED_AFTER_S)
    assert container.heard() == [("started", [1])]
    container.wait(STARTED_AFTER_S)
    assert container.heard() == []


def test_what_a_call_waits_for_runs_on_top_of_it(container: Container) -> None:
    worker = container.at_work(1)
    worker.says(("g", 7, [2], True, True))
    assert container.heard() == [("g", 7, [2], True, True)], "the driver hears of it as well"
    assert container.has_a_free_core()
    container.take(2)
    (call,) = worker.got()
    assert (call[1], call[-1]) == (2, 7)
    worker.ends(2)
    assert outcomes(container.heard()) == [("over", 2)]
    container.order(("pass", ("v", 7, [(b"result", False)], True)), worker.number)
    assert worker.got() == [("v", 7, [(b"result", False)], True)]
    assert not container.has_a_free_core()
    assert len(container.workers) == 1


# Workers that die


def test_a_worker_that_dies_takes_only_the_running_call_with_it(container: Container) -> None:
    worker = container.with_short_calls()
    for number in (1, 2, 3):
        container.take(number)
    worker.dies()
    died, ended = container.heard()
    assert died[:4] == ("died", 1, 0, 99)
    assert "signal 9" in died[4]
    assert ended == ("exit", -9, 0)
    assert container.done == ["item-1-0"]
    other = container.worker()
    assert other is not worker
    assert other.calls() == [2, 3]


def test_the_calls_on_top_of_each_other_die_together(container: Container) -> None:
    worker = container.at_work(1)
    worker.says(("g", 7, [2], True, True))
    container.take(2)
    container.heard()
    worker.dies()
    assert sorted(outcomes(container.heard()))[:2] == [("died", 1), ("died", 2)]


def test_a_worker_that_dies_before_it_has_come_is_replaced(container: Container) -> None:
    container.take(1)
    container.workers[0].dies(1)
    assert container.heard() == [("exit", 1, 0)]
    assert container.worker().calls() == [1]


# Time


def test_a_call_that_is_late_is_stopped(container: Container) -> None:
    worker = container.at_work(1, timeout=3.0)
    container.wait(2.9)
    assert worker.told() == []
    container.wait(0.2)
    assert worker.told() == [("x", 1, 0)]
    container.wait(STOP_GRACE_S / 2)
    assert container.killed == []
    container.heard()
    worker.ends(1, status=STOPPED)
    assert container.heard() == [("over", 1, 0, LATE, [b"result"], None)]
    container.wait(10 * STOP_GRACE_S)
    assert container.killed == []


def test_if_it_does_not_stop_its_worker_is_killed(container: Container) -> None:
    worker = container.at_work(1, timeout=3.0)
    container.wait(3.0)
    container.heard()
    container.wait(STOP_GRACE_S)
    assert container.killed == [worker.number]
    container.wait(STOP_GRACE_S)
    assert container.killed == [worker.number]
    worker.dies()
    over, _ = container.heard()
    assert over == ("over", 1, 0, LATE, [], None)
    assert container.done == ["item-1-0"]


def test_nothing_is_sent_ahead_behind_a_call_with_a_timeout(container: Container) -> None:
    worker = container.with_short_calls()
    container.take(1, timeout=3.0)
    container.take(2)
    assert worker.calls() == [1]


# Calls that are to be forgotten


def test_a_call_that_was_forgotten_before_it_came_does_not_run(container: Container) -> None:
    container.order(("forget", 1))
    container.take(1)
    assert container.heard() == [("over", 1, 0, STOPPED, [], None)]
    assert container.done == ["item-1-0"]
    assert container.workers == []


def test_nor_one_that_waits_for_its_turn(container: Container) -> None:
    worker = container.at_work(1)
    container.take(2)
    container.order(("forget", 2))
    assert container.heard() == [("over", 2, 0, STOPPED, [], None)]
    worker.ends(1)
    assert outcomes(container.heard()) == [("over", 1)]
    assert worker.calls() == []
    assert sorted(container.done) == ["item-1-0", "item-2-0"]


def test_nor_one_whose_arguments_are_on_their_way(container: Container) -> None:
    """It was remembered, and ran all the same as soon as they were there."""
    container.hold("HGET")
    container.take(1)
    container.order(("forget", 1))
    container.let_through()
    assert container.heard() == [("over", 1, 0, STOPPED, [], None)]
    assert container.workers == []
    assert container.share.is_idle


def test_one_that_runs_is_asked_to_stop(container: Container) -> None:
    worker = container.at_work(1)
    container.order(("forget", 1))
    assert worker.told() == [("x", 1, 0)]
    worker.ends(1, status=STOPPED)
    assert outcomes(container.heard()) == [("over", 1)]


# What cannot run here


@pytest.mark.parametrize(
    ("packages", "about", "told", "said"),
    [
        ({}, {"python": "2.7"}, "refused", "Python 2.7"),
        ({"no-such-package": "1.0"}, {}, "refused", "no-such-package 1.0"),
        ({"numpy": "0.1"}, {}, "refused", "numpy 0.1"),
        ({}, {"function": b"unknown"}, "missing", "not in the grid's store"),
        (
            {},
            {"tickets": (("gone", 10),), "arguments": (0, 10)},
            "missing",
            "not in the grid's store any more",
        ),
    ],
)
def test_what_cannot_run_here_is_refused(
    container: Container, packages: dict[str, str], about: dict[str, Any], told: str, said: str
) -> None:
    container.hash[function_field(FUNCTION)] = function_needing(packages)
    container.hold("XADD")
    container.take(1, **about)
    if told == "missing":
        assert container.share.is_idle is False, "whoever had put it there may do so again"
        container.clock += LOSABLE_S
        container.ring()
    assert container.done == []
    container.let_through()
    ((kind, number, why, _),) = container.heard()
    assert (kind, number) == (told, 1)
    assert said in why
    assert container.done == ["item-1-0"]
    assert container.workers == []
    assert container.share.is_idle


def test_what_comes_late_is_waited_for(container: Container) -> None:
    """Redis had lost its last second."""
    del container.hash[function_field(FUNCTION)]
    container.take(1, **LARGE)
    container.hash[function_field(FUNCTION)] = function_needing({})
    container.ring()
    assert container.workers == []
    container.hash["v:0"] = b"value"
    container.ring()
    assert container.worker().calls() == [1]


# Large values


LARGE: dict[str, Any] = {"tickets": (("v", 5),), "arguments": (0, 5)}


def test_large_arguments_are_fetched_before_a_call_runs(container: Container) -> None:
    container.hash["v:0"] = b"large"
    container.take(1)
    container.hold("HGET")
    container.take(2, **LARGE)
    worker = container.worker()
    assert worker.calls() == [1]
    worker.ends(1)
    assert worker.calls() == []
    container.let_through()
    assert worker.values() == [b"large"]


def test_a_value_is_fetched_once_for_many_calls(container: Container) -> None:
    container.hash["v:0"] = b"large"
    worker = container.at_work(1, **LARGE)
    worker.ends(1)
    container.take(2, **LARGE)
    assert worker.values() == [b"large"]
    assert container.fetched.count("v:0") == 1


def test_a_value_that_two_calls_fetched_counts_once(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted twice and was let go once: little by little there was no room for any, and then
    an error that ended the container."""
    container.memory = 7
    container.hash["v:0"] = b"large"
    worker = container.at_work(1)
    container.hold("HGET")
    container.take(2, **LARGE)
    container.take(3, **LARGE)
    container.let_through()
    container.fetched.clear()
    for number in (1, 2, 3):
        worker.ends(number)
    container.take(4, **LARGE)
    assert container.fetched == []


@pytest.mark.parametrize("too_many", ["bytes", "open files"])
def test_the_oldest_values_are_let_go_when_there_are_too_many(
    container: Container, monkeypatch: pytest.MonkeyPatch, too_many: str
) -> None:
    if too_many == "bytes":
        container.memory = 12
    else:
        monkeypatch.setattr(fetched, "MOST_VALUES", 2)
    worker = container.with_short_calls()
    for number, name in enumerate("uvwu", 1):
        container.hash[f"{name}:0"] = b"large"
        container.take(number, tickets=((name, 5),), arguments=(0, 5))
        worker.ends(number)
    assert container.fetched[-4:] == ["u:0", "v:0", "w:0", "u:0"]


def test_what_the_store_refuses_is_asked_for_again(container: Container) -> None:
    container.hash["v:0"] = b"large"
    container.refused = {"HGET"}
    container.take(1, **LARGE)
    container.ring()
    assert container.workers == []
    container.refused = set()
    for _ in range(2):
        container.ring()
    assert container.worker().values() == [b"large"]


# Orders, and actors


def test_an_order_that_is_sent_again_is_not_obeyed_again(container: Container) -> None:
    worker = container.at_work(1)
    part = Part(worker.number, [("tell", ("x", 1))], [])
    for number in (1, 1, 2, 1, 2):
        container.share.on_order(number, [part])
    assert worker.told() == [("x", 1), ("x", 1)]


def test_no_order_is_obeyed_before_one_that_is_missing(container: Container) -> None:
    worker = container.at_work(1)
    container.heard()
    first, second = (Part(worker.number, [("tell", ("x", n))], []) for n in (1, 2))
    container.share.on_order(2, [second])
    container.share.on_order(2, [second])
    assert container.heard() == [("missed", 0)], "asked for once"
    assert worker.told() == []
    container.ring()
    assert container.heard() == [("missed", 0)], "and again if they do not come"
    container.share.on_order(1, [first])
    container.share.on_order(2, [second])
    assert worker.told() == [("x", 1), ("x", 2)]
    container.ring()
    assert container.heard() == []


def test_a_driver_that_misses_letters_gets_them_again(container: Container) -> None:
    worker = container.at_work(1)
    worker.ends(1)
    told = container.heard()
    container.order(("repeat", 0))
    assert container.heard() == told


def test_a_share_that_has_lost_touch_gives_back_what_it_has(container: Container) -> None:
    worker = container.at_work(1)
    container.heard()
    container.share.on_order(UNNUMBERED, [Part(0, [("anew",)], [])])
    assert container.given_up
    assert container.given_back == ["item-1-0"]
    assert container.done == []
    assert container.killed == [worker.number]
    assert container.heard() == [], "its driver takes it for gone"


def test_an_order_for_a_worker_that_is_gone_is_nobodys(container: Container) -> None:
    for message in (("pass", ("o", 1)), ("tell", ("x", 1)), ("leave",), ("end",)):
        container.order(message, worker=12345)
    assert container.killed == []


def test_an_actor_has_a_worker_of_its_own_which_says_whose_it_is(container: Container) -> None:
    worker = container.actor(-5)
    assert container.heard() == [("hello", -5, 99, "node")]
    container.order(("pass", ("f", FUNCTION, b"class"), ("a", 3)), worker.number)
    assert [message[0] for message in worker.got()] == ["f", "a"]
    worker.says(("d", 3, 0.1, DONE, [], None))
    assert container.heard() == [("d", 3, 0.1, DONE, [], None)]
    assert container.done == [], "its item is done when it has ended"
    worker.dies(0)
    assert container.heard() == [("exit", 0, -5)]
    assert container.done == ["item--5-0"]


def test_orders_stay_in_their_order_while_large_values_are_fetched(container: Container) -> None:
    container.hash["v:0"] = b"large"
    worker = container.actor()
    container.hold("HGET")
    container.order(("pass", ("m", 1, (0, 5))), worker.number, [("v", 5)])
    container.order(("pass", ("m", 2)), worker.number)
    container.order(("leave",), worker.number)
    assert worker.calls() == []
    container.let_through()
    assert worker.calls() == [1, 2]


def test_a_worker_whose_values_are_gone_ends_as_it_would_wait_for_ever(
    container: Container,
) -> None:
    worker = container.actor()
    container.order(("pass", ("m", 1, (0, 5))), worker.number, [("gone", 5)])
    container.clock += LOSABLE_S
    container.ring()
    assert container.killed == [worker.number]


def test_an_actor_with_two_methods_open_is_asked_for_results_that_it_keeps(
    container: Container,
) -> None:
    """The end of its constructor was counted as that of a method, so there had to be three."""
    worker = container.actor()
    container.order(("pass", ("a", 3)), worker.number)
    worker.says(("d", 3, 0.1, DONE, [], None))
    container.order(("pass", ("m", 4), ("m", 5)), worker.number)
    container.wait(0.01)
    container.wait(0.01)
    assert worker.told() == [("b",)]
    worker.says(("d", 4, 0.1, DONE, [], None))
    container.wait(0.01)
    assert worker.told() == []


# The end


def test_when_its_driver_is_gone_nothing_runs_any_more(container: Container) -> None:
    worker = container.at_work(1)
    container.hold("HGET")
    container.take(2, function=b"other")
    container.take(3, **LARGE)
    container.share.end()
    assert container.killed == [worker.number]
    assert sorted(container.done) == ["item-1-0", "item-2-0", "item-3-0"]
    container.let_through()
    worker.dies()
    assert len(container.workers) == 1
    assert [message[0] for message in container.heard()] == ["ended"], "should it be there again"


def test_what_is_told_to_a_driver_that_is_gone_does_not_stay_for_ever(container: Container) -> None:
    worker = container.at_work(1)
    container.wait(STARTED_AFTER_S)
    container.share.end()
    worker.dies()
    assert container.log[-3:] == ["XADD", "EXPIRE", "EXPIRE"]
