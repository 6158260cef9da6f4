"""The protocol of Redis, as far as it is spoken here (RESP2): commands out, replies in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Bytes = bytes | memoryview
LARGE_BYTES = 64 * 1024
"""Not copied into one string with its neighbours."""


class ReplyError(Exception):
    """What Redis refuses."""


class _Incomplete(Exception):
    pass


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
    """Takes a stream of bytes apart."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0
        """Bytes below which it is no use to look again."""

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def next(self) -> tuple[bool, Any]:
        """Whether there is another one, and which; an error is a ReplyError, not raised."""
        if len(self._buffer) < max(1, self._needed):
            return False, None
        try:
            reply, end = self._read(0)
        except _Incomplete:
            return False, None
        except ValueError:  # where a number should be
            raise _not_redis(self._buffer) from None
        del self._buffer[:end]
        self._needed = 0
        return True, reply

    def _read(self, start: int) -> tuple[Any, int]:
        buffer = self._buffer
        end = buffer.find(b"\r\n", start)
        if end < 0:
            raise _Incomplete
        kind, content, after = buffer[start], bytes(buffer[start + 1 : end]), end + 2
        if kind == 0x24:  # $
            length = int(content)
            if length < 0:
                return None, after
            if len(buffer) < after + length + 2:
                self._needed = after + length + 2
                raise _Incomplete
            return bytes(memoryview(buffer)[after : after + length]), after + length + 2
        if kind == 0x2A:  # *
            count = int(content)
            if count < 0:
                return None, after
            items = []
            for _ in range(count):
                item, after = self._read(after)
                items.append(item)
            return items, after
        if kind == 0x3A:  # :
            return int(content), after
        if kind == 0x2B:  # +
            return content, after
        if kind == 0x2D:  # -
            return ReplyError(content.decode(errors="replace")), after
        raise _not_redis(buffer)


def _not_redis(buffer: bytearray) -> ConnectionError:
    return ConnectionError(f"this is not the protocol of Redis: {bytes(buffer[:40])!r}")
