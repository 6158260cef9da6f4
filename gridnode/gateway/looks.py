"""What a container sees when it looks at its queues: LLEN, LRANGE, LINDEX, EXISTS, TYPE, TIME.

The input queue looks as if the gateway had taken nothing into stock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gridnode.gateway import resp
from gridnode.gateway.arguments import bounds, count_of, wrong_number
from gridnode.gateway.conversation import Conversation, Reply
from gridnode.gateway.resp import Command

if TYPE_CHECKING:
    from gridnode.gateway.desk import Desk

MAX_ITEMS_AT_ONCE = 10_000
"""A queue may be larger than this node's memory, and all slots share the connection to Redis."""


def llen(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 2:
        return wrong_number(command)
    key = command[1]
    if desk.is_own(key):
        return resp.integer(len(desk.in_own(key)))
    if key == desk.input:
        _ask_length(desk, conversation, lambda n: resp.integer(n))
    elif key == desk.output:
        held = sum(len(push.values) for push in desk.work.held if not push.to_input)
        then = desk.answerer(conversation, lambda n: resp.integer(int(n) + held))
        desk.outside.ask_output([b"LLEN", key], then)
    else:
        return desk.foreign(conversation, command)
    return None


def exists(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 2:
        if len(command) < 2:
            return wrong_number(command)
        return desk.foreign(conversation, command)
    key = command[1]
    if desk.is_own(key):
        return resp.integer(bool(desk.in_own(key)))
    if key == desk.input:
        _ask_length(desk, conversation, lambda n: resp.integer(bool(n)))
    elif key == desk.output:
        desk.outside.ask_output(command, desk.answerer(conversation, resp.integer))
    else:
        return desk.foreign(conversation, command)
    return None


def type_of(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 2:
        return wrong_number(command)
    key = command[1]
    if desk.is_own(key):
        return resp.simple(b"list" if desk.in_own(key) else b"none")
    if key == desk.input:
        _ask_length(desk, conversation, lambda n: resp.simple(b"list" if n else b"none"))
    elif key == desk.output:
        desk.outside.ask_output(command, desk.answerer(conversation, resp.simple))
    else:
        return desk.foreign(conversation, command)
    return None


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

    def reply(values: Sequence[bytes]) -> bytes:
        if not is_index:
            return resp.strings(values)
        return resp.bulk(values[0]) if values else resp.NIL[conversation.protocol]

    if desk.is_own(key):
        own = [d.leases[0].payload for d in desk.in_own(key)]
        first, last = bounds(start, stop, len(own))
        return reply(own[first:last])
    # The queue as it was before the gateway took the ends of it into stock.
    left, right = desk.stock.peek("L"), desk.stock.peek("R")[::-1]

    def with_length(length: Any) -> None:
        if isinstance(length, Exception):
            conversation.answer(resp.error(f"ERR {length}"))
            return
        first, last = bounds(start, stop, len(left) + int(length) + len(right))
        low, high = max(0, first - len(left)), min(int(length), last - len(left))

        def with_middle(middle: Any) -> None:
            if isinstance(middle, Exception):
                conversation.answer(resp.error(f"ERR {middle}"))
                return
            ends = left[first:last], right[max(0, first - len(left) - int(length)) :]
            ends = ends[0], ends[1][: max(0, last - max(first, len(left) + int(length)))]
            conversation.answer(reply([*ends[0], *middle, *ends[1]]))

        if high - low > MAX_ITEMS_AT_ONCE:
            conversation.answer(
                resp.error(f"ERR gridcore: ask for no more than {MAX_ITEMS_AT_ONCE} items at once")
            )
            return
        if low >= high:
            with_middle([])
            return
        indices = [b"%d" % low, b"%d" % (high - 1)]
        desk.outside.ask([b"LRANGE", key, *indices], with_middle)

    desk.outside.ask([b"LLEN", key], with_length)
    return None


def time(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    desk.outside.ask(command, desk.answerer(conversation, resp.strings))
    return None


def _ask_length(desk: Desk, conversation: Conversation, encode: Callable[[int], bytes]) -> None:
    def reply(length: Any) -> bytes:
        return encode(int(length) + desk.stock.size)

    desk.outside.ask([b"LLEN", desk.input], desk.answerer(conversation, reply))
