"""Where calls run on a grid: each is an item that some container takes, has run, and answers.

A call is *pushed* until its result is here, wherever it may be by then; what comes for a call that
is over is dropped. A *run* is a container at work for this driver. When it is lost, what
it held is let go, its actors have died, and its calls come back by themselves, since their items
were only leased to it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from gridcore.sdk.context import Node
from gridcore.sdk.driver.core import Core
from gridcore.sdk.driver.records import DRIVER, Actor, CallRecord, Peer, Watch
from gridcore.sdk.engine import Exported
from gridcore.sdk.errors import (
    ObjectLost,
    OutOfMemory,
    TaskTimeout,
    VersionMismatch,
    WorkerDied,
)
from gridcore.sdk.grid.messages import ACTOR, CALL, LATE, PYTHON, Item, Part, Ticket, read_letter
from gridcore.sdk.grid.runs import GridWorker, Run, Runs, SendsOrders
from gridcore.sdk.grid.values import StoredBlob
from gridcore.sdk.outcomes import ANY_ATTEMPT, packed_error
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.endings import how_it_ended, worker_died
from gridcore.sdk.workers.frames import Message, Outgoing, packed_from
from gridcore.sdk.workers.scheduler import READY, SENT, Call, Need

MOST_PUSHED = 5_000
"""Items of one driver in the queue, or begun just now: enough for a thousand cores with short
calls. Those that run for a while do not count: they may wait for one that is not pushed yet."""

MOST_PUSHED_BYTES = 64 * 1024 * 1024

ROOM_FOR_FIRST = 2
"""Times as many, for calls that go first: what a call waits for should not wait itself."""

ITEMS_AT_ONCE = 1000

DROP_WITHIN_S = 2.0
"""A call that was cancelled and that nobody has spoken of since: it is not to be waited for."""

DRIVERS_NODE = "driver"


_log = logging.getLogger("gridcore")


class Sends(SendsOrders, Protocol):
    """What a place needs of the store."""

    def push(self, items: Sequence[bytes], *, first: bool = False) -> None: ...
    def take_back(self, item: bytes, then: Callable[[], None]) -> None: ...
    def put_function(self, exported: Exported) -> None: ...
    def close(self) -> None: ...


class _Pushed:
    """A call or an actor that some container is to take, or has taken."""

    __slots__ = (
        "attempt",
        "call",
        "has_begun",
        "is_first",
        "item",
        "may_come_twice",
        "peer",
    )

    def __init__(
        self,
        item: bytes,
        attempt: int,
        *,
        is_first: bool,
        call: CallRecord | None = None,
        peer: GridWorker | None = None,
    ) -> None:
        self.item = item
        self.attempt = attempt
        self.is_first = is_first
        self.call = call
        self.peer = peer
        self.has_begun = False
        """And runs for a while already."""
        self.may_come_twice = False
        """Of an actor: it was sent again before it was heard of, and there may be two items."""

    @property
    def need(self) -> Need:
        if self.call is not None:
            return self.call.need
        assert self.peer is not None
        assert self.peer.actor is not None
        return self.peer.actor.need


class GridOutgoing(Outgoing):
    def wire(self, packed: Packed) -> Any:
        if packed.blob is None:
            return packed.data
        self.kept.append(packed.blob)
        return len(self.kept) - 1, packed.blob.size

    @property
    def tickets(self) -> list[Ticket]:
        return [blob.ticket for blob in self.kept if isinstance(blob, StoredBlob)]


class GridPlace:
    how_to_get_more = "Ask for less: on a grid a call has one core, and its container's memory"

    def __init__(
        self,
        core: Core,
        store: Sends,
        job: str,
        *,
        now: Callable[[], float],
        stored: Callable[[Ticket], StoredBlob],
        on_message: Callable[[Peer, Message, list[Any]], None],
    ) -> None:
        """`stored`: the value of a ticket, which is this driver's from now on; `on_message`: for
        what workers ask of any driver."""
        self._core = core
        self._store = store
        self._job = job
        self._now = now
        self._stored = stored
        self._on_message = on_message
        self._fleet: list[Node] = []
        """As the hub has said lately."""
        self._ready: list[tuple[int, int, CallRecord]] = []
        self._next_last = itertools.count(1)
        self._next_first = itertools.count(-1, -1)
        self._pushed: dict[int, _Pushed] = {}
        self._waiting = self._waiting_bytes = 0
        """Of those, the ones that are not known to have begun."""
        self._peers = itertools.count(1)
        self._runs = Runs(store, now=now, on_lost=self._on_lost)
        self._dropped: dict[int, tuple[float, CallRecord]] = {}
        """Cancelled, and not known to have stopped; until when that is waited for."""

    # Calls of functions

    def lack(self, need: Need) -> str | None:
        if need.cpus > 1:
            return f"it asks for num_cpus={need.cpus:g}, and a container has one"
        most = max((n["memory"] / n["cpus"] for n in self._fleet if n["cpus"]), default=0.0)
        if 0 < most < need.memory:  # nodes that do not say are no reason
            return (
                f"it asks for memory={need.memory:,}, and the largest container has {most:,.0f}"
                " bytes"
            )
        if need.resources:
            name, amount = need.resources[0]
            return f"it asks for {name}={amount:g}, and nodes of a grid have no resources of a name"
        return None

    def add(self, call: CallRecord, *, first: bool = False) -> None:
        call.state = READY
        # What a call waits for goes before what nobody waits for: so recursion stays narrow.
        is_first = first or call.caller != DRIVER or call.priority > 0
        order = next(self._next_first if is_first else self._next_last)
        heapq.heappush(self._ready, (-call.priority, order, call))

    def drop(self, call: CallRecord) -> bool:
        call.state = SENT  # wherever it stands in line, it is passed over
        pushed = self._pushed.get(call.number)
        if pushed is None:
            return True
        # In the queue, with a node, or with a run that has said nothing of it yet: who has it says
        # when it is over. Who has it in stock while all its containers are busy does not for long.
        self._store.take_back(pushed.item, lambda: self._is_dropped(call))
        for name in self._runs.known:
            self._runs.order(name, Part(0, [("forget", call.number)], []))
        self._dropped[call.number] = (self._now() + DROP_WITHIN_S, call)
        return False

    def _is_dropped(self, call: CallRecord) -> None:
        self._dropped.pop(call.number, None)
        if self._forget(call.number) is not None:
            self._core.stopped(call)

    def on_time(self, now: float) -> None:
        for deadline, call in list(self._dropped.values()):
            if deadline <= now:
                self._is_dropped(call)

    def next_time(self) -> float | None:
        return min((deadline for deadline, _ in self._dropped.values()), default=None)

    def where(self, call: CallRecord) -> GridWorker | None:
        for name, run in self._runs.known.items():
            worker = run.started.get(call.number)
            if worker is not None:
                return self._peer(name, run, worker)
        return None

    def give_out(self) -> None:
        ready = self._ready
        while ready:
            items: list[bytes] = []
            first = ready[0][1] < 0
            times = ROOM_FOR_FIRST if first else 1
            most, most_bytes = times * MOST_PUSHED, times * MOST_PUSHED_BYTES
            if self._waiting >= most:
                break
            while ready and (ready[0][1] < 0) is first and len(items) < ITEMS_AT_ONCE:
                if self._waiting_bytes >= most_bytes:
                    break
                call = heapq.heappop(ready)[2]
                if call.state == READY:
                    items.append(self._item_of(call, is_first=first))
            if not items and self._waiting_bytes >= most_bytes:
                break
            if items:
                self._store.push(items, first=first)
        self._runs.send_orders()

    def _item_of(self, call: CallRecord, *, is_first: bool) -> bytes:
        call.state = SENT
        self._store.put_function(call.exported)
        out = GridOutgoing()
        arguments = call.arguments
        wire = out.wire(arguments.packed)
        values = self._core.values_of(arguments, out) if arguments.numbers else ()
        item = Item(
            job=self._job,
            kind=CALL,
            number=call.number,
            attempt=call.attempt,
            python=PYTHON,
            function=call.exported.id,
            name=call.name,
            arguments=wire,
            places=arguments.places,
            values=values,
            returns=call.returns,
            about=call.about,
            timeout=call.timeout,
            memory=call.need.memory,
            cpus=call.need.cpus,
            tickets=tuple(out.tickets),
        ).encoded()
        pushed = _Pushed(item, call.attempt, is_first=is_first, call=call)
        self._remember(call.number, pushed)
        return item

    def _remember(self, number: int, pushed: _Pushed) -> None:
        self._pushed[number] = pushed
        self._waiting += 1
        self._waiting_bytes += len(pushed.item)

    def _has_begun(self, pushed: _Pushed, has_begun: bool) -> None:
        if pushed.has_begun != has_begun:
            pushed.has_begun = has_begun
            self._waiting += -1 if has_begun else 1
            self._waiting_bytes += -len(pushed.item) if has_begun else len(pushed.item)

    def _forget(self, number: int) -> _Pushed | None:
        pushed = self._pushed.pop(number, None)
        self._dropped.pop(number, None)
        if pushed is not None:
            self._has_begun(pushed, True)
        return pushed

    def push_again(self) -> None:
        """Redis may have lost items, or runners have dropped them: what runs twice counts once."""
        self._runs.send_again()
        for run in self._runs.known.values():
            run.trusted = set(run.started)
        at_work = {number for run in self._runs.known.values() for number in run.started}
        for number, pushed in list(self._pushed.items()):
            pushed.may_come_twice = pushed.peer is not None
            if pushed.call is not None:
                self._store.put_function(pushed.call.exported)
                if number not in at_work:
                    self._store.push([pushed.item], first=pushed.is_first)
            elif pushed.peer is not None and pushed.peer.run is None:
                # Two with one number would look as if the first were lost when the second begins.
                self._forget(number)
                pushed.peer.number = -next(self._peers)
                self._push_actor(pushed.peer)

    def may_come_twice(self) -> None:
        """A connection is gone before it was known what of it had arrived."""
        for pushed in self._pushed.values():
            if pushed.peer is not None and pushed.peer.run is None:
                pushed.may_come_twice = True

    # Workers

    def start(self, actor: Actor) -> GridWorker:
        peer = GridWorker(-next(self._peers))
        peer.actor = actor
        self._push_actor(peer)
        return peer

    def _push_actor(self, peer: GridWorker) -> None:
        actor = peer.actor
        assert actor is not None
        made_by = actor.created_by
        assert made_by is not None
        self._store.put_function(made_by.exported)
        item = Item(
            job=self._job, kind=ACTOR, number=peer.number, attempt=1, python=PYTHON,
            name=made_by.name, function=made_by.exported.id,
            memory=actor.need.memory, cpus=actor.need.cpus,
        ).encoded()  # fmt: skip
        # Others may wait for it already.
        self._remember(peer.number, _Pushed(item, 1, is_first=True, peer=peer))
        self._store.push([item], first=True)

    def end(self, peer: Peer) -> None:
        assert isinstance(peer, GridWorker)
        if peer.run is not None:
            self._runs.order(peer.run, Part(peer.worker, [("end",)], []))
            return
        pushed = self._forget(peer.number)
        if pushed is not None:
            self._store.take_back(pushed.item, lambda: None)
            self._core.actors.on_exit(peer, how_it_ended(None, peer.end))

    def dismiss(self, peer: Peer) -> None:
        assert isinstance(peer, GridWorker)
        if peer.run is None:
            self.end(peer)
        else:
            self._runs.order(peer.run, Part(peer.worker, [("leave",)], []))

    def tell(self, peer: Peer, message: Message) -> None:
        assert isinstance(peer, GridWorker)
        if peer.run is not None:
            self._runs.order(peer.run, Part(peer.worker, [("tell", message)], []))

    def outgoing(self) -> GridOutgoing:
        return GridOutgoing()

    def send(self, peer: Peer, out: Outgoing) -> None:
        assert isinstance(peer, GridWorker)
        assert isinstance(out, GridOutgoing)
        if peer.run is not None:
            self._runs.order(peer.run, Part(peer.worker, [("pass", *out.messages)], out.tickets))

    # What they say

    def on_letter(self, data: bytes) -> None:
        name, number, parts = read_letter(data)
        is_new = name not in self._runs.known
        run = self._runs.hear(name, number)
        if is_new:
            for dropped in self._dropped:
                self._runs.order(name, Part(0, [("forget", dropped)], []))
        if run is None:
            return
        for part in parts:
            beside: list[Any] = [self._stored(ticket) for ticket in part.tickets]
            for message in part.messages:
                if run.is_lost and message[0] not in _OUTCOMES:
                    continue
                try:
                    self._handle(name, run, part.worker, message, beside)
                except Exception:  # noqa: BLE001 - there are results behind it
                    _log.exception("a message of the grid's containers led to an error")

    def _handle(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        handler = _HANDLERS.get(message[0])
        if handler is not None:
            handler(self, name, run, worker, message, beside)
        else:
            self._on_message(self._peer(name, run, worker), message, beside)

    def _peer(self, name: str, run: Run, worker: int) -> GridWorker:
        peer = run.peers.get(worker)
        if peer is None:
            peer = run.peers[worker] = GridWorker(worker)
            peer.run, peer.worker = name, worker
        return peer

    def _on_over(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        del name, worker
        _, number, attempt, status, wires, refs = message
        run.started.pop(number, None)
        pushed = self._pushed.get(number)
        if pushed is None or pushed.call is None or (status != 0 and attempt != pushed.attempt):
            return  # it is over already, or begun anew
        call = pushed.call
        self._forget(number)
        results = [
            packed_from(wire, beside, refs[place] if refs else ())
            for place, wire in enumerate(wires)
        ]
        if status == LATE:
            self._late(call)
        else:
            self._core.over(call, status, results)

    def _late(self, call: CallRecord) -> None:
        if call.ends_as is None:
            call.is_late = True
            call.ends_as = packed_error(TaskTimeout.of(call.name, call.timeout or 0.0))
        self._core.stopped(call)

    def _on_died(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        del name, worker, beside
        _, number, attempt, pid, how, is_out_of_memory = message
        run.started.pop(number, None)
        pushed = self._pushed.get(number)
        if pushed is not None and pushed.call is not None and attempt == pushed.attempt:
            self._forget(number)
            name = pushed.call.name
            error = worker_died(name, pid, how, is_out_of_memory=is_out_of_memory)
            self._core.lost(pushed.call, error)

    def _on_refused(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        """The container cannot run what this driver sends."""
        del name, run, worker, beside
        kind, number, why, next_step = message
        error = VersionMismatch if kind == "refused" else ObjectLost
        pushed = self._forget(number)
        if pushed is None:
            return
        if pushed.call is not None:
            tried = f"Running {pushed.call.name}"
            self._core.fail(pushed.call, error(tried, cause=why, next_step=next_step))
        elif pushed.peer is not None:
            tried = "Starting an actor"
            self._core.actors.fail_start(pushed.peer, error(tried, cause=why, next_step=next_step))

    def _on_started(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        del beside
        for number in message[1]:
            pushed = self._pushed.get(number)
            if pushed is None or (pushed.call is not None and pushed.call.ends_as is not None):
                self._runs.order(name, Part(worker, [("tell", ("x", number, ANY_ATTEMPT))], []))
            else:
                run.started[number] = worker
                self._has_begun(pushed, True)

    def _on_hello(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        _, token, pid, node = message
        pushed = self._pushed.get(token)
        peer = pushed.peer if pushed is not None else None
        if pushed is not None and peer is not None and peer.run is not None:
            if pushed.may_come_twice:
                # The other one is at work. Should it be lost after all, its silence says so.
                pushed.may_come_twice = False
            else:
                # Its item has come back, so whoever had it is lost.
                self._lose_worker(peer, f"was lost with its node ({peer.run})")
            peer = None
        if pushed is None or peer is None:
            self._runs.order(name, Part(worker, [("end",)], []))
            return
        self._has_begun(pushed, True)
        peer.run, peer.worker, peer.node = name, worker, node
        run.peers[worker] = peer
        self._on_message(peer, ("hello", pid), beside)

    def _on_exit(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        del name, beside
        _, code, token = message
        peer = run.peers.get(worker)
        pushed = self._pushed.get(token)
        if peer is None and pushed is not None and pushed.peer is not None:
            # An actor's worker that has ended before it had begun.
            peer = pushed.peer if pushed.peer.run is None else None
        if peer is not None:
            self._gone(peer, how_it_ended(code, peer.end))

    def _on_fetch(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        """Another program asks for a value, which is held until it says that it has it."""
        del worker, beside
        _, token, number = message
        core = self._core
        is_new = token not in run.lent

        def answer() -> None:
            packed, is_error = core.outcome(number)
            if packed.refs:
                packed, is_error = packed_error(_HAS_REFERENCES), True
            out = GridOutgoing()
            self._runs.order(
                name, Part(0, [("value", token, is_error, out.wire(packed))], out.tickets)
            )

        if not is_new:
            if core.is_over(number):
                answer()
            return
        run.lent[token] = number
        core.objects.hold((number,))
        watch = Watch(0, answer)
        core.watch_for((number,), 1, watch)
        if watch.left <= 0:
            answer()

    def _on_fetched(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        del name, worker, beside
        number = run.lent.pop(message[1], None)
        if number is not None:
            self._core.objects.release((number,))

    def _on_ended(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        """It took us for gone, and has dropped what it had of us. What it only had in stock is
        pushed again with our next sign of life."""
        del run, worker, message, beside
        self._runs.lose(name, "was ended: this driver had not been heard of for too long")

    def _on_alive(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        """No more than that."""

    def _gone(self, peer: GridWorker, how: str) -> None:
        run = self._runs.known.get(peer.run or "")
        if run is not None:
            run.peers.pop(peer.worker, None)
        if peer.actor is not None:
            self._forget(peer.number)
            self._core.actors.on_exit(peer, how)
        self._core.peer_gone(peer)

    def _on_lost_touch(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        """Letters have not come here that it has not got any more: how calls ended may have been in
        them, and their items are done."""
        del run, worker, message, beside
        self._runs.lose(name, "had told what the grid's Redis has forgotten")
        self.push_again()

    def _on_patience(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        """It has much to send, and says nothing until that is there."""
        del name, worker, beside
        run.heard_at += message[1]

    def _on_missed(
        self, name: str, run: Run, worker: int, message: Message, beside: list[Any]
    ) -> None:
        del worker, beside
        self._runs.missed(name, run, message[1])

    def look_for_lost_runs(self, heard_at: float, since: float) -> None:
        """See Runs.look."""
        self._runs.look(heard_at, since)

    def _lose_worker(self, peer: GridWorker, how: str) -> None:
        """Nothing is heard of it. If it lives all the same, its actor does not any more."""
        if peer.actor is not None and peer.run is not None:
            self._runs.order(peer.run, Part(peer.worker, [("end",)], []))
        self._gone(peer, how)

    def _on_lost(self, name: str, run: Run, how: str) -> None:
        del name
        self._core.objects.release(list(run.lent.values()))
        for peer in list(run.peers.values()):
            self._gone(peer, how)
        for number in run.started:
            if number in self._pushed:
                self._has_begun(self._pushed[number], False)
        for number in run.trusted:  # as it was at work: Redis may have lost its item
            if number in self._pushed:
                pushed = self._pushed[number]
                self._store.push([pushed.item], first=pushed.is_first)

    def on_dead_letter(self, item: Item, why: str, *, is_out_of_memory: bool) -> None:
        """The fleet has given it up: containers died of it, or with it, too often."""
        pushed = self._forget(item.number)
        if pushed is None:
            return
        if pushed.call is not None:
            kind = OutOfMemory if is_out_of_memory else WorkerDied
            error = kind(f"Running {item.name}", cause=why, next_step="See the container's log")
            self._core.lost(pushed.call, error)
        elif pushed.peer is not None:
            self._core.actors.on_exit(pushed.peer, why)

    @property
    def runs(self) -> Sequence[str]:
        """Containers at work for this driver."""
        return tuple(self._runs.known)

    @property
    def is_waiting(self) -> bool:
        return bool(self._pushed or self._ready)

    # What there is

    def node_of(self, peer: Peer | None) -> str:
        return peer.node if isinstance(peer, GridWorker) else DRIVERS_NODE

    def nodes(self) -> list[Node]:
        return self._fleet

    def set_fleet(self, fleet: list[Node]) -> None:
        self._fleet = fleet

    def resources(self, *, available: bool) -> dict[str, float]:
        """What other drivers use is not known here."""
        there = [node for node in self._fleet if node["alive"]]
        cpus, memory = sum(n["cpus"] for n in there), float(sum(n["memory"] for n in there))
        if available:
            needs = [pushed.need for pushed in self._pushed.values()]
            cpus, memory = cpus - sum(n.cpus for n in needs), memory - sum(n.memory for n in needs)
        return {"CPU": max(0.0, cpus), "memory": max(0.0, memory)}

    # Those are a run's affair

    def came(self, peer: Peer) -> None: ...

    def on_done(
        self, peer: Peer, number: int, seconds: float, status: int, results: list[Packed]
    ) -> None: ...

    def on_given_back(self, peer: Peer, numbers: Sequence[int]) -> None: ...

    def waits(
        self, peer: Peer, token: int, for_calls: Iterable[Call], *, in_thread: bool
    ) -> None: ...

    def goes_on(self, peer: Peer, token: int) -> None: ...

    def reserve(self, need: Need) -> None: ...

    def unreserve(self, need: Need) -> None: ...

    def shutdown(self) -> None:
        self._store.close()


_HAS_REFERENCES = ObjectLost(
    "Getting a value of another program",
    cause="there are references in it, which only that program can get",
    next_step="Have that program get them, and return what they stand for",
)


_OUTCOMES = ("over", "died", "refused", "missing")

_HANDLERS: dict[str, Callable[[GridPlace, str, Run, int, Message, list[Any]], None]] = {
    "over": GridPlace._on_over,
    "died": GridPlace._on_died,
    "refused": GridPlace._on_refused,
    "missing": GridPlace._on_refused,
    "started": GridPlace._on_started,
    "hello": GridPlace._on_hello,
    "exit": GridPlace._on_exit,
    "alive": GridPlace._on_alive,
    "ended": GridPlace._on_ended,
    "missed": GridPlace._on_missed,
    "lost touch": GridPlace._on_lost_touch,
    "patience": GridPlace._on_patience,
    "fetched": GridPlace._on_fetched,
    "fetch": GridPlace._on_fetch,
}
