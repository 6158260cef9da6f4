"""The lists of a program's own, into which it moves items while it works on them, as a program does
that guards itself: LMOVE to a list, and LREM from there when the item is done.

There is no such list in Redis. It is what the run has in hand, by the name that the program uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gridcore.lease_queue.queue import Push, Side
from gridnode.gateway import resp
from gridnode.gateway.arguments import count_of, wrong_number
from gridnode.gateway.conversation import Conversation, Reply
from gridnode.gateway.open_work import Delivery
from gridnode.gateway.resp import Command

if TYPE_CHECKING:
    from gridnode.gateway.desk import Desk


def payloads(found: Sequence[Delivery]) -> list[bytes]:
    return [delivery.leases[0].payload for delivery in found]


def lrem(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 4:
        return wrong_number(command)
    if not desk.is_own(command[1]):
        return desk.foreign(conversation, command)
    count = count_of(command[2], least=None)
    found = [d for d in desk.in_own(command[1]) if d.leases[0].payload == command[3]]
    if count < 0:
        found.reverse()
    found = found[: abs(count)] if count else found
    desk.done(conversation, found)
    return resp.integer(len(found))


def delete(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) != 2 or not desk.is_own(command[1]):
        return desk.foreign(conversation, command)
    found = desk.in_own(command[1])
    desk.done(conversation, found)
    return resp.integer(bool(found))


def pop(desk: Desk, conversation: Conversation, command: Command) -> bytes:
    found = desk.in_own(command[1])
    if command[0][:1] in b"Rr":
        found.reverse()
    found = found[: count_of(command[2], least=0) if len(command) == 3 else 1]
    desk.done(conversation, found)
    if len(command) == 3:
        return resp.strings(payloads(found)) if found else resp.NIL_ARRAY[conversation.protocol]
    return resp.bulk(payloads(found)[0]) if found else resp.NIL[conversation.protocol]


def move(
    desk: Desk, conversation: Conversation, command: Command, side: Side, target_side: Side
) -> bytes:
    """An item goes back to the queue, as if it had never been taken; or with its result."""
    found = desk.in_own(command[1])
    if not found:
        return resp.NIL[conversation.protocol]
    delivery = found[-1 if side == "R" else 0]
    payload = delivery.leases[0].payload
    if command[2] == desk.input:
        desk.give_up(delivery)
    elif command[2] == desk.output:
        desk.done_with_results([delivery], [Push(target_side, [payload])])
    else:
        desk.keep_in(command[2], delivery)
    return resp.bulk(payload)
