"""Which call runs where, and when. No socket, no clock, no process.

A *seat* is a worker process as the scheduler sees it: it runs one call at a time, and holds what
that call asks for. Calls wait in one line for each priority and need. What is decided:

    a free seat gets the next call that fits
    short calls are sent ahead of time, as many as take about AHEAD_S: one wake-up then serves many
    a call that waits in `get` has given its cores back; on top of it, in the same process, only
    calls run that it waits for: anything else might wait for what is below it, and never end
    so has one of which only a thread waits, as nobody knows whether the others do anything; what
    it waits for cannot run on top, and gets the next seat
    if something fits and no seat is free, another one is wanted
    a call that needs much lets others pass while it waits, but not for ever: then those of its own
    and lower priorities wait until it fits, except calls that a running call has made

So recursion deeper than there are workers goes on, and the number of processes stays small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

AHEAD_S = 0.002
"""Work that is sent ahead to a seat. A call that turns out to be long can hold up no more than this
for long: the others are taken back."""

MAX_AHEAD = 100

MAX_NESTED = 16
"""Calls on top of each other in one process; each takes some of Python's recursion limit."""

LEAST_SEATS = 32
"""So many may run at once, if what they ask for is there: calls that take no core at all."""

MOST_OVERTAKING = 32
"""Calls that may start before one that came earlier and does not fit. Fewer would leave cores idle
more often, as they empty until it fits."""

SLOWER, FASTER = 0.5, 0.1
"""How quickly an average follows: a function that has become slow must be noticed at once."""

NEW, READY, SENT, OVER = 0, 1, 2, 3
"""Of a call: its arguments are not there yet; it waits for a seat; it has one; it needs none."""


class Need(NamedTuple):
    """What a call holds while it runs."""

    cpus: float
    memory: int
    resources: tuple[tuple[str, float], ...]


class Call:
    """As far as the scheduler is concerned; the driver adds what it needs."""

    __slots__ = (
        "function",
        "is_alone",
        "is_inner",
        "need",
        "number",
        "priority",
        "seat",
        "state",
        "wanted_by",
    )

    def __init__(
        self,
        number: int,
        function: bytes,
        need: Need,
        priority: int = 0,
        *,
        is_alone: bool = False,
        is_inner: bool = False,
    ) -> None:
        self.number = number
        self.function = function
        self.need = need
        self.priority = priority
        self.is_alone = is_alone
        """It is never sent ahead, nor is anything sent ahead behind it."""
        self.is_inner = is_inner
        """A call or an actor has made it, and may hold what others need until it is over."""
        self.state = NEW
        self.seat: Seat | None = None
        self.wanted_by: Wait | None = None


class Line:
    """Calls that ask for the same, in their order."""

    __slots__ = ("calls", "need", "overtaken", "priority")

    def __init__(self, priority: int, need: Need) -> None:
        self.priority = priority
        self.need = need
        self.calls: deque[Call] = deque()
        self.overtaken = 0
        """Calls that were given out since its first one could have been, but for its need."""


class Wait:
    """A call that waits in `get`, and the calls that it waits for."""

    __slots__ = ("candidates", "is_over", "of", "seat", "token")

    def __init__(self, seat: Seat, token: int, of: list[Call]) -> None:
        self.seat = seat
        self.token = token
        self.of = of
        """The calls of its stack. A thread's is one of them, nobody knows which."""
        self.candidates: deque[Call] = deque()
        self.is_over = False


