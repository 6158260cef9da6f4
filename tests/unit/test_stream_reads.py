"""XREAD at the desk: it looks, waits if there is nothing, and looks again."""

from __future__ import annotations

from typing import Any

import pytest
from redis.exceptions import ResponseError

from gridnode.gateway.stream_reads import MAX_WAITED_BYTES
from gridnode.gateway.watched_streams import WatchedStreams, covers
from tests.support.desks import QUEUE, FakeOutside, Peer, make_desk

ENTRY = [[b"box", [[b"5-0", [b"f", b"v"]]]]]
LOOK = [b"XREAD", b"STREAMS", b"box", b"0-0"]


@pytest.fixture
def outside() -> FakeOutside:
    return FakeOutside()


@pytest.fixture
def peer(outside: FakeOutside) -> Peer:
    return a_peer(outside)


def a_peer(outside: FakeOutside) -> Peer:
    return Peer(make_desk(outside=outside, keys=["box*"]), logged_in=True)


def the_error(replies: list[Any]) -> str:
    (reply,) = replies
    assert isinstance(reply, Exception)
    return str(reply)


def test_what_is_there_is_had_at_once(peer: Peer, outside: FakeOutside) -> None:
    for command in ("XREAD STREAMS box 0-0", "xread block 0 streams box 0-0"):
        assert peer.ask(command) == []
        assert outside.answer(ENTRY) == LOOK
        assert peer.replies() == [ENTRY]
    assert outside.streams.union() == {}


def test_who_finds_nothing_waits_and_looks_again_when_something_came(
    peer: Peer, outside: FakeOutside
) -> None:
    peer.ask("XREAD COUNT 7 BLOCK 0 STREAMS box 4-1")
    outside.answer(None)
    assert outside.streams.union() == {b"box": (4, 1)}
    outside.streams.came([b"another"])
    assert outside.asked == []
    outside.streams.came([b"box"])
    again = outside.answer(ENTRY)
    assert again == [b"XREAD", b"COUNT", b"7", b"STREAMS", b"box", b"4-1"]
    assert peer.replies() == [ENTRY]
    assert outside.streams.union() == {}


