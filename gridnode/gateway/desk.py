"""Where one run is served: its commands on queues and keys, as the rules of its task have it.

    conversation --command--> desk --transactions--> outside (the node's ledger, and so Redis)
                 <--reply----   '--pops--> stock

No sockets, no clocks: what has to be waited for comes back by a callback, and the time is told by
`Outside`, so that a test can be all of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gridcore.lease_queue.queue import Lease, Push, Side, Transaction
from gridcore.wire import AckMode
from gridnode.gateway import looks, own_lists, pop_commands, resp, stream_reads
from gridnode.gateway.arguments import Refused, shown, with_code, wrong_number
from gridnode.gateway.constants import Constants, Name, name_of
from gridnode.gateway.conversation import Conversation, Reply
from gridnode.gateway.foreign import KeyRules
from gridnode.gateway.open_work import Delivery, OpenWork, size_of
from gridnode.gateway.outside import NotAllowed, Outside, Then, Timer
from gridnode.gateway.pop_commands import PopOrder
from gridnode.gateway.repeated_pushes import RepeatedPushes, Stray
from gridnode.gateway.resp import Command
from gridnode.gateway.stock import MayTake, Pop, Stock
from gridnode.gateway.stream_reads import StreamWait

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Results that a run may push before their items are done."""

MAX_ITEMS_AT_ONCE = 10_000
"""For one pop, which may get fewer than it has asked for. Without a limit a pop of a billion would
bring the whole queue to this node."""

MAX_HELD_ARGUMENTS = 500_000
"""Redis takes no more than a million with one command, and one transaction is one command."""

MAX_OPEN_ITEMS = 500_000
"""For the same reason."""

LONG_BARRIER_S = 300.0
"""Whose pop waits for so long for the run's other threads is told of; see OpenWork.is_overgrown."""


@dataclass(frozen=True)
class Rules:
    """What a task says of its containers."""

    input_queue: str
    output_queue: str
    ack: AckMode
    keys: KeyRules
    alone_after_failure: bool = True


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


@dataclass
class _Exec:
    """What one EXEC has pushed and finished so far."""

    results: list[Push] = field(default_factory=list)
    done: list[Delivery] = field(default_factory=list)


