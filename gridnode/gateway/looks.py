"""What a container sees when it looks at its queues: LLEN, LRANGE, LINDEX, EXISTS, TYPE, TIME.

The input queue looks as if the gateway had taken nothing into stock, the output queue as if what
the run has pushed were there already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from gridnode.gateway import resp
from gridnode.gateway.arguments import bounds, count_of, with_code, wrong_number
from gridnode.gateway.conversation import Conversation, Reply
from gridnode.gateway.outside import IsWanted, Then
from gridnode.gateway.resp import Command

if TYPE_CHECKING:
    from gridnode.gateway.desk import Desk

MAX_ITEMS_AT_ONCE = 10_000
"""A queue may be larger than this node's memory, and all slots share the connection to Redis."""

MAX_BYTES_AT_ONCE = 8 * 1024 * 1024
"""Of more than one item."""

SLICE_BYTES = 256 * 1024
"""About what is asked of Redis at once: takes and renewals of all slots have to wait for it."""

FIRST_SLICE_ITEMS = 100
UNKNOWN_SLICE_ITEMS = 10
"""If nothing is known yet of how large items are."""

SLICE_GROWTH = 10
"""From one slice to the next: large items may follow small ones."""


class _Ask(Protocol):
    def __call__(self, command: Command, then: Then, *, is_wanted: IsWanted) -> None: ...