def test_who_was_called_for_nothing_waits_on(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("XREAD BLOCK 0 STREAMS box 0-0")
    outside.answer(None)
    outside.streams.came([b"box"])
    outside.answer(None)
    assert peer.replies() == []
    assert outside.streams.union() == {b"box": (0, 0)}


def test_without_block_nobody_waits(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("XREAD STREAMS box 0-0")
    outside.answer(None)
    assert peer.replies() == [None]
    assert outside.streams.union() == {}


def test_its_time_begins_with_the_question_and_ends_after_a_look(
    peer: Peer, outside: FakeOutside
) -> None:
    peer.ask("XREAD BLOCK 1 STREAMS box 0-0")
    outside.pass_time(5)
    assert peer.replies() == [], "that Redis is far away is not its fault"
    outside.answer(None)
    outside.pass_time(0)
    assert peer.replies() == [None]
    assert peer.sent_back == b"*-1\r\n"
    assert outside.streams.union() == {}

    peer.ask("XREAD BLOCK 3000 STREAMS box 0-0")
    outside.answer(None)
    outside.pass_time(2.9)
    assert peer.replies() == []
    outside.pass_time(0.2)
    assert peer.replies() == [None]
    assert outside.timers == []


def test_an_answer_that_comes_after_its_time_is_nobodys(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("XREAD BLOCK 1000 STREAMS box 0-0")
    outside.answer(None)
    outside.streams.came([b"box"])
    outside.pass_time(2)
    assert peer.replies() == [None]
    outside.answer(ENTRY)
    assert peer.replies() == []


def test_who_is_gone_waits_no_more(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("XREAD BLOCK 1000 STREAMS box 0-0")
    outside.answer(None)
    peer.vanish(was_read=True)
    assert outside.streams.union() == {}
    assert outside.timers == []


def test_who_is_gone_before_the_first_look_is_not_looked_for(
    peer: Peer, outside: FakeOutside
) -> None:
    peer.ask("XREAD BLOCK 0 STREAMS box 0-0")
    peer.vanish(was_read=True)
    outside.forget_the_unwanted()
    assert outside.asked == []
    assert outside.streams.union() == {}


def test_an_error_of_redis_is_passed_on_and_ends_the_wait(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("XREAD BLOCK 0 STREAMS box 0-0")
    outside.answer(ResponseError("WRONGTYPE Operation against a key"))
    assert the_error(peer.replies()).startswith("WRONGTYPE")
    assert outside.streams.union() == {}


def test_in_a_transaction_nothing_blocks(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("MULTI", "XREAD BLOCK 0 STREAMS box 0-0", "EXEC")
    assert outside.answer(None) == LOOK
    assert peer.replies() == [[None]]


def test_it_comes_in_the_protocol_of_the_connection(peer: Peer, outside: FakeOutside) -> None:
    peer.ask("HELLO 3")
    peer.sent_back.clear()
    peer.ask("XREAD BLOCK 1 STREAMS box 0-0")
    outside.answer(ENTRY)
    entries = b"*1\r\n*2\r\n$3\r\n5-0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    assert peer.sent_back == b"%1\r\n$3\r\nbox\r\n" + entries
    peer.sent_back.clear()
    peer.ask("XREAD BLOCK 1 STREAMS box 0-0")
    outside.answer(None)
    outside.pass_time(1)
    assert peer.sent_back == b"_\r\n"


def test_a_wait_says_nothing_of_items(outside: FakeOutside) -> None:
    desk = make_desk([b"a"], outside=outside, keys=["box*"])
    worker, reader = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert worker.ask(f"RPOP {QUEUE}") == [b"a"]
    reader.ask("XREAD BLOCK 0 STREAMS box 0-0")
    outside.answer(None)
    assert desk.work.open_items == 1
    assert outside.committed == []
    assert [desk.idle_since_s] == [None]

    assert worker.ask(f"RPOP {QUEUE}") == []
    assert desk.idle_since_s is not None, "it asks for items in vain, and a wait is no excuse"
    assert desk.is_idle


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("XREAD STREAMS box", "wrong number of arguments"),
        ("XREAD BLOCK 0 STREAMS box other 0-0", "Unbalanced"),
        ("XREAD COUNT x STREAMS box 0-0", "value is not an integer"),
        ("XREAD BLOCK x STREAMS box 0-0", "timeout is not an integer"),
        ("XREAD BLOCK -1 STREAMS box 0-0", "timeout is negative"),
        ("XREAD BLOCK 99999999999999999999 STREAMS box 0-0", "timeout is not an integer"),
        ("XREAD GROUP g c STREAMS box 0-0", "syntax error"),
        ("XREAD COUNT 1 BLOCK 1", "syntax error"),
        ("XREAD BLOCK 0 STREAMS box x", "Invalid stream ID"),
        ("XREAD BLOCK 0 STREAMS box 18446744073709551616", "Invalid stream ID"),
        ("XREAD BLOCK 0 STREAMS box $", "0-0 for a stream from its beginning"),
        ("XREAD BLOCK 0 STREAMS other 0-0", "further keys: 'box*'"),
        ("XREAD STREAMS box other 0-0 0-0", "further keys: 'box*'"),
        (f"XREAD STREAMS {QUEUE} 0-0", "NOPERM"),
        ("XREAD STREAMS gc:{work}:stats 0-0", "NOPERM"),
        (f"XREAD BLOCK 0 STREAMS box{'x' * MAX_WAITED_BYTES} 0-0", "64 KB together"),
    ],
)
def test_what_is_wrong_is_said(peer: Peer, outside: FakeOutside, command: str, said: str) -> None:
    assert said in the_error(peer.ask(command))
    assert outside.asked == []


# --- for all of a node together


def test_each_stream_is_asked_for_once_from_the_earliest_id(outside: FakeOutside) -> None:
    streams = WatchedStreams()
    told: list[str] = []
    early = streams.watch({b"a": (3, 0), b"b": (9, 0)}, lambda: told.append("early"))
    streams.watch({b"a": (3, 1)}, lambda: told.append("late"))
    streams.watch({b"c": (1, 0)}, lambda: told.append("other"))
    assert streams.union() == {b"a": (3, 0), b"b": (9, 0), b"c": (1, 0)}
    early.cancel()
    assert streams.union() == {b"a": (3, 1), b"c": (1, 0)}
    streams.came([b"a", b"unknown"])
    assert told == ["late"]
    assert streams.union() == {b"c": (1, 0)}


def test_who_is_told_may_call_off_others_and_wait_again() -> None:
    streams = WatchedStreams()
    told: list[str] = []

    def first() -> None:
        second.cancel()
        streams.watch({b"a": (7, 0)}, lambda: told.append("again"))

    streams.watch({b"a": (0, 0)}, first)
    second = streams.watch({b"a": (0, 0)}, lambda: told.append("second"))
    streams.came([b"a"])
    assert told == []
    assert streams.union() == {b"a": (7, 0)}


def test_only_what_a_question_does_not_cover_needs_another_one() -> None:
    asked = {b"a": (5, 0), b"b": (1, 0)}
    assert covers(asked, {b"a": (5, 0)})
    assert covers(asked, {b"a": (6, 0), b"b": (1, 0)})
    assert not covers(asked, {b"a": (4, 9)})
    assert not covers(asked, {b"c": (9, 0)})
