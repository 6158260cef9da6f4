"""What a container sees when it looks at its queues, and how Redis is asked for it; no sockets."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from gridnode.gateway import looks
from gridnode.gateway.desk import Desk
from tests.support.desks import OUTPUT, QUEUE, FakeOutside, Peer, make_desk, pack

KB = 1024


@pytest.fixture
def outside() -> FakeOutside:
    return FakeOutside()


@pytest.fixture
def desk(outside: FakeOutside) -> Desk:
    return make_desk([b"a", b"b"], outside=outside)


@pytest.fixture
def peer(desk: Desk) -> Peer:
    return Peer(desk, logged_in=True)


def the_error(replies: list[Any]) -> str:
    (reply,) = replies
    assert isinstance(reply, hiredis.ReplyError)
    return str(reply)


class Queue:
    """As Redis has it."""

    def __init__(self, *values: bytes) -> None:
        self.values = list(values)
        self.slices: list[int] = []
        """How many items each answer had."""

    def answer_all(self, outside: FakeOutside) -> None:
        while outside.asked:
            self.answer_one(outside)

    def answer_one(self, outside: FakeOutside) -> None:
        (name, _, *indices), _ = outside.asked[0]
        if name == b"LLEN":
            outside.answer(len(self.values))
            return
        first, last = map(int, indices)
        found = self.values[first : last + 1]
        self.slices.append(len(found))
        outside.answer(found)


# --- LRANGE, a slice at a time


def test_what_is_looked_at_is_the_queue_with_what_is_in_stock(
    peer: Peer, outside: FakeOutside
) -> None:
    for asked, expected in (
        ("0 -1", [b"1", b"2", b"3", b"b", b"a"]),
        ("1 3", [b"2", b"3", b"b"]),
        ("-1 -1", [b"a"]),
        ("7 9", []),
    ):
        peer.ask(f"LRANGE {QUEUE} {asked}")
        Queue(b"1", b"2", b"3").answer_all(outside)
        assert peer.replies() == [expected]


def test_small_items_are_asked_for_in_a_few_slices(peer: Peer, outside: FakeOutside) -> None:
    queue = Queue(*(b"%d" % n for n in range(8_000)))
    peer.ask(f"LRANGE {QUEUE} 0 7999")
    queue.answer_all(outside)
    assert peer.replies() == [queue.values]
    assert queue.slices == [100, 1_000, 6_900]


def test_large_items_are_asked_for_in_many(outside: FakeOutside) -> None:
    peer = Peer(make_desk(outside=outside), logged_in=True)
    queue = Queue(*[b"x" * 20 * KB] * 200)
    peer.ask(f"LRANGE {QUEUE} 0 -1")
    queue.answer_all(outside)
    assert peer.replies() == [queue.values]
    first, *others = queue.slices
    assert first == looks.UNKNOWN_SLICE_ITEMS, "nothing is known of them yet"
    assert set(others[:-1]) == {looks.SLICE_BYTES // (20 * KB)}


def test_what_is_in_stock_tells_how_large_items_are(outside: FakeOutside) -> None:
    peer = Peer(make_desk([b"x" * 100 * KB] * 3, outside=outside), logged_in=True)
    queue = Queue(*[b"x" * 100 * KB] * 10)
    peer.ask(f"LRANGE {QUEUE} 0 5")
    queue.answer_all(outside)
    assert queue.slices == [2, 2, 2]


def test_a_queue_that_becomes_shorter_meanwhile_is_as_long_as_it_is(
    peer: Peer, outside: FakeOutside
) -> None:
    queue = Queue(*[b"x"] * 500)
    peer.ask(f"LRANGE {QUEUE} 0 -1")
    queue.answer_one(outside)
    del queue.values[50:]
    queue.answer_all(outside)
    assert peer.replies() == [[*[b"x"] * 50, b"b", b"a"]]


def test_who_asks_for_too_many_bytes_is_told_what_to_ask_for(
    peer: Peer, outside: FakeOutside
) -> None:
    queue = Queue(*[b"x" * 10 * KB] * 5_000)
    peer.ask(f"LRANGE {QUEUE} 0 4999")
    queue.answer_all(outside)
    assert "more than 8 MB together: ask for no more than about 8" in the_error(peer.replies())
    assert sum(queue.slices) < 1_000, "it ends as soon as it is too much"


def test_one_item_is_as_large_as_it_is(peer: Peer, outside: FakeOutside) -> None:
    large = b"x" * (looks.MAX_BYTES_AT_ONCE + 1)
    peer.ask(f"LINDEX {QUEUE} 0")
    Queue(large).answer_all(outside)
    assert peer.replies() == [large]


def test_a_programs_own_list_is_not_looked_at_at_once_either(outside: FakeOutside) -> None:
    large = b"x" * (looks.MAX_BYTES_AT_ONCE // 2)
    desk = make_desk([large] * 3, outside=outside, ack="explicit")
    peer = Peer(desk, logged_in=True)
    for _ in range(3):
        peer.ask(f"LMOVE {QUEUE} own RIGHT LEFT")
    assert "ask for no more than about 2 at once" in the_error(peer.ask("LRANGE own 0 -1"))
    assert peer.ask("LRANGE own 0 1") == [[large, large]]


# --- one after the other


def test_the_looks_of_a_run_take_turns(desk: Desk, outside: FakeOutside) -> None:
    peers = [Peer(desk, logged_in=True) for _ in range(5)]
    for peer in peers:
        peer.ask(f"LRANGE {QUEUE} 0 -1")
    queue = Queue(*[b"x"] * 300)
    most = 0
    while outside.asked:
        most = max(most, len(outside.asked))
        queue.answer_one(outside)
    assert most == 1
    assert [len(peer.replies()[0]) for peer in peers] == [302] * 5


def test_a_look_that_fails_is_no_obstacle(desk: Desk, outside: FakeOutside) -> None:
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    for peer in (one, two):
        peer.ask(f"LRANGE {QUEUE} 0 -1")
    outside.answer(hiredis.ReplyError("MISCONF disk is full"))
    assert the_error(one.replies()) == "MISCONF disk is full"
    Queue(b"1").answer_all(outside)
    assert two.replies() == [[b"1", b"b", b"a"]]


def test_who_is_gone_is_looked_for_no_longer(desk: Desk, outside: FakeOutside) -> None:
    one, two, three = (Peer(desk, logged_in=True) for _ in range(3))
    for peer in (one, two, three):
        peer.ask(f"LRANGE {QUEUE} 0 -1")
    queue = Queue(*[b"x"] * 300)
    queue.answer_one(outside)
    for peer in (one, two):
        peer.vanish(was_read=False)
    outside.forget_the_unwanted()
    queue.answer_all(outside)
    assert sum(queue.slices) == 300, "once, for the one that is there"
    assert len(three.replies()[0]) == 302


@pytest.mark.parametrize(
    "look", [f"LLEN {QUEUE}", f"EXISTS {OUTPUT}", f"TYPE {OUTPUT}", "TIME", f"LRANGE {QUEUE} 0 -1"]
)
def test_a_look_is_wanted_while_somebody_is_there(
    peer: Peer, outside: FakeOutside, look: str
) -> None:
    peer.ask(look)
    (is_wanted,) = outside.wanted
    assert is_wanted()
    peer.vanish(was_read=False)
    assert not is_wanted()


def test_the_rest_of_an_exec_looks_at_nothing_for_nobody(peer: Peer, outside: FakeOutside) -> None:
    others = [f"LRANGE {QUEUE} 0 -1", f"LLEN {QUEUE}", f"EXISTS {QUEUE}", f"TYPE {QUEUE}", "TIME"]
    peer.ask("MULTI", f"LLEN {OUTPUT}", *others * 10, "EXEC")
    peer.vanish(was_read=False)
    assert len(outside.asked) == 1


def test_what_an_exec_changes_is_wanted_whoever_is_there(outside: FakeOutside) -> None:
    peer = Peer(make_desk(outside=outside, keys=["cache:*"]), logged_in=True)
    peer.ask("MULTI", "SET cache:x 1", "EXEC")
    other = Peer(make_desk(outside=outside, keys=["cache:*"]), logged_in=True)
    other.ask("SET cache:x 1")
    for gone in (peer, other):
        gone.vanish(was_read=False)
    assert [is_wanted() for is_wanted in outside.wanted] == [True, False]


# --- what is held, and several keys


def test_what_is_held_is_there_whatever_is_asked(peer: Peer, outside: FakeOutside) -> None:
    peer.ask(f"RPOP {QUEUE}", f"LPUSH {OUTPUT} 1 2")
    peer.ask(f"LLEN {OUTPUT}")
    outside.answer(0)
    assert peer.replies()[-1] == 2
    assert peer.ask(f"EXISTS {OUTPUT}", f"TYPE {OUTPUT}") == [1, b"list"]


def test_what_is_pushed_to_the_input_queue_is_not_in_the_output_queue(
    peer: Peer, outside: FakeOutside
) -> None:
    peer.ask(f"RPOP {QUEUE}", f"LPUSH {QUEUE} more")
    peer.ask(f"EXISTS {OUTPUT}")
    outside.answer(0)
    assert peer.replies()[-1] == 0


def test_several_keys_are_counted_each_time_they_are_named(outside: FakeOutside) -> None:
    desk = make_desk([b"a"], outside=outside, keys=["cache:*"])
    peer = Peer(desk, logged_in=True)
    peer.ask(f"LMOVE {QUEUE} own RIGHT LEFT")
    peer.ask(f"EXISTS {QUEUE} own {OUTPUT} {QUEUE} cache:x cache:y {OUTPUT} own")
    assert outside.answer(1) == [b"LLEN", QUEUE.encode()]
    assert outside.answer(0) == [b"EXISTS", OUTPUT.encode(), OUTPUT.encode()]
    assert outside.answer(1) == [b"EXISTS", b"cache:x", b"cache:y"]
    assert peer.replies()[-1] == 2 + 2 + 0 + 1


def test_one_key_that_is_nobodys_business_is_enough_to_refuse(
    peer: Peer, outside: FakeOutside
) -> None:
    assert the_error(peer.ask(f"EXISTS {QUEUE} other")).startswith("NOPERM gridcore: 'EXISTS other")
    assert outside.asked == []


def test_an_error_on_one_of_several_keys_is_the_answer(peer: Peer, outside: FakeOutside) -> None:
    peer.ask(f"EXISTS {QUEUE} {OUTPUT}")
    outside.answer(1)
    outside.answer(hiredis.ReplyError("MISCONF disk is full"))
    assert the_error(peer.replies()) == "MISCONF disk is full"


def test_looks_are_there_for_pipelines_too(peer: Peer, outside: FakeOutside) -> None:
    peer.ask_in_bytes(pack("LRANGE", QUEUE, "0", "-1") + pack("PING"))
    Queue(b"1").answer_all(outside)
    assert peer.replies() == [[b"1", b"b", b"a"], b"PONG"]
