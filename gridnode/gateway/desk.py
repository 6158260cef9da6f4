"""Where one run is served: its commands on queues and keys, as the rules of its task have it.

    conversation --command--> desk --transactions--> outside (the node's ledger, and so Redis)
                 <--reply----   '--pops--> stock

No sockets, no clocks: what has to be waited for comes back by a callback, and the time is told by
`Outside`, so that a test can be all of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gridcore.lease_queue.queue import Lease, Push, Side, Transaction
from gridcore.wire import AckMode
from gridnode.gateway import resp
from gridnode.gateway.conversation import Conversation, Reply, wrong_number
from gridnode.gateway.foreign import KeyRules
from gridnode.gateway.open_work import Delivery, OpenWork
from gridnode.gateway.resp import Command
from gridnode.gateway.stock import Pop, Stock

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Results that a run may push before their items are done."""

LONGEST_BARRIER_S = 300.0
"""A pop waits for the run's other threads no longer; see OpenWork.is_overgrown."""

Then = Callable[[Any], None]


class Outside(Protocol):
    """What a desk needs of the node."""

    def now_s(self) -> float: ...

    def commit(self, transactions: Sequence[Transaction]) -> None: ...

    def push_through(self, pushes: Sequence[Push], then: Then) -> None:
        """Results that belong to no item; `then` gets None when they are in Redis, or an error."""

    def ask(self, command: Command, then: Then) -> None:
        """Asks the Redis of the input queue; `then` gets the answer, or an error."""

    def ask_output(self, command: Command, then: Then) -> None: ...

    def pass_on(self, command: Command, then: Then) -> None:
        """A command on further keys, if all of them are allowed."""

    def wants_items(self) -> None: ...

    def after(self, delay_s: float, then: Callable[[], None]) -> None: ...

    def note_forced_group(self, after_s: float) -> None: ...


@dataclass(frozen=True)
class Rules:
    """What a task says of its containers."""

    input_queue: str
    output_queue: str
    ack: AckMode
    keys: KeyRules


@dataclass
class Counters:
    """Of one slot, for as long as it works on one task."""

    taken: int = 0
    committed: int = 0
    aborted: int = 0
    seconds_per_item: float | None = None


@dataclass(frozen=True)
class Settled:
    """What a run leaves behind."""

    failed: list[Lease] = field(default_factory=list)
    """In hand when it ended badly."""
    returned: list[Lease] = field(default_factory=list)
    """Nobody is to blame: never seen, done with already, or the end was the node's doing."""


class PopOrder(NamedTuple):
    """A pop as it was asked for."""

    side: Side
    most: int
    block_s: float | None
    """None: it does not wait; 0: for ever."""
    encode: Callable[[Sequence[Lease], Conversation], bytes]
    nil: Callable[[Conversation], bytes]
    moves_to: bytes | None = None
    moves_side: Side = "L"


