"""What a run does for one driver: its worker processes, its calls, its actors, its values.

    item -> its function and large values are fetched -> ready -> sent to a worker -> over
                                                      |                            |
                               (another call is long) +--> back to the queue       |
                                                            the item is done <-- letter

Workers think that they talk to their driver. Their messages go on as they are, apart from those on
which call runs where: that is decided here, by the scheduler of worker processes, for one core.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gridcore.sdk.blobs import Blob
from gridcore.sdk.context import worker_id_of
from gridcore.sdk.errors import PayloadTooLarge
from gridcore.sdk.grid.fetched import Fetched, Function
from gridcore.sdk.grid.kept import ASK_AGAIN_S
from gridcore.sdk.grid.keys import JobKeys
from gridcore.sdk.grid.letters import Command, Letters
from gridcore.sdk.grid.messages import ACTOR, LATE, UNNUMBERED, Item, Part, Ticket
from gridcore.sdk.grid.values import MOST_BYTES, Names
from gridcore.sdk.grid.versions import installed, mismatch
from gridcore.sdk.outcomes import FAILED, STOPPED, packed_error
from gridcore.sdk.workers.crew import WorkerProcess
from gridcore.sdk.workers.endings import how_it_ended
from gridcore.sdk.workers.frames import MAX_FDS, Message, Outgoing
from gridcore.sdk.workers.scheduler import AHEAD_S, READY, Call, Given, Need, Scheduler, Seat, Wait

STARTED_AFTER_S = 0.2
"""A call that takes so long is worth a word to the driver: it may be to be stopped."""

STUCK_S = 0.05
"""Calls that wait behind a long one for so long go back to the queue, for other containers."""

STOP_GRACE_S = 1.0
"""A call that was to stop and has not, as it may be inside C code: its worker is killed."""

MOST_FORGOTTEN = 10_000


_WAITS = ("g", "w", "i", "z")
"""Messages with which a worker begins to wait: for values, for ends, for the next of a stream, for
room. They end with whether its main thread waits, and whether calls may run for that: on top of it,
or in the next worker if it is another thread."""


class Outside(Protocol):
    """What a share needs of the run."""

    def send(self, command: Command, then: Callable[[Any], None]) -> None: ...
    def later(self, seconds: float, call: Callable[[], None]) -> None: ...

    node: str

    def memory_for_values(self) -> int:
        """Of one share."""

    def now(self) -> float: ...
    def fork(self, number: int) -> WorkerProcess: ...
    def started(self, share: Share, worker: Worker) -> None: ...
    def kill(self, number: int) -> None: ...
    def write(self, worker: Worker, out: Outgoing) -> None: ...
    def is_done(self, place: str) -> None:
        """With the item that was moved to this list of the run's own."""

    def give_back(self, place: str) -> None:
        """That item, untouched."""

    def give_up(self, share: Share) -> None:
        """It has lost touch with its driver, and begins anew with the next item."""


class Worker:
    def __init__(self, process: WorkerProcess, actor: RunCall | None) -> None:
        self.process = process
        self.number = process.number
        self.seat = Seat(process.number)
        self.actor = actor
        """The item that it was started for."""
        self.functions: set[bytes] = set()
        self.pid = 0
        self.is_here = False
        self.end: str | None = None
        self.orders: deque[tuple[Message, list[Ticket]]] = deque()
        """From the driver, in order, while large values are fetched."""
        self.is_fetching = False
        self.begun_at = 0.0
        """When the call that it is at was sent to it."""
        self.is_told = False
        """The driver knows that it takes long."""
        self.open_methods = 0
        """Of an actor: sent, and not answered."""
        self.is_nudged = False

    def takes_long(self, now: float) -> bool:
        """And nobody knows yet."""
        return bool(self.seat.sent) and not self.is_told and now - self.begun_at >= STARTED_AFTER_S


