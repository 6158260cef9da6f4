"""The commands that pop, as a container sends them, and what it is to get for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from gridcore.lease_queue.queue import Lease, Side
from gridnode.gateway import own_lists, resp
from gridnode.gateway.arguments import (
    Refused,
    count_of,
    shown,
    side_of,
    timeout_of,
    wrong_number,
)
from gridnode.gateway.conversation import Conversation, Reply
from gridnode.gateway.resp import Command

if TYPE_CHECKING:
    from gridnode.gateway.desk import Desk

Encode = Callable[[Sequence[Lease]], bytes]


class PopOrder(NamedTuple):
    """A pop as it was asked for."""

    side: Side
    most: int
    block_s: float | None
    """None: it does not wait; 0: for ever."""
    encode: Encode
    nil: Mapping[int, bytes]
    """By protocol."""
    moves_to: bytes | None = None
    moves_side: Side = "L"


def brpop(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    if len(command) < 3:
        return wrong_number(command)
    # Nearly every command is this one, and the same as the one before.
    usual, order = desk.usual_pop
    if command != usual:
        desk.check_all_input(command, command[1:-1])
        side: Side = "R" if command[0][1] in b"Rr" else "L"
        encode = _pair_with(desk.input)
        order = PopOrder(side, 1, timeout_of(command[-1]), encode, resp.NIL_ARRAY)
        desk.usual_pop = command, order
    return desk.pop(conversation, heard, order)


def rpop(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    if len(command) not in (2, 3):
        return wrong_number(command)
    if desk.is_own(command[1]):
        return own_lists.pop(desk, conversation, command)
    desk.check_all_input(command, command[1:2])
    side: Side = "R" if command[0][0] in b"Rr" else "L"
    if len(command) == 2:
        order = PopOrder(side, 1, None, _one, resp.NIL)
    else:
        order = PopOrder(side, count_of(command[2], least=0), None, _many, resp.NIL_ARRAY)
    return desk.pop(conversation, heard, order)


def lmpop(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    block_s, rest = None, command[1:]
    if command[0][:1] in b"Bb" and rest:
        block_s, rest = timeout_of(rest[0]), rest[1:]
    if len(rest) < 3:
        return wrong_number(command)
    keys = count_of(rest[0], least=1)
    options = rest[1 + keys :]
    if len(options) not in (1, 3) or (len(options) == 3 and options[1].upper() != b"COUNT"):
        return resp.SYNTAX_ERROR
    desk.check_all_input(command, rest[1 : 1 + keys])
    count = count_of(options[2], least=1) if len(options) == 3 else 1
    encode = _key_and_many(desk.input)
    order = PopOrder(side_of(options[0]), count, block_s, encode, resp.NIL_ARRAY)
    return desk.pop(conversation, heard, order)


def lmove(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    name = command[0].upper()
    blocks = name.startswith(b"B")
    source_side: Side = "R"
    target_side: Side = "L"
    if name in (b"LMOVE", b"BLMOVE"):
        if len(command) != 5 + blocks:
            return wrong_number(command)
        source_side, target_side = side_of(command[3]), side_of(command[4])
    elif len(command) != 3 + blocks:
        return wrong_number(command)
    block_s = timeout_of(command[-1]) if blocks else None
    source, target = command[1], command[2]
    if source != desk.input and desk.is_own(source):
        return own_lists.move(desk, conversation, command, source_side, target_side)
    desk.check_all_input(command, [source])
    if desk.rules.keys.allow(target):
        raise Refused(
            f"NOPERM gridcore: an item cannot move to {shown(target)}, which others see: it"
            " is this run's until it is done. Choose a name that the task's 'keys' do not name"
        )
    nil = resp.NIL_ARRAY if blocks and not conversation.in_exec else resp.NIL
    order = PopOrder(source_side, 1, block_s, _one, nil, target, target_side)
    return desk.pop(conversation, heard, order)


def _one(leases: Sequence[Lease]) -> bytes:
    return resp.bulk(leases[0].payload)


def _many(leases: Sequence[Lease]) -> bytes:
    return resp.strings([lease.payload for lease in leases])


def _pair_with(key: bytes) -> Encode:
    begin = b"*2\r\n%b$" % resp.bulk(key)

    def encode(leases: Sequence[Lease]) -> bytes:
        payload = leases[0].payload
        return begin + b"%d\r\n%b\r\n" % (len(payload), payload)

    return encode


def _key_and_many(key: bytes) -> Encode:
    return lambda leases: resp.array([resp.bulk(key), _many(leases)])