class Desk:
    def __init__(
        self, rules: Rules, *, secret: bytes, stock: Stock, outside: Outside, counters: Counters
    ) -> None:
        self.secret = secret
        self.work = OpenWork()
        self.has_popped = False
        self.idle_since_s: float | None = None
        """Since when it has asked in vain, with nothing in hand."""
        self.wrong_passwords = 0
        self._rules = rules
        self._input = rules.input_queue.encode()
        self._output = rules.output_queue.encode()
        self._stock = stock
        self._outside = outside
        self._counters = counters
        self._waiting: dict[Conversation, Pop] = {}
        self._parked: list[tuple[Conversation, PopOrder]] = []
        self._own_lists: set[bytes] = set()
        self._exec_results: list[Push] = []
        self._exec_done: list[Delivery] = []
        self._last_delivery: tuple[float, int] | None = None
        self._last_brpop: Command = []
        self._last_order = PopOrder("R", 1, 0.0, self._pair, _nil_array)
        self._is_over = False
        self._is_draining = False

    # --- what conversations bring

    def command(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        handler = _HANDLERS.get(command[0].upper())
        try:
            if handler:
                return handler(self, conversation, command, heard)
            self.work.heard_from(conversation, heard)
            return self._foreign(conversation, command)
        except _Refused as refused:
            return resp.error(str(refused))

    def refuses(self, command: Command) -> bytes | None:
        """What is wrong with a command that is to be queued in a MULTI."""
        if command[0].upper() in _HANDLERS or self._rules.keys.allow_any:
            return None
        return resp.error(self._denial(command))

    def multi_is_over(self, conversation: Conversation) -> None:  # noqa: ARG002
        results, done = self._exec_results, self._exec_done
        self._exec_results, self._exec_done = [], []
        if done:
            self._commit(self.work.is_done_with(done, results))
        elif results and not self.work.pushed(results):
            self._outside.push_through(results, lambda _: None)

    def call_off(self, conversation: Conversation) -> None:
        """Nobody is there to get what it has asked for."""
        pop = self._waiting.pop(conversation, None)
        if pop:
            pop.is_over = True
        self._parked = [parked for parked in self._parked if parked[0] is not conversation]

    def hung_up(self, conversation: Conversation, *, was_read: bool) -> None:
        for delivery in self.work.closed(conversation, was_read=was_read):
            self._counters.taken -= len(delivery.leases)
            self._stock.put_back(delivery.side, delivery.leases)
        self._unpark()

    def noted_wrong_password(self) -> None:
        self.wrong_passwords += 1

    # --- how the run ends

    def drain(self) -> None:
        """Nothing more is handed out: the run is to end."""
        self._is_draining = True
        for pop in self._waiting.values():
            pop.is_over = True

    @property
    def is_idle(self) -> bool:
        """It waits for items, and has nothing in hand."""
        return bool(self._waiting) and not self.work.deliveries

    def ended(self, *, well: bool, is_to_blame: bool) -> Settled:
        """The run is over, and all its connections are closed."""
        self._is_over = True
        for pop in self._waiting.values():
            pop.is_over = True
        if well:
            ready, unseen = self.work.ended_well()
            self._commit(ready)
            return Settled(returned=unseen)
        failed, others = self.work.ended_badly()
        if not is_to_blame:
            return Settled(returned=failed + others)
        self._counters.aborted += len(failed)
        return Settled(failed=failed, returned=others)

    def seconds_on_item(self) -> float:
        """For how long it has been at what it has in hand, per item of one reply."""
        delivery = self.work.oldest_open()
        if delivery is None:
            return 0.0
        return (self._outside.now_s() - delivery.at_s) / max(1, len(delivery.leases))

    # --- pops

    def _pop(self, conversation: Conversation, heard: int, order: PopOrder) -> Reply:
        ack = self._rules.ack
        if conversation.in_exec:
            self.multi_is_over(conversation)
        if ack == "next":
            self._note_pace()
            self._commit(self.work.asks_for_more(conversation, heard))
        else:
            self.work.heard_from(conversation, heard)
        if ack == "explicit" and order.moves_to is None:
            raise _Refused(
                "NOPERM gridcore: this task has ack = 'explicit': move an item with LMOVE or"
                " BRPOPLPUSH to a list of the program's own, and LREM it from there when it is"
                " done; or submit the task with ack = 'next'"
            )
        if order.most == 0:
            return resp.EMPTY_ARRAY
        if self.work.is_overgrown and ack == "next":
            self._park(conversation, order)
            return None
        return self._get(conversation, order)

    def _get(self, conversation: Conversation, order: PopOrder) -> Reply:
        self.has_popped = True
        if not self._is_draining:
            leases = self._stock.pop(order.side, order.most)
            if leases is not None:
                if self._stock.is_low:
                    self._outside.wants_items()
                return self._deliver(conversation, order, leases)
        may_wait = order.block_s is not None and not conversation.in_exec
        pop = Pop(
            order.side,
            order.most,
            lambda leases: self._serve(conversation, order, leases),
            is_blocking=may_wait,
        )
        self._waiting[conversation] = pop
        if not self.work.deliveries and self.idle_since_s is None:
            self.idle_since_s = self._outside.now_s()
        if self._is_draining:
            pop.is_over = True
            return None
        self._stock.wait(pop)
        self._outside.wants_items()
        if may_wait and order.block_s:
            self._outside.after(order.block_s, lambda: self._time_is_up(conversation, order, pop))
        return None

    def _serve(self, conversation: Conversation, order: PopOrder, leases: Sequence[Lease]) -> None:
        del self._waiting[conversation]
        if leases:
            conversation.answer(self._deliver(conversation, order, leases))
        else:
            conversation.answer(order.nil(conversation))

    def _time_is_up(self, conversation: Conversation, order: PopOrder, pop: Pop) -> None:
        if self._waiting.get(conversation) is not pop:
            return
        pop.is_over = True
        del self._waiting[conversation]
        conversation.answer(order.nil(conversation))

    def _deliver(
        self, conversation: Conversation, order: PopOrder, leases: Sequence[Lease]
    ) -> bytes:
        now_s = self._outside.now_s()
        kept_in = None
        if order.moves_to is not None and order.moves_to not in (self._input, self._output):
            kept_in = order.moves_to
            self._own_lists.add(kept_in)
        self.work.opened(
            Delivery(conversation, leases, order.side, conversation.heard, now_s, kept_in)
        )
        if order.moves_to is not None and kept_in is None:
            to_input = order.moves_to == self._input
            values = [lease.payload for lease in leases]
            self.work.pushed([Push(order.moves_side, values, to_input)])
        self.idle_since_s = None
        self._counters.taken += len(leases)
        self._last_delivery = (now_s, len(leases))
        return order.encode(leases, conversation)

    def _park(self, conversation: Conversation, order: PopOrder) -> None:
        self._parked.append((conversation, order))

        def give_in() -> None:
            if any(parked[0] is conversation for parked in self._parked):
                self._outside.note_forced_group(LONGEST_BARRIER_S)
                self._commit(self.work.all_is_done())

        self._outside.after(LONGEST_BARRIER_S, give_in)

    def _unpark(self) -> None:
        if not self._parked or self.work.is_overgrown:
            return
        parked, self._parked = self._parked, []
        for conversation, order in parked:
            reply = self._get(conversation, order)
            if reply is not None:
                conversation.answer(reply)

    def _brpop(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        if len(command) < 3:
            return wrong_number(command)
        # Nearly every command is this one, and the same as the one before.
        if command != self._last_brpop:
            self._check_all_input(command, command[1:-1])
            side: Side = "R" if command[0][1] in b"Rr" else "L"
            timeout_s = _timeout(command[-1])
            self._last_order = PopOrder(side, 1, timeout_s, self._pair, _nil_array)
            self._last_brpop = command
        return self._pop(conversation, heard, self._last_order)

    def _rpop(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        if len(command) not in (2, 3):
            return wrong_number(command)
        side: Side = "R" if command[0][0] in b"Rr" else "L"
        if self._is_own(command[1]):
            return self._pop_own(conversation, command)
        self._check_all_input(command, command[1:2])
        if len(command) == 2:
            order = PopOrder(side, 1, None, _one, _nil)
        else:
            order = PopOrder(side, _count(command[2], least=0), None, _many, _nil_array)
        return self._pop(conversation, heard, order)

    def _lmpop(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        block_s, rest = None, command[1:]
        if command[0][:1] in b"Bb" and rest:
            block_s, rest = _timeout(rest[0]), rest[1:]
        if len(rest) < 3:
            return wrong_number(command)
        keys = _count(rest[0], least=1)
        options = rest[1 + keys :]
        if len(options) not in (1, 3) or (len(options) == 3 and options[1].upper() != b"COUNT"):
            return _SYNTAX
        self._check_all_input(command, rest[1 : 1 + keys])
        count = _count(options[2], least=1) if len(options) == 3 else 1
        order = PopOrder(_side(options[0]), count, block_s, self._key_and_many, _nil_array)
        return self._pop(conversation, heard, order)

    def _lmove(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        name = command[0].upper()
        blocks = name.startswith(b"B")
        if name in (b"LMOVE", b"BLMOVE"):
            if len(command) != 5 + blocks:
                return wrong_number(command)
            source_side, target_side = _side(command[3]), _side(command[4])
        else:
            if len(command) != 3 + blocks:
                return wrong_number(command)
            source_side, target_side = "R", "L"
        block_s = _timeout(command[-1]) if blocks else None
        source, target = command[1], command[2]
        if source != self._input and self._is_own(source):
            return self._move_from_own(conversation, command, source_side, target_side)
        self._check_all_input(command, [source])
        if self._rules.keys.allow(target):
            raise _Refused(
                f"NOPERM gridcore: an item cannot move to {_shown(target)}, which others see: it"
                " is this run's until it is done. Choose a name that the task's 'keys' do not name"
            )
        nil = _nil_array if blocks else _nil
        return self._pop(
            conversation,
            heard,
            PopOrder(source_side, 1, block_s, _one, nil, target, target_side),
        )

    # --- pushes

    def _push(self, conversation: Conversation, command: Command, heard: int) -> Reply:  # noqa: ARG002
        if len(command) < 3:
            return wrong_number(command)
        key = command[1]
        if key != self._output and key != self._input:
            if self._rules.keys.allow(key):
                return self._foreign(conversation, command)
            raise _Refused(self._denial(command))
        side: Side = "L" if command[0][0] in b"Ll" else "R"
        values = command[2:]
        work = self.work
        if work.held_bytes > MAX_HELD_BYTES:
            raise _Refused(
                f"OOM command not allowed: this run has pushed {work.held_bytes} bytes of results"
                " whose items are not done yet. Ask for the next item, or push less per item"
            )
        push = Push(side, values, key == self._input)
        if conversation.in_exec and work.deliveries:
            self._exec_results.append(push)
        elif not work.pushed((push,)):
            then = self._answerer(conversation, lambda _: resp.integer(len(values)))
            self._outside.push_through((push,), then)
            return None
        return resp.integer(len(values))

    def _push_if_there(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        if len(command) < 3:
            return wrong_number(command)
        if command[1] != self._output:
            raise _Refused(self._denial(command))

        def then(length: Any) -> None:
            if isinstance(length, Exception):
                reply: Reply = resp.error(f"ERR {length}")
            elif length or self.work.held:
                reply = self._push(conversation, [command[0][:5], *command[1:]], heard)
            else:
                reply = resp.integer(0)
            if reply is not None:
                conversation.answer(reply)

        self._outside.ask_output([b"LLEN", command[1]], then)
        return None

    # --- the lists of the program's own

    def _is_own(self, key: bytes) -> bool:
        if key in (self._input, self._output):
            return False
        return key in self._own_lists or (
            self._rules.ack == "explicit" and not self._rules.keys.allow(key)
        )

    def _lrem(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        if len(command) != 4:
            return wrong_number(command)
        if not self._is_own(command[1]):
            return self._foreign(conversation, command)
        count = _count(command[2], least=None)
        found = [d for d in self._in_own(command[1]) if d.leases[0].payload == command[3]]
        if count < 0:
            found.reverse()
        found = found[: abs(count)] if count else found
        self._done(conversation, found)
        return resp.integer(len(found))

    def _pop_own(self, conversation: Conversation, command: Command) -> bytes:
        found = self._in_own(command[1])
        if command[0][:1] in b"Rr":
            found.reverse()
        found = found[: _count(command[2], least=0) if len(command) == 3 else 1]
        self._done(conversation, found)
        payloads = [d.leases[0].payload for d in found]
        if len(command) == 3:
            return resp.strings(payloads) if payloads else resp.NIL_ARRAY[conversation.protocol]
        return resp.bulk(payloads[0]) if payloads else resp.NIL[conversation.protocol]

    def _move_from_own(
        self, conversation: Conversation, command: Command, side: Side, target_side: Side
    ) -> bytes:
        """An item goes back to the queue, as if it had never been taken; or with its result."""
        found = self._in_own(command[1])
        if not found:
            return resp.NIL[conversation.protocol]
        delivery = found[-1 if side == "R" else 0]
        payload = delivery.leases[0].payload
        if command[2] == self._input:
            self._stock.put_back(delivery.side, self.work.give_up(delivery))
        elif command[2] == self._output:
            self._commit(self.work.is_done_with([delivery], [Push(target_side, [payload])]))
        else:
            delivery.kept_in = command[2]
            self._own_lists.add(command[2])
        self._unpark()
        return resp.bulk(payload)

    def _done(self, conversation: Conversation, found: Sequence[Delivery]) -> None:
        if not found:
            return
        if conversation.in_exec:
            self._exec_done += found
        else:
            self._commit(self.work.is_done_with(found))
        self._unpark()

    def _in_own(self, key: bytes) -> list[Delivery]:
        return [d for d in self.work.kept_in(key) if d not in self._exec_done]

    # --- looking

    def _llen(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        if len(command) != 2:
            return wrong_number(command)
        key = command[1]
        if self._is_own(key):
            return resp.integer(len(self._in_own(key)))
        if key == self._input:
            self._ask_length(conversation, lambda n: resp.integer(n))
        elif key == self._output:
            held = sum(len(push.values) for push in self.work.held if not push.to_input)
            then = self._answerer(conversation, lambda n: resp.integer(int(n) + held))
            self._outside.ask_output([b"LLEN", key], then)
        else:
            return self._foreign(conversation, command)
        return None

    def _exists(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        if len(command) != 2:
            if len(command) < 2:
                return wrong_number(command)
            return self._foreign(conversation, command)
        key = command[1]
        if self._is_own(key):
            return resp.integer(bool(self._in_own(key)))
        if key == self._input:
            self._ask_length(conversation, lambda n: resp.integer(bool(n)))
        elif key == self._output:
            self._outside.ask_output(command, self._answerer(conversation, resp.integer))
        else:
            return self._foreign(conversation, command)
        return None

    def _type(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        if len(command) != 2:
            return wrong_number(command)
        key = command[1]
        if self._is_own(key):
            return resp.simple(b"list" if self._in_own(key) else b"none")
        if key == self._input:
            self._ask_length(conversation, lambda n: resp.simple(b"list" if n else b"none"))
        elif key == self._output:
            self._outside.ask_output(command, self._answerer(conversation, resp.simple))
        else:
            return self._foreign(conversation, command)
        return None

    def _lrange(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        is_index = command[0].upper() == b"LINDEX"
        if len(command) != (3 if is_index else 4):
            return wrong_number(command)
        key = command[1]
        if key != self._input and not self._is_own(key):
            return self._foreign(conversation, command)
        start = _count(command[2], least=None)
        stop = start if is_index else _count(command[3], least=None)

        def reply(values: Sequence[bytes]) -> bytes:
            if not is_index:
                return resp.strings(values)
            return resp.bulk(values[0]) if values else resp.NIL[conversation.protocol]

        if self._is_own(key):
            own = [d.leases[0].payload for d in self._in_own(key)]
            first, last = _bounds(start, stop, len(own))
            return reply(own[first:last])
        # The queue as it was before the gateway took the ends of it into stock.
        left, right = self._stock.peek("L"), self._stock.peek("R")[::-1]

        def with_length(length: Any) -> None:
            if isinstance(length, Exception):
                conversation.answer(resp.error(f"ERR {length}"))
                return
            first, last = _bounds(start, stop, len(left) + int(length) + len(right))
            low, high = max(0, first - len(left)), min(int(length), last - len(left))

            def with_middle(middle: Any) -> None:
                ends = left[first:last], right[max(0, first - len(left) - int(length)) :]
                ends = ends[0], ends[1][: max(0, last - max(first, len(left) + int(length)))]
                conversation.answer(reply([*ends[0], *middle, *ends[1]]))

            if low >= high:
                with_middle([])
                return
            indices = [b"%d" % low, b"%d" % (high - 1)]
            self._outside.ask([b"LRANGE", key, *indices], with_middle)

        self._outside.ask([b"LLEN", key], with_length)
        return None

    def _time(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        self._outside.ask(command, self._answerer(conversation, resp.strings))
        return None

    def _delete(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        self.work.heard_from(conversation, heard)
        if len(command) == 2 and self._is_own(command[1]):
            found = self._in_own(command[1])
            self._done(conversation, found)
            return resp.integer(bool(found))
        return self._foreign(conversation, command)

    def _ask_length(self, conversation: Conversation, encode: Callable[[int], bytes]) -> None:
        def reply(length: Any) -> bytes:
            return encode(int(length) + self._stock.size)

        self._outside.ask([b"LLEN", self._input], self._answerer(conversation, reply))

    # --- other keys

    def _foreign(self, conversation: Conversation, command: Command) -> Reply:
        if not self._rules.keys.allow_any:
            raise _Refused(self._denial(command))

        def then(answer: Any) -> None:
            if isinstance(answer, NotAllowed):
                conversation.answer(resp.error(self._denial(command)))
            elif isinstance(answer, Exception):
                conversation.answer(resp.error(_with_code(str(answer))))
            else:
                conversation.answer(resp.encode(answer, conversation.protocol))

        self._outside.pass_on(command, then)
        return None

    def _denial(self, command: Command) -> str:
        rules = self._rules
        shown = " ".join(_shown(word) for word in command[:2])
        allowed = f"further keys: {rules.keys.shown}; " if rules.keys.allow_any else ""
        return (
            f"NOPERM gridcore: '{shown}' is not for containers of this task. They pop from"
            f" '{rules.input_queue}' and push to '{rules.output_queue}' ({allowed}no scripts,"
            " subscriptions or administration). To allow more, name the key or a pattern in the"
            " task's 'keys', or submit it with delivery = 'direct'"
        )

    # --- helpers

    def _check_all_input(self, command: Command, keys: Sequence[bytes]) -> None:
        for key in keys:
            if key != self._input:
                raise _Refused(self._denial([command[0], key]))

    def _commit(self, transactions: list[Transaction]) -> None:
        if not transactions:
            return
        self._counters.committed += sum(len(t.tokens) for t in transactions)
        self._outside.commit(transactions)
        self._unpark()

    def _note_pace(self) -> None:
        if self._last_delivery is None:
            return
        at_s, count = self._last_delivery
        self._last_delivery = None
        seconds = (self._outside.now_s() - at_s) / count
        before = self._counters.seconds_per_item
        # A hundredth or less of what it was is told by a few items, not by one.
        self._counters.seconds_per_item = (
            seconds if before is None else before + 0.2 * (seconds - before)
        )

    def _answerer(self, conversation: Conversation, encode: Callable[[Any], bytes]) -> Then:
        def then(answer: Any) -> None:
            if isinstance(answer, Exception):
                conversation.answer(resp.error(_with_code(str(answer))))
            else:
                conversation.answer(encode(answer))

        return then

    def _pair(self, leases: Sequence[Lease], conversation: Conversation) -> bytes:  # noqa: ARG002
        return resp.pair(self._input, leases[0].payload)

    def _key_and_many(self, leases: Sequence[Lease], conversation: Conversation) -> bytes:
        return resp.array([resp.bulk(self._input), _many(leases, conversation)])


class NotAllowed(Exception):
    """A command on keys that the task does not allow."""


class _Refused(Exception):
    """Its text is the error reply."""


_SYNTAX = resp.error("ERR syntax error")

_Handler = Callable[[Desk, Conversation, Command, int], Reply]

_HANDLERS: dict[bytes, _Handler] = {
    b"BRPOP": Desk._brpop,
    b"BLPOP": Desk._brpop,
    b"RPOP": Desk._rpop,
    b"LPOP": Desk._rpop,
    b"LMPOP": Desk._lmpop,
    b"BLMPOP": Desk._lmpop,
    b"LMOVE": Desk._lmove,
    b"BLMOVE": Desk._lmove,
    b"RPOPLPUSH": Desk._lmove,
    b"BRPOPLPUSH": Desk._lmove,
    b"LPUSH": Desk._push,
    b"RPUSH": Desk._push,
    b"LPUSHX": Desk._push_if_there,
    b"RPUSHX": Desk._push_if_there,
    b"LREM": Desk._lrem,
    b"LLEN": Desk._llen,
    b"LRANGE": Desk._lrange,
    b"LINDEX": Desk._lrange,
    b"EXISTS": Desk._exists,
    b"TYPE": Desk._type,
    b"TIME": Desk._time,
    b"DEL": Desk._delete,
    b"UNLINK": Desk._delete,
}


def _one(leases: Sequence[Lease], conversation: Conversation) -> bytes:  # noqa: ARG001
    return resp.bulk(leases[0].payload)


def _many(leases: Sequence[Lease], conversation: Conversation) -> bytes:  # noqa: ARG001
    return resp.strings([lease.payload for lease in leases])


def _nil(conversation: Conversation) -> bytes:
    return resp.NIL[conversation.protocol]


def _nil_array(conversation: Conversation) -> bytes:
    return resp.NIL_ARRAY[conversation.protocol]


def _timeout(text: bytes) -> float:
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = float("nan")
    if not timeout_s < 1e12 or timeout_s == float("-inf"):
        raise _Refused("ERR timeout is not a float or out of range")
    if timeout_s < 0:
        raise _Refused("ERR timeout is negative")
    return timeout_s


def _count(text: bytes, *, least: int | None) -> int:
    try:
        number = int(text)
    except ValueError:
        raise _Refused("ERR value is not an integer or out of range") from None
    if least is not None and number < least:
        positive = "positive" if least == 0 else "greater than 0"
        raise _Refused(f"ERR value is out of range, must be {positive}")
    return number


def _side(text: bytes) -> Side:
    word = text.upper()
    if word == b"LEFT":
        return "L"
    if word == b"RIGHT":
        return "R"
    raise _Refused("ERR syntax error")


def _bounds(start: int, stop: int, length: int) -> tuple[int, int]:
    """Redis' start and stop as those of a slice."""
    first = max(0, start + length if start < 0 else start)
    last = (stop + length if stop < 0 else stop) + 1
    return first, max(first, min(last, length))


def _with_code(text: str) -> str:
    code = text.partition(" ")[0]
    return text if code.isalpha() and code.isupper() else f"ERR {text}"


def _shown(word: bytes) -> str:
    return word[:64].decode("utf-8", "replace")
