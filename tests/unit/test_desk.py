"""One run at its desk: what it gets, what it may keep there, and how it ends; no sockets."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest
from redis.exceptions import ResponseError

from gridcore.lease_queue.queue import Lease
from gridcore.wire import AckMode
from gridnode.gateway import desk as desks
from gridnode.gateway import looks
from gridnode.gateway.desk import Counters, Desk
from gridnode.gateway.open_work import LARGEST_GROUP
from gridnode.gateway.outside import NotAllowed
from gridnode.gateway.stock import Stock
from tests.support.desks import OUTPUT, QUEUE, FakeOutside, Peer, leases, make_desk, pack


@pytest.fixture
def outside() -> FakeOutside:
    return FakeOutside()


@pytest.fixture
def desk(outside: FakeOutside) -> Desk:
    return make_desk([b"a", b"b", b"c"], outside=outside)


@pytest.fixture
def peer(desk: Desk) -> Peer:
    return Peer(desk, logged_in=True)


def the_error(replies: list[Any]) -> str:
    (reply,) = replies
    assert isinstance(reply, hiredis.ReplyError), reply
    return str(reply)


def payloads(returned: list[Lease]) -> list[bytes]:
    return [lease.payload for lease in returned]


# --- pops


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        (f"BRPOP {QUEUE} 0", [QUEUE.encode(), b"a"]),
        (f"brpop {QUEUE} 0", [QUEUE.encode(), b"a"]),
        (f"BRPOP {QUEUE} {QUEUE} 0.5", [QUEUE.encode(), b"a"]),
        (f"RPOP {QUEUE}", b"a"),
        (f"RPOP {QUEUE} 1", [b"a"]),
        (f"RPOP {QUEUE} 2", [b"a", b"b"]),
        (f"RPOP {QUEUE} 0", []),
        (f"LMPOP 1 {QUEUE} RIGHT", [QUEUE.encode(), [b"a"]]),
        (f"LMPOP 1 {QUEUE} right count 2", [QUEUE.encode(), [b"a", b"b"]]),
        (f"BLMPOP 0 1 {QUEUE} RIGHT COUNT 3", [QUEUE.encode(), [b"a", b"b", b"c"]]),
        (f"RPOPLPUSH {QUEUE} own", b"a"),
        (f"BRPOPLPUSH {QUEUE} own 0", b"a"),
        (f"LMOVE {QUEUE} own RIGHT LEFT", b"a"),
        (f"BLMOVE {QUEUE} own RIGHT LEFT 0", b"a"),
    ],
)
def test_each_way_to_pop_is_answered_as_by_redis(peer: Peer, command: str, reply: object) -> None:
    assert peer.ask(command) == [reply]


@pytest.mark.parametrize(
    "command", [f"RPOP {QUEUE} 1000000000", f"BLMPOP 0 1 {QUEUE} RIGHT COUNT 1000000000"]
)
def test_nobody_gets_the_whole_queue_at_once(peer: Peer, desk: Desk, command: str) -> None:
    """It would all be brought to this node first."""
    peer.ask(command)
    assert desk.stock.waiting_sides() == {"R": desks.MAX_ITEMS_AT_ONCE}


def test_a_pop_with_a_time_is_answered_when_it_is_up(outside: FakeOutside) -> None:
    peer = Peer(make_desk(outside=outside), logged_in=True)
    assert peer.ask(f"BRPOP {QUEUE} 5") == []
    outside.pass_time(4.9)
    assert peer.replies() == []
    outside.pass_time(0.2)
    assert peer.replies() == [None]


def test_a_pop_that_was_answered_leaves_no_timer_behind(outside: FakeOutside) -> None:
    """A program that asks with an hour's patience, a hundred times a second."""
    desk = make_desk(outside=outside)
    peer = Peer(desk, logged_in=True)
    for _ in range(10):
        peer.ask(f"BRPOP {QUEUE} 3600")
        desk.stock.taken("R", leases(b"x"), take=1, is_exhausted=False)
    assert peer.replies() != []
    peer.ask(f"BRPOP {QUEUE} 3600")
    assert len(outside.timers) == 1
    peer.vanish(was_read=True)
    assert outside.timers == []


