"""What a run tells its driver: one letter after the other, and what follows when it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gridcore.sdk.blobs import Blob, seal
from gridcore.sdk.grid import kept, letters
from gridcore.sdk.grid.kept import LOSABLE_S
from gridcore.sdk.grid.keys import JobKeys
from gridcore.sdk.grid.letters import RETRY_S, Command, Letters
from gridcore.sdk.grid.messages import UNNUMBERED, Part, Ticket, read_letter
from gridcore.sdk.grid.resp import ReplyError

KEYS = JobKeys("queue", "job")


class PostOffice:
    """Letters, and a Redis that answers when the test says so."""

    def __init__(self) -> None:
        self.clock = 1000.0
        self.lost = 0
        self.letters = Letters(
            "run",
            KEYS,
            send=self._send,
            later=self._later,
            now=lambda: self.clock,
            on_lost=self._is_lost,
        )
        self.asked: list[tuple[Command, Callable[[Any], None]]] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.done: list[str] = []

    def _send(self, command: Command, then: Callable[[Any], None]) -> None:
        self.asked.append((command, then))

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.timers.append((seconds, call))

    def _is_lost(self) -> None:
        self.lost += 1

    def write(self, *words: str, values: list[tuple[Ticket, Blob]] | None = None) -> None:
        for word in words:
            self.letters.add(Part(0, [(word,)], []), values or [])

    def then(self, what: str) -> None:
        self.letters.then(lambda: self.done.append(what))

    def flush(self) -> None:
        self.letters.flush()

    @property
    def commands(self) -> list[str]:
        return [str(command[0]) for command, _ in self.asked]

    def answer(self, reply: object = b"1-1") -> Command:
        """To the oldest command."""
        command, then = self.asked.pop(0)
        then(reply)
        return command

    def deliver(self) -> tuple[int, list[str]]:
        """The letter that is under way: its number and its words."""
        command = self.answer()
        assert command[:4] == ("XADD", KEYS.up, "*", "l")
        data = command[4]
        assert isinstance(data, bytes)
        _, number, parts = read_letter(data)
        return number, [word for part in parts for (word, *_) in part.messages]

    def said(self) -> list[str]:
        """What is next to go out without a number."""
        number, words = self.deliver()
        assert number == UNNUMBERED
        return words

    def drop_expiries(self) -> None:
        self.asked = [asked for asked in self.asked if asked[0][0] != "EXPIRE"]

    def ring(self) -> None:
        due, self.timers = self.timers, []
        for _, call in due:
            call()


def large_value(name: str, size: int) -> tuple[Ticket, Blob]:
    return (name, size), seal([(0, bytes(size))], size)


def test_one_letter_is_under_way_at_a_time_and_takes_all_that_waits() -> None:
    office = PostOffice()
    office.write("a")
    office.flush()
    office.write("b", "c")
    office.flush()
    assert office.commands == ["XADD"], "the second waits for the first"
    assert office.deliver() == (1, ["a"])
    office.drop_expiries()
    assert office.deliver() == (2, ["b", "c"])
    assert office.asked == []
    assert office.letters.are_all_there


def test_nothing_is_sent_when_there_is_nothing_to_say() -> None:
    office = PostOffice()
    office.flush()
    assert office.asked == []
    office.write("a")
    assert office.asked == [], "nor before it is flushed"


def test_what_follows_is_done_after_its_letter_has_arrived_and_no_sooner() -> None:
    office = PostOffice()
    office.write("a")
    office.then("a is done")
    office.flush()
    office.write("b")
    office.then("b is done")
    assert office.done == []
    office.deliver()
    assert office.done == ["a is done"]
    office.drop_expiries()
    office.deliver()
    assert office.done == ["a is done", "b is done"]


def test_what_follows_from_nothing_new_still_happens() -> None:
    office = PostOffice()
    office.write("a")
    office.flush()
    office.then("done")
    office.deliver()
    office.drop_expiries()
    assert office.deliver() == (2, [])
    assert office.done == ["done"]


def test_the_values_of_a_letter_are_in_the_store_before_it() -> None:
    office = PostOffice()
    office.write("a", values=[large_value("v", 10), large_value("w", 20)])
    office.flush()
    assert office.commands == ["HSET", "HSET"]
    assert office.answer(1)[:3] == ("HSET", KEYS.values, "v:0")
    assert office.commands == ["HSET"], "the letter waits for the other"
    assert office.answer(1)[:3] == ("HSET", KEYS.values, "w:0")
    assert office.deliver() == (1, ["a"])


def test_a_value_of_many_pieces_is_there_when_all_of_them_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gridcore.sdk.grid.values.PIECE_BYTES", 4)
    office = PostOffice()
    office.write("a", values=[large_value("v", 10)])
    office.flush()
    assert [office.answer(1)[2] for _ in range(3)] == ["v:0", "v:1", "v:2"]
    assert office.deliver() == (1, ["a"])


def test_what_redis_refuses_is_tried_again_later_and_under_the_same_number() -> None:
    office = PostOffice()
    office.write("a", values=[large_value("v", 10)])
    office.then("done")
    office.flush()
    office.answer(ReplyError("OOM"))
    assert office.asked == []
    assert [seconds for seconds, _ in office.timers] == [RETRY_S]
    office.ring()
    assert office.answer(1)[2] == "v:0"
    first = office.answer(ReplyError("LOADING"))
    office.flush()
    assert (office.asked, office.done) == ([], [])
    office.ring()
    assert office.asked[0][0] == first
    assert office.deliver() == (1, ["a"])
    assert office.done == ["done"]


def test_a_letter_has_its_size_and_the_rest_goes_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(letters, "MOST_BYTES", 300)
    office = PostOffice()
    words = [str(number) * 100 for number in range(7)]
    office.write(*words)
    office.then("all are there")
    office.flush()
    sent = [office.deliver()]
    office.drop_expiries()
    while office.asked:
        assert office.done == []
        sent.append(office.deliver())
    assert [number for number, _ in sent] == list(range(1, len(sent) + 1))
    assert [word for _, part in sent for word in part] == words
    assert max(len(part) for _, part in sent) <= 3
    assert office.done == ["all are there"]


def sent(office: PostOffice, *words: str) -> None:
    """Each in a letter of its own, which arrives."""
    for word in words:
        office.write(word)
        office.flush()
        office.deliver()
        office.drop_expiries()


def test_what_the_driver_misses_comes_again_before_what_is_new() -> None:
    office = PostOffice()
    sent(office, "a", "b", "c")
    office.letters.repeat(1)
    office.write("new")
    assert [office.deliver() for _ in range(3)] == [(2, ["b"]), (3, ["c"]), (4, ["new"])]
    assert office.letters.are_all_there
    assert office.asked == []


def test_so_does_the_one_that_is_under_way() -> None:
    """It comes to a driver that misses one before, and is not read."""
    office = PostOffice()
    sent(office, "a")
    office.write("b")
    office.flush()
    office.letters.repeat(0)
    assert [office.deliver() for _ in range(3)] == [(2, ["b"]), (1, ["a"]), (2, ["b"])]
    assert office.asked == []


def test_large_values_come_again_with_their_letter() -> None:
    office = PostOffice()
    office.write("a", values=[large_value("v", 3)])
    office.flush()
    office.answer()
    office.deliver()
    office.drop_expiries()
    office.letters.repeat(0)
    assert office.commands == ["HSET"]
    office.answer()
    assert office.deliver() == (1, ["a"])


def test_letters_are_kept_as_long_as_redis_may_lose_them() -> None:
    office = PostOffice()
    sent(office, "a")
    office.clock += 100 * LOSABLE_S
    sent(office, "b")  # nobody knows whether Redis was there meanwhile
    office.letters.repeat(0)
    assert [office.deliver() for _ in range(2)] == [(1, ["a"]), (2, ["b"])]
    office.clock += 5
    sent(office, "c")
    office.letters.repeat(0)
    assert office.said() == ["lost touch"]
    assert office.lost == 1
    office.letters.repeat(1)
    assert [office.deliver() for _ in range(2)] == [(2, ["b"]), (3, ["c"])]


def test_what_takes_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 1000)
    office = PostOffice()
    office.write("a", values=[large_value("v", 2000)])
    office.flush()
    office.answer()
    office.deliver()
    office.drop_expiries()
    office.letters.repeat(0)
    assert office.said() == ["lost touch"]
    assert office.lost == 1


def test_what_it_has_to_say_then_it_still_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 0)
    office = PostOffice()
    sent(office, "a")
    office.write("b")
    office.letters.repeat(0)
    assert office.said() == ["lost touch"]
    assert office.deliver() == (2, ["b"])


def test_who_has_much_to_send_says_so_first() -> None:
    office = PostOffice()
    office.write("a", values=[large_value("v", 3 * letters.SLOW_BYTES_PER_S)])
    office.flush()
    assert office.commands == ["XADD", "HSET"]
    assert office.said() == ["patience"]


def test_after_the_first_letter_the_streams_have_an_end() -> None:
    """A key has none before it is there."""
    office = PostOffice()
    office.write("a")
    office.flush()
    office.deliver()
    assert [command[1] for command, _ in office.asked] == [KEYS.up, KEYS.values]
    office.drop_expiries()
    office.write("b")
    office.flush()
    office.deliver()
    assert office.asked == []
