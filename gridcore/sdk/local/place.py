"""Where calls run on this machine: in worker processes, each of which has a seat."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from gridcore.sdk.context import Node
from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.records import Actor, CallRecord, Peer
from gridcore.sdk.errors import WorkerDied
from gridcore.sdk.local.capacity import Capacity
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.crew import Template, WorkerProcess
from gridcore.sdk.workers.endings import how_it_ended, worker_died
from gridcore.sdk.workers.frames import MAX_FDS, Message, Outgoing
from gridcore.sdk.workers.memory import KernelKills, oom_kills
from gridcore.sdk.workers.scheduler import READY, Call, Given, Need, Scheduler, Seat

THIS_NODE = "local"

MOST_FAILED_STARTS = 8
"""In a row."""


class LocalWorker(Peer):
    def __init__(self, process: WorkerProcess) -> None:
        super().__init__(process.number)
        self.process = process
        self.seat = Seat(process.number)


class LocalPlace:
    how_to_get_more = "Ask for less, or pass more to gridcore.init"

    def __init__(
        self,
        core: Core,
        capacity: Capacity,
        *,
        watch: Callable[[LocalWorker], None],
        unwatch: Callable[[LocalWorker], None],
        wants_to_write: Callable[[LocalWorker], None],
        template_started: Callable[[Template], None],
    ) -> None:
        self._core = core
        self._watch = watch
        self._unwatch = unwatch
        self._wants_to_write = wants_to_write
        self._template_started = template_started
        self.scheduler = Scheduler(capacity.cpus, capacity.memory, capacity.resources)
        self.template: Template | None = None
        self._workers: dict[int, LocalWorker] = {}
        self._seats = count(1)
        self._failed_starts = 0
        self._kernel_kills = KernelKills(oom_kills)

    # Calls of functions

    def lack(self, need: Need) -> str | None:
        return self.scheduler.can_ever_run(need)

    def add(self, call: CallRecord, *, first: bool = False) -> None:
        self.scheduler.add(call, first=first)

    def drop(self, call: CallRecord) -> bool:
        if call.state == READY:
            self.scheduler.drop(call)
        return True

    def where(self, call: CallRecord) -> LocalWorker | None:
        return self._workers.get(call.seat.number) if call.seat is not None else None

    def give_out(self) -> None:
        if self._failed_starts >= MOST_FAILED_STARTS:
            self._fail_ready()
        for given in self.scheduler.give_out():
            self._send_calls(given)
        if self.scheduler.ready_count:
            for _ in range(self.scheduler.wanted_seats()):
                self.start_worker()

    def _send_calls(self, given: Given) -> None:
        core, worker = self._core, self._workers[given.seat.number]
        out = Outgoing()
        for call in given.calls:
            assert isinstance(call, CallRecord)
            if len(out.fds) + len(call.arguments.numbers) + 1 > MAX_FDS:
                self.send(worker, out)
                out = Outgoing()
            core.expect_end(call)
            core.add_function(worker, call.exported, out)
            arguments = call.arguments
            values = core.values_of(arguments, out) if arguments.numbers else ()
            out.messages.append(
                (
                    "c", call.number, call.function, out.wire(arguments.packed), arguments.places,
                    values, call.returns, call.about, given.token,
                )
            )  # fmt: skip
        self.send(worker, out)

    def _fail_ready(self) -> None:
        """Workers do not start here, and to try for ever would help nobody."""
        self._failed_starts = 0
        for call in [call for call in self.scheduler.everything() if call.seat is None]:
            assert isinstance(call, CallRecord)
            self.scheduler.drop(call)
            self._core.fail(
                call,
                WorkerDied(
                    f"Running {call.name}",
                    cause=f"{MOST_FAILED_STARTS} workers ended before they had begun",
                    next_step="What they printed, above, says why",
                ),
            )

    def nudge(self) -> bool:
        """Workers in which calls wait behind a long one give them back. Whether there were any."""
        found = False
        for seat in self.scheduler.overloaded():
            seat.is_stalled = True
            self.tell(self._workers[seat.number], ("b",))
            found = True
        return self._core.actors.nudge() or found

    def can_stall(self) -> bool:
        return bool(self.scheduler.overloaded()) or self._core.actors.can_stall()

    # Workers

    def start(self, actor: Actor) -> LocalWorker:
        return self.start_worker(actor)

    def start_worker(self, actor: Actor | None = None) -> LocalWorker:
        number = next(self._seats)
        for attempt in range(2):
            if self.template is None:
                self.template = Template()
                self._template_started(self.template)
            try:
                process = self.template.fork(number)
                break
            except OSError:
                self.template = None
                if attempt:
                    raise
        else:
            raise AssertionError
        worker = self._workers[number] = LocalWorker(process)
        worker.actor = actor
        if actor is None:
            self.scheduler.coming += 1
        self._watch(worker)
        return worker

    def end(self, peer: Peer) -> None:
        if self.template is not None:
            self.template.kill(peer.number)

    def dismiss(self, peer: Peer) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            _process_of(peer).data.shutdown(socket.SHUT_WR)

    def tell(self, peer: Peer, message: Message) -> None:
        _process_of(peer).tell(message)

    def outgoing(self) -> Outgoing:
        return Outgoing()

    def send(self, peer: Peer, out: Outgoing) -> None:
        assert isinstance(peer, LocalWorker)
        try:
            if not peer.process.sender.send(out):
                self._wants_to_write(peer)
        except OSError:
            pass  # it is gone; its calls are seen to when the end of its socket is read

    def end_surplus(self) -> None:
        for seat in self.scheduler.surplus():
            self.scheduler.retire(seat)
            self._core.end_peer(self._workers[seat.number], "was not needed any more")

    def shutdown(self) -> None:
        template, self.template = self.template, None
        for worker in self._workers.values():
            self._unwatch(worker)
            worker.process.close()
        self._workers.clear()
        if template is not None:
            template.end()

    # What they say

    def came(self, peer: Peer) -> None:
        assert isinstance(peer, LocalWorker)
        self._failed_starts = 0
        self.scheduler.seat_came(peer.seat)

    def on_done(
        self, peer: Peer, number: int, seconds: float, status: int, results: list[Packed]
    ) -> None:
        call = self._sent(peer, number)
        if call is None:
            return
        if seconds >= 0:
            self.scheduler.finished(call, seconds)
        else:
            self.scheduler.left(call)
        self._core.over(call, status, results)

    def on_given_back(self, peer: Peer, numbers: Sequence[int]) -> None:
        core = self._core
        for number in reversed(numbers):
            call = self._sent(peer, number)
            if call is None:
                continue
            self.scheduler.left(call)
            core.deadlines.pop(number, None)
            if call.ends_as is not None:
                core.settle(call, [call.ends_as] * len(call.results), is_error=True)
            else:
                self.scheduler.add(call, first=True)

    def _sent(self, peer: Peer, number: int) -> CallRecord | None:
        assert isinstance(peer, LocalWorker)
        call = peer.seat.sent.get(number)
        assert call is None or isinstance(call, CallRecord)
        return call

    def waits(self, peer: Peer, token: int, for_calls: Iterable[Call], *, in_thread: bool) -> None:
        assert isinstance(peer, LocalWorker)
        self.scheduler.waits(peer.seat, token, for_calls, in_thread=in_thread)

    def goes_on(self, peer: Peer, token: int) -> None:
        assert isinstance(peer, LocalWorker)
        self.scheduler.goes_on(peer.seat, token)

    def on_exit(self, number: int, code: int | None) -> None:
        """A worker is gone. `code` as in subprocess; None if nobody knows."""
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        self._unwatch(worker)
        worker.process.close()
        is_out_of_memory = worker.end is None and self._kernel_kills.explain(code)
        how = how_it_ended(code, worker.end, is_out_of_memory=is_out_of_memory)
        # First: what it waited for must not wake it.
        self._core.peer_gone(worker)
        if worker.actor is not None:
            self._core.actors.on_exit(worker, how)
        elif number in self.scheduler.seats:
            for call in self.scheduler.seat_went(worker.seat):
                assert isinstance(call, CallRecord)
                self._core.lost(
                    call,
                    worker_died(call.name, worker.pid, how, is_out_of_memory=is_out_of_memory),
                )
        else:
            self.scheduler.coming = max(0, self.scheduler.coming - 1)
            self._failed_starts += worker.end is None

    def on_template_gone(self) -> None:
        """The kernel ends its workers with it."""
        self.template = None
        for number in list(self._workers):
            self.on_exit(number, None)

    def on_written(self, worker: LocalWorker) -> bool:
        try:
            return worker.process.sender.send_more()
        except OSError:
            return True

    # What there is

    def node_of(self, peer: Peer | None) -> str:
        del peer
        return THIS_NODE

    def nodes(self) -> list[Node]:
        machine, total = os.uname(), self.scheduler.total
        return [
            Node(
                id=THIS_NODE,
                hostname=machine.nodename,
                architecture=machine.machine,
                cpus=total.cpus,
                memory=total.memory,
                resources=dict(total.resources),
                alive=True,
            )
        ]

    def resources(self, *, available: bool) -> dict[str, float]:
        need = self.scheduler.available() if available else self.scheduler.total
        return {"CPU": float(need.cpus), "memory": float(need.memory), **dict(need.resources)}

    # What actors keep to themselves

    def reserve(self, need: Need) -> None:
        self.scheduler.reserve(need)

    def unreserve(self, need: Need) -> None:
        self.scheduler.unreserve(need)


def _process_of(peer: Peer) -> WorkerProcess:
    assert isinstance(peer, LocalWorker)
    return peer.process