def test_a_pop_whose_connection_is_gone_takes_nothing(outside: FakeOutside) -> None:
    desk = make_desk(outside=outside)
    gone, here = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    gone.ask(f"BRPOP {QUEUE} 0")
    here.ask(f"BRPOP {QUEUE} 0")
    gone.vanish(was_read=True)
    desk.stock.taken("R", leases(b"a"), take=1, is_exhausted=False)
    assert here.replies() == [[QUEUE.encode(), b"a"]]


def test_any_later_command_shows_that_the_reply_was_read(peer: Peer, desk: Desk) -> None:
    """Also one that has nothing to do with queues, as clients send to see if all is well."""
    peer.ask(f"RPOP {QUEUE}")
    peer.ask("PING")
    peer.vanish(was_read=False)
    assert desk.stock.peek("R") == [b"b", b"c"]
    assert desk.work.open_items == 1


def test_a_command_of_the_same_piece_shows_nothing(peer: Peer, desk: Desk) -> None:
    peer.ask(f"RPOP {QUEUE}", "PING")
    peer.vanish(was_read=False)
    assert desk.stock.peek("R") == [b"a", b"b", b"c"]


# --- who may not have read the last reply


def test_a_pop_waits_while_nobody_knows_whether_an_item_was_read(
    outside: FakeOutside, desk: Desk, peer: Peer
) -> None:
    again = Peer(desk, logged_in=True)
    peer.ask(f"RPOP {QUEUE}")
    peer.conversation.hangs_up()
    assert peer.conversation.awaits_receipt
    assert again.ask(f"BRPOP {QUEUE} 0", "PING") == []
    peer.vanish(was_read=False)
    assert again.replies() == [[QUEUE.encode(), b"a"], b"PONG"], "the same item"
    assert outside.done == []


def test_when_the_item_was_read_the_pop_that_waited_is_done_with_it(
    outside: FakeOutside, desk: Desk, peer: Peer
) -> None:
    again = Peer(desk, logged_in=True)
    peer.ask(f"RPOP {QUEUE}")
    peer.conversation.hangs_up()
    assert peer.conversation.awaits_receipt
    assert again.ask(f"RPOP {QUEUE}") == []
    peer.vanish(was_read=True)
    assert again.replies() == [b"b"]
    assert len(outside.done) == 1


def test_a_result_tells_that_the_item_was_read_and_nobody_waits(
    outside: FakeOutside, desk: Desk, peer: Peer
) -> None:
    """redis-cli in a shell loop: a connection for each command."""
    peer.ask(f"RPOP {QUEUE}")
    peer.conversation.hangs_up()
    awaited = [peer.conversation.awaits_receipt]
    pusher, popper = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert pusher.ask(f"LPUSH {OUTPUT} 1") == [1]
    awaited.append(peer.conversation.awaits_receipt)
    assert awaited == [True, False]
    assert popper.ask(f"RPOP {QUEUE}") == [b"b"]
    assert outside.results == [b"1"]
    peer.vanish(was_read=False)
    assert len(outside.done) == 1, "and whatever is found out later changes nothing"
    assert desk.work.open_items == 1


def test_a_pop_that_waits_to_know_is_called_off_with_its_connection(desk: Desk, peer: Peer) -> None:
    again, third = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    peer.ask(f"RPOP {QUEUE}")
    peer.conversation.hangs_up()
    assert peer.conversation.awaits_receipt
    again.ask(f"BRPOP {QUEUE} 0")
    assert not again.conversation.ends(lambda: None), "it would wait"
    again.vanish(was_read=True)
    peer.vanish(was_read=False)
    assert desk.stock.peek("R") == [b"a", b"b", b"c"]
    assert third.ask(f"RPOP {QUEUE}") == [b"a"]