class Seat:
    __slots__ = (
        "cpus",
        "holds",
        "is_retired",
        "is_stalled",
        "nested",
        "number",
        "sent",
        "thread_waits",
        "waits",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent: dict[int, Call] = {}
        """Not finished, in the order in which it runs them."""
        self.holds: Need | None = None
        self.cpus = 0.0
        """What it has of them at the moment."""
        self.waits: list[Wait] = []
        """The calls of its stack that wait, each on top of the one before."""
        self.nested: list[Call] = []
        """The calls on top of them; as many as `waits`, or one less if the top one waits."""
        self.thread_waits: dict[int, Wait] = {}
        """By token: of threads that its calls have started."""
        self.is_stalled = False
        """Its first call takes longer than expected: nothing is sent behind it."""
        self.is_retired = False

    @property
    def running(self) -> Call | None:
        """The one on top, which may wait."""
        return self.nested[-1] if self.nested else next(iter(self.sent.values()), None)

    @property
    def is_waiting(self) -> bool:
        if len(self.waits) > len(self.nested):
            return True
        return bool(self.thread_waits) and self._is_waiting_in_threads()

    def _is_waiting_in_threads(self) -> bool:
        running = self.running
        return running is not None and any(
            call is running for wait in self.thread_waits.values() for call in wait.of
        )

    @property
    def stack(self) -> list[Call]:
        return [*islice(self.sent.values(), 1), *self.nested]

    @property
    def is_free(self) -> bool:
        return not self.sent and not self.waits and not self.is_retired


class Given(NamedTuple):
    """Calls for a seat; nested ones run on top of the wait with this token."""

    seat: Seat
    calls: list[Call]
    token: int | None = None


class Scheduler:
    def __init__(self, cpus: float, memory: int, resources: Iterable[tuple[str, float]]) -> None:
        self.total = Need(cpus, memory, tuple(sorted(resources)))
        self.seats: dict[int, Seat] = {}
        self.coming = 0
        """Seats that were wanted and are not here yet."""
        self.ready_count = 0
        self._free_cpus = cpus
        self._free_memory = memory
        self._free_resources = dict(resources)
        self._lines: list[Line] = []
        self._line_of: dict[tuple[int, Need], Line] = {}
        self._starving: Line | None = None
        """It was overtaken too often: the others wait for it."""
        self._inner_count = 0
        """Of those that are ready."""
        self._free: list[Seat] = []
        self._waiting: list[Wait] = []
        self._waiting_threads: list[Wait] = []
        self._seconds: dict[bytes, float] = {}

    # What happens

    def add(self, call: Call, *, first: bool = False) -> None:
        """It may run."""
        call.state = READY
        call.seat = None
        line = self._line_of.get((call.priority, call.need))
        if line is None:
            line = self._line_of[call.priority, call.need] = Line(call.priority, call.need)
            self._lines.append(line)
            self._lines.sort(key=lambda line: -line.priority)
        if not line.calls:
            line.overtaken = 0
        if first:
            line.calls.appendleft(call)
        else:
            line.calls.append(call)
        self.ready_count += 1
        self._inner_count += call.is_inner
        wait = call.wanted_by
        if wait is not None and not wait.is_over:
            wait.candidates.append(call)

    def drop(self, call: Call) -> None:
        """A call that was ready is not to run any more."""
        if call.state == READY:
            call.state = OVER
            self.ready_count -= 1
            self._inner_count -= call.is_inner

    def seat_came(self, seat: Seat) -> None:
        self.coming = max(0, self.coming - 1)
        self.seats[seat.number] = seat
        self._free.append(seat)

    def seat_went(self, seat: Seat) -> list[Call]:
        """The calls that went with it."""
        del self.seats[seat.number]
        self._free = [other for other in self._free if other is not seat]
        for wait in (*seat.waits, *seat.thread_waits.values()):
            wait.is_over = True
        self._forget_waits()
        if seat.holds is not None:
            self._give_rest(seat.holds)
        for call in seat.nested:
            self._give_rest(call.need)
        self._free_cpus += seat.cpus
        seat.cpus, seat.holds = 0.0, None
        seat.waits, seat.nested, seat.thread_waits = [], [], {}
        lost = list(seat.sent.values())
        for call in lost:
            call.state, call.seat = OVER, None
        return lost

    def retire(self, seat: Seat) -> None:
        """It gets no more calls."""
        seat.is_retired = True
        self._free = [other for other in self._free if other is not seat]

    def finished(self, call: Call, seconds: float) -> None:
        """It ran to its end, whatever that was."""
        before = self._seconds.get(call.function)
        if before is None:
            self._seconds[call.function] = seconds
        else:
            weight = SLOWER if seconds > before else FASTER
            self._seconds[call.function] = before + weight * (seconds - before)
        if call.seat is not None:
            call.seat.is_stalled = False
        self.left(call)

    def left(self, call: Call) -> None:
        """It is not at its seat any more: finished, given back or refused."""
        seat = call.seat
        if seat is None:
            return
        call.state, call.seat = OVER, None
        del seat.sent[call.number]
        if seat.nested and seat.nested[-1] is call:
            self._give_rest(seat.nested.pop().need)
            self._unwind(seat)
        elif not seat.sent and not seat.waits:
            self._set_free(seat)
        elif seat.thread_waits:
            self._count_cpus(seat)

    def waits(
        self, seat: Seat, token: int, for_calls: Iterable[Call], *, in_thread: bool = False
    ) -> Wait:
        """Its call has begun to wait. `for_calls`: those without which it cannot go on."""
        wait = Wait(seat, token, seat.stack)
        for call in for_calls:
            call.wanted_by = wait
            if call.state == READY:
                wait.candidates.append(call)
        if in_thread:
            seat.thread_waits[token] = wait
            self._waiting_threads.append(wait)
        else:
            seat.waits.append(wait)
            self._waiting.append(wait)
        self._count_cpus(seat)
        return wait

    def goes_on(self, seat: Seat, token: int) -> None:
        """What a call waited for is there, or it waits no more."""
        in_thread = seat.thread_waits.pop(token, None)
        if in_thread is not None:
            in_thread.is_over = True
        for wait in seat.waits:
            if wait.token == token:
                wait.is_over = True
        self._forget_waits()
        self._unwind(seat)

    # What follows

    def give_out(self) -> list[Given]:
        """Calls that go to seats now."""
        if not self.ready_count:
            return []
        given: list[Given] = []
        self._give_to_free(given)
        if self._starving is not None and not self._still_starves(self._starving):
            self._starving = None
            self._give_to_free(given)
        if self.ready_count:
            self._send_ahead(given)
            if given and len(self._lines) > 1:
                self._count_overtaking(given)
        return given

    def wanted_seats(self) -> int:
        """How many more seats there would be work for."""
        if self._free or not self.ready_count:
            return 0
        at_work = sum(not seat.is_waiting for seat in self.seats.values()) + self.coming
        most = max(0, max(LEAST_SEATS, 2 * int(self.total.cpus)) - at_work)
        wanted = 0
        for line in self._lines:
            is_held_back = self._is_held_back(line)
            for call in line.calls:
                if wanted >= most or not self._fits(line.need, times=wanted + self.coming + 1):
                    break
                wanted += call.state == READY and (call.is_inner or not is_held_back)
        return wanted

    def can_ever_run(self, need: Need) -> str | None:
        """None, or what there is too little of."""
        if need.cpus > self.total.cpus:
            return f"it asks for num_cpus={need.cpus:g}, and there are {self.total.cpus:g}"
        if need.memory > self.total.memory:
            return f"it asks for memory={need.memory:,}, and there are {self.total.memory:,} bytes"
        have = dict(self.total.resources)
        for name, amount in need.resources:
            if amount > have.get(name, 0):
                return f"it asks for {name}={amount:g}, and there is {have.get(name, 0):g}"
        return None

    def seconds_of(self, call: Call) -> float | None:
        """What its function took lately; None if that is not known."""
        return self._seconds.get(call.function)

    def is_idle(self) -> bool:
        return not self.ready_count and not any(seat.sent for seat in self.seats.values())

    def overloaded(self) -> list[Seat]:
        """Seats where calls wait behind the one that runs."""
        return [
            seat
            for seat in self.seats.values()
            if len(seat.sent) > 1 and not seat.is_stalled and not seat.waits
        ]

    def surplus(self) -> list[Seat]:
        """Free seats beyond those that the cores can keep busy, the longest free ones first."""
        count = len(self._free) - int(self.total.cpus)
        return self._free[:count] if count > 0 else []

    def reserve(self, need: Need) -> None:
        """For an actor, whether or not it is free at the moment."""
        self._free_cpus -= need.cpus
        self._take_rest(need)

    def unreserve(self, need: Need) -> None:
        self._free_cpus += need.cpus
        self._give_rest(need)

    def available(self) -> Need:
        return Need(
            max(0.0, self._free_cpus),
            max(0, self._free_memory),
            tuple((name, max(0.0, free)) for name, free in sorted(self._free_resources.items())),
        )

    # How

    def _give_to_free(self, given: list[Given]) -> None:
        if self._waiting_threads and self._free:
            self._give_to_threads(given)
        for line in self._lines:
            if not line.calls:
                continue
            if self._starving is not None and self._is_held_back(line):
                if self._inner_count:
                    self._give_inner(line, given)
            else:
                while self._free and line.calls and self._fits(line.need):
                    call = self._pop(line)
                    if call is None:
                        break
                    self._seat(call, given)
            if line.calls and self._waiting:
                self._nest(line, given)

    def _give_to_threads(self, given: list[Given]) -> None:
        """What they wait for, newest first: each that waits has a process, and so it goes down
        before it goes on."""
        for wait in reversed(self._waiting_threads):
            while self._free and (call := self._candidate(wait)) is not None:
                if not self._fits(call.need):
                    break
                self._remove(self._line_of[call.priority, call.need], call)
                self._seat(call, given)

    def _seat(self, call: Call, given: list[Given]) -> None:
        """It fits, and has left its line."""
        seat = self._free.pop()
        self._take_rest(call.need)
        seat.holds = call.need
        self._send(seat, call)
        self._count_cpus(seat)
        given.append(Given(seat, [call]))

    def _is_held_back(self, line: Line) -> bool:
        starving = self._starving
        return starving is not None and line is not starving and line.priority <= starving.priority

    def _still_starves(self, line: Line) -> bool:
        return (
            line.overtaken > 0 and self._peek(line) is not None and self._may_come_to_fit(line.need)
        )

    def _may_come_to_fit(self, need: Need) -> bool:
        """When the calls end that wait for nothing. What others hold may never be free: they may
        wait for one that is held back."""
        free = Need(self._free_cpus, self._free_memory, tuple(self._free_resources.items()))
        at_work = [
            seat.nested[-1].need if seat.nested else seat.holds
            for seat in self.seats.values()
            if not seat.is_waiting
        ]
        held = [free, *(need for need in at_work if need is not None)]
        if need.cpus > sum(n.cpus for n in held) or need.memory > sum(n.memory for n in held):
            return False
        return all(
            amount <= sum(dict(n.resources).get(name, 0.0) for n in held)
            for name, amount in need.resources
        )

    def _count_overtaking(self, given: list[Given]) -> None:
        """Of each line whose first call waits for nothing but what it needs."""
        for line in self._lines:
            if line.calls and self._peek(line) is not None and not self._fits(line.need):
                line.overtaken += sum(
                    call.priority <= line.priority and call.need != line.need
                    for _, calls, token in given
                    if token is None
                    for call in calls
                )
                if (
                    self._starving is None
                    and line.overtaken >= MOST_OVERTAKING
                    and self._may_come_to_fit(line.need)
                ):
                    self._starving = line

    def _give_inner(self, line: Line, given: list[Given]) -> None:
        """Those that a call has made go on, or it might never end."""
        for call in [call for call in line.calls if call.is_inner and call.state == READY]:
            if not self._free or not self._fits(line.need):
                return
            self._remove(line, call)
            self._seat(call, given)

    def _nest(self, line: Line, given: list[Given]) -> None:
        """Calls that somebody waits for run on top of the one that waits, newest first."""
        for wait in reversed(self._waiting):
            if not self._fits(line.need):
                return
            seat = wait.seat
            if len(seat.waits) == len(seat.nested) or seat.waits[-1] is not wait:
                continue
            if len(seat.nested) >= MAX_NESTED:
                continue
            call = self._candidate(wait)
            if call is not None and (call.priority, call.need) == (line.priority, line.need):
                self._remove(line, call)
                self._take_rest(line.need)
                seat.nested.append(call)
                self._send(seat, call)
                self._count_cpus(seat)
                given.append(Given(seat, [call], wait.token))

    def _candidate(self, wait: Wait) -> Call | None:
        candidates = wait.candidates
        while candidates and candidates[0].state != READY:
            candidates.popleft()
        return candidates[0] if candidates else None

    def _unwind(self, seat: Seat) -> None:
        """A wait that is over and has nothing on top of it: its call goes on."""
        if len(seat.waits) > len(seat.nested) and seat.waits[-1].is_over:
            seat.waits.pop()
        self._count_cpus(seat)
        if not seat.waits and not seat.sent:
            self._set_free(seat)

    def _forget_waits(self) -> None:
        self._waiting = [wait for wait in self._waiting if not wait.is_over]
        if self._waiting_threads:
            self._waiting_threads = [w for w in self._waiting_threads if not w.is_over]

    def _count_cpus(self, seat: Seat) -> None:
        """Those of its running call; none while that waits. Perhaps there are less than none left
        then: what has begun is to end."""
        need = seat.nested[-1].need if seat.nested else seat.holds
        cpus = 0.0 if need is None or seat.is_waiting else need.cpus
        self._free_cpus += seat.cpus - cpus
        seat.cpus = cpus

    def _set_free(self, seat: Seat) -> None:
        if seat.holds is not None:
            self._give_rest(seat.holds)
            seat.holds = None
            self._count_cpus(seat)
            if not seat.is_retired:
                self._free.append(seat)

    def _send_ahead(self, given: list[Given]) -> None:
        for line in self._lines:
            if self._is_held_back(line):
                continue
            rooms = [
                (room, seat)
                for seat in self.seats.values()
                if seat.holds == line.need and (room := self._room(seat, line)) > 0
            ]
            # An even share each, so that the last calls do not queue behind one another.
            for place, (room, seat) in enumerate(rooms):
                share = -(-self.ready_count // (len(rooms) - place))
                calls: list[Call] = []
                while line.calls and len(calls) < min(room, share):
                    head = self._peek(line)
                    if head is None or head.is_alone or not self._is_short(head):
                        break
                    self._pop(line)
                    self._send(seat, head)
                    calls.append(head)
                if calls:
                    given.append(Given(seat, calls))
            if self._peek(line) is not None:
                return  # what comes later in line does not overtake

    def _room(self, seat: Seat, line: Line) -> int:
        is_closed = seat.is_stalled or seat.is_retired or seat.waits or seat.thread_waits
        if is_closed or not seat.sent or not line.calls:
            return 0
        current = next(iter(seat.sent.values()))
        if current.is_alone or not self._is_short(current):
            return 0
        goal = min(MAX_AHEAD, int(AHEAD_S / max(self._seconds[current.function], 1e-6)))
        # Topped up when half of it is done: fewer and larger writes.
        return goal - len(seat.sent) if len(seat.sent) <= goal // 2 else 0

    def _is_short(self, call: Call) -> bool:
        seconds = self._seconds.get(call.function)
        return seconds is not None and seconds < AHEAD_S / 2

    def _peek(self, line: Line) -> Call | None:
        calls = line.calls
        while calls and calls[0].state != READY:
            calls.popleft()
        return calls[0] if calls else None

    def _pop(self, line: Line) -> Call | None:
        calls = line.calls
        while calls:
            call = calls.popleft()
            if call.state == READY:
                self.ready_count -= 1
                self._inner_count -= call.is_inner
                line.overtaken = 0
                return call
        return None

    def _remove(self, line: Line, call: Call) -> None:
        """From the middle; near one of its ends, as a rule."""
        line.calls.remove(call)
        self.ready_count -= 1
        self._inner_count -= call.is_inner
        line.overtaken = 0

    def _send(self, seat: Seat, call: Call) -> None:
        call.state, call.seat = SENT, seat
        seat.sent[call.number] = call

    def _fits(self, need: Need, times: int = 1) -> bool:
        if need.cpus * times > self._free_cpus or need.memory * times > self._free_memory:
            return False
        return not need.resources or all(
            self._free_resources.get(name, 0.0) >= amount * times for name, amount in need.resources
        )

    def _take_rest(self, need: Need) -> None:
        """But for the cores."""
        self._free_memory -= need.memory
        for name, amount in need.resources:
            self._free_resources[name] -= amount

    def _give_rest(self, need: Need) -> None:
        self._free_memory += need.memory
        for name, amount in need.resources:
            self._free_resources[name] += amount

    def everything(self) -> Iterator[Call]:
        """All that was added and is not over."""
        for line in self._lines:
            yield from (call for call in line.calls if call.state == READY)
        for seat in self.seats.values():
            yield from seat.sent.values()