class RunCall(Call):
    """An item that this run has taken."""

    __slots__ = ("begun_at", "blobs", "ends_as_late", "item", "place", "since")

    def __init__(self, item: Item, place: str, since: float) -> None:
        super().__init__(
            item.number,
            item.function,
            Need(item.cpus, 0, ()),
            is_alone=item.timeout is not None,
        )
        self.item = item
        self.place = place
        self.since = since
        """When it became ready."""
        self.begun_at = 0.0
        self.blobs: list[Blob] = []
        self.ends_as_late = False


class Share:
    def __init__(self, job: str, run: str, keys: JobKeys, outside: Outside) -> None:
        self.job = job
        self.keys = keys
        self.order_key = keys.to(run)
        self._last_order = 0
        self._newest_order = 0
        """Which has come, and is not obeyed if one before it is missing."""
        self._is_asking = False
        self.used_at = outside.now()
        self.missing_since: float | None = None
        """Its driver is; None while it is there."""
        self._outside = outside
        self._scheduler = Scheduler(1.0, 1 << 60, ())
        self._letters = Letters(
            run,
            keys,
            send=outside.send,
            later=outside.later,
            now=outside.now,
            on_lost=lambda: outside.give_up(self),
        )
        self._names = Names()
        self._calls: dict[int, RunCall] = {}
        """Items in hand, by the numbers of their calls or actors."""
        self._workers: dict[int, Worker] = {}
        self._fetched = Fetched(
            keys,
            send=outside.send,
            later=outside.later,
            now=outside.now,
            memory=outside.memory_for_values,
        )
        self._wanted: dict[int, Wait] = {}
        """Calls that a worker of this run waits for: they may run on top of it."""
        self._deadlines: dict[int, tuple[float, RunCall]] = {}
        self._forgotten: OrderedDict[int, None] = OrderedDict()
        """Calls that are not to run, should they still come."""
        self._has_ended = False

    # What is so

    @property
    def is_at_work(self) -> bool:
        """Its calls take the core."""
        return self._scheduler.available().cpus < 1 or any(
            call.item.kind != ACTOR and call.seat is None for call in self._calls.values()
        )

    @property
    def is_idle(self) -> bool:
        return not self._calls and self._letters.are_all_there

    def room(self) -> int:
        """How many short calls more may be taken ahead of time."""
        scheduler = self._scheduler
        busy = [w.seat for w in self._workers.values() if w.seat.sent and not w.seat.is_waiting]
        if len(busy) != 1 or busy[0].is_stalled:
            return 0
        seconds = scheduler.seconds_of(next(iter(busy[0].sent.values())))
        if seconds is None or seconds >= AHEAD_S / 2:
            return 0
        goal = min(100, int(AHEAD_S / max(seconds, 1e-6)))
        have = len(busy[0].sent) + scheduler.ready_count
        return goal - have if have <= goal // 2 else 0

    # Items

    def take(self, item: Item, place: str) -> None:
        outside = self._outside
        self.used_at = outside.now()
        known = self._calls.get(item.number)
        if known is not None:
            # Pushed twice, since the driver did not know whether it was there; or somebody else who
            # had it was lost. Then the driver wants to hear of the newer attempt only.
            if item.attempt > known.item.attempt:
                known.item, known.place, place = item, place, known.place
            outside.is_done(place)
            return
        call = RunCall(item, place, outside.now())
        self._calls[item.number] = call
        if item.number in self._forgotten:
            self._is_stopped(call)
            return
        self._fetched.function(item.function, lambda found: self._has_function(call, found))

    def _has_function(self, call: RunCall, function: Function | None) -> None:
        if self._is_over(call):
            return
        item = call.item
        problem = mismatch(item.python, {}, installed)
        if problem is None and function is not None:
            problem = function[1]
        if problem is not None:
            self._refuse(call, "refused", *problem)
        elif function is None:
            why = "its function is not in the grid's store any more"
            self._refuse(call, "missing", why, "Call it again")
        else:
            self._fetched.values(item.tickets, lambda blobs: self._is_ready(call, blobs))

    def _refuse(self, call: RunCall, kind: str, why: str, next_step: str) -> None:
        del self._calls[call.number]
        self._tell(0, (kind, call.number, why, next_step))
        self._letters.then(lambda: self._outside.is_done(call.place))
        self._letters.flush()

    def _is_over(self, call: RunCall) -> bool:
        """Meanwhile it was cancelled, or its driver has gone."""
        if self._calls.get(call.number) is not call:
            return True
        if call.number in self._forgotten:
            self._is_stopped(call)
            return True
        return False

    def _is_ready(self, call: RunCall, blobs: list[Blob] | None) -> None:
        if self._is_over(call):
            return
        if blobs is None:
            self._refuse(
                call,
                "missing",
                "a large argument is not in the grid's store any more",
                "Keep the reference until the call is over",
            )
            return
        call.blobs = blobs
        call.since = self._outside.now()
        if call.item.kind == ACTOR:
            self._scheduler.reserve(call.need)
            self._start_worker(call)
            return
        call.wanted_by = self._wanted.pop(call.number, None)
        self._scheduler.add(call)
        self.give_out()

    def give_out(self) -> None:
        for given in self._scheduler.give_out():
            self._send_calls(given)
        if self._scheduler.ready_count:
            for _ in range(self._scheduler.wanted_seats()):
                self._start_worker(None)

    def _send_calls(self, given: Given) -> None:
        worker = self._workers[given.seat.number]
        out = Outgoing()
        if len(worker.seat.sent) == len(given.calls):
            worker.begun_at, worker.is_told = self._outside.now(), False
        for call in given.calls:
            assert isinstance(call, RunCall)
            if out.fds and len(out.fds) + len(call.blobs) > MAX_FDS:
                self._outside.write(worker, out)
                out = Outgoing()
            item = call.item
            if item.function not in worker.functions:
                worker.functions.add(item.function)
                out.messages.append(("f", item.function, self._fetched.functions[item.function][0]))
            first = len(out.fds)
            for blob in call.blobs:
                out.fds.append(blob.fd)
                out.kept.append(blob)
            values = tuple(_moved(wire, first) for wire in item.values)
            out.messages.append(
                (
                    "c", item.number, item.function, _moved(item.arguments, first), item.places,
                    values, item.returns, item.about, given.token,
                )
            )  # fmt: skip
            if item.timeout is not None:
                self._deadlines[call.number] = (self._outside.now() + item.timeout, call)
        self._outside.write(worker, out)

    def _over(self, call: RunCall) -> None:
        """Its letter is written; when that is there, the item is done."""
        self._calls.pop(call.number, None)
        self._deadlines.pop(call.number, None)
        self._letters.then(lambda: self._outside.is_done(call.place))

    # Workers

    def _start_worker(self, actor: RunCall | None) -> None:
        # The numbers of what a worker makes begin with its own, so no two of a job may be the same.
        number = int.from_bytes(os.urandom(6), "big") | 1
        worker = Worker(self._outside.fork(number), actor)
        self._workers[number] = worker
        self._outside.started(self, worker)
        if actor is None:
            self._scheduler.coming += 1

    def on_frame(self, worker: Worker, messages: list[Message], fds: list[int]) -> None:
        """What a worker process has sent."""
        if self._has_ended:
            for fd in fds:
                os.close(fd)
            return
        sizes = [os.fstat(fd).st_size for fd in fds]
        too_large = {place: size for place, size in enumerate(sizes) if size > MOST_BYTES}
        if too_large:
            of_results = {
                place for message in messages if message[0] == "d" for place in _places_in(message)
            }
            if not too_large.keys() <= of_results:
                # In the middle of a call, which could only wait for an answer for ever.
                for fd in fds:
                    os.close(fd)
                worker.end = _is_too_large(max(sizes))
                self._outside.kill(worker.number)
                return
            messages = [_failed(message, too_large) for message in messages]
        kept: list[Message] = []
        worker.is_nudged = False
        for message in messages:
            kind = message[0]
            if kind == "hello":
                worker.pid, worker.is_here = message[1], True
                if worker.actor is None:
                    self._introduce(worker)
                    self._scheduler.seat_came(worker.seat)
                else:
                    node = self._outside.node
                    kept.append(("hello", worker.actor.number, worker.pid, node))
            elif kind == "b":
                self._given_back(worker, message[1])
            elif kind == "d" and worker.actor is None:
                self._done(worker, message, kept)
            else:
                if worker.actor is None:
                    self._notes_wait(worker, message)
                worker.open_methods -= kind == "d"
                kept.append(message)
        tickets: list[Ticket] = []
        values: list[tuple[Ticket, Blob]] = []
        for place, (fd, size) in enumerate(zip(fds, sizes, strict=True)):
            ticket = (self._names.new(), size)
            tickets.append(ticket)
            if place in too_large:
                os.close(fd)
            else:
                values.append((ticket, Blob(fd, size)))
        if kept:
            self._letters.add(Part(worker.number, kept, tickets), values)
        self.give_out()

    def _introduce(self, worker: Worker) -> None:
        """What it tells calls that ask where they are. An actor's is told by its driver."""
        out = Outgoing()
        id_ = worker_id_of(self.job, worker.number)
        out.messages.append(("j", self.job, self._outside.node, id_, None, False))
        self._outside.write(worker, out)

    def _done(self, worker: Worker, message: Message, kept: list[Message]) -> None:
        _, number, seconds, status, wires, refs = message
        call = worker.seat.sent.get(number)
        if not isinstance(call, RunCall):
            return
        if seconds >= 0:
            self._scheduler.finished(call, seconds)
        else:
            self._scheduler.left(call)
        worker.begun_at, worker.is_told = self._outside.now(), False
        if status == STOPPED and call.ends_as_late:
            status = LATE
        kept.append(("over", number, call.item.attempt, status, wires, refs))
        self._over(call)

    def _given_back(self, worker: Worker, numbers: Sequence[int]) -> None:
        for number in reversed(numbers):
            call = worker.seat.sent.get(number)
            if isinstance(call, RunCall):
                self._scheduler.left(call)
                self._deadlines.pop(number, None)
                call.since = self._outside.now()
                self._scheduler.add(call, first=True)

    def _notes_wait(self, worker: Worker, message: Message) -> None:
        kind = message[0]
        if kind in _WAITS:
            _, token, what, *_, is_main, is_for_calls = message
            wanted = what if is_for_calls else ()
            here = [self._calls[n] for n in wanted if n in self._calls]
            wait = self._scheduler.waits(
                worker.seat, token, [c for c in here if c.state == READY], in_thread=not is_main
            )
            for number in wanted:
                self._wanted[number] = wait
        elif kind == "n":
            self._goes_on(worker, message[1])

    def _goes_on(self, worker: Worker, token: int) -> None:
        if worker.actor is None:
            self._scheduler.goes_on(worker.seat, token)
            self._wanted = {n: w for n, w in self._wanted.items() if not w.is_over}

    def on_exit(self, number: int, code: int | None, *, is_out_of_memory: bool) -> None:
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        worker.process.close()
        if self._has_ended:
            return
        if worker.actor is not None:
            self._scheduler.unreserve(worker.actor.need)
            self._over(worker.actor)
        elif worker.is_here:
            self._lost(worker, code, is_out_of_memory=is_out_of_memory)
        else:
            self._scheduler.coming = max(0, self._scheduler.coming - 1)
        self._tell(number, ("exit", code, 0 if worker.actor is None else worker.actor.number))
        self._letters.flush()
        self.give_out()

    def _lost(self, worker: Worker, code: int | None, *, is_out_of_memory: bool) -> None:
        seat = worker.seat
        running = {id(call) for call in (*seat.nested, *list(seat.sent.values())[:1])}
        how = how_it_ended(code, worker.end, is_out_of_memory=is_out_of_memory)
        for call in reversed(self._scheduler.seat_went(seat)):
            assert isinstance(call, RunCall)
            if id(call) not in running:
                call.since = self._outside.now()
                self._scheduler.add(call, first=True)
            elif call.ends_as_late:
                self._tell(0, ("over", call.number, call.item.attempt, LATE, [], None))
                self._over(call)
            else:
                self._tell(
                    0, ("died", call.number, call.item.attempt, worker.pid, how, is_out_of_memory)
                )
                self._over(call)

    # Orders

    def on_order(self, number: int, parts: Sequence[Part]) -> None:
        now = self._outside.now()
        if number > self._last_order + 1:
            self._newest_order = max(number, self._newest_order)
            if not self._is_asking:
                self._is_asking = True
                self._ask_for_orders()
            return
        if number != UNNUMBERED:
            if number <= self._last_order:
                return
            self._last_order = number
        self.used_at = now
        for part in parts:
            (message,) = part.messages
            worker = self._workers.get(part.worker)
            if message[0] == "anew":
                self._outside.give_up(self)
                return
            if message[0] == "forget":
                self._forget(message[1])
            elif message[0] == "repeat":
                self._letters.repeat(message[1])
            elif worker is not None and message[0] == "end":
                self._outside.kill(worker.number)
            elif worker is not None:
                worker.orders.append((message, part.tickets))
                self._obey(worker)

    def _ask_for_orders(self) -> None:
        """Until they are there: there may be no further one that says that they are missing."""
        self._is_asking = self._last_order < self._newest_order and not self._has_ended
        if self._is_asking:
            self._letters.say(("missed", self._last_order))
            self._outside.later(ASK_AGAIN_S, self._ask_for_orders)

    def _forget(self, number: int) -> None:
        """A call that was cancelled."""
        self._forgotten[number] = None
        if len(self._forgotten) > MOST_FORGOTTEN:
            self._forgotten.popitem(last=False)
        call = self._calls.get(number)
        if call is None:
            return
        if call.seat is not None:
            self._workers[call.seat.number].process.tell(("x", number, call.item.attempt))
        elif call.state == READY:
            self._scheduler.drop(call)
            self._is_stopped(call)

    def _is_stopped(self, call: RunCall) -> None:
        """Before it has begun."""
        self._tell(0, ("over", call.number, call.item.attempt, STOPPED, [], None))
        self._over(call)

    def _obey(self, worker: Worker) -> None:
        while worker.orders and not worker.is_fetching:
            (kind, *rest), tickets = worker.orders.popleft()
            if kind == "pass":
                self._pass(worker, rest, tickets)
            elif kind == "tell":
                worker.process.tell(rest[0])
            elif kind == "leave":
                with contextlib.suppress(OSError):  # it is gone already
                    worker.process.data.shutdown(socket.SHUT_WR)

    def _pass(self, worker: Worker, messages: list[Message], tickets: list[Ticket]) -> None:
        worker.is_fetching = True

        def fetched(blobs: list[Blob] | None) -> None:
            worker.is_fetching = False
            if worker.number not in self._workers:
                return
            if blobs is None:
                # Whoever waits for it could wait for ever.
                self._outside.kill(worker.number)
                return
            out = Outgoing()
            out.messages = messages
            out.fds = [blob.fd for blob in blobs]
            out.kept = list(blobs)
            for message in messages:
                if message[0] == "o" or (message[0] == "v" and message[3]):
                    self._goes_on(worker, message[1])
                worker.open_methods += message[0] in ("m", "a")
            self._outside.write(worker, out)
            self._obey(worker)
            self.give_out()

        self._fetched.values(tickets, fetched)

    # What comes with time

    def tick(self, now: float) -> None:
        self._stop_late_calls(now)
        for seat in self._scheduler.overloaded():
            seat.is_stalled = True
            self._workers[seat.number].process.tell(("b",))
        self._return_stuck_calls(now)
        for worker in self._workers.values():
            if worker.open_methods > 1 and not worker.is_nudged:
                # Results may wait behind a method that takes long.
                worker.is_nudged = True
                worker.process.tell(("b",))
            elif worker.takes_long(now):
                worker.is_told = True
                self._tell(worker.number, ("started", list(worker.seat.sent)))
        self._end_surplus()
        self._letters.flush()

    def _stop_late_calls(self, now: float) -> None:
        for number, (deadline, call) in list(self._deadlines.items()):
            if deadline > now:
                continue
            worker = self._workers.get(call.seat.number) if call.seat is not None else None
            if worker is None:
                del self._deadlines[number]
            elif not call.ends_as_late:
                call.ends_as_late = True
                self._deadlines[number] = (now + STOP_GRACE_S, call)
                worker.process.tell(("x", number, call.item.attempt))
            else:
                del self._deadlines[number]
                worker.end = "did not stop when its call was out of time"
                self._outside.kill(worker.number)

    def _return_stuck_calls(self, now: float) -> None:
        for call in list(self._calls.values()):
            if call.state == READY and now - call.since >= STUCK_S and not self._fits(call):
                self._scheduler.drop(call)
                del self._calls[call.number]
                self._outside.give_back(call.place)

    def _fits(self, call: RunCall) -> bool:
        return self._scheduler.available().cpus >= call.need.cpus

    def _end_surplus(self) -> None:
        for seat in self._scheduler.surplus():
            self._scheduler.retire(seat)
            self._workers[seat.number].end = "was not needed any more"
            self._outside.kill(seat.number)

    def next_time(self, now: float) -> float | None:
        """In how many seconds `tick` is wanted; None if it is not."""
        if not self._calls:
            return None
        if self._scheduler.overloaded() or self._scheduler.ready_count or self._can_nudge():
            return 0.005
        soon = [deadline - now for deadline, _ in self._deadlines.values()]
        return max(0.0, min([STARTED_AFTER_S, *soon]))

    def _can_nudge(self) -> bool:
        return any(w.open_methods > 1 and not w.is_nudged for w in self._workers.values())

    def beat(self) -> None:
        """A sign of life."""
        self._letters.expire()
        self._tell(0, ("alive",))
        self._letters.flush()

    def end(self) -> None:
        """Its driver is gone: nothing runs for it any more."""
        # Or has it slept? Then it has to know that its calls are not in the queue either.
        self._letters.expire()
        self._tell(0, ("ended",))
        self._letters.flush()
        self._stop(self._outside.is_done)

    def begin_anew(self) -> None:
        """Its driver has lost touch with it, and takes it for gone; others may have its calls. Of
        those that are over it still hears."""
        self._stop(self._outside.give_back)
        self._letters.flush()

    def _stop(self, settle: Callable[[str], None]) -> None:
        self._has_ended = True
        for number in list(self._workers):
            self._outside.kill(number)
        for call in self._calls.values():
            settle(call.place)
        self._calls.clear()

    def flush(self) -> None:
        self._letters.flush()

    def _tell(self, worker: int, message: Message) -> None:
        self._letters.add(Part(worker, [message], []))


def _places_in(result: Message) -> list[int]:
    """Of its large values, in the frame."""
    return [wire[0] for wire in result[4] if not isinstance(wire, bytes)]


def _is_too_large(size: int) -> str:
    return f"it has {size:,} bytes, and the grid's store takes {MOST_BYTES:,} of one value"


def _failed(message: Message, too_large: Mapping[int, int]) -> Message:
    """A result that the store does not take goes as an error."""
    if message[0] != "d":
        return message
    sizes = [too_large[place] for place in _places_in(message) if place in too_large]
    if not sizes:
        return message
    error = PayloadTooLarge(
        "Sending a result",
        cause=_is_too_large(max(sizes)),
        next_step="Split it, or write it to where others can read it",
    )
    return (*message[:3], FAILED, [packed_error(error).data], None)


def _moved(wire: Any, by: int) -> Any:
    """A large value's place, behind those of others in the frame."""
    return wire if isinstance(wire, bytes) else (wire[0] + by, wire[1])
