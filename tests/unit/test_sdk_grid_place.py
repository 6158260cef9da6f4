"""What the driver makes of a grid: calls are pushed until their results are here, whatever else
comes, comes twice, or does not come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gridcore.sdk.blobs import Blob, seal
from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.inbox import Inbox
from gridcore.sdk.driver.place import Place
from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.errors import (
    ActorDied,
    TaskCancelled,
    TaskTimeout,
    VersionMismatch,
    WorkerDied,
)
from gridcore.sdk.grid import place
from gridcore.sdk.grid.kept import LOSABLE_S
from gridcore.sdk.grid.messages import (
    ACTOR,
    CALL,
    LATE,
    UNNUMBERED,
    Item,
    Part,
    Ticket,
    letter,
    read_order,
)
from gridcore.sdk.grid.place import (
    DROP_WITHIN_S,
    ITEMS_AT_ONCE,
    MOST_PUSHED,
    GridPlace,
)
from gridcore.sdk.grid.runs import RUN_SILENT_S
from gridcore.sdk.grid.values import StoredBlob
from gridcore.sdk.options import ActorOptions, CallOptions, TaskOptions
from gridcore.sdk.outcomes import ANY_ATTEMPT, DONE, FAILED, MAY_REPEAT, STOPPED, packed_error
from gridcore.sdk.packing import Packed, pack, unpack
from gridcore.sdk.workers.frames import Message

FUNCTION = Exported(b"id", b"pickled", "work")
CLASS = Exported(b"class", b"pickled", "Counter")
NOTHING = Arguments(pack((), "nothing"))
HANDLE = pack("handle", "a handle")


class Queue:
    """What the store was asked to do; the test says whether Redis still had an item."""

    def __init__(self) -> None:
        self.pushed: list[Item] = []
        self.jumped: list[Item] = []
        """Those that went to where the next one is taken from, the next one first."""
        self.taken_back: list[tuple[Item, Callable[[], None]]] = []
        self.orders: list[tuple[str, int, list[Part]]] = []
        self.functions: list[bytes] = []
        self.is_slow = False
        self._arriving: list[Callable[[], None]] = []

    def push(self, items: Sequence[bytes], *, first: bool = False) -> None:
        decoded = [Item.decoded(item) for item in items]
        self.pushed += decoded
        if first:
            self.jumped[:0] = decoded

    def take_back(self, item: bytes, then: Callable[[], None]) -> None:
        self.taken_back.append((Item.decoded(item), then))

    def order(self, run: str, data: bytes, then: Callable[[], None]) -> None:
        self.orders.append((run, *read_order(data)))
        if self.is_slow:
            self._arriving.append(then)
        else:
            then()

    def arrive(self) -> None:
        self.is_slow = False
        arrived, self._arriving = self._arriving, []
        for then in arrived:
            then()

    def put_function(self, exported: Exported) -> None:
        self.functions.append(exported.id)

    def close(self) -> None: ...


class Run:
    """A container, which writes letters by hand."""

    def __init__(self, driver: Driver, name: str) -> None:
        self.driver = driver
        self.name = name
        self.letters = 0

    def say(self, *messages: Message, worker: int = 1, tickets: Sequence[Ticket] = ()) -> bytes:
        data = self.write(*messages, worker=worker, tickets=tickets)
        self.driver.hear(data)
        return data

    def write(self, *messages: Message, worker: int = 1, tickets: Sequence[Ticket] = ()) -> bytes:
        """A letter, which may be lost on its way."""
        self.letters += 1
        part = Part(worker, list(messages), list(tickets)).encoded()
        return letter(self.name, self.letters, [part])

    def ends(self, item: Item, value: object = None, status: int = DONE) -> bytes:
        packed = value if isinstance(value, Packed) else pack(value, "a result")
        return self.say(("over", item.number, item.attempt, status, [packed.data], None))

    def fails(self, item: Item, status: int = FAILED) -> bytes:
        return self.ends(item, packed_error(WorkerDied("It", cause="no", next_step="")), status)

    def dies_of(self, item: Item) -> bytes:
        return self.say(("died", item.number, item.attempt, 99, "is gone", False))

    def begins(self, item: Item, worker: int = 1) -> None:
        """An actor: its worker is there."""
        self.say(("hello", item.number, 99, "node"), worker=worker)

    def told(self) -> list[tuple[int, Message]]:
        """All orders, by worker; their numbers must go on one by one."""
        place = self.driver.place
        place.give_out()
        mine = [
            order
            for order in self.driver.queue.orders
            if order[0] == self.name and order[1] != UNNUMBERED
        ]
        assert [number for _, number, _ in mine] == list(range(1, len(mine) + 1))
        return [(part.worker, message) for _, _, got in mine for part in got
                for message in part.messages]  # fmt: skip

    def told_at_once(self) -> list[Message]:
        """Whatever order it waits for."""
        return [
            message
            for name, number, parts in self.driver.queue.orders
            if (name, number) == (self.name, UNNUMBERED)
            for part in parts
            for message in part.messages
        ]


class Driver:
    """A real core on a grid that is not there."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.now = 1000.0
        self.freed: list[Ticket] = []
        self.said: list[tuple[int, Message]] = []
        self.core = Core("job", self._make_place, lambda _: None)
        self.inbox = Inbox(self.core)

    def _make_place(self, core: Core) -> Place:
        self.place = GridPlace(
            core,
            self.queue,
            "job",
            now=lambda: self.now,
            stored=self.stored,
            on_message=lambda *what: self.inbox.on_message(*what),
        )
        return self.place

    def stored(self, ticket: Ticket) -> StoredBlob:
        return StoredBlob(ticket, fetch=_fetch, drop=self.freed.append)

    def hear(self, data: bytes) -> None:
        self.place.on_letter(data)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.core.on_time(self.now)
        self.place.on_time(self.now)
        self.place.look_for_lost_runs(self.now, 0.0)

    def call(self, arguments: Arguments = NOTHING, *, caller: int = 0, **options: Any) -> int:
        results = self.core.new_numbers(1)
        self.core.submit(FUNCTION, arguments, TaskOptions(**options), results, caller)
        return results[0]

    def pushed_call(self, **options: Any) -> tuple[int, Item]:
        number = self.call(**options)
        (item,) = self.newly_pushed()
        return number, item

    def newly_pushed(self) -> list[Item]:
        self.place.give_out()
        items, self.queue.pushed = self.queue.pushed, []
        return items

    def actor(self, **options: Any) -> tuple[int, Item]:
        number = self.core.actors.submit(
            -self.core.new_numbers(1)[0], CLASS, NOTHING, ActorOptions(**options), HANDLE
        )
        (item,) = self.newly_pushed()
        return number, item

    def method(self, actor: int) -> int:
        results = self.core.new_numbers(1)
        self.core.actors.call(actor, "add", NOTHING, CallOptions(), results)
        return results[0]

    def is_over(self, number: int) -> bool:
        return self.core.is_over(number)

    def result(self, number: int) -> Any:
        assert self.is_over(number)
        packed, is_error = self.core.outcome(number)
        value = unpack(packed)
        assert is_error == isinstance(value, Exception)
        return value


