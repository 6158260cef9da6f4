"""XREAD of further keys, as a container sends it; one that blocks waits here, not in Redis.

It looks first, and waits only if there is nothing. Each time that one of its streams may have more
it looks again, with its own arguments, so it gets what Redis itself would answer. A wait says
nothing of items: neither that one is done, nor that the run wants another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gridnode.gateway import resp
from gridnode.gateway.arguments import Refused, count_of, shown, with_code, wrong_number
from gridnode.gateway.conversation import Conversation, Reply
from gridnode.gateway.outside import StreamWatch, Timer
from gridnode.gateway.resp import Command
from gridnode.gateway.watched_streams import StreamId

if TYPE_CHECKING:
    from gridnode.gateway.desk import Desk

MAX_WAITED_BYTES = 64 * 1024
"""Of one read that blocks, keys and ids: all that wait are asked for together, again and again."""

_ID = re.compile(rb"(\d{1,20})(?:-(\d{1,20}))?")
_LARGEST = 2**64 - 1


@dataclass(frozen=True)
class StreamRead:
    keys: Sequence[bytes]
    ids: Sequence[bytes]
    count: bytes | None
    block_s: float | None
    """None: it does not wait; 0: for ever."""

    @property
    def at_once(self) -> Command:
        """The same, but it does not wait."""
        count = [b"COUNT", self.count] if self.count is not None else []
        return [b"XREAD", *count, b"STREAMS", *self.keys, *self.ids]


def parsed(command: Command) -> StreamRead:
    count = block_s = None
    at = 1
    while at + 1 < len(command):
        option = command[at].upper()
        if option == b"STREAMS":
            rest = command[at + 1 :]
            half = len(rest) // 2
            if len(rest) % 2:
                raise Refused(
                    "ERR Unbalanced 'xread' list of streams: for each stream key an ID must be"
                    " specified."
                )
            return StreamRead(rest[:half], rest[half:], count, block_s)
        if option == b"COUNT":
            count_of(command[at + 1], least=None)
            count = command[at + 1]
        elif option == b"BLOCK":
            block_s = _block_s(command[at + 1])
        else:
            break
        at += 2
    raise Refused("ERR syntax error")


def xread(desk: Desk, conversation: Conversation, command: Command, heard: int) -> Reply:
    desk.work.heard_from(conversation, heard)
    if len(command) < 4:
        return wrong_number(command)
    read = parsed(command)
    desk.check_all_allowed(command, read.keys)
    if conversation.is_closed:
        return b""
    if read.block_s is None or conversation.in_exec:
        desk.outside.ask(
            read.at_once,
            lambda answer: conversation.answer(_encoded(answer, conversation.protocol)),
            is_wanted=conversation.is_there,
        )
        return None
    wait = StreamWait(desk, conversation, read)
    desk.stream_waits[conversation] = wait
    wait.look()
    return None


class StreamWait:
    def __init__(self, desk: Desk, conversation: Conversation, read: StreamRead) -> None:
        if sum(map(len, [*read.keys, *read.ids])) > MAX_WAITED_BYTES:
            raise Refused(
                f"ERR gridcore: the keys and ids of an XREAD that blocks may have no more than"
                f" {MAX_WAITED_BYTES // 1024} KB together: wait for fewer streams, or without BLOCK"
            )
        self._desk = desk
        self._conversation = conversation
        self._read = read
        self._ids: dict[bytes, StreamId] = {}
        for key, text in zip(read.keys, read.ids, strict=True):
            last = _id(text)
            self._ids[key] = min(last, self._ids.get(key, last))
        self._since_s = desk.outside.now_s()
        self._timer: Timer | None = None
        self._watch: StreamWatch | None = None
        self._is_over = False

    def look(self) -> None:
        self._watch = None
        self._desk.outside.ask(self._read.at_once, self._looked, is_wanted=self._is_wanted)

    def call_off(self) -> None:
        """Nobody waits for it any more."""
        self._is_over = True
        if self._timer:
            self._timer.cancel()
        if self._watch:
            self._watch.cancel()

    def _is_wanted(self) -> bool:
        return not self._is_over

    def _looked(self, answer: Any) -> None:
        if self._is_over:
            return
        if answer is not None:
            self._end(answer)
            return
        outside, block_s = self._desk.outside, self._read.block_s
        # Not before: who waits for a millisecond, of a Redis that is far away, gets what there is.
        if block_s and self._timer is None:
            left_s = self._since_s + block_s - outside.now_s()
            self._timer = outside.after(max(0.0, left_s), lambda: self._end(None))
        self._watch = outside.watch_streams(self._ids, self.look)

    def _end(self, answer: Any) -> None:
        self.call_off()
        self._desk.stream_waits.pop(self._conversation, None)
        self._conversation.answer(_encoded(answer, self._conversation.protocol))


def _encoded(answer: Any, protocol: int) -> bytes:
    if isinstance(answer, Exception):
        return resp.error(with_code(answer))
    if answer is None:
        return resp.NIL_ARRAY[protocol]
    if protocol == 2:
        return resp.encode(answer, protocol)
    return resp.mapping([resp.encode(part, protocol) for stream in answer for part in stream], 3)


def _block_s(text: bytes) -> float:
    try:
        milliseconds = int(text)
    except ValueError:
        milliseconds = 2**63
    if milliseconds >= 2**63:
        raise Refused("ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise Refused("ERR timeout is negative")
    return milliseconds / 1000


def _id(text: bytes) -> StreamId:
    if text in (b"$", b"+"):
        raise Refused(
            f"ERR gridcore: an XREAD that blocks has to name the last entry that it knows, not"
            f" '{shown(text)}': 0-0 for a stream from its beginning, or the id that XADD or the"
            " read before has given"
        )
    found = _ID.fullmatch(text)
    last = (int(found[1]), int(found[2] or 0)) if found else (-1, -1)
    if not all(0 <= part <= _LARGEST for part in last):
        raise Refused("ERR Invalid stream ID specified as stream command argument")
    return last
