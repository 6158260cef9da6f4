"""The protocol of Redis, as far as it is spoken here (RESP2): commands out, replies in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Bytes = bytes | memoryview
LARGE_BYTES = 64 * 1024
"""Not copied into one string with its neighbours."""


class ReplyError(Exception):
    """What Redis refuses."""


def encoded(command: Sequence[str | int | Bytes]) -> list[Bytes]:
    """In as few pieces as is sensible."""
    pieces: list[Bytes] = []
    small = [b"*%d\r\n" % len(command)]
    for argument in command:
        part = _raw(argument)
        small.append(b"$%d\r\n" % len(part))
        if len(part) > LARGE_BYTES:
            pieces += (b"".join(small), part)
            small = [b"\r\n"]
        else:
            small += (bytes(part), b"\r\n")
    pieces.append(b"".join(small))
    return pieces


def _raw(argument: str | int | Bytes) -> Bytes:
    if isinstance(argument, str):
        return argument.encode()
    return b"%d" % argument if isinstance(argument, int) else argument


class Replies:
    """Takes a stream of bytes apart. What was read of a reply is not read again when more of it
    comes: an answer may be large, and come in thousands of pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        self._needed = 0
        """Bytes below which it is no use to look again."""
        self._open: list[tuple[list[Any], int]] = []
        """Arrays within arrays that are not complete: what is there, and how many there will be."""

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def next(self) -> tuple[bool, Any]:
        """Whether there is another one, and which; an error is a ReplyError, not raised."""
        while len(self._buffer) >= max(self._position + 1, self._needed):
            try:
                is_there, reply = self._read_one()
            except ValueError:  # where a number should be
                raise _not_redis(self._buffer, self._position) from None
            if not is_there:
                break
            while self._open and is_there:
                items, count = self._open[-1]
                items.append(reply)
                is_there, reply = len(items) == count, items
                if is_there:
                    self._open.pop()
            if is_there:
                self._drop_what_was_read()
                return True, reply
        if self._position > LARGE_BYTES:
            self._drop_what_was_read()
        return False, None

    def _drop_what_was_read(self) -> None:
        del self._buffer[: self._position]
        self._needed = max(0, self._needed - self._position)
        self._position = 0

    def _read_one(self) -> tuple[bool, Any]:
        """The next value but for an array that has any, which is opened."""
        buffer, start = self._buffer, self._position
        end = buffer.find(b"\r\n", start)
        if end < 0:
            self._needed = len(buffer) + 1
            return False, None
        kind, content, after = buffer[start], bytes(buffer[start + 1 : end]), end + 2
        reply: Any
        if kind == 0x24 and content != b"-1":  # $
            end = after + int(content)
            if len(buffer) < end + 2:
                self._needed = end + 2
                return False, None
            reply, after = bytes(memoryview(buffer)[after:end]), end + 2
        elif kind in (0x24, 0x2A) and content == b"-1":
            reply = None
        elif kind == 0x2A:  # *
            count = int(content)
            self._position = after
            if count:
                self._open.append(([], count))
                return self._read_one() if len(buffer) > after else (False, None)
            return True, []
        elif kind == 0x3A:  # :
            reply = int(content)
        elif kind == 0x2B:  # +
            reply = content
        elif kind == 0x2D:  # -
            reply = ReplyError(content.decode(errors="replace"))
        else:
            raise _not_redis(buffer, start)
        self._position = after
        return True, reply


def _not_redis(buffer: bytearray, at: int) -> ConnectionError:
    shown = bytes(buffer[at : at + 40])
    return ConnectionError(f"this is not the protocol of Redis: {shown!r}")
