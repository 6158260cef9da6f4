"""The node's stock of items: who gets which, and in what order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gridcore.lease_queue.queue import Lease, Side
from gridnode.gateway.stock import Pop, Stock
from tests.support.desks import leases

sides: st.SearchStrategy[Side] = st.sampled_from(("L", "R"))


class Buyer:
    """Somebody who pops, and waits if he has to."""

    def __init__(self, stock: Stock) -> None:
        self.got: list[list[bytes]] = []
        self._stock = stock
        self._next: list[tuple[Side, int, bool]] = []

    def asks(self, count: int = 1, *, side: Side = "R", waits: bool = True) -> Pop | None:
        leases = self._stock.pop(side, count)
        if leases is not None:
            self._gets(leases)
            return None
        pop = Pop(side, count, self._gets, is_blocking=waits)
        self._stock.wait(pop)
        return pop

    def asks_again_as_soon_as_served(self, count: int = 1, *, side: Side = "R") -> None:
        """As a pipeline of pops does."""
        self._next.append((side, count, True))

    def _gets(self, leases: Sequence[Lease]) -> None:
        self.got.append([lease.payload for lease in leases])
        if self._next:
            side, count, waits = self._next.pop()
            self.asks(count, side=side, waits=waits)


def bring(
    stock: Stock,
    *payloads: bytes,
    side: Side = "R",
    exhausted: bool = False,
    limited: bool = False,
) -> None:
    stock.takes_begun += 1
    stock.taken(
        side,
        leases(*payloads),
        take=stock.takes_begun,
        is_exhausted=exhausted,
        is_limited=limited,
    )


def test_who_does_not_wait_is_told_that_there_is_nothing_though_somebody_waits_before_him() -> None:
    """He was not, and for his sake the node asked Redis again and again, thousands of times a
    second, for as long as the queue was empty."""
    stock = Stock()
    patient, other = Buyer(stock), Buyer(stock)
    patient.asks()
    other.asks(waits=False)
    bring(stock, exhausted=True)
    assert other.got == [[]]
    assert patient.got == []
    assert not stock.has_impatient


def test_items_are_handed_out_in_the_order_in_which_they_came() -> None:
    stock = Stock()
    bring(stock, b"a", b"b", b"c")
    buyer = Buyer(stock)
    buyer.asks()
    buyer.asks(2)
    assert buyer.got == [[b"a"], [b"b", b"c"]]
    assert stock.size == 0


def test_who_asks_first_is_served_first() -> None:
    stock = Stock()
    first, second = Buyer(stock), Buyer(stock)
    first.asks()
    second.asks()
    bring(stock, b"a")
    assert (first.got, second.got) == ([[b"a"]], [])
    bring(stock, b"b")
    assert second.got == [[b"b"]]


def test_a_pipeline_of_pops_does_not_push_in() -> None:
    stock = Stock()
    greedy, patient = Buyer(stock), Buyer(stock)
    for _ in range(3):
        greedy.asks_again_as_soon_as_served()
    greedy.asks()
    patient.asks()
    bring(stock, b"a", b"b", b"c")
    assert patient.got == [[b"b"]]
    assert greedy.got == [[b"a"], [b"c"]]


def test_who_comes_later_does_not_overtake_who_waits_for_many() -> None:
    stock = Stock()
    many, one = Buyer(stock), Buyer(stock)
    many.asks(3)
    bring(stock, b"a", b"b")
    one.asks()
    assert (many.got, one.got) == ([], [])
    bring(stock, b"c", b"d")
    assert (many.got, one.got) == ([[b"a", b"b", b"c"]], [[b"d"]])


def test_when_there_are_no_more_who_waits_for_many_gets_what_there_is() -> None:
    stock = Stock()
    buyer = Buyer(stock)
    buyer.asks(3)
    bring(stock, b"a", exhausted=True)
    assert buyer.got == [[b"a"]]


def test_who_does_not_wait_is_told_that_there_is_nothing_by_a_look_that_began_later() -> None:
    stock = Stock()
    stock.takes_begun = 1
    buyer, other = Buyer(stock), Buyer(stock)
    buyer.asks(waits=False)
    other.asks()
    assert stock.has_impatient
    stock.taken("R", [], take=1, is_exhausted=True)
    assert buyer.got == [], "that look had begun before it asked"
    bring(stock, exhausted=True)
    assert (buyer.got, other.got) == ([[]], [])
    assert not stock.has_impatient


def test_both_ends_of_the_queue_are_kept_apart() -> None:
    stock = Stock()
    left, right = Buyer(stock), Buyer(stock)
    left.asks(side="L")
    right.asks(side="R")
    assert stock.waiting_sides() == {"L": 1, "R": 1}
    bring(stock, b"r", side="R")
    assert (left.got, right.got) == ([], [[b"r"]])
    bring(stock, b"l", side="L")
    assert left.got == [[b"l"]]


def test_the_other_end_comes_last_though_a_call_brings_no_more_than_fits() -> None:
    stock = Stock()
    bring(stock, b"last", side="R")
    buyer = Buyer(stock)
    buyer.asks(10, side="L")
    bring(stock, b"a", b"b", side="L", limited=True)
    buyer.asks(10, side="L")
    bring(stock, b"c", side="L", exhausted=True)
    assert buyer.got == [[b"a", b"b"], [b"c", b"last"]]


def test_when_redis_has_no_more_who_waits_at_one_end_gets_what_is_left_of_the_other() -> None:
    stock = Stock()
    bring(stock, b"a", b"b", side="R")
    left = Buyer(stock)
    left.asks(side="L")
    assert left.got == [], "there may be others between the two ends"
    stock.make_do()
    assert left.got == [[b"b"]]


def test_an_item_that_has_failed_goes_first_and_alone() -> None:
    stock = Stock()
    stock.taken("R", [*leases(b"a"), *leases(b"bad", attempts=1), *leases(b"b")], take=1,
                is_exhausted=False)  # fmt: skip
    buyer = Buyer(stock)
    for _ in range(3):
        buyer.asks(3 - len(buyer.got))
    assert buyer.got == [[b"bad"], [b"a", b"b"]]


def test_where_failed_items_need_not_be_alone_they_are_like_others() -> None:
    stock = Stock(alone_after_failure=False)
    failed, other = leases(b"bad", attempts=1), leases(b"a")
    stock.taken("R", [*failed, *other], take=1, is_exhausted=False)
    assert not stock.has_suspects
    assert stock.pop("R", 2) == [*failed, *other]
    stock.put_back("R", failed)
    assert stock.pop("R", 1) == failed


def test_what_was_never_delivered_is_the_next_again() -> None:
    stock = Stock()
    bring(stock, b"a", b"b", b"c")
    handed = stock.pop("R", 2)
    assert handed is not None
    stock.put_back("R", handed)
    assert stock.peek("R") == [b"a", b"b", b"c"]


def test_what_is_put_back_serves_who_waits() -> None:
    stock = Stock()
    bring(stock, b"a")
    handed = stock.pop("R", 1)
    assert handed is not None
    buyer = Buyer(stock)
    buyer.asks(5)
    stock.put_back("R", handed)
    assert buyer.got == [[b"a"]]


def test_who_is_gone_gets_nothing() -> None:
    stock = Stock()
    gone, here = Buyer(stock), Buyer(stock)
    pop = gone.asks()
    here.asks()
    assert pop is not None
    stock.call_off(pop)
    assert stock.waiting_sides() == {"R": 1}
    bring(stock, b"a")
    assert (gone.got, here.got) == ([], [[b"a"]])


def test_when_one_who_waits_for_many_is_gone_those_behind_him_are_served() -> None:
    stock = Stock()
    many, one = Buyer(stock), Buyer(stock)
    pop = many.asks(3)
    assert pop is not None
    one.asks()
    bring(stock, b"a", b"b")
    assert one.got == []
    stock.call_off(pop)
    assert one.got == [[b"a"]]


def test_a_closed_stock_hands_out_nothing_until_it_is_opened_again() -> None:
    stock = Stock()
    bring(stock, b"a", b"b")
    stock.is_closed = True
    buyer = Buyer(stock)
    buyer.asks()
    bring(stock, b"c")
    assert buyer.got == []
    stock.reopen()
    assert buyer.got == [[b"a"]]


def test_what_is_too_much_goes_back_from_the_far_end() -> None:
    stock = Stock()
    bring(stock, b"a", b"b", b"c")
    assert [lease.payload for lease in stock.surrender("R", 1)] == [b"c", b"b"]
    assert stock.peek("R") == [b"a"]


def test_leases_that_were_lost_are_forgotten() -> None:
    stock = Stock()
    bring(stock, b"a", b"b", side="L")
    bring(stock, b"c")
    lost = {lease.token for lease in stock._items["L"]}
    assert stock.drop(lost) == 2
    assert stock.peek("L") == []
    assert stock.peek("R") == [b"c"]
    assert not stock.tokens() & lost


class StockMachine(RuleBasedStateMachine):
    """Nothing is handed out twice, nothing is forgotten, and nobody waits beside a full shelf."""

    def __init__(self) -> None:
        super().__init__()
        self.stock = Stock()
        self.brought: list[bytes] = []
        self.handed: list[bytes] = []
        self.last_handed: dict[Side, list[Lease]] = {"L": [], "R": []}
        self.pops: list[Pop] = []
        self.served: list[Pop] = []
        self.again = 0

    @rule(count=st.integers(0, 6), side=sides, exhausted=st.booleans())
    def bring(self, count: int, side: Side, exhausted: bool) -> None:
        payloads = [b"%d" % (len(self.brought) + n) for n in range(count)]
        self.brought += payloads
        bring(self.stock, *payloads, side=side, exhausted=exhausted)

    @rule(count=st.integers(1, 4), side=sides, waits=st.booleans(), again=st.integers(0, 3))
    def ask(self, count: int, side: Side, waits: bool, again: int) -> None:
        leases = self.stock.pop(side, count)
        if leases is not None:
            assert 1 <= len(leases) <= count
            self._got(leases, side)
            return

        def serve(leases: Sequence[Lease]) -> None:
            self.served.append(pop)
            assert leases or not waits, "who waits is not told that there is nothing"
            assert len(leases) <= count
            self._got(leases, side)
            if again:
                self.ask(count, side, waits, again - 1)

        pop = Pop(side, count, serve, is_blocking=waits)
        self.pops.append(pop)
        self.stock.wait(pop)

    @precondition(lambda self: self.pops)
    @rule(data=st.data())
    def hang_up(self, data: st.DataObject) -> None:
        self.stock.call_off(data.draw(st.sampled_from(self.pops)))

    @rule(side=sides)
    def put_back(self, side: Side) -> None:
        leases, self.last_handed[side] = self.last_handed[side], []
        for lease in leases:
            self.handed.remove(lease.payload)
        self.stock.put_back(side, leases)

    @rule(side=sides, keep=st.integers(0, 3))
    def surrender(self, side: Side, keep: int) -> None:
        keep = min(keep, self.stock.size_of(side))
        for lease in self.stock.surrender(side, keep):
            self.brought.remove(lease.payload)

    @rule()
    def close(self) -> None:
        self.stock.is_closed = True

    @rule()
    def reopen(self) -> None:
        self.stock.reopen()

    def _got(self, leases: Sequence[Lease], side: Side) -> None:
        assert not self.stock.is_closed or not leases
        self.handed += [lease.payload for lease in leases]
        self.last_handed[side] = list(leases)

    @invariant()
    def each_item_is_in_one_place(self) -> None:
        here = self.stock.peek("L") + self.stock.peek("R") + self.handed
        assert sorted(here) == sorted(self.brought)

    @invariant()
    def nobody_is_served_twice(self) -> None:
        assert len({id(pop) for pop in self.served}) == len(self.served)

    @invariant()
    def nobody_waits_for_what_is_there(self) -> None:
        if self.stock.is_closed:
            return
        for side in ("L", "R"):
            waiting = [p for p in self.stock._waiting if p.side == side and not p.is_over]
            if waiting:
                assert self.stock.size_of(side) < waiting[0].count


def test_whoever_asks_brings_and_goes_each_item_is_handed_out_once() -> None:
    run_state_machine_as_test(StockMachine, settings=settings(max_examples=200, deadline=None))