@pytest.mark.parametrize("was_read", [True, False])
def test_a_result_that_may_have_been_sent_again_waits_until_that_is_known(
    outside: FakeOutside, desk: Desk, peer: Peer, was_read: bool
) -> None:
    other = Peer(desk, logged_in=True)
    peer.ask(f"RPOP {QUEUE}")
    peer.ask(f"LPUSH {OUTPUT} 1")
    peer.conversation.hangs_up()
    assert peer.conversation.awaits_receipt
    assert other.ask(f"LPUSH {OUTPUT} 2") == [1], "this one was not"
    assert other.ask(f"LPUSH {OUTPUT} 1") == []
    peer.vanish(was_read=was_read)
    assert other.replies() == [1]
    desk.ended(well=True, is_to_blame=True)
    assert outside.results == ([b"1", b"2", b"1"] if was_read else [b"1", b"2"])


# --- whose input has ended


def test_who_ends_his_input_still_gets_what_is_on_its_way(outside: FakeOutside) -> None:
    """printf 'RPOP work\\r\\n' | nc: the end comes with the command."""
    desk = make_desk(outside=outside)
    peer = Peer(desk, logged_in=True)
    ended: list[str] = []
    peer.ask(f"RPOP {QUEUE}", f"LLEN {OUTPUT}", "PING")
    assert peer.conversation.ends(lambda: ended.append("now"))
    desk.stock.taken("R", leases(b"a"), take=1, is_exhausted=False)
    assert peer.replies() == [b"a"]
    assert ended == []
    outside.answer(7)
    assert peer.replies() == [7, b"PONG"]
    assert ended == ["now"]


def test_who_ends_his_input_does_not_wait_for_items(outside: FakeOutside) -> None:
    peer = Peer(make_desk(outside=outside), logged_in=True)
    ended: list[str] = []
    peer.ask(f"LLEN {OUTPUT}", f"BRPOP {QUEUE} 0")
    assert peer.conversation.ends(lambda: ended.append("now"))
    outside.answer(7)
    assert ended == ["now"]
    other = Peer(make_desk(outside=outside), logged_in=True)
    other.ask(f"BRPOP {QUEUE} 0")
    assert not other.conversation.ends(lambda: None)


# --- results


@pytest.mark.parametrize(
    ("command", "length"),
    [(f"LPUSH {OUTPUT} 1", 1), (f"RPUSH {OUTPUT} 1 2 3", 3), (f"LPUSH {QUEUE} new", 1)],
)
def test_results_are_held_while_an_item_is_open(
    peer: Peer, outside: FakeOutside, command: str, length: int
) -> None:
    peer.ask(f"RPOP {QUEUE}")
    assert peer.ask(command) == [length]
    assert outside.committed == []
    peer.ask(f"RPOP {QUEUE}")
    assert len(outside.results) == length
    assert len(outside.done) == 1


def test_results_that_belong_to_no_item_are_answered_when_they_are_in_redis(
    outside: FakeOutside,
) -> None:
    peer = Peer(make_desk(outside=outside), logged_in=True)
    assert peer.ask(f"LPUSH {OUTPUT} 1") == []
    outside.through[0][1](None)
    assert peer.replies() == [1]


def test_more_results_than_a_run_may_hold_are_refused(
    peer: Peer, outside: FakeOutside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "MAX_HELD_BYTES", 1_000)
    peer.ask(f"RPOP {QUEUE}")
    assert peer.ask(f"LPUSH {OUTPUT} {'x' * 2_000}") == [1]
    assert the_error(peer.ask(f"LPUSH {OUTPUT} x")).startswith("OOM command not allowed")
    peer.ask(f"RPOP {QUEUE}")
    assert peer.ask(f"LPUSH {OUTPUT} x") == [1], "with the next item it goes on"


