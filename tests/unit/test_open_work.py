"""The transaction of one run: what is committed together, and what goes back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gridcore.lease_queue.queue import Lease, Push, Transaction
from gridcore.wire import AckMode
from gridnode.gateway.open_work import LARGEST_GROUP, Connection, Delivery, OpenWork
from tests.support.desks import leases

seldom = st.sampled_from((False, False, False, True))


def result(text: str) -> Push:
    return Push("L", [text.encode()])


def deliver(
    work: OpenWork, *payloads: bytes, to: Connection = "one", heard: int = 1, kept_in: bytes = b""
) -> Delivery:
    delivery = Delivery(to, leases(*payloads), "R", heard, 0.0, kept_in or None)
    work.opened(delivery)
    return delivery


def tokens(delivery: Delivery) -> set[str]:
    return {lease.token for lease in delivery.leases}


def told(work: OpenWork, transactions: list[Transaction]) -> list[tuple[int, list[bytes]]]:
    """How many items and which results each transaction has."""
    return [(len(t.tokens), [v for push in t.results for v in push.values]) for t in transactions]


@pytest.fixture
def work() -> OpenWork:
    return OpenWork()


def test_the_next_pop_commits_the_item_with_its_results(work: OpenWork) -> None:
    deliver(work, b"a")
    assert work.pushed([result("1")])
    assert work.pushed([result("2")])
    assert told(work, work.asks_for_more("one", 2)) == [(1, [b"1", b"2"])]
    assert work.deliveries == []
    assert work.held_bytes == 0


def test_an_item_without_results_is_committed_as_well(work: OpenWork) -> None:
    deliver(work, b"a")
    assert told(work, work.asks_for_more("one", 2)) == [(1, [])]


def test_the_items_of_one_reply_are_done_together(work: OpenWork) -> None:
    deliver(work, b"a", b"b", b"c")
    assert told(work, work.asks_for_more("one", 2)) == [(3, [])]


def test_results_without_an_item_belong_to_nobody(work: OpenWork) -> None:
    assert not work.pushed([result("1")])
    assert work.held == []


def test_a_pop_that_was_sent_before_the_reply_says_nothing_about_it(work: OpenWork) -> None:
    deliver(work, b"a", heard=1)
    assert work.asks_for_more("one", 1) == []
    assert work.open_items == 1


def test_a_pop_on_another_connection_says_nothing_about_what_this_one_carries(
    work: OpenWork,
) -> None:
    deliver(work, b"a", to="one")
    assert work.asks_for_more("two", 7) == []
    assert work.open_items == 1


def test_a_pop_on_another_connection_commits_what_was_read_on_one_that_is_gone(
    work: OpenWork,
) -> None:
    deliver(work, b"a", to="one")
    assert work.closed("one", was_read=True) == []
    assert told(work, work.asks_for_more("two", 1)) == [(1, [])]


def test_what_was_not_read_was_never_delivered(work: OpenWork) -> None:
    delivery = deliver(work, b"a")
    assert work.closed("one", was_read=False) == [delivery]
    assert work.asks_for_more("two", 1) == []
    assert work.ended_badly() == ([], [])


@pytest.mark.parametrize("evidence", ["a command", "a result"])
def test_what_was_read_stays_delivered_however_the_connection_ends(
    work: OpenWork, evidence: str
) -> None:
    deliver(work, b"a")
    if evidence == "a command":
        work.heard_from("one", 2)
    else:
        work.pushed([result("1")])
    assert work.closed("one", was_read=False) == []
    assert work.open_items == 1


def test_results_tie_together_all_that_is_open(work: OpenWork) -> None:
    deliver(work, b"a", to="one")
    deliver(work, b"b", to="two")
    work.pushed([result("of a or b")])
    assert work.asks_for_more("one", 2) == []
    assert told(work, work.asks_for_more("two", 2)) == [(2, [b"of a or b"])]


def test_what_comes_after_a_result_is_not_tied_to_it(work: OpenWork) -> None:
    deliver(work, b"a", to="one")
    work.pushed([result("of a")])
    deliver(work, b"b", to="two")
    assert told(work, work.asks_for_more("one", 2)) == [(1, [b"of a"])]
    assert work.open_items == 1


def test_without_results_threads_do_not_wait_for_each_other(work: OpenWork) -> None:
    deliver(work, b"a", to="one")
    deliver(work, b"b", to="two")
    assert told(work, work.asks_for_more("one", 2)) == [(1, [])]


def test_a_group_that_grows_too_large_says_so_until_it_is_committed(work: OpenWork) -> None:
    deliver(work, b"slow", to="slow")
    for heard in range(1, LARGEST_GROUP + 1):
        deliver(work, b"quick", to="quick", heard=heard)
        work.pushed([result("1")])
        assert not work.is_overgrown
        assert work.asks_for_more("quick", heard + 1) == []
    assert work.is_overgrown
    (transaction,) = work.asks_for_more("slow", 2)
    assert len(transaction.tokens) == LARGEST_GROUP + 1
    assert not work.is_overgrown


def test_whoever_is_ended_for_one_item_is_not_blamed_for_the_others(work: OpenWork) -> None:
    deliver(work, b"a")
    work.heard_from("one", 2)
    work.put_by()
    slow = deliver(work, b"b")
    slow.is_overdue = True
    failed, others = work.ended_badly()
    assert [lease.payload for lease in failed] == [b"b"]
    assert [lease.payload for lease in others] == [b"a"]


def test_an_item_can_be_done_with_its_own_results(work: OpenWork) -> None:
    first = deliver(work, b"a", kept_in=b"own")
    deliver(work, b"b", kept_in=b"own")
    assert told(work, work.is_done_with([first], [result("of a")])) == [(1, [b"of a"])]
    assert [d.leases[0].payload for d in work.kept_in(b"own")] == [b"b"]


def test_items_that_are_done_with_results_are_not_committed_before_them(work: OpenWork) -> None:
    first = deliver(work, b"a", kept_in=b"own")
    deliver(work, b"c", kept_in=b"own")
    work.pushed([result("of a or c")])
    second = deliver(work, b"b", kept_in=b"own")
    assert work.is_done_with([first, second], [result("of a and b")]) == []
    to_blame, others = work.ended_badly()
    assert len(to_blame) == 1
    assert len(others) == 2


def test_an_item_that_was_put_back_by_the_program_is_not_the_runs_any_more(work: OpenWork) -> None:
    delivery = deliver(work, b"a", kept_in=b"own")
    assert [lease.payload for lease in work.give_up(delivery)] == [b"a"]
    assert work.tokens() == set()


def test_exit_code_0_commits_what_was_seen_and_returns_what_was_not(work: OpenWork) -> None:
    deliver(work, b"a", to="one")
    work.pushed([result("1")])
    deliver(work, b"b", to="two")
    ready, unseen = work.ended_well()
    assert told(work, ready) == [(1, [b"1"])]
    assert [lease.payload for lease in unseen] == [b"b"]


def test_any_other_end_drops_the_results_and_blames_only_what_was_in_hand(work: OpenWork) -> None:
    deliver(work, b"done, but tied", to="one")
    deliver(work, b"in hand", to="two")
    work.pushed([result("1")])
    work.asks_for_more("one", 2)
    deliver(work, b"not seen", to="three")
    to_blame, others = work.ended_badly()
    assert [lease.payload for lease in to_blame] == [b"in hand"]
    assert {lease.payload for lease in others} == {b"done, but tied", b"not seen"}
    assert (work.deliveries, work.held, work.held_bytes) == ([], [], 0)


def test_many_empty_results_are_not_for_nothing(work: OpenWork) -> None:
    """They take the node's memory, and are limited by what they take."""
    deliver(work, b"a")
    for _ in range(1_000):
        work.pushed([Push("L", [b""])])
    assert work.held_bytes > 100_000