def llen(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 2:
        return wrong_number(command)
    key = command[1]
    if desk.is_own(key):
        return resp.integer(len(desk.in_own(key)))
    if key == desk.input:
        return _ask_length(desk, conversation, resp.integer)
    if key == desk.output:
        held = _held_for_output(desk)
        ask = desk.outside.ask_output
        return _ask(desk, conversation, ask, command, lambda n: resp.integer(int(n) + held))
    return desk.foreign(conversation, command)


def exists(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) < 2:
        return wrong_number(command)
    found = inputs = 0
    in_redis, others = [], []
    for key in command[1:]:
        if desk.is_own(key):
            found += bool(desk.in_own(key))
        elif key == desk.input:
            inputs += 1
        elif key != desk.output:
            others.append(key)
        elif _held_for_output(desk):
            found += 1
        else:
            in_redis.append(key)
    if len(others) == len(command) - 1:
        return desk.foreign(conversation, command)
    for key in others:
        if not desk.rules.keys.allow(key):
            desk.check_all_input(command, [key])
    questions: deque[tuple[_Ask, Command, Callable[[Any], int]]] = deque()

    def count(length: Any) -> int:
        return inputs * bool(int(length) + desk.stock.size)

    if inputs:
        questions.append((desk.outside.ask, [b"LLEN", desk.input], count))
    if in_redis:
        questions.append((desk.outside.ask_output, [command[0], *in_redis], int))
    if others:
        questions.append((desk.outside.pass_on, [command[0], *others], int))
    return _add_up(conversation, found, questions)


def type_of(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 2:
        return wrong_number(command)
    key = command[1]
    if desk.is_own(key):
        return _type(bool(desk.in_own(key)))
    if key == desk.input:
        return _ask_length(desk, conversation, lambda n: _type(bool(n)))
    if key == desk.output:
        if _held_for_output(desk):
            return _type(True)
        return _ask(desk, conversation, desk.outside.ask_output, command, resp.simple)
    return desk.foreign(conversation, command)


def time(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    return _ask(desk, conversation, desk.outside.ask, command, resp.strings)


def lrange(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    is_index = command[0].upper() == b"LINDEX"
    if len(command) != (3 if is_index else 4):
        return wrong_number(command)
    key = command[1]
    if key != desk.input and not desk.is_own(key):
        return desk.foreign(conversation, command)
    start = count_of(command[2], least=None)
    stop = start if is_index else count_of(command[3], least=None)
    if conversation.is_closed:
        return b""

    def encode(values: Sequence[bytes]) -> bytes:
        if not is_index:
            return resp.strings(values)
        return resp.bulk(values[0]) if values else resp.NIL[conversation.protocol]

    if desk.is_own(key):
        own = [d.leases[0].payload for d in desk.in_own(key)]
        first, last = bounds(start, stop, len(own))
        values = own[first:last]
        return _too_large(len(values), sum(map(len, values))) or encode(values)
    desk.range_looks.begin(_RangeLook(desk, conversation, start, stop, encode))
    return None


class RangeLooks:
    """Of one run, one after the other: each may take long, and there may be as many at a time as it
    has connections."""

    def __init__(self) -> None:
        self._now: _RangeLook | None = None
        self._waiting: deque[_RangeLook] = deque()

    def begin(self, look: _RangeLook) -> None:
        if self._now:
            self._forget_the_unwanted()
            self._waiting.append(look)
        else:
            self._now = look
            look.begin()

    def is_over(self) -> None:
        self._forget_the_unwanted()
        self._now = self._waiting.popleft() if self._waiting else None
        if self._now:
            self._now.begin()

    def _forget_the_unwanted(self) -> None:
        self._waiting = deque(look for look in self._waiting if look.is_wanted())


class _RangeLook:
    """LRANGE or LINDEX of the input queue. Redis is asked for a slice after the other, so that
    others' calls come between."""

    def __init__(
        self,
        desk: Desk,
        conversation: Conversation,
        start: int,
        stop: int,
        encode: Callable[[Sequence[bytes]], bytes],
    ) -> None:
        self.is_wanted = conversation.is_there
        self._desk = desk
        self._conversation = conversation
        self._start, self._stop = start, stop
        self._encode = encode
        self._left: list[bytes] = []
        self._right: list[bytes] = []
        self._values: list[bytes] = []
        self._next = self._end = self._asked = 0
        self._seen_items = self._seen_bytes = 0

    def begin(self) -> None:
        # The queue as it was before the gateway took the ends of it into stock.
        stock = self._desk.stock
        self._left, self._right = stock.peek("L"), stock.peek("R")[::-1]
        self._ask([b"LLEN", self._desk.input], self._with_length)

    def _ask(self, command: Command, then: Then) -> None:
        def unless_it_failed(answer: Any) -> None:
            if isinstance(answer, Exception):
                self._is_over(resp.error(with_code(answer)))
            else:
                then(answer)

        self._desk.outside.ask(command, unless_it_failed, is_wanted=self.is_wanted)

    def _with_length(self, answer: Any) -> None:
        left, right, length = self._left, self._right, int(answer)
        first, last = bounds(self._start, self._stop, len(left) + length + len(right))
        self._next, self._end = max(0, first - len(left)), min(length, last - len(left))
        if self._end - self._next > MAX_ITEMS_AT_ONCE:
            text = f"ERR gridcore: ask for no more than {MAX_ITEMS_AT_ONCE} items at once"
            self._is_over(resp.error(text))
            return
        self._saw(left)
        self._saw(right)
        before_right = len(left) + length
        self._values = left[first:last]
        self._right = right[max(0, first - before_right) : max(0, last - before_right)]
        self._left = []
        self._ask_for_more()

    def _ask_for_more(self) -> None:
        found = [self._values, self._right]
        count, size = sum(map(len, found)), sum(len(value) for part in found for value in part)
        if refusal := _too_large(count, size):
            self._is_over(refusal)
            return
        if self._next >= self._end:
            self._is_over(self._encode(self._values + self._right))
            return
        self._asked = min(self._end - self._next, self._slice_items())
        indices = [b"%d" % self._next, b"%d" % (self._next + self._asked - 1)]
        self._next += self._asked
        self._ask([b"LRANGE", self._desk.input, *indices], self._with_slice)

    def _with_slice(self, values: Any) -> None:
        self._values += values
        self._saw(values)
        if len(values) < self._asked:
            # It has become shorter meanwhile.
            self._next = self._end
        self._ask_for_more()

    def _saw(self, values: Sequence[bytes]) -> None:
        self._seen_items += len(values)
        self._seen_bytes += sum(map(len, values))

    def _slice_items(self) -> int:
        if not self._seen_items:
            return UNKNOWN_SLICE_ITEMS
        most = self._asked * SLICE_GROWTH if self._asked else FIRST_SLICE_ITEMS
        return max(1, min(most, SLICE_BYTES * self._seen_items // max(1, self._seen_bytes)))

    def _is_over(self, reply: bytes) -> None:
        self._desk.range_looks.is_over()
        self._conversation.answer(reply)


def _too_large(count: int, size: int) -> bytes | None:
    # A single item is never: it is as large as it is.
    if size <= MAX_BYTES_AT_ONCE or count < 2:
        return None
    fitting = max(1, count * MAX_BYTES_AT_ONCE // size)
    return resp.error(
        f"ERR gridcore: these items are more than {MAX_BYTES_AT_ONCE // 2**20} MB together: ask for"
        f" no more than about {fitting} at once"
    )


def _type(is_there: bool) -> bytes:
    return resp.simple(b"list" if is_there else b"none")


def _held_for_output(desk: Desk) -> int:
    return sum(len(push.values) for push in desk.work.held if not push.to_input)


def _ask(
    desk: Desk,
    conversation: Conversation,
    ask: _Ask,
    command: Command,
    encode: Callable[[Any], bytes],
) -> Reply:
    if conversation.is_closed:
        # The rest of an EXEC, which may be long: not even asked for nobody.
        return b""
    ask(command, desk.answerer(conversation, encode), is_wanted=conversation.is_there)
    return None


def _ask_length(desk: Desk, conversation: Conversation, encode: Callable[[int], bytes]) -> Reply:
    def reply(length: Any) -> bytes:
        return encode(int(length) + desk.stock.size)

    return _ask(desk, conversation, desk.outside.ask, [b"LLEN", desk.input], reply)


def _add_up(
    conversation: Conversation,
    number: int,
    questions: deque[tuple[_Ask, Command, Callable[[Any], int]]],
) -> Reply:
    """The answers to all of them, asked one after the other: each may go to another server."""
    if conversation.is_closed or not questions:
        return resp.integer(number)
    ask, command, count = questions.popleft()

    def then(answer: Any) -> None:
        if isinstance(answer, Exception):
            conversation.answer(resp.error(with_code(answer)))
            return
        reply = _add_up(conversation, number + count(answer), questions)
        if reply is not None:
            conversation.answer(reply)

    ask(command, then, is_wanted=conversation.is_there)
    return None