def test_more_results_without_an_item_than_redis_takes_are_refused(
    outside: FakeOutside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "MAX_HELD_BYTES", 1_000)
    desk = make_desk(outside=outside)
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"LPUSH {OUTPUT} {'x' * 2_000}") == []
    assert the_error(two.ask(f"LPUSH {OUTPUT} x")).startswith("OOM command not allowed")
    outside.through[0][1](None)
    assert two.ask(f"LPUSH {OUTPUT} x") == []
    outside.through[1][1](None)
    assert two.replies() == [1]


@pytest.mark.parametrize(("length", "held"), [(0, False), (3, False), (0, True)])
def test_a_push_to_a_list_that_must_be_there(outside: FakeOutside, length: int, held: bool) -> None:
    peer = Peer(make_desk([b"a"], outside=outside), logged_in=True)
    peer.ask(f"RPOP {QUEUE}")
    if held:
        peer.ask(f"LPUSH {OUTPUT} 1")
    assert peer.ask(f"RPUSHX {OUTPUT} 2") == []
    assert outside.answer(length) == [b"LLEN", OUTPUT.encode()]
    assert peer.replies() == [1 if length or held else 0]


def test_a_refusal_that_comes_later_is_an_answer_like_any_other(
    peer: Peer, outside: FakeOutside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out while Redis' answer is dealt with: there it must not end the node's work."""
    monkeypatch.setattr(desks, "MAX_HELD_BYTES", 1_000)
    peer.ask(f"RPOP {QUEUE}")
    peer.ask(f"LPUSH {OUTPUT} {'x' * 2_000}")
    peer.ask(f"LPUSHX {OUTPUT} x")
    outside.answer(5)
    assert the_error(peer.replies()).startswith("OOM command not allowed")


# --- threads


def test_when_a_group_has_grown_too_large_pops_wait_for_the_slowest_thread(
    outside: FakeOutside,
) -> None:
    desk = make_desk([b"%d" % n for n in range(100)], outside=outside)
    slow, quick = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert slow.ask(f"RPOP {QUEUE}") == [b"0"]
    for n in range(1, LARGEST_GROUP + 1):
        assert quick.ask(f"RPOP {QUEUE}") == [b"%d" % n]
        quick.ask(f"LPUSH {OUTPUT} {n}")
    assert quick.ask(f"RPOP {QUEUE}") == []
    assert outside.committed == []
    assert slow.ask(f"RPOP {QUEUE}") == [b"66"]
    assert quick.replies() == [b"65"]
    assert len(outside.done) == LARGEST_GROUP + 1
    outside.pass_time(desks.LONG_BARRIER_S)
    assert outside.long_barriers == 0


def test_however_long_a_thread_takes_its_item_is_not_committed_without_it(
    outside: FakeOutside,
) -> None:
    desk = make_desk([b"%d" % n for n in range(100)], outside=outside)
    slow, quick = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    slow.ask(f"RPOP {QUEUE}")
    for n in range(LARGEST_GROUP):
        quick.ask(f"RPOP {QUEUE}")
        quick.ask(f"LPUSH {OUTPUT} {n}")
    assert quick.ask(f"RPOP {QUEUE}") == []
    outside.pass_time(desks.LONG_BARRIER_S)
    assert outside.long_barriers == 1
    assert quick.replies() == []
    assert outside.done == []


def test_who_does_not_wait_without_end_is_told_so_at_a_barrier_too(outside: FakeOutside) -> None:
    desk = make_desk([b"%d" % n for n in range(100)], outside=outside)
    slow, quick = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    slow.ask(f"RPOP {QUEUE}")
    for n in range(LARGEST_GROUP):
        quick.ask(f"RPOP {QUEUE}")
        quick.ask(f"LPUSH {OUTPUT} {n}")
    assert quick.ask(f"BRPOP {QUEUE} 5") == []
    outside.pass_time(5)
    assert quick.replies() == [None]


# --- items that have failed before


def suspect(number: int) -> Lease:
    return Lease(f"suspect-{number}", 1, b"suspect-%d" % number)


def with_suspects(desk: Desk, count: int = 1) -> Desk:
    suspects = [suspect(n) for n in range(count)]
    desk.stock.taken("R", suspects, take=0, is_exhausted=False)
    return desk


def test_a_suspect_comes_first_and_alone(outside: FakeOutside) -> None:
    peer = Peer(with_suspects(make_desk([b"a", b"b"], outside=outside)), logged_in=True)
    assert peer.ask(f"RPOP {QUEUE} 2") == [[b"suspect-0"]]
    assert peer.ask(f"RPOP {QUEUE} 2") == [[b"a", b"b"]]


def test_a_run_that_has_a_suspect_in_hand_gets_nothing_else_until_it_is_done(
    outside: FakeOutside,
) -> None:
    desk = with_suspects(make_desk([b"a"], outside=outside, ack="explicit"))
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"LMOVE {QUEUE} own RIGHT LEFT") == [b"suspect-0"]
    assert two.ask(f"LMOVE {QUEUE} own RIGHT LEFT") == [None], "who does not wait is told so"
    assert two.ask(f"BLMOVE {QUEUE} own RIGHT LEFT 0") == []
    assert one.ask("LREM own 1 suspect-0") == [1]
    assert two.replies() == [b"a"]


def test_a_run_with_items_in_hand_finishes_them_before_it_gets_a_suspect(
    outside: FakeOutside,
) -> None:
    desk = make_desk([b"a", b"b"], outside=outside)
    one, two = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert one.ask(f"RPOP {QUEUE}") == [b"a"]
    with_suspects(desk)
    assert two.ask(f"BRPOP {QUEUE} 0") == []
    assert one.ask(f"BRPOP {QUEUE} 0") == [], "it has come later"
    assert two.replies() == [[QUEUE.encode(), b"suspect-0"]]
    assert two.ask(f"BRPOP {QUEUE} 0") == []
    assert one.replies() == [[QUEUE.encode(), b"b"]]


def test_what_one_run_waits_for_another_that_has_nothing_in_hand_gets(
    outside: FakeOutside,
) -> None:
    busy = make_desk([b"a", b"b"], outside=outside)
    idle = make_desk(outside=outside, stock=busy.stock)
    one, two = Peer(busy, logged_in=True), Peer(busy, logged_in=True)
    assert one.ask(f"RPOP {QUEUE}") == [b"a"]
    with_suspects(busy)
    assert two.ask(f"BRPOP {QUEUE} 0") == []
    assert Peer(idle, logged_in=True).ask(f"RPOP {QUEUE}") == [b"suspect-0"]
    assert two.replies() == [[QUEUE.encode(), b"b"]], "it is not kept waiting any longer"


def test_a_pipeline_is_answered_though_there_is_a_suspect(outside: FakeOutside) -> None:
    desk = with_suspects(make_desk([b"a"], outside=outside))
    peer = Peer(desk, logged_in=True)
    assert peer.ask(f"BRPOP {QUEUE} 0", f"BRPOP {QUEUE} 0") == [
        [QUEUE.encode(), b"suspect-0"],
        [QUEUE.encode(), b"a"],
    ]


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_with_a_long_item_gets_others_though_one_has_failed_if_the_task_says_so(
    outside: FakeOutside, alone: bool
) -> None:
    """A program held an item for hours and did short ones beside it. One of these failed once: from
    then on it got nothing any more, since what has failed waited for a run with nothing in hand."""
    desk = make_desk(
        [b"long", b"short"], outside=outside, ack="explicit", alone_after_failure=alone
    )
    holder, other = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert holder.ask(f"BLMOVE {QUEUE} own RIGHT LEFT 0") == [b"long"]
    with_suspects(desk)

    for expected in (b"short", b"suspect-0"):
        taken = other.ask(f"LMOVE {QUEUE} own RIGHT LEFT")
        assert taken == [None if alone else expected]


def test_with_ack_exit_a_suspect_waits_for_the_next_run(outside: FakeOutside) -> None:
    desk = make_desk([b"a", b"b"], outside=outside, ack="exit")
    peer = Peer(desk, logged_in=True)
    assert peer.ask(f"RPOP {QUEUE}") == [b"a"]
    with_suspects(desk)
    assert peer.ask(f"RPOP {QUEUE}") == [None]
    assert peer.ask(f"LPUSH {OUTPUT} of-a") == [1]
    peer.vanish(was_read=True)
    desk.ended(well=True, is_to_blame=True)
    assert outside.results == [b"of-a"]
    next_run = make_desk(outside=outside, stock=desk.stock, ack="exit")
    assert Peer(next_run, logged_in=True).ask(f"RPOP {QUEUE}") == [b"suspect-0"]


def test_who_asked_for_more_before_his_item_was_done_is_idle_from_then_on(
    outside: FakeOutside,
) -> None:
    """A program with ack = "explicit" that asks for the next item while it works on one: what it
    had asked for when it was busy never counted as asked in vain, and its container stayed."""
    desk = make_desk([b"a"], outside=outside, ack="explicit")
    worker, taker = Peer(desk, logged_in=True), Peer(desk, logged_in=True)
    assert worker.ask(f"LMOVE {QUEUE} own RIGHT LEFT") == [b"a"]
    assert taker.ask(f"BLMOVE {QUEUE} own RIGHT LEFT 0") == []
    outside.pass_time(100)
    assert [desk.idle_since_s] == [None]

    assert worker.ask("LREM own 1 a") == [1]

    assert desk.idle_since_s == outside.clock_s
    desk.stock.taken("R", leases(b"b"), take=1, is_exhausted=False)
    assert taker.replies() == [b"b"]
    assert [desk.idle_since_s] == [None]


# --- acknowledged at the end


def test_with_ack_exit_only_the_item_that_took_too_long_is_to_blame(outside: FakeOutside) -> None:
    desk = make_desk([b"a", b"b", b"c"], outside=outside, ack="exit")
    peer = Peer(desk, logged_in=True)
    for item in (b"a", b"b", b"c"):
        assert peer.ask(f"RPOP {QUEUE}") == [item]
        outside.pass_time(4)
    assert not desk.is_overdue(5), "it is at the third item for four seconds"
    outside.pass_time(2)
    assert desk.is_overdue(5)
    settled = desk.ended(well=False, is_to_blame=True)
    assert [lease.payload for lease in settled.failed] == [b"c"]
    assert [lease.payload for lease in settled.returned] == [b"a", b"b"]


def test_with_ack_exit_a_crash_blames_all_that_was_in_hand(outside: FakeOutside) -> None:
    desk = make_desk([b"a", b"b"], outside=outside, ack="exit")
    peer = Peer(desk, logged_in=True)
    peer.ask(f"RPOP {QUEUE}")
    peer.ask(f"LPUSH {OUTPUT} of-a")
    peer.ask(f"RPOP {QUEUE}")
    peer.ask("PING")
    settled = desk.ended(well=False, is_to_blame=True)
    assert [lease.payload for lease in settled.failed] == [b"a", b"b"]
    assert outside.results == []


@pytest.mark.parametrize("ack", ["next", "exit", "explicit"])
def test_the_time_for_an_item_is_known_however_it_is_acknowledged(
    outside: FakeOutside, ack: AckMode
) -> None:
    counters = Counters()
    items = [b"%d" % n for n in range(20)]
    peer = Peer(make_desk(items, outside=outside, ack=ack, counters=counters), logged_in=True)
    for n in range(20):
        peer.ask(f"LMOVE {QUEUE} own RIGHT LEFT" if ack == "explicit" else f"RPOP {QUEUE}")
        outside.pass_time(2)
        if ack == "explicit":
            assert peer.ask(f"LREM own 1 {n}") == [1]
    assert counters.seconds_per_item == pytest.approx(2)


def test_a_result_that_belongs_to_no_item_is_told_of_once(outside: FakeOutside) -> None:
    """Threads that share a client bring it about: see docs/delivery.md."""
    peer = Peer(make_desk([b"a"], outside=outside), logged_in=True)
    peer.ask(f"LPUSH {OUTPUT} before-the-first")
    _, then = outside.through.pop()
    then(None)
    assert outside.results_without_item == 0
    peer.ask(f"RPOP {QUEUE}")
    peer.ask(f"BRPOP {QUEUE} 1")
    outside.pass_time(1)
    for number in (1, 2):
        peer.ask(f"LPUSH {OUTPUT} {number}")
        _, then = outside.through.pop()
        then(None)
    assert outside.results_without_item == 1


# --- looking


def test_a_queue_looks_as_if_the_gateway_had_taken_nothing(
    peer: Peer, outside: FakeOutside
) -> None:
    peer.ask(f"LLEN {QUEUE}")
    outside.answer(10)
    assert peer.replies() == [13], "ten in Redis and three in stock"
    for command, reply in ((f"EXISTS {QUEUE}", 1), (f"TYPE {QUEUE}", b"list")):
        peer.ask(command)
        outside.answer(0)
        assert peer.replies() == [reply]


def test_an_error_of_redis_is_an_error_for_who_has_asked(peer: Peer, outside: FakeOutside) -> None:
    for command in (f"LLEN {QUEUE}", f"LRANGE {QUEUE} 0 -1", f"TYPE {OUTPUT}", "TIME"):
        peer.ask(command)
        outside.answer(ResponseError("MISCONF disk is full"))
        assert "MISCONF disk is full" in the_error(peer.replies())


def test_an_error_in_the_middle_of_a_look_is_one_as_well(peer: Peer, outside: FakeOutside) -> None:
    peer.ask(f"LRANGE {QUEUE} 0 -1")
    outside.answer(10)
    outside.answer(ResponseError("WRONGTYPE it was replaced"))
    assert "WRONGTYPE" in the_error(peer.replies())


def test_nobody_looks_at_the_whole_of_a_huge_queue_at_once(
    peer: Peer, outside: FakeOutside
) -> None:
    peer.ask(f"LRANGE {QUEUE} 0 -1")
    outside.answer(10**9)
    assert f"no more than {looks.MAX_ITEMS_AT_ONCE} items" in the_error(peer.replies())
    peer.ask(f"LRANGE {QUEUE} 5 6")
    outside.answer(10**9)
    assert outside.answer([b"x", b"y"]) == [b"LRANGE", QUEUE.encode(), b"5", b"6"]
    assert peer.replies() == [[b"x", b"y"]]


# --- further keys


def test_commands_on_keys_that_the_task_allows_go_to_redis(outside: FakeOutside) -> None:
    peer = Peer(make_desk(outside=outside, keys=["cache:*"]), logged_in=True)
    peer.ask("GET cache:x")
    assert outside.answer(b"1") == [b"GET", b"cache:x"]
    assert peer.replies() == [b"1"]
    peer.ask("GET other")
    outside.answer(NotAllowed())
    assert "further keys: 'cache:*'" in the_error(peer.replies())
    peer.ask("INCR cache:x")
    outside.answer(ResponseError("WRONGTYPE not a number"))
    assert the_error(peer.replies()) == "WRONGTYPE not a number"
    peer.ask("LPUSH cache:list 1")
    assert outside.answer(1) == [b"LPUSH", b"cache:list", b"1"]


def test_an_item_cannot_move_to_where_others_see_it(outside: FakeOutside) -> None:
    peer = Peer(make_desk([b"a"], outside=outside, keys=["cache:*"]), logged_in=True)
    assert the_error(peer.ask(f"RPOPLPUSH {QUEUE} cache:x")).startswith("NOPERM gridcore")


# --- lists of the program's own


def test_a_list_of_the_programs_own_holds_what_it_has_moved_there(outside: FakeOutside) -> None:
    desk = make_desk([b"a", b"b", b"a"], outside=outside, ack="explicit")
    peer = Peer(desk, logged_in=True)
    for _ in range(3):
        peer.ask(f"RPOPLPUSH {QUEUE} own")
    for command, reply in (
        ("LLEN own", 3),
        ("EXISTS own", 1),
        ("TYPE own", b"list"),
        ("LRANGE own 0 -1", [b"a", b"b", b"a"]),
        ("LINDEX own 1", b"b"),
        ("LINDEX own 9", None),
        ("LREM own -1 a", 1),
        ("LRANGE own 0 1", [b"a", b"b"]),
        ("LREM own 0 x", 0),
        ("RPOP own", b"b"),
        ("LPOP own 5", [b"a"]),
        ("LPOP own", None),
        ("EXISTS own", 0),
        ("DEL own", 0),
    ):
        assert peer.ask(command) == [reply], command
    assert len(outside.done) == 3


def test_an_item_can_go_back_to_the_queue_as_if_it_had_never_been_taken(
    outside: FakeOutside,
) -> None:
    desk = make_desk([b"a", b"b"], outside=outside, ack="explicit")
    peer = Peer(desk, logged_in=True)
    assert peer.ask(f"RPOPLPUSH {QUEUE} own", f"LMOVE own {QUEUE} LEFT RIGHT") == [b"a", b"a"]
    assert desk.stock.peek("R") == [b"a", b"b"]
    assert outside.committed == []
    assert desk.work.deliveries == []


# --- how it ends


def test_exit_code_0_is_to_be_done_with_all_that_was_seen(
    peer: Peer, desk: Desk, outside: FakeOutside
) -> None:
    peer.ask(f"RPOP {QUEUE}")
    peer.ask(f"LPUSH {OUTPUT} 1")
    peer.vanish(was_read=True)
    settled = desk.ended(well=True, is_to_blame=True)
    assert outside.results == [b"1"]
    assert (settled.failed, settled.returned) == ([], [])


@pytest.mark.parametrize("is_to_blame", [True, False])
def test_any_other_end_gives_back_what_was_in_hand(
    peer: Peer, desk: Desk, outside: FakeOutside, is_to_blame: bool
) -> None:
    peer.ask(f"RPOP {QUEUE}")
    peer.ask(f"LPUSH {OUTPUT} 1")
    peer.vanish(was_read=True)
    settled = desk.ended(well=False, is_to_blame=is_to_blame)
    assert outside.results == []
    assert payloads(settled.failed if is_to_blame else settled.returned) == [b"a"]


def test_a_run_that_is_to_end_gets_nothing_more(outside: FakeOutside) -> None:
    stock = Stock()
    ending, other = (make_desk(outside=outside, stock=stock) for _ in range(2))
    one, two, third = (
        Peer(ending, logged_in=True), Peer(ending, logged_in=True), Peer(other, logged_in=True)
    )  # fmt: skip
    one.ask(f"RPOP {QUEUE} 3")
    two.ask(f"BRPOP {QUEUE} 0")
    third.ask(f"BRPOP {QUEUE} 0")
    stock.taken("R", leases(b"a", b"b"), take=0, is_exhausted=False)
    ending.drain()
    assert third.replies() == [[QUEUE.encode(), b"a"]]
    assert one.replies() + two.replies() == []
    assert one.ask_in_bytes(pack("PING")) == []
    assert ending.is_idle