@dataclass(eq=False)
class Pushed:
    push: Push
    tied: set[str]
    """What was open when it was pushed."""


@dataclass
class Model:
    open: dict[str, Delivery] = field(default_factory=dict)
    committed: set[str] = field(default_factory=set)
    returned: set[str] = field(default_factory=set)
    given_up: set[str] = field(default_factory=set)
    held: dict[bytes, Pushed] = field(default_factory=dict)
    arrived: list[bytes] = field(default_factory=list)


class OpenWorkMachine(RuleBasedStateMachine):
    """Whatever a program with some connections does, and in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.work = OpenWork()
        self.model = Model()
        self.numbers = itertools.count()
        self.heard: dict[int, int] = {next(self.numbers): 1 for _ in range(3)}

    @initialize(ack=st.sampled_from(("next", "explicit", "exit")))
    def begin(self, ack: AckMode) -> None:
        self.ack = ack

    def _connection(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.heard)))

    def _a_delivery(self, data: st.DataObject) -> Delivery:
        unfinished = [d for d in self.work.deliveries if not d.is_done]
        return data.draw(st.sampled_from(unfinished))

    def _has_unfinished(self) -> bool:
        return self.ack != "exit" and any(not d.is_done for d in self.work.deliveries)

    @rule(data=st.data(), count=st.integers(1, 3), is_pipelined=st.booleans())
    def pop(self, data: st.DataObject, count: int, is_pipelined: bool) -> None:
        connection = self._connection(data)
        self.heard[connection] += not is_pipelined
        heard = self.heard[connection]
        ready = []
        done_before = {token for d in self.work.deliveries if d.is_done for token in tokens(d)}
        if self.ack == "next":
            ready = self.work.asks_for_more(connection, heard)
        else:
            self.work.heard_from(connection, heard)
        if self.ack == "exit":
            self.work.put_by()
        for transaction in ready:
            for token in set(transaction.tokens) - done_before:
                carried = self.model.open[token]
                assert carried.connection != connection or carried.round < heard, (
                    "a pop that was sent before the reply is no sign that it was read"
                )
        self._commit(ready)
        delivery = deliver(self.work, *[b"x"] * count, to=connection, heard=heard, kept_in=b"own")
        self.model.open |= dict.fromkeys(tokens(delivery), delivery)

    @rule()
    def push(self) -> None:
        push = result(str(next(self.numbers)))
        if self.work.pushed([push]):
            self.model.held[push.values[0]] = Pushed(push, set(self.model.open))
        else:
            assert not self.model.open

    @rule(data=st.data())
    def say_something(self, data: st.DataObject) -> None:
        connection = self._connection(data)
        self.heard[connection] += 1
        self.work.heard_from(connection, self.heard[connection])

    @rule(data=st.data(), was_read=st.booleans(), really=seldom)
    def close(self, data: st.DataObject, was_read: bool, really: bool) -> None:
        if not really:
            return
        connection = self._connection(data)
        del self.heard[connection]
        self.heard[next(self.numbers)] = 1
        for delivery in self.work.closed(connection, was_read=was_read):
            assert not was_read
            self._return(delivery.leases)

    @precondition(_has_unfinished)
    @rule(data=st.data(), results=st.integers(0, 2))
    def say_what_is_done(self, data: st.DataObject, results: int) -> None:
        unfinished = [d for d in self.work.deliveries if not d.is_done]
        done = data.draw(st.lists(st.sampled_from(unfinished), min_size=1, unique=True))
        pushes = [result(str(next(self.numbers))) for _ in range(results)]
        tied = {token for delivery in done for token in tokens(delivery)}
        for push in pushes:
            self.model.held[push.values[0]] = Pushed(push, tied)
        self._commit(self.work.is_done_with(done, pushes))

    @precondition(_has_unfinished)
    @rule(data=st.data(), really=seldom)
    def give_up(self, data: st.DataObject, really: bool) -> None:
        if not really:
            return
        given = self.work.give_up(self._a_delivery(data))
        self.model.given_up |= {lease.token for lease in given}
        self._return(given)

    @rule(how=st.sampled_from(("exit code 0", "crash", "too long")), really=seldom)
    def end(self, how: str, really: bool) -> None:
        if not really:
            return
        if how == "exit code 0":
            self._exit_with_0()
            return
        slow = self.work.newest() if how == "too long" else None
        if slow:
            slow.is_overdue = True
        self._crash()

    def _exit_with_0(self) -> None:
        ready, unseen = self.work.ended_well()
        self._commit(ready)
        self._return(unseen)
        assert not self.model.open
        assert not self.model.held, "all results have arrived"

    def _crash(self) -> None:
        for left in self.work.ended_badly():
            self._return(left)
        assert not self.model.open
        self.model.held.clear()

    def _commit(self, transactions: list[Transaction]) -> None:
        model = self.model
        for transaction in transactions:
            for token in transaction.tokens:
                del model.open[token]
                assert token not in model.committed | model.returned
                model.committed.add(token)
            for push in transaction.results:
                held = model.held.pop(push.values[0])
                assert held.push is push
                assert held.tied <= model.committed | model.given_up, (
                    "a result arrives with the last of the items that it may belong to"
                )
                model.arrived.append(push.values[0])

    def _return(self, returned: list[Lease] | tuple[Lease, ...] | object) -> None:
        assert isinstance(returned, (list, tuple))
        for lease in returned:
            del self.model.open[lease.token]
            assert lease.token not in self.model.committed
            self.model.returned.add(lease.token)

    @invariant()
    def each_item_is_open_or_committed_or_returned(self) -> None:
        assert self.work.tokens() == set(self.model.open)

    @invariant()
    def each_result_is_held_or_has_arrived_once(self) -> None:
        assert {push.values[0] for push in self.work.held} == set(self.model.held)
        assert len(self.work.held) == len(self.model.held)
        assert len(set(self.model.arrived)) == len(self.model.arrived)

    @invariant()
    def no_item_is_committed_before_its_results(self) -> None:
        assert not any(held.tied & self.model.committed for held in self.model.held.values())

    @invariant()
    def what_is_held_is_counted(self) -> None:
        assert (self.work.held_bytes > 0) == bool(self.work.held)


def test_whatever_a_program_does_its_items_and_results_are_where_they_belong() -> None:
    run_state_machine_as_test(
        OpenWorkMachine,
        settings=settings(max_examples=300, stateful_step_count=40, deadline=None),
    )
