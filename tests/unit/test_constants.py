"""Values that never change are read once for all runs of a node."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from gridnode.gateway.constants import Constants
from tests.support.desks import QUEUE, FakeOutside, Peer, make_desk


@pytest.fixture
def outside() -> FakeOutside:
    return FakeOutside()


class Runs:
    """Of one node: what they share."""

    def __init__(self, outside: FakeOutside, constants: Constants | None = None) -> None:
        self._outside = outside
        self._known = constants or Constants()

    def peer(self) -> Peer:
        desk = make_desk(
            outside=self._outside, keys=["cache:*"], constants=["f:*"], known=self._known
        )
        return Peer(desk, logged_in=True)


@pytest.fixture
def runs(outside: FakeOutside) -> Runs:
    return Runs(outside)


def the_error(replies: list[Any]) -> str:
    (reply,) = replies
    assert isinstance(reply, Exception)
    return str(reply)


@pytest.mark.parametrize("command", ["GET f:x", "HGET f:h field", "hget f:h field"])
def test_the_first_read_is_the_last(outside: FakeOutside, runs: Runs, command: str) -> None:
    one, other = runs.peer(), runs.peer()
    one.ask(command)
    assert outside.answer(b"value") == command.encode().split()
    assert one.replies() == [b"value"]
    for peer in (one, other):
        assert peer.ask(command, command) == [b"value", b"value"]
    assert outside.asked == []


def test_a_field_is_not_another_and_a_key_is_not_its_field(
    outside: FakeOutside, runs: Runs
) -> None:
    peer = runs.peer()
    for command in ("GET f:x", "HGET f:x a", "HGET f:x b"):
        peer.ask(command)
        outside.answer(command.encode())
        assert peer.replies() == [command.encode()]


def test_who_asks_at_once_shares_one_read(outside: FakeOutside, runs: Runs) -> None:
    peers = [runs.peer() for _ in range(3)]
    for peer in peers:
        assert peer.ask("GET f:x") == []
    assert len(outside.asked) == 1
    outside.answer(b"value")
    assert [peer.replies() for peer in peers] == [[b"value"]] * 3


def test_the_read_goes_on_when_who_asked_first_is_gone(outside: FakeOutside, runs: Runs) -> None:
    first, second = runs.peer(), runs.peer()
    first.ask("GET f:x")
    second.ask("GET f:x")
    first.vanish(was_read=True)
    outside.forget_the_unwanted()
    outside.answer(b"value")
    assert (first.replies(), second.replies()) == ([], [b"value"])

    first = runs.peer()
    first.ask("GET f:y")
    first.vanish(was_read=True)
    outside.forget_the_unwanted()
    assert outside.asked == []
    second.ask("GET f:y")
    outside.answer(b"later")
    assert second.replies() == [b"later"]


def test_what_is_not_there_yet_is_asked_for_again(outside: FakeOutside, runs: Runs) -> None:
    peer = runs.peer()
    peer.ask("GET f:x")
    outside.answer(None)
    assert peer.replies() == [None]
    peer.ask("GET f:x")
    outside.answer(ResponseError("WRONGTYPE no string"))
    assert the_error(peer.replies()) == "WRONGTYPE no string"
    peer.ask("GET f:x")
    outside.answer(b"")
    assert peer.replies() == [b""]
    assert peer.ask("GET f:x") == [b""], "an empty value is one"


def test_all_other_commands_and_keys_go_to_redis_as_ever(outside: FakeOutside, runs: Runs) -> None:
    peer = runs.peer()
    for command in ("SET f:x 1", "GETDEL f:x", "GET cache:x", "GET cache:x", "GET", "HGET f:x"):
        peer.ask(command)
        assert outside.answer(b"1") == command.encode().split()
        assert peer.replies() == [b"1"]


def test_a_write_does_not_change_what_was_read(outside: FakeOutside, runs: Runs) -> None:
    peer = runs.peer()
    peer.ask("GET f:x")
    outside.answer(b"old")
    peer.ask("SET f:x new")
    outside.answer(b"OK")
    peer.replies()
    assert peer.ask("GET f:x") == [b"old"]


def test_in_a_transaction_they_are_read_like_others(outside: FakeOutside, runs: Runs) -> None:
    peer = runs.peer()
    peer.ask("MULTI", "GET f:x", "GET f:x", "EXEC")
    outside.answer(b"v")
    assert peer.replies()[-1] == [b"v", b"v"]


def test_no_pattern_makes_a_queue_a_constant(outside: FakeOutside) -> None:
    peer = Peer(make_desk(outside=outside, constants=["*"]), logged_in=True)
    for key in (QUEUE, "gc:{work}:stats"):
        peer.ask(f"GET {key}")
        (asked,) = outside.asked
        assert asked[0] == [b"GET", key.encode()], "to be refused where all are"
        outside.answer(None)


def test_what_was_not_asked_for_longest_makes_room(outside: FakeOutside) -> None:
    peer = Runs(outside, Constants(most_bytes=4_000)).peer()

    def read(key: str, value: bytes | None = None) -> None:
        """`value` is what Redis is asked for; None: it is not asked."""
        replies = peer.ask(f"GET {key}")
        if value is not None:
            outside.answer(value)
            replies = peer.replies()
        assert len(replies) == 1
        assert outside.asked == []

    read("f:a", b"x" * 1_500)
    read("f:b", b"x" * 1_500)
    read("f:a")
    read("f:c", b"x" * 1_500)
    read("f:a")
    read("f:b", b"x" * 1_500)
    read("f:c", b"x" * 1_500)
    read("f:huge", b"x" * 5_000)
    read("f:huge", b"x" * 5_000)
    read("f:c")