class Desk:
    def __init__(
        self,
        rules: Rules,
        *,
        secret: bytes,
        stock: Stock,
        constants: Constants,
        outside: Outside,
        counters: Counters,
    ) -> None:
        self.secret = secret
        self.work = OpenWork()
        self.has_popped = False
        self.idle_since_s: float | None = None
        """Since when it has asked in vain, with nothing in hand."""
        self.wrong_passwords = 0
        self.rules = rules
        self.input = rules.input_queue.encode()
        self.output = rules.output_queue.encode()
        self.stock = stock
        self.constants = constants
        self.outside = outside
        self.range_looks = looks.RangeLooks()
        self.stream_waits: dict[Conversation, StreamWait] = {}
        self._counters = counters
        self._waiting: dict[Conversation, Pop] = {}
        self._unsettled: set[Conversation] = set()
        """They have ended, and it is not known yet whether their last replies were read."""
        self._postponed: list[tuple[Conversation, bool, Callable[[], Reply]]] = []
        """Commands whose meaning depends on that: who asks, whether it would wait for items, and
        the command."""
        self._timers: dict[Conversation, Timer] = {}
        """Of those that wait."""
        self._own_lists: set[bytes] = set()
        self._execs: dict[Conversation, _Exec] = {}
        self._repeated = RepeatedPushes()
        self._through_bytes = 0
        """Of results that belong to no item, and are not in Redis yet."""
        self._last_delivery: tuple[float, int] | None = None
        self._last_done_s = 0.0
        self._watched_group: list[Push] | None = None
        self._barrier_timer: Timer | None = None
        self.usual_pop: tuple[Command, PopOrder] = _NO_POP
        self._has_pushed_of_nothing = False
        self._is_over = False
        self._is_draining = False

    # --- what conversations bring

    def command(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        handler = _HANDLERS.get(command[0]) or _HANDLERS.get(command[0].upper())
        try:
            if handler:
                return handler(self, conversation, command, heard)
            self.work.heard_from(conversation, heard)
            return self.foreign(conversation, command)
        except Refused as refused:
            return resp.error(str(refused))

    def refuses(self, command: Command) -> bytes | None:
        """What is wrong with a command that is to be queued in a MULTI."""
        if command[0].upper() in _HANDLERS or self.rules.keys.allow_any:
            return None
        return resp.error(self._denial(command))

    def multi_is_over(self, conversation: Conversation) -> None:
        carried_out = self._execs.pop(conversation, None)
        if carried_out is None:
            return
        results, done = carried_out.results, carried_out.done
        if done:
            self._commit(self.work.is_done_with(done, results))
        elif results and not self.work.pushed(results, conversation):
            self._push_through(results, lambda _: None)

    def is_blocked(self, conversation: Conversation) -> bool:
        """It waits for what may never come."""
        if conversation in self.stream_waits:
            return True
        pop = self._waiting.get(conversation)
        if pop is not None:
            return pop.is_blocking or pop.is_over or self.work.is_overgrown
        for postponed, would_wait, _ in self._postponed:
            if postponed is conversation:
                return would_wait
        return False

    def call_off(self, conversation: Conversation) -> None:
        """Nobody is there to get what it has asked for."""
        if wait := self.stream_waits.pop(conversation, None):
            wait.call_off()
        pop = self._waits_no_more(conversation)
        if pop:
            self.work.was_called_off()
            self.stock.call_off(pop)
        for postponed in self._postponed:
            if postponed[0] is conversation:
                self._postponed.remove(postponed)
                self.work.was_called_off()
                break

    def awaits_receipt(self, conversation: Conversation) -> bool:
        """It has ended: does anything depend on whether its last replies were read? Then
        `hung_up` is to tell."""
        if self._may_not_have_read(conversation):
            self._unsettled.add(conversation)
            return True
        return False

    def _may_not_have_read(self, conversation: Conversation) -> bool:
        return self.work.has_unseen(conversation) or self._repeated.may_be_unread(conversation)

    def hung_up(self, conversation: Conversation, *, was_read: bool) -> None:
        self._repeated.closed(conversation, was_read=was_read)
        for delivery in self.work.closed(conversation, was_read=was_read):
            self._counters.taken -= len(delivery.leases)
            self.stock.put_back(delivery.side, delivery.leases)
        self._unsettled.discard(conversation)
        self._look_again()
        postponed, self._postponed = self._postponed, []
        for asker, _, command in postponed:
            reply = command()
            if reply is not None:
                asker.answer(reply)

    def noted_wrong_password(self) -> None:
        self.wrong_passwords += 1

    # --- how the run ends

    def drain(self) -> None:
        """Nothing more is handed out: the run is to end."""
        self._is_draining = True
        self._call_off_all()

    @property
    def is_idle(self) -> bool:
        """It waits for items, and has nothing in hand."""
        return bool(self._waiting) and not self.work.is_busy

    def ended(self, *, well: bool, is_to_blame: bool) -> Settled:
        """The run is over, and all its connections are closed."""
        self._is_over = True
        self._call_off_all()
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
        delivery = self._in_hand()
        if delivery is None:
            return 0.0
        return (self.outside.now_s() - delivery.at_s) / max(1, len(delivery.leases))

    def is_overdue(self, timeout_s: float) -> bool:
        """It has been at an item for too long, and that one is to blame."""
        delivery = self._in_hand()
        if delivery is None or self.seconds_on_item() <= timeout_s:
            return False
        delivery.is_overdue = True
        return True

    def _in_hand(self) -> Delivery | None:
        if self.rules.ack == "exit":
            return self.work.newest()
        return self.work.oldest_open()

    # --- pops

    def pop(self, conversation: Conversation, heard: int, order: PopOrder) -> Reply:
        ack = self.rules.ack
        if self._unsettled and ack == "next" and self._is_to_wait_for_receipts():
            self._postponed.append(
                (
                    conversation,
                    order.block_s is not None,
                    lambda: self.pop(conversation, heard, order),
                )
            )
            return None
        if conversation.in_exec:
            self.multi_is_over(conversation)
        if order.most > MAX_ITEMS_AT_ONCE:
            order = order._replace(most=MAX_ITEMS_AT_ONCE)
        self._repeated.popped(conversation, heard)
        if ack != "explicit" and self._last_delivery:
            self._note_pace(*self._last_delivery)
        if ack == "next":
            done = self.work.asks_for_more(conversation, heard)
            if done:
                self._commit(done)
        else:
            self.work.heard_from(conversation, heard)
        if ack == "exit":
            self.work.put_by()
            if self.work.open_items > MAX_OPEN_ITEMS:
                raise Refused(
                    f"OOM command not allowed: this run has {self.work.open_items} items, and none"
                    " is done before its exit (ack = 'exit'). End sooner; the next run goes on"
                )
        if ack == "explicit" and order.moves_to is None:
            raise Refused(
                "NOPERM gridcore: this task has ack = 'explicit': move an item with LMOVE or"
                " BRPOPLPUSH to a list of the program's own, and LREM it from there when it is"
                " done; or submit the task with ack = 'next'"
            )
        if order.most == 0:
            return resp.EMPTY_ARRAY
        if conversation.is_closed:
            return order.nil[conversation.protocol]
        return self._get(conversation, order)

    def _is_to_wait_for_receipts(self) -> bool:
        """A pop tells what is done, and so it must be known what was read."""
        unseen = False
        for conversation in self._unsettled:
            if self.work.has_unseen(conversation):
                unseen = True
            else:
                self.work.closed(conversation, was_read=True)
        return unseen

    def _get(self, conversation: Conversation, order: PopOrder) -> Reply:
        self.has_popped = True
        work = self.work
        if not (self._is_draining or work.is_busy):
            # Nearly always, and then nothing else is to be thought of.
            reply = self._get_at_once(conversation, order)
            if reply is not None:
                return reply
        may_wait = order.block_s is not None and not conversation.in_exec
        bends = conversation.in_exec or work.carries_from(conversation, conversation.heard)
        bends = bends or (self.rules.ack == "exit" and order.block_s == 0)
        isolates = self.rules.alone_after_failure and not bends

        def may_take() -> MayTake:
            return self._may_take(isolates=isolates, may_wait=may_wait)

        if not self._is_draining and work.is_busy and may_take() == "yes":
            reply = self._get_at_once(conversation, order)
            if reply is not None:
                return reply
        pop = Pop(
            order.side,
            order.most,
            lambda leases: self._serve(conversation, order, leases),
            is_blocking=may_wait,
            may_take=may_take,
        )
        self._waiting[conversation] = pop
        self._note_whether_idle()
        if self._is_draining:
            pop.is_over = True
            return None
        if work.is_busy and may_take() == "no":
            self._waits_no_more(conversation)
            return order.nil[conversation.protocol]
        self.stock.wait(pop)
        self.outside.wants_items()
        if work.is_overgrown:
            self._watch_barrier()
        if may_wait and order.block_s:
            self._timers[conversation] = self.outside.after(
                order.block_s, lambda: self._time_is_up(conversation, order, pop)
            )
        return None

    def _get_at_once(self, conversation: Conversation, order: PopOrder) -> bytes | None:
        leases = self.stock.pop(order.side, order.most)
        if leases is None:
            return None
        if self.stock.is_low:
            self.outside.wants_items()
        reply = self._deliver(conversation, order, leases)
        if leases[0].attempts:
            self.stock.look_again()
        return reply

    def _may_take(self, *, isolates: bool, may_wait: bool) -> MayTake:
        work = self.work
        if self.rules.ack == "next" and work.is_overgrown:
            return "later"
        # What has failed before is alone in its run. (Not so within a pipeline, whose commands are
        # answered together; nor for who waits without end and acknowledges nothing until its exit.)
        if isolates and work.is_busy and (work.has_suspect or self.stock.has_suspects):
            return "later" if may_wait else "no"
        return "yes"

    def _watch_barrier(self) -> None:
        group = self.work.held
        if self._watched_group is group:
            return
        self._watched_group = group
        if self._barrier_timer:
            self._barrier_timer.cancel()

        def tell() -> None:
            if self.work.held is group and self._waiting and not self._is_over:
                self.outside.note_long_barrier(LONG_BARRIER_S)

        self._barrier_timer = self.outside.after(LONG_BARRIER_S, tell)

    def _serve(self, conversation: Conversation, order: PopOrder, leases: Sequence[Lease]) -> None:
        self._waits_no_more(conversation)
        if leases:
            if leases[0].attempts:
                # It kept others waiting, and they have not been provided for.
                self.outside.wants_items()
            conversation.answer(self._deliver(conversation, order, leases))
        else:
            conversation.answer(order.nil[conversation.protocol])

    def _time_is_up(self, conversation: Conversation, order: PopOrder, pop: Pop) -> None:
        if self._waiting.get(conversation) is not pop:
            return
        pop.is_over = True
        self._waits_no_more(conversation)
        conversation.answer(order.nil[conversation.protocol])
        self.stock.call_off(pop)

    def _call_off_all(self) -> None:
        pops = list(self._waiting.values())
        for pop in pops:
            pop.is_over = True
        for pop in pops:
            self.stock.call_off(pop)

    def _waits_no_more(self, conversation: Conversation) -> Pop | None:
        if timer := self._timers.pop(conversation, None):
            timer.cancel()
        return self._waiting.pop(conversation, None)

    def _deliver(
        self, conversation: Conversation, order: PopOrder, leases: Sequence[Lease]
    ) -> bytes:
        now_s = self.outside.now_s()
        kept_in = None
        if order.moves_to is not None and order.moves_to not in (self.input, self.output):
            kept_in = order.moves_to
            self._own_lists.add(kept_in)
        self.work.opened(
            Delivery(conversation, leases, order.side, conversation.heard, now_s, kept_in)
        )
        if order.moves_to is not None and kept_in is None:
            to_input = order.moves_to == self.input
            values = [lease.payload for lease in leases]
            self.work.pushed([Push(order.moves_side, values, to_input)])
        self.idle_since_s = None
        self._counters.taken += len(leases)
        self._last_delivery = (now_s, len(leases))
        return order.encode(leases)

    def _look_again(self) -> None:
        if self._waiting:
            self.stock.look_again()
            self._note_whether_idle()

    def _note_whether_idle(self) -> None:
        if self.is_idle and self.idle_since_s is None:
            self.idle_since_s = self.outside.now_s()

    # --- pushes

    def _push(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        if len(command) < 3:
            return wrong_number(command)
        key = command[1]
        if key != self.output and key != self.input:
            if self.rules.keys.allow(key):
                return self.foreign(conversation, command)
            raise Refused(self._denial(command))
        side: Side = "L" if command[0][0] in b"Ll" else "R"
        values = command[2:]
        work = self.work
        push = Push(side, values, key == self.input)
        if work.held and self._is_too_much(push):
            raise Refused(
                f"OOM command not allowed: this run has pushed {work.held_bytes} bytes of results"
                " whose items are not done yet. Ask for the next item, or push less per item"
            )
        if self._unsettled and self._repeated.may_repeat(command, self._unsettled):
            self._postponed.append(
                (conversation, False, lambda: self.command(conversation, command, heard))
            )
            return None
        self._repeated.pushed(conversation, command, heard)
        if self._repeated.joins_stray(conversation, command):
            return None
        if self._repeated.is_repeated(command):
            return resp.integer(len(values))
        if conversation.in_exec and work.deliveries:
            self._execs.setdefault(conversation, _Exec()).results.append(push)
        elif not work.pushed((push,), conversation):
            if self.has_popped:
                self._note_push_of_nothing()
            if self._through_bytes > MAX_HELD_BYTES:
                raise Refused(
                    f"OOM command not allowed: {self._through_bytes} bytes of results that belong"
                    " to no item wait for Redis"
                )
            stray = self._repeated.strays_off(conversation, command)
            self._push_through((push,), lambda answer: self._stray_is_there(stray, answer))
            return None
        return resp.integer(len(values))

    def _is_too_much(self, push: Push) -> bool:
        work = self.work
        return (
            work.held_bytes + size_of(push) > MAX_HELD_BYTES
            or work.held_arguments + 2 + len(push.values) > MAX_HELD_ARGUMENTS
        )

    def _note_push_of_nothing(self) -> None:
        if not self._has_pushed_of_nothing:
            self._has_pushed_of_nothing = True
            self.outside.note_result_without_item()

    def _stray_is_there(self, stray: Stray, answer: Any) -> None:
        self._repeated.is_settled(stray, failed=isinstance(answer, Exception))
        count = len(stray.command) - 2
        self.answerer(stray.asker, lambda _: resp.integer(count))(answer)

    def _push_through(self, pushes: Sequence[Push], then: Then) -> None:
        size = sum(map(size_of, pushes))
        self._through_bytes += size

        def they_are_there(answer: Any) -> None:
            self._through_bytes -= size
            then(answer)

        self.outside.push_through(pushes, they_are_there)

    def _push_if_there(self, conversation: Conversation, command: Command, heard: int) -> Reply:
        if len(command) < 3:
            return wrong_number(command)
        if command[1] != self.output:
            raise Refused(self._denial(command))

        def then(length: Any) -> None:
            if isinstance(length, Exception):
                reply: Reply = resp.error(with_code(length))
            elif length or self.work.held:
                reply = self.command(conversation, [command[0][:5], *command[1:]], heard)
            else:
                reply = resp.integer(0)
            if reply is not None:
                conversation.answer(reply)

        is_wanted = conversation.still_wants()
        self.outside.ask_output([b"LLEN", command[1]], then, is_wanted=is_wanted)
        return None

    # --- what the program says is done: see own_lists

    def is_own(self, key: bytes) -> bool:
        if key in (self.input, self.output):
            return False
        return key in self._own_lists or (
            self.rules.ack == "explicit" and not self.rules.keys.allow(key)
        )

    def in_own(self, key: bytes) -> list[Delivery]:
        done = [delivery for begun in self._execs.values() for delivery in begun.done]
        return [delivery for delivery in self.work.kept_in(key) if delivery not in done]

    def keep_in(self, key: bytes, delivery: Delivery) -> None:
        delivery.kept_in = key
        self._own_lists.add(key)

    def give_up(self, delivery: Delivery) -> None:
        """The program has put an item back itself."""
        self.stock.put_back(delivery.side, self.work.give_up(delivery))
        self._look_again()

    def done(self, conversation: Conversation, found: Sequence[Delivery]) -> None:
        if not found:
            return
        now_s = self.outside.now_s()
        self._note_pace(max(self._last_done_s, found[0].at_s), len(found))
        self._last_done_s = now_s
        if conversation.in_exec:
            for delivery in found:
                delivery.is_seen = True
            self._execs.setdefault(conversation, _Exec()).done.extend(found)
        else:
            self._commit(self.work.is_done_with(found))
        self._look_again()

    def done_with_results(self, found: Sequence[Delivery], results: Sequence[Push]) -> None:
        self._commit(self.work.is_done_with(found, results))
        self._look_again()

    # --- other keys

    def foreign(self, conversation: Conversation, command: Command) -> Reply:
        if not self.rules.keys.allow_any:
            raise Refused(self._denial(command))
        name = name_of(command)
        if name is not None and self.rules.keys.is_constant(name[0]):
            return self._constant(conversation, command, name)

        def then(answer: Any) -> None:
            if isinstance(answer, NotAllowed):
                conversation.answer(resp.error(self._denial(command)))
            elif isinstance(answer, Exception):
                conversation.answer(resp.error(with_code(answer)))
            else:
                conversation.answer(resp.encode(answer, conversation.protocol))

        self.outside.pass_on(command, then, is_wanted=conversation.still_wants())
        return None

    def _constant(self, conversation: Conversation, command: Command, name: Name) -> Reply:
        constants = self.constants
        value = constants.get(name)
        if value is not None:
            return resp.bulk(value)
        then = self.answerer(
            conversation, lambda answer: resp.encode(answer, conversation.protocol)
        )
        if constants.ask(name, then, conversation.still_wants()):
            self.outside.ask(
                command,
                lambda answer: constants.came(name, answer),
                is_wanted=lambda: constants.is_wanted(name),
            )
        return None

    def _denial(self, command: Command) -> str:
        rules = self.rules
        words = " ".join(shown(word) for word in command[:2])
        allowed = f"further keys: {rules.keys.shown}; " if rules.keys.allow_any else ""
        return (
            f"NOPERM gridcore: '{words}' is not for containers of this task. They pop from"
            f" '{rules.input_queue}' and push to '{rules.output_queue}' ({allowed}no scripts,"
            " subscriptions or administration). To allow more, name the key or a pattern in the"
            " task's 'keys', or submit it with delivery = 'direct'"
        )

    # --- helpers

    def check_all_input(self, command: Command, keys: Sequence[bytes]) -> None:
        for key in keys:
            if key != self.input:
                raise Refused(self._denial([command[0], key]))

    def check_all_allowed(self, command: Command, keys: Sequence[bytes]) -> None:
        for key in keys:
            if not self.rules.keys.allow(key):
                raise Refused(self._denial([command[0], key]))

    def _commit(self, transactions: list[Transaction]) -> None:
        if not transactions:
            return
        for transaction in transactions:
            self._counters.committed += len(transaction.tokens)
        if any(t.results for t in transactions):
            self._repeated.went_on()
        self.outside.commit(transactions)
        self._look_again()

    def _note_pace(self, at_s: float, count: int) -> None:
        self._last_delivery = None
        seconds = (self.outside.now_s() - at_s) / count
        before = self._counters.seconds_per_item
        # A hundredth or less of what it was is told by a few items, not by one.
        self._counters.seconds_per_item = (
            seconds if before is None else before + 0.2 * (seconds - before)
        )

    def answerer(self, conversation: Conversation, encode: Callable[[Any], bytes]) -> Then:
        def then(answer: Any) -> None:
            if isinstance(answer, Exception):
                conversation.answer(resp.error(with_code(answer)))
            else:
                conversation.answer(encode(answer))

        return then


_Handler = Callable[[Desk, Conversation, Command, int], Reply]

_HANDLERS: dict[bytes, _Handler] = {
    b"BRPOP": pop_commands.brpop,
    b"BLPOP": pop_commands.brpop,
    b"RPOP": pop_commands.rpop,
    b"LPOP": pop_commands.rpop,
    b"LMPOP": pop_commands.lmpop,
    b"BLMPOP": pop_commands.lmpop,
    b"LMOVE": pop_commands.lmove,
    b"BLMOVE": pop_commands.lmove,
    b"RPOPLPUSH": pop_commands.lmove,
    b"BRPOPLPUSH": pop_commands.lmove,
    b"LPUSH": Desk._push,
    b"RPUSH": Desk._push,
    b"LPUSHX": Desk._push_if_there,
    b"RPUSHX": Desk._push_if_there,
    b"LREM": own_lists.lrem,
    b"LLEN": looks.llen,
    b"LRANGE": looks.lrange,
    b"LINDEX": looks.lrange,
    b"EXISTS": looks.exists,
    b"TYPE": looks.type_of,
    b"TIME": looks.time,
    b"DEL": own_lists.delete,
    b"UNLINK": own_lists.delete,
    b"XREAD": stream_reads.xread,
}

_NO_POP: tuple[Command, PopOrder] = ([], PopOrder("R", 1, None, lambda _: b"", resp.NIL))
