"""Which call runs where: the scheduler without any process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridcore.sdk.workers.scheduler import (
    AHEAD_S,
    MAX_AHEAD,
    MAX_NESTED,
    MOST_OVERTAKING,
    Call,
    Given,
    Need,
    Scheduler,
    Seat,
)

ONE = Need(1.0, 0, ())
SHORT, LONG = b"short", b"long"


class Office:
    """A scheduler with seats and calls that have numbers."""

    def __init__(self, seats: int = 2, **total: float) -> None:
        self.scheduler = Scheduler(seats, 1000, total.items())
        self._numbers = iter(range(1, 10**9))
        self.seats = [self.new_seat() for _ in range(seats)]

    def new_seat(self) -> Seat:
        seat = Seat(next(self._numbers))
        self.scheduler.seat_came(seat)
        return seat

    def call(self, function: bytes = LONG, need: Need = ONE, priority: int = 0) -> Call:
        call = Call(next(self._numbers), function, need, priority)
        self.scheduler.add(call)
        return call

    def calls(self, count: int, function: bytes = LONG) -> list[Call]:
        return [self.call(function) for _ in range(count)]

    def learn(self, function: bytes, seconds: float) -> None:
        call = self.call(function)
        self.scheduler.give_out()
        self.scheduler.finished(call, seconds)

    def given(self) -> dict[int, list[Call]]:
        out: dict[int, list[Call]] = {}
        for seat, calls, _ in self.scheduler.give_out():
            out.setdefault(seat.number, []).extend(calls)
        return out

    def where(self, call: Call) -> Seat:
        assert call.seat is not None
        return call.seat


def test_each_free_seat_gets_one_call_and_the_others_wait() -> None:
    office = Office(2)
    first, second, third = office.calls(3)
    assert sorted(map(len, office.given().values())) == [1, 1]
    assert third.seat is None
    office.scheduler.finished(first, 1.0)
    office.given()
    assert office.where(third) is not office.where(second)


def test_long_calls_are_never_sent_ahead() -> None:
    office = Office(2)
    office.learn(LONG, 1.0)
    office.calls(10)
    assert sum(map(len, office.given().values())) == 2


def test_short_calls_are_sent_ahead_evenly_and_for_so_long_only() -> None:
    office = Office(2)
    office.learn(SHORT, AHEAD_S / 10)
    office.calls(100, SHORT)
    assert [len(calls) for calls in office.given().values()] == [10, 10]
    office = Office(2)
    office.learn(SHORT, 1e-6)
    office.calls(50, SHORT)
    assert [len(calls) for calls in office.given().values()] == [25, 25], "none left for later"
    office.calls(1000, SHORT)
    office.given()
    assert all(len(seat.sent) <= MAX_AHEAD for seat in office.seats)


def test_nothing_is_sent_ahead_before_a_functions_pace_is_known() -> None:
    office = Office(2)
    office.calls(10, SHORT)
    assert sum(map(len, office.given().values())) == 2


def test_a_seat_is_topped_up_when_half_is_done() -> None:
    office = Office(1)
    office.learn(SHORT, AHEAD_S / 10)
    calls = office.calls(100, SHORT)
    office.given()
    for call in calls[:4]:
        office.scheduler.finished(call, AHEAD_S / 10)
        assert office.given() == {}
    office.scheduler.finished(calls[4], AHEAD_S / 10)
    assert [len(calls) for calls in office.given().values()] == [5]


def test_calls_behind_a_long_one_come_back_and_no_more_follow_it() -> None:
    office = Office(1)
    office.learn(SHORT, 1e-5)
    calls = office.calls(20, SHORT)
    office.given()
    (seat,) = office.scheduler.overloaded()
    seat.is_stalled = True
    for call in reversed(calls[1:]):
        office.scheduler.left(call)
        office.scheduler.add(call, first=True)
    assert office.given() == {}
    other = office.new_seat()
    office.scheduler.total = Need(2, 0, ())
    assert office.given() == {}, "the core is taken"
    office.scheduler.finished(calls[0], 10.0)
    assert list(office.given()) == [seat.number]
    assert other.is_free


def test_a_higher_priority_goes_first_and_equal_ones_in_order() -> None:
    office = Office(1)
    low, first, second = office.call(), office.call(priority=5), office.call(priority=5)
    order = []
    for _ in range(3):
        (calls,) = office.given().values()
        order += calls
        office.scheduler.finished(calls[0], 1.0)
    assert order == [first, second, low]


def test_a_call_waits_until_what_it_needs_is_free() -> None:
    office = Office(2, gpu=1)
    gpu = Need(0.5, 0, (("gpu", 1.0),))
    first, second, third = office.call(need=gpu), office.call(need=gpu), office.call()
    assert list(office.given().values()) == [[first], [third]]
    assert office.scheduler.wanted_seats() == 0
    office.scheduler.finished(first, 1.0)
    assert list(office.given().values()) == [[second]]


def test_more_seats_are_wanted_for_calls_that_fit_and_no_more() -> None:
    office = Office(2)
    office.calls(2)
    office.given()
    half = Need(0.0, 0, ())
    office.call(need=half)
    office.calls(5)
    assert office.scheduler.wanted_seats() == 1
    office.scheduler.coming += 1
    assert office.scheduler.wanted_seats() == 1 or office.scheduler.wanted_seats() == 0


def test_what_there_will_never_be_enough_of_is_named() -> None:
    scheduler = Office(2, gpu=1).scheduler
    assert scheduler.can_ever_run(Need(2.0, 1000, (("gpu", 1.0),))) is None
    assert "num_cpus=3" in (scheduler.can_ever_run(Need(3.0, 0, ())) or "")
    assert "memory=1,001" in (scheduler.can_ever_run(Need(1.0, 1001, ())) or "")
    assert "tpu=1" in (scheduler.can_ever_run(Need(1.0, 0, (("tpu", 1.0),))) or "")


def test_a_call_that_waits_gives_its_core_to_others() -> None:
    office = Office(1)
    parent = office.call()
    office.given()
    child = office.call()
    assert office.given() == {}
    office.scheduler.waits(office.where(parent), 1, [])
    assert office.given() == {}, "it does not wait for this one: not on top of it"
    assert office.scheduler.wanted_seats() == 1
    seat = office.new_seat()
    office.given()
    assert child.seat is seat


def test_what_it_waits_for_runs_on_top_of_it() -> None:
    office = Office(1)
    parent = office.call()
    office.given()
    child = office.call()
    seat = office.where(parent)
    office.scheduler.waits(seat, 7, [child])
    assert office.scheduler.give_out() == [Given(seat, [child], 7)]
    assert office.scheduler.wanted_seats() == 0
    office.call()
    assert office.given() == {}, "the core is busy with the child"
    office.scheduler.finished(child, 1.0)
    office.scheduler.goes_on(seat, 7)
    assert office.given() == {}, "the parent has its core back"
    office.scheduler.finished(parent, 1.0)
    assert len(office.given()[seat.number]) == 1


def test_what_its_threads_wait_for_gets_the_next_seat() -> None:
    office = Office(1)
    first, second = office.calls(2)
    office.given()
    seat = office.where(first)
    child = office.call()
    office.scheduler.waits(seat, 7, [child], in_thread=True)
    assert office.given() == {}, "nothing runs on top of it"
    assert office.scheduler.wanted_seats() == 1
    other = office.new_seat()
    assert office.given() == {other.number: [child]}, "before what came earlier"
    office.scheduler.finished(child, 1.0)
    office.scheduler.goes_on(seat, 7)
    assert office.given() == {}, "the core is in use again"
    office.scheduler.finished(first, 1.0)
    assert [call for calls in office.given().values() for call in calls] == [second]


def test_a_call_lends_its_core_once_however_many_of_its_threads_wait() -> None:
    office = Office(1)
    call = office.call()
    office.given()
    seat = office.where(call)
    for token in (1, 2):
        office.scheduler.waits(seat, token, [], in_thread=True)
    office.scheduler.waits(seat, 3, [])
    assert office.scheduler.available().cpus == 1
    office.scheduler.goes_on(seat, 3)
    office.scheduler.goes_on(seat, 1)
    assert office.scheduler.available().cpus == 1
    office.scheduler.goes_on(seat, 2)
    assert office.scheduler.available().cpus == 0


def stacked(office: Office) -> tuple[Seat, Call]:
    """A seat with a call on top of another, which waits for it as number 1."""
    bottom = office.call()
    office.given()
    seat = office.where(bottom)
    top = office.call()
    office.scheduler.waits(seat, 1, [top])
    office.given()
    return seat, top


def test_a_thread_may_be_of_any_call_of_the_stack() -> None:
    """It began to wait while another call ran on top of its own."""
    office = Office(1)
    seat, top = stacked(office)
    office.scheduler.waits(seat, 2, [], in_thread=True)
    office.scheduler.finished(top, 1.0)
    office.scheduler.goes_on(seat, 1)
    assert office.scheduler.available().cpus == 1
    office.scheduler.goes_on(seat, 2)
    assert office.scheduler.available().cpus == 0


def test_what_comes_for_a_seat_that_is_gone_changes_nothing() -> None:
    office = Office(1)
    seat, _ = stacked(office)
    office.scheduler.waits(seat, 2, [])
    office.scheduler.seat_went(seat)
    office.scheduler.goes_on(seat, 2)
    office.scheduler.goes_on(seat, 1)
    assert office.scheduler.available() == office.scheduler.total


def test_a_thread_that_outlives_its_call_lends_nothing_of_the_next() -> None:
    office = Office(1)
    left_behind = office.call()
    office.given()
    seat = office.where(left_behind)
    office.scheduler.waits(seat, 1, [], in_thread=True)
    office.scheduler.finished(left_behind, 1.0)
    office.call()
    office.given()
    assert office.scheduler.available().cpus == 0


def test_a_call_whose_arguments_come_later_runs_on_top_as_well() -> None:
    office = Office(1)
    parent = office.call()
    office.given()
    child = Call(1000, LONG, ONE)
    seat = office.where(parent)
    office.scheduler.waits(seat, 7, [child])
    assert office.given() == {}
    office.scheduler.add(child)
    assert office.scheduler.give_out() == [Given(seat, [child], 7)]


def test_calls_are_stacked_only_so_high() -> None:
    office = Office(1)
    call = office.call()
    office.given()
    for depth in range(MAX_NESTED):
        child = office.call()
        office.scheduler.waits(office.where(call), depth, [child])
        assert len(office.given()) == 1
        call = child
    last = office.call()
    office.scheduler.waits(office.where(call), MAX_NESTED, [last])
    assert office.given() == {}
    assert office.scheduler.wanted_seats() == 1


def test_a_seat_that_goes_gives_back_what_it_held_and_names_its_calls() -> None:
    office = Office(1)
    parent = office.call()
    office.given()
    child = office.call()
    seat = office.where(parent)
    office.scheduler.waits(seat, 1, [child])
    office.given()
    assert office.scheduler.seat_went(seat) == [parent, child]
    assert office.scheduler.available() == office.scheduler.total
    assert office.scheduler.seats == {}


def test_a_call_that_was_dropped_is_never_given() -> None:
    office = Office(1)
    dropped, other = office.calls(2)
    office.scheduler.drop(dropped)
    assert list(office.given().values()) == [[other]]
    assert office.scheduler.ready_count == 0


BOTH = Need(2.0, 0, ())


def serve(office: Office, most: int, *, until: Call, new: Callable[[], object]) -> int:
    """One running call ends and a new one comes, again and again; how many started before
    `until`."""
    started = 0
    for _ in range(most):
        given = office.given()
        if any(until in calls for calls in given.values()):
            return started
        started += sum(map(len, given.values()))
        running = [call for seat in office.seats for call in list(seat.sent.values())[:1]]
        office.scheduler.finished(running[0], 1.0)
        new()
    raise AssertionError(f"it has not begun after {started} others")


def test_a_call_that_needs_much_is_overtaken_only_so_often() -> None:
    office = Office(2)
    office.calls(3)
    office.given()
    large = office.call(need=BOTH)
    assert serve(office, 1000, until=large, new=office.call) <= MOST_OVERTAKING + 2
    office.scheduler.finished(large, 1.0)
    assert sum(map(len, office.given().values())) == 2, "then the others go on"


def test_nor_by_short_ones_that_are_sent_ahead() -> None:
    office = Office(2)
    office.learn(SHORT, AHEAD_S / 10)
    office.calls(50, SHORT)
    office.given()
    large = office.call(need=BOTH)
    assert serve(office, 1000, until=large, new=lambda: office.call(SHORT)) < 100


def test_a_higher_priority_overtakes_as_often_as_it_likes() -> None:
    office = Office(2)
    office.calls(2)
    office.given()
    large = office.call(need=BOTH)
    with pytest.raises(AssertionError, match="it has not begun"):
        serve(office, 300, until=large, new=lambda: office.call(priority=1))
    assert serve(office, 1000, until=large, new=office.call) <= MOST_OVERTAKING + 2


def starve(office: Office, need: Need) -> Call:
    """A call for which the others wait."""
    large = office.call(need=need)
    while office.scheduler._starving is None:
        office.call()
        office.given()
        office.scheduler.finished(next(call for call in running(office) if not call.is_inner), 1.0)
    return large


def running(office: Office) -> Iterator[Call]:
    for seat in office.seats:
        if not seat.is_waiting:
            yield from list(seat.sent.values())[:1]


def test_what_a_call_has_made_is_not_held_back() -> None:
    """Threads of a call may wait for it, of which nobody hears."""
    office = Office(2)
    office.call()
    parent = Call(10**6, LONG, ONE, is_inner=True)
    office.scheduler.add(parent)
    office.given()
    large = starve(office, BOTH)
    office.call()
    child = Call(10**6 + 1, LONG, ONE, is_inner=True)
    office.scheduler.add(child)
    while child.seat is None:
        office.given()
        for call in [call for call in running(office) if not call.is_inner]:
            office.scheduler.finished(call, 1.0)
    assert large.seat is None
    office.scheduler.finished(child, 1.0)
    office.scheduler.finished(parent, 1.0)
    office.given()
    assert large.seat is not None


def test_nobody_waits_for_one_that_may_never_fit() -> None:
    """Who holds what it needs may wait for one of the others."""
    office = Office(2)
    holds = office.call(need=Need(1.0, 600, ()))
    office.call()
    office.given()
    large = starve(office, Need(1.0, 800, ()))
    office.scheduler.waits(office.where(holds), 1, [])
    for call in list(running(office)):
        office.scheduler.finished(call, 1.0)
    office.call()
    assert office.given(), "they go on"
    assert large.seat is None


def test_when_it_is_cancelled_the_others_go_on() -> None:
    office = Office(2)
    office.calls(2)
    office.given()
    large = starve(office, BOTH)
    office.calls(2)
    office.scheduler.drop(large)
    office.given()
    assert office.scheduler._starving is None
    assert len(list(running(office))) == 2


class Life:
    """A made-up history: calls that run, wait for others, finish, and seats that die."""

    def __init__(self, data: st.DataObject, seats: int) -> None:
        self.office = Office(seats)
        self.data = data
        self.tokens = iter(range(1, 10**9))
        self.over: set[int] = set()
        self.calls: dict[int, Call] = {}
        self.waiting: dict[int, tuple[Call, int, set[int]]] = {}
        """The seat's token -> who waits, and for what."""
        for _ in range(data.draw(st.integers(1, 6))):
            self.submit()

    def submit(self, *, is_inner: bool = False) -> Call:
        office = self.office
        function = self.data.draw(st.sampled_from([SHORT, LONG]))
        need = self.data.draw(st.sampled_from([ONE, ONE, ONE, Need(len(office.seats), 0, ())]))
        call = Call(next(office._numbers), function, need, is_inner=is_inner)
        office.scheduler.add(call)
        self.calls[call.number] = call
        return call

    def running(self) -> Iterator[tuple[Seat, Call]]:
        """What each seat is at."""
        for seat in self.office.scheduler.seats.values():
            if seat.is_waiting or not seat.sent:
                continue
            yield seat, seat.nested[-1] if seat.nested else next(iter(seat.sent.values()))

    def step(self) -> bool:
        scheduler = self.office.scheduler
        scheduler.give_out()
        for _ in range(scheduler.wanted_seats()):
            self.office.new_seat()
        scheduler.give_out()
        self.check()
        choices = list(self.running())
        if not choices:
            return False
        seat, call = self.data.draw(st.sampled_from(choices))
        action = self.data.draw(st.sampled_from(["finish", "finish", "wait", "die"]))
        if action == "wait" and len(self.calls) < 60:
            self.wait(seat, call, in_thread=self.data.draw(st.booleans()))
        elif action == "die" and self.data.draw(st.integers(0, 9)) == 0:
            self.die(seat)
        else:
            self.finish(call)
        return True

    def wait(self, seat: Seat, call: Call, *, in_thread: bool) -> None:
        for behind in [c for c in seat.sent.values() if c is not call and c not in seat.nested]:
            if not seat.waits:
                self.office.scheduler.left(behind)
                self.office.scheduler.add(behind, first=True)
        children = [self.submit(is_inner=True) for _ in range(self.data.draw(st.integers(1, 3)))]
        token = next(self.tokens)
        self.waiting[token] = (call, seat.number, {child.number for child in children})
        self.office.scheduler.waits(seat, token, children, in_thread=in_thread)

    def finish(self, call: Call) -> None:
        self.office.scheduler.finished(call, 0.0001 if call.function == SHORT else 1.0)
        self.end(call)

    def end(self, call: Call) -> None:
        self.over.add(call.number)
        for token, (_, number, left) in list(self.waiting.items()):
            left.discard(call.number)
            if not left:
                del self.waiting[token]
                seat = self.office.scheduler.seats.get(number)
                if seat is not None:
                    self.office.scheduler.goes_on(seat, token)

    def die(self, seat: Seat) -> None:
        for token, (_, number, _) in list(self.waiting.items()):
            if number == seat.number:
                del self.waiting[token]
        for call in self.office.scheduler.seat_went(seat):
            self.office.scheduler.add(call, first=True)

    def check(self) -> None:
        scheduler = self.office.scheduler
        places = list(scheduler.everything())
        assert {call.number for call in places} == set(self.calls) - self.over
        assert len({call.number for call in places}) == len({id(call) for call in places}), (
            "each in one place"
        )
        assert scheduler.ready_count == sum(call.seat is None for call in places)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 3))
def test_whatever_waits_and_dies_every_call_ends(data: st.DataObject, seats: int) -> None:
    life = Life(data, seats)
    steps = 0
    while life.step():
        steps += 1
        if steps > 300:  # from here on only ends
            for seat, call in list(life.running()):
                if call.seat is seat and not seat.is_waiting:
                    life.finish(call)
    assert life.over == set(life.calls)
    assert life.office.scheduler.available() == life.office.scheduler.total