def _fetch(ticket: Ticket) -> Blob:
    return seal([], ticket[1])


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def run(driver: Driver) -> Run:
    return Run(driver, "run-1")


# Calls


def test_a_call_is_pushed_once_with_its_function_and_ends_with_its_result(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call(name="mine", timeout=3.0)
    assert (item.job, item.kind, item.number, item.attempt) == ("job", CALL, number, 0)
    assert (item.name, item.timeout, item.function) == ("mine", 3.0, FUNCTION.id)
    assert driver.queue.functions == [FUNCTION.id]
    assert not driver.is_over(number)
    run.ends(item, 42)
    assert driver.result(number) == 42
    assert driver.newly_pushed() == []
    assert not driver.place.is_waiting
    assert driver.core.open_calls == 0


def test_a_letter_that_is_sent_again_is_not_read_again(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    sent = run.ends(item, 1)
    other, item = driver.pushed_call()
    driver.hear(sent)
    assert driver.result(number) == 1
    assert not driver.is_over(other)
    run.ends(item, 2)
    assert driver.result(other) == 2


def test_of_a_call_that_ran_twice_the_first_result_counts(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    run.ends(item, "first")
    Run(driver, "run-2").ends(item, "second")
    Run(driver, "run-3").fails(item)
    Run(driver, "run-4").dies_of(item)
    assert driver.result(number) == "first"
    assert driver.newly_pushed() == []
    assert driver.core.open_calls == 0


def test_how_an_older_attempt_failed_is_of_no_interest(driver: Driver, run: Run) -> None:
    number, first = driver.pushed_call(max_retries=1)
    run.dies_of(first)
    (second,) = driver.newly_pushed()
    assert second.attempt == first.attempt + 1
    late = Run(driver, "run-2")
    late.fails(first)
    late.dies_of(first)
    late.ends(first, None, STOPPED)
    assert not driver.is_over(number)
    assert driver.newly_pushed() == []
    late.ends(first, "but a result is one")
    assert driver.result(number) == "but a result is one"


def test_a_call_is_repeated_as_often_as_it_may_and_then_ends_with_the_reason(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call(max_retries=2)
    for _ in range(2):
        run.dies_of(item)
        (item,) = driver.newly_pushed()
    run.dies_of(item)
    assert isinstance(driver.result(number), WorkerDied)
    assert driver.newly_pushed() == []


def test_an_exception_that_is_a_reason_to_repeat_pushes_the_next_attempt(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call(retry_exceptions=True)
    run.fails(item, MAY_REPEAT)
    (item,) = driver.newly_pushed()
    run.ends(item, "now")
    assert driver.result(number) == "now"


def test_a_call_that_was_out_of_time_says_so(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call(timeout=2.5)
    run.say(("over", item.number, item.attempt, LATE, [], None))
    error = driver.result(number)
    assert isinstance(error, TaskTimeout)
    assert "2.5 s" in str(error)


def test_a_container_that_cannot_run_it_is_an_error_that_says_what_to_do(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call()
    run.say(("refused", item.number, "there is no numpy", "Add it to the image"), worker=0)
    error = driver.result(number)
    assert isinstance(error, VersionMismatch)
    assert "there is no numpy" in str(error)
    assert "Add it to the image" in str(error)
    run.say(("refused", item.number, "again", ""), worker=0)
    assert driver.core.open_calls == 0


def test_a_call_that_the_fleet_has_given_up_is_lost(driver: Driver) -> None:
    number, item = driver.pushed_call(max_retries=0)
    driver.place.on_dead_letter(item, "it failed five times", is_out_of_memory=False)
    assert "it failed five times" in str(driver.result(number))
    driver.place.on_dead_letter(item, "again", is_out_of_memory=False)
    assert driver.core.open_calls == 0


def test_a_large_result_lives_in_the_store_as_long_as_somebody_refers_to_it(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call()
    run.say(("over", number, item.attempt, DONE, [(0, 500)], None), tickets=[("big", 500)])
    packed, _ = driver.core.outcome(number)
    assert isinstance(packed.blob, StoredBlob)
    assert packed.blob.ticket == ("big", 500)
    del packed
    assert driver.freed == []
    driver.core.objects.release((number,))
    assert driver.freed == [("big", 500)]


def test_a_large_result_that_nobody_wants_any_more_leaves_the_store(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call()
    run.ends(item, 1)
    late = Run(driver, "run-2")
    late.say(("over", number, item.attempt, DONE, [(0, 500)], None), tickets=[("big", 500)])
    assert driver.freed == [("big", 500)]


# Which goes first, and how many


def test_calls_go_in_their_order_except_those_that_others_wait_for(driver: Driver) -> None:
    first, second = driver.call(), driver.call()
    nested = driver.call(caller=77)
    urgent = driver.call(priority=1)
    very_urgent = driver.call(priority=9)
    pushed = [item.number for item in driver.newly_pushed()]
    assert pushed[-2:] == [first, second]
    assert pushed[:2] == [very_urgent, urgent]
    assert [item.number for item in driver.queue.jumped] == [very_urgent, urgent, nested]


def test_the_newest_nested_call_goes_first_so_recursion_stays_narrow(driver: Driver) -> None:
    outer, inner = driver.call(caller=77), driver.call(caller=78)
    assert [item.number for item in driver.newly_pushed()] == [inner, outer]


def test_a_call_that_is_repeated_goes_before_those_that_wait(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    waiting = driver.call()
    run.dies_of(item)
    assert [item.number for item in driver.newly_pushed()] == [number, waiting]


def test_so_many_calls_are_pushed_and_more_when_results_come(driver: Driver, run: Run) -> None:
    numbers = [driver.call() for _ in range(MOST_PUSHED + 2 * ITEMS_AT_ONCE)]
    items = driver.newly_pushed()
    assert [item.number for item in items] == numbers[:MOST_PUSHED]
    assert driver.newly_pushed() == []
    run.ends(items[0])
    more = [item.number for item in driver.newly_pushed()]
    assert more == numbers[MOST_PUSHED:][:ITEMS_AT_ONCE], "many at once, or each would cost a word"


def test_so_many_bytes_are_pushed_and_no_more(
    driver: Driver, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MOST_PUSHED_BYTES", 10_000)
    numbers = [driver.call(Arguments(pack(bytes(3000), "it"))) for _ in range(9)]
    items = driver.newly_pushed()
    assert [item.number for item in items] == numbers[:4]
    run.ends(items[0])
    assert [item.number for item in driver.newly_pushed()] == numbers[4:5]


def test_what_a_call_waits_for_is_pushed_however_many_others_are(
    driver: Driver, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of calls had begun, each waited for one that it had made, and none of those was
    pushed before one of the others was over."""
    monkeypatch.setattr(place, "MOST_PUSHED", 4)
    monkeypatch.setattr(place, "ITEMS_AT_ONCE", 4)
    numbers = [driver.call() for _ in range(200)]
    caller = driver.newly_pushed()[0].number
    for _ in range(50):
        nested = driver.call(caller=caller)
        assert nested in [item.number for item in driver.newly_pushed()]
        run.say(("started", [caller]))
        caller = nested
    assert not any(driver.is_over(number) for number in numbers)


def test_calls_of_a_lost_run_count_as_waiting_again(
    driver: Driver, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "MOST_PUSHED", 4)
    monkeypatch.setattr(place, "ITEMS_AT_ONCE", 4)
    numbers = [driver.call() for _ in range(12)]
    begun = driver.newly_pushed()
    run.say(("started", [item.number for item in begun]))
    driver.wait(RUN_SILENT_S + 1)
    assert driver.newly_pushed() == []
    other = Run(driver, "run-2")
    for item in begun:
        other.ends(item)
    assert [item.number for item in driver.newly_pushed()] == numbers[4:8]


# Calls that are cancelled


def test_a_call_that_was_not_pushed_is_cancelled_at_once(driver: Driver) -> None:
    number = driver.call()
    driver.core.cancel(number, force=False)
    assert isinstance(driver.result(number), TaskCancelled)
    assert driver.newly_pushed() == []
    assert driver.queue.taken_back == []


def test_a_call_that_is_still_in_the_queue_is_taken_back(driver: Driver) -> None:
    number, item = driver.pushed_call()
    driver.core.cancel(number, force=False)
    ((asked_for, is_there),) = driver.queue.taken_back
    assert asked_for == item
    assert not driver.is_over(number), "a container may have it"
    is_there()
    assert isinstance(driver.result(number), TaskCancelled)
    assert not driver.place.is_waiting
    assert driver.place.next_time() is None


def test_a_call_that_some_run_may_have_is_to_be_forgotten_by_all_of_them(
    driver: Driver, run: Run
) -> None:
    other = Run(driver, "run-2")
    for each in (run, other):
        each.say(("alive",), worker=0)
    number, item = driver.pushed_call()
    driver.core.cancel(number, force=False)
    assert run.told() == other.told() == [(0, ("forget", number))]
    assert not driver.is_over(number)
    run.ends(item, None, STOPPED)
    assert isinstance(driver.result(number), TaskCancelled)
    driver.wait(DROP_WITHIN_S)
    assert driver.core.open_calls == 0


def test_a_cancelled_call_of_which_nobody_speaks_is_not_waited_for(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call()
    driver.core.cancel(number, force=False)
    assert driver.place.next_time() == driver.now + DROP_WITHIN_S
    driver.wait(DROP_WITHIN_S / 2)
    assert not driver.is_over(number)
    driver.wait(DROP_WITHIN_S / 2)
    assert isinstance(driver.result(number), TaskCancelled)
    run.ends(item, "too late")
    assert isinstance(driver.result(number), TaskCancelled)
    assert driver.place.next_time() is None


def test_a_cancelled_call_that_begins_all_the_same_is_stopped_there(
    driver: Driver, run: Run
) -> None:
    number, _ = driver.pushed_call()
    driver.core.cancel(number, force=False)
    run.say(("started", [number]), worker=5)
    driver.wait(DROP_WITHIN_S)
    run.say(("started", [number]), worker=6)
    assert run.told() == [
        (0, ("forget", number)),  # as it was not known when the call was cancelled
        (5, ("tell", ("x", number, ANY_ATTEMPT))),
        (6, ("tell", ("x", number, ANY_ATTEMPT))),
    ]


def test_a_call_that_is_known_to_run_is_stopped_where_it_is(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    run.say(("started", [number]), worker=5)
    driver.core.cancel(number, force=False)
    assert run.told() == [(5, ("tell", ("x", number, 0)))]
    assert driver.queue.taken_back == []
    run.ends(item, None, STOPPED)
    assert isinstance(driver.result(number), TaskCancelled)


def test_by_force_its_worker_ends(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    run.say(("started", [number]), worker=5)
    driver.core.cancel(number, force=True)
    assert run.told() == [(5, ("end",))]
    run.dies_of(item)
    assert isinstance(driver.result(number), TaskCancelled)
    assert driver.newly_pushed() == []


# Runs


def test_of_a_lost_run_the_references_are_let_go_and_the_calls_are_waited_for(
    driver: Driver, run: Run
) -> None:
    number, item = driver.pushed_call()
    run.say(("started", [number]), worker=5)
    run.say(("p", 1000, pack("a value", "it").data, ()), worker=5)
    assert driver.core.objects.find(1000) is not None
    driver.wait(RUN_SILENT_S)
    assert "run-1" in driver.place.runs
    driver.wait(1)
    assert not driver.place.runs
    assert driver.core.objects.find(1000) is None
    assert not driver.is_over(number)
    assert driver.newly_pushed() == [], "its item comes back by itself"
    Run(driver, "run-2").ends(item, "elsewhere")
    assert driver.result(number) == "elsewhere"


def test_a_run_that_is_heard_of_is_not_lost(driver: Driver, run: Run) -> None:
    for _ in range(5):
        run.say(("alive",), worker=0)
        driver.wait(RUN_SILENT_S)
    assert "run-1" in driver.place.runs


def test_while_no_letters_come_at_all_no_run_is_lost(driver: Driver, run: Run) -> None:
    run.say(("alive",), worker=0)
    heard_at = driver.now
    driver.now += 10 * RUN_SILENT_S
    driver.place.look_for_lost_runs(heard_at, 0.0)
    assert "run-1" in driver.place.runs


def test_right_after_redis_was_away_no_run_is_lost(driver: Driver, run: Run) -> None:
    run.say(("alive",), worker=0)
    driver.now += 10 * RUN_SILENT_S
    driver.place.look_for_lost_runs(driver.now, driver.now - 1)
    assert "run-1" in driver.place.runs


def test_a_run_that_was_taken_for_lost_and_is_not_begins_anew(driver: Driver, run: Run) -> None:
    """What it holds is held for nobody: its actors are dead, and nobody answers its questions."""
    _, item = driver.actor()
    run.begins(item, worker=3)
    driver.wait(RUN_SILENT_S + 1)
    assert run.told_at_once() == [("anew",)], "it reads that when it wakes up"
    driver.wait(2)
    run.say(("alive",), worker=0)
    run.say(("hello", item.number, 99, "node"), worker=4)
    assert run.told_at_once() == [("anew",)] * 2, "should Redis have forgotten the first"
    assert (4, "pass") not in [(worker, order[0]) for worker, order in run.told()]


def test_how_its_calls_ended_counts_all_the_same(driver: Driver, run: Run) -> None:
    """Their items are done, so nobody else says it."""
    number, item = driver.pushed_call()
    run.say(("alive",), worker=0)
    driver.wait(RUN_SILENT_S + 1)
    sent = run.ends(item, "late")
    assert driver.result(number) == "late"
    driver.hear(sent)
    assert driver.newly_pushed() == []


def test_one_that_has_much_to_send_is_not_taken_for_lost(driver: Driver, run: Run) -> None:
    run.say(("alive",), worker=0)
    part = Part(0, [("patience", 100)], [])
    driver.hear(letter("run-1", UNNUMBERED, [part.encoded()]))
    driver.wait(RUN_SILENT_S + 50)
    assert "run-1" in driver.place.runs
    driver.wait(51)
    assert "run-1" not in driver.place.runs


def test_a_run_that_cannot_repeat_a_letter_leaves_no_call_open(driver: Driver, run: Run) -> None:
    run.say(("alive",), worker=0)
    number, item = driver.pushed_call()
    run.write(("over", item.number, 0, DONE, [pack(1, "it").data], None))
    part = Part(0, [("lost touch",)], [])
    driver.hear(letter("run-1", UNNUMBERED, [part.encoded()]))
    assert driver.newly_pushed() == [item]
    other, item_2 = driver.pushed_call()
    run.ends(item_2, 2)
    assert driver.result(other) == 2
    Run(driver, "run-2").ends(item, 1)
    assert driver.result(number) == 1


def test_nothing_is_read_before_a_letter_that_is_missing(driver: Driver, run: Run) -> None:
    """Redis has lost its last second."""
    first, item = driver.pushed_call()
    second, other = driver.pushed_call()
    run.say(("alive",), worker=0)
    lost = run.write(("over", item.number, 0, DONE, [pack(1, "it").data], None))
    behind = run.ends(other, 2)
    assert not driver.is_over(second)
    assert run.told_at_once() == [("repeat", 1)]
    run.say(("alive",), worker=0)
    assert len(run.told_at_once()) == 1, "once, for what comes meanwhile"
    driver.hear(lost)
    driver.hear(behind)
    assert driver.result(first) == 1
    assert driver.result(second) == 2


def test_so_are_the_first_ones_of_a_run(driver: Driver, run: Run) -> None:
    _, item = driver.actor()
    hello = run.write(("hello", item.number, 99, "node"), worker=3)
    run.say(("alive",), worker=0)
    assert run.told_at_once() == [("repeat", 0)]
    driver.hear(hello)
    assert [(worker, order[0]) for worker, order in run.told()] == [(3, "pass")] * 2


# What Redis has forgotten


def test_what_nobody_is_known_to_run_is_pushed_again(driver: Driver, run: Run) -> None:
    _, waits = driver.pushed_call()
    number, runs = driver.pushed_call()
    run.say(("started", [number]), worker=5)
    done, over = driver.pushed_call()
    run.ends(over)
    driver.queue.functions.clear()
    driver.place.push_again()
    assert driver.newly_pushed() == [waits]
    assert set(driver.queue.functions) == {FUNCTION.id}
    run.ends(waits)
    run.ends(runs)
    driver.place.push_again()
    assert driver.newly_pushed() == []
    assert driver.is_over(done)


def test_orders_are_sent_again_and_once_more_if_asked_for(driver: Driver, run: Run) -> None:
    _, item = driver.actor()
    run.begins(item, worker=3)
    run.told()
    sent = list(driver.queue.orders)
    assert sent
    driver.queue.orders.clear()
    driver.place.push_again()
    assert run.told_at_once() == [("repeat", None)], "what it has put there may be gone, too"
    assert [order for order in driver.queue.orders if order[1] != UNNUMBERED] == sent
    driver.queue.orders.clear()
    run.say(("missed", 0), worker=0)
    assert driver.queue.orders == sent


def test_an_order_that_is_on_its_way_is_repeated_when_it_is_there(driver: Driver, run: Run) -> None:
    """The run did not read it, as one before was missing."""
    _, item = driver.actor()
    driver.queue.is_slow = True
    run.begins(item, worker=3)
    driver.place.give_out()
    run.say(("missed", 0), worker=0)
    assert [number for _, number, _ in driver.queue.orders] == [1]
    driver.queue.arrive()
    assert [number for _, number, _ in driver.queue.orders] == [1, 1]


def test_a_run_that_misses_what_is_not_kept_any_more_begins_anew(driver: Driver, run: Run) -> None:
    actor, item = driver.actor()
    run.begins(item, worker=3)
    method = driver.method(actor)
    run.told()
    for _ in range(5):
        driver.wait(LOSABLE_S)
        run.say(("alive",), worker=0)
    run.say(("missed", 0), worker=0)
    assert run.told_at_once() == [("anew",)]
    assert isinstance(driver.result(method), ActorDied)


def test_what_a_lost_run_had_is_pushed_again_as_well(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    run.say(("started", [number]), worker=5)
    driver.wait(RUN_SILENT_S + 1)
    driver.place.push_again()
    assert driver.newly_pushed() == [item]


def test_an_actor_that_was_pushed_twice_lives_once(driver: Driver, run: Run) -> None:
    """The first one to begin was taken for lost as soon as the second one did."""
    actor, item = driver.actor()
    driver.place.push_again()
    (again,) = driver.newly_pushed()
    other = Run(driver, "run-2")
    other.begins(item, worker=2)
    constructed(driver, run, again)
    other.begins(item, worker=3)
    result = driver.method(actor)
    assert not driver.is_over(result), "it is not dead"
    assert (1, ("end",)) not in run.told()
    assert other.told() == [(2, ("end",)), (3, ("end",))]


def test_an_actor_that_is_there_is_not_pushed_again(driver: Driver, run: Run) -> None:
    _, item = driver.actor()
    run.begins(item)
    driver.place.push_again()
    assert driver.newly_pushed() == []


# Actors


def constructed(driver: Driver, run: Run, item: Item, worker: int = 1) -> None:
    """It has begun, and its constructor is over."""
    run.begins(item, worker)
    number = next(message[1] for at, order in reversed(run.told())
                  if at == worker and order[0] == "pass"
                  for message in order[1:] if message[0] == "a")  # fmt: skip
    run.say(("d", number, 0.1, DONE, [], None), worker=worker)


def test_an_actor_is_an_item_that_goes_first_and_begins_where_it_says_hello(
    driver: Driver, run: Run
) -> None:
    actor, item = driver.actor()
    assert (item.kind, item.name) == (ACTOR, "Counter")
    assert driver.queue.jumped == [item]
    constructed(driver, run, item)
    result = driver.method(actor)
    worker, (kind, call) = run.told()[-1]
    assert (worker, kind, call[:3]) == (1, "pass", ("m", result, "add"))
    run.say(("d", result, 0.1, DONE, [pack(5, "it").data], None))
    assert driver.result(result) == 5


def test_an_actor_of_a_lost_run_has_died(driver: Driver, run: Run) -> None:
    actor, item = driver.actor()
    constructed(driver, run, item)
    result = driver.method(actor)
    driver.wait(RUN_SILENT_S + 1)
    error = driver.result(result)
    assert isinstance(error, ActorDied)
    assert "lost with its node" in str(error)
    assert not driver.place.is_waiting


def test_an_actor_that_may_be_restarted_begins_anew_under_another_item(
    driver: Driver, run: Run
) -> None:
    _, item = driver.actor(max_restarts=1)
    constructed(driver, run, item)
    run.say(("exit", -9, item.number))
    (second,) = driver.newly_pushed()
    assert second.number != item.number
    assert driver.queue.jumped[0] == second


def test_a_second_hello_says_that_the_first_one_is_lost(driver: Driver, run: Run) -> None:
    """The item was leased to the first, and has come back."""
    actor, item = driver.actor()
    constructed(driver, run, item)
    result = driver.method(actor)
    other = Run(driver, "run-2")
    other.begins(item, worker=7)
    assert "lost with its node (run-1)" in str(driver.result(result))
    assert other.told() == [(7, ("end",))]


def test_then_it_begins_anew_if_it_may(driver: Driver, run: Run) -> None:
    actor, item = driver.actor(max_restarts=1)
    constructed(driver, run, item)
    other = Run(driver, "run-2")
    other.begins(item, worker=7)
    (second,) = driver.newly_pushed()
    constructed(driver, other, second, worker=8)
    result = driver.method(actor)
    other.say(("d", result, 0.1, DONE, [pack(5, "it").data], None), worker=8)
    assert driver.result(result) == 5


def test_a_worker_that_ended_before_it_had_begun_was_the_actor(driver: Driver, run: Run) -> None:
    actor, item = driver.actor()
    result = driver.method(actor)
    run.say(("exit", 3, item.number))
    assert "exited with code 3" in str(driver.result(result))
    assert not driver.place.is_waiting


def test_an_actor_that_a_container_refuses_is_not_tried_again(driver: Driver, run: Run) -> None:
    actor, item = driver.actor(max_restarts=5)
    result = driver.method(actor)
    run.say(("refused", item.number, "there is no numpy", "Add it"), worker=0)
    assert isinstance(driver.result(result), ActorDied)
    assert "there is no numpy" in str(driver.result(result))
    assert driver.newly_pushed() == []


def test_an_actor_that_is_not_needed_before_it_has_begun_is_taken_back(driver: Driver) -> None:
    actor, item = driver.actor()
    driver.core.actors.kill(actor, no_restart=True)
    assert [item for item, _ in driver.queue.taken_back] == [item]
    assert not driver.place.is_waiting


def test_a_hello_of_an_actor_that_is_gone_is_answered_by_its_end(driver: Driver, run: Run) -> None:
    actor, item = driver.actor()
    driver.core.actors.kill(actor, no_restart=True)
    run.begins(item, worker=4)
    assert run.told() == [(4, ("end",))]


# Other programs


def test_a_value_is_told_to_a_program_that_asks_when_it_is_there(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    guest = Run(driver, "guest")
    guest.say(("fetch", 3, number), worker=0)
    assert guest.told() == []
    driver.core.objects.release((number,))
    run.ends(item, "it")
    ((_, (kind, token, is_error, wire)),) = guest.told()
    assert (kind, token, is_error, unpack(Packed(wire, None))) == ("value", 3, False, "it")
    assert driver.core.objects.find(number) is not None, "it may be on its way"
    guest.say(("fetched", 3), worker=0)
    assert driver.core.objects.find(number) is None, "nobody holds it any more"


def test_a_program_that_asked_and_is_silent_holds_nothing(driver: Driver, run: Run) -> None:
    number, item = driver.pushed_call()
    Run(driver, "guest").say(("fetch", 3, number), worker=0)
    driver.core.objects.release((number,))
    run.ends(item, "it")
    assert driver.core.objects.find(number) is not None
    driver.wait(RUN_SILENT_S + 1)
    assert driver.core.objects.find(number) is None


def test_what_cannot_be_told_to_another_program_is_an_error(driver: Driver) -> None:
    driver.core.put(500, Packed(pack("a list", "it").data, None, (501,)))
    guest = Run(driver, "guest")
    guest.say(("fetch", 3, 500), worker=0)
    guest.say(("fetch", 4, 999), worker=0)
    answers = [message for _, message in guest.told()]
    assert [(token, is_error) for _, token, is_error, _ in answers] == [(3, True), (4, True)]
