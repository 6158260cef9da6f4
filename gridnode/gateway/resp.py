"""The Redis protocol, seen from the server: bytes to commands, values to replies. No I/O.

hiredis does the parsing, but sees a command only when it is whole and within limits: a server that
is talked to by strangers must not let `*200000000` make it allocate 1.5 GB at once. Inline commands
("PING" typed into nc), which hiredis does not know, are read here as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import hiredis

Command = list[bytes]

MAX_ARGUMENTS = 1_000_000
"""As in Redis."""

MAX_COMMAND_BYTES = 64 * 1024 * 1024
"""What one command may hold: a batch of results, or one large item."""

MAX_INLINE_BYTES = 64 * 1024

_MAX_HEADER_BYTES = 32
_REMEMBERED_BYTES = 256
_PLAIN_BYTES = 64 * 1024
_READER_BYTES = 256 * 1024
_STAR, _DOLLAR = ord("*"), ord("$")

_PART = re.compile(
    rb"""([^\s"']++)|"((?>\\.|[^"\\])*+)"(?=\s|\Z)|'((?>\\'|[^'])*+)'(?=\s|\Z)""", re.DOTALL
)
"""Of a word in an inline command: bare, or in quotes, which end a word."""
_ESCAPED = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_CONTROLS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


class ProtocolError(Exception):
    """What came is not the Redis protocol, or more of it than is allowed."""


class CommandReader:
    """The commands of one connection, as its bytes come in."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._begun = bytearray()
        """The command that is not complete yet, and within it:"""
        self._at = 0
        """where its next header begins,"""
        self._missing = 0
        """and how many strings are to come."""
        self._recent: tuple[tuple[bytes, list[Command]], ...] = ((b"", []), (b"", []))

    @property
    def kept_bytes(self) -> int:
        return len(self._begun)

    def feed(self, data: bytes) -> list[Command]:
        """The commands that are complete now; not to be changed by whoever gets them."""
        if not self._begun:
            # A loop sends the same pop again and again, with one other command between.
            older, newer = self._recent
            if data == older[0]:
                self._recent = newer, older
                return older[1]
            if data == newer[0]:
                return newer[1]
            command = _plain(data)
            if command:
                if len(data) < _REMEMBERED_BYTES:
                    self._recent = newer, (data, [command])
                return [command]
        read: bytes | bytearray = data
        if self._begun:
            self._begun += data
            read = self._begun
        commands: list[Command] = []
        parsed = end = 0
        while True:
            end = self._skip_arrays(read, end)
            if end > parsed:
                with memoryview(read) as view, view[parsed:end] as whole:
                    commands += self._parse(whole)
                parsed = end
            if self._missing or self._at > end or end == len(read) or read[end] == _STAR:
                break
            newline = read.find(b"\n", end)
            if newline < 0 or newline - end > MAX_INLINE_BYTES:
                if len(read) - end > MAX_INLINE_BYTES:
                    raise ProtocolError("too big inline request")
                break
            words = _words(bytes(read[end:newline]))
            if words:
                commands.append(words)
            parsed = end = self._at = newline + 1
        if parsed < len(read):
            if read is data:
                self._begun = bytearray(data[parsed:])
            else:
                # Not a copy: a large command comes in very many pieces.
                del self._begun[:parsed]
            self._at -= parsed
        else:
            if read is data and len(data) < _REMEMBERED_BYTES:
                self._recent = self._recent[1], (data, commands)
            self._begun.clear()
            self._at = 0
        return commands

    def _skip_arrays(self, data: bytes | bytearray, begin: int) -> int:
        """Where the last whole array ends, from `begin` on; raises if one is not allowed."""
        at, missing, size = self._at, self._missing, len(data)
        while at < size:
            kind = data[at]
            if kind != (_DOLLAR if missing else _STAR):
                if missing:
                    raise ProtocolError(f"expected '$', got {chr(kind)!r}")
                break
            line_end = data.find(b"\r\n", at, at + _MAX_HEADER_BYTES)
            if line_end < 0:
                if size - at >= _MAX_HEADER_BYTES:
                    raise ProtocolError("invalid length")
                break
            try:
                number = int(data[at + 1 : line_end])
            except ValueError:
                raise ProtocolError("invalid length") from None
            if missing:
                next_at = line_end + 4 + number
                if number < 0 or next_at - begin > MAX_COMMAND_BYTES:
                    raise ProtocolError(f"invalid bulk length {number}")
                if next_at > size:
                    break
                at = next_at
                missing -= 1
            else:
                if number > MAX_ARGUMENTS:
                    raise ProtocolError(f"invalid multibulk length {number}")
                at = line_end + 2
                missing = max(number, 0)
            if not missing:
                begin = at
        self._at, self._missing = at, missing
        return begin

    def _parse(self, data: memoryview) -> list[Command]:
        commands = []
        try:
            self._reader.feed(data)  # type: ignore[arg-type]
            while (command := self._reader.gets()) is not False:
                if command:  # Redis, too, ignores an array that is null or empty
                    commands.append(command)
        except hiredis.ProtocolError as error:
            raise ProtocolError(str(error)) from error
        if len(data) > _READER_BYTES:
            # It would keep the room that it needed, whether anything comes again or not.
            self._reader = hiredis.Reader()
        return commands


def _plain(data: bytes) -> Command | None:
    """One whole command and nothing else, as nearly all are, in a third of the time; None if it may
    be anything else, as one that has line ends within."""
    if len(data) > min(_PLAIN_BYTES, MAX_COMMAND_BYTES) or data[:1] != b"*" or data[-2:] != b"\r\n":
        return None
    parts = data.split(b"\r\n")
    words = parts[2::2]
    if not words or parts[0] != b"*%d" % len(words) or len(parts) != 2 * len(words) + 2:
        return None
    for header, word in zip(parts[1::2], words, strict=False):
        if header != b"$%d" % len(word):
            return None
    return words


def _words(line: bytes) -> Command:
    """Of an inline command, in quotes or not, as Redis reads it."""
    words = line.split()
    if b'"' not in line and b"'" not in line:
        return words
    words, word, at = [], b"", 0
    line = line.strip()
    while at < len(line):
        part = _PART.match(line, at)
        if part is None:
            raise ProtocolError("unbalanced quotes in request")
        bare, quoted, literal = part.groups()
        if quoted is not None:
            word += _ESCAPED.sub(_unescaped, quoted)
        else:
            word += bare if literal is None else literal.replace(b"\\'", b"'")
        at = part.end()
        if at == len(line) or line[at : at + 1].isspace():
            words.append(word)
            word = b""
            at = len(line) - len(line[at:].lstrip())
    return words


def _unescaped(escaped: re.Match[bytes]) -> bytes:
    code, letter = escaped.groups()
    if code is not None:
        return bytes([int(code, 16)])
    return _CONTROLS.get(letter, letter)


OK = b"+OK\r\n"
_ONE = b":1\r\n"
NIL = {2: b"$-1\r\n", 3: b"_\r\n"}
NIL_ARRAY = {2: b"*-1\r\n", 3: b"_\r\n"}
EMPTY_ARRAY = b"*0\r\n"
SYNTAX_ERROR = b"-ERR syntax error\r\n"


def error(text: str) -> bytes:
    """`text` begins with the code: ERR, NOPERM, WRONGTYPE, ..."""
    return b"-" + text.replace("\r", " ").replace("\n", " ").encode("utf-8", "replace") + b"\r\n"


def simple(text: bytes) -> bytes:
    return b"+" + text + b"\r\n"


def integer(number: int) -> bytes:
    return _ONE if number == 1 else b":%d\r\n" % number


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def strings(values: Sequence[bytes]) -> bytes:
    return hiredis.pack_command(tuple(values)) if values else EMPTY_ARRAY  # type: ignore[arg-type]


def array_of(count: int) -> bytes:
    """How it begins."""
    return b"*%d\r\n" % count


def array(replies: Sequence[bytes]) -> bytes:
    """Of replies that are encoded already."""
    return array_of(len(replies)) + b"".join(replies)


def mapping(replies: Sequence[bytes], protocol: int) -> bytes:
    """Of keys and values in turn, encoded already: a map in RESP3, an array in RESP2."""
    if protocol == 3:
        return b"%%%d\r\n" % (len(replies) // 2) + b"".join(replies)
    return array(replies)


def encode(value: object, protocol: int) -> bytes:
    """Whatever a Redis has answered, as hiredis has read it."""
    if isinstance(value, bytes):
        return bulk(value)
    if value is None:
        return NIL[protocol]
    if isinstance(value, bool):
        return (b"#t\r\n" if value else b"#f\r\n") if protocol == 3 else integer(value)
    if isinstance(value, int):
        return integer(value)
    if isinstance(value, Exception):
        return error(str(value))
    if isinstance(value, (list, tuple)):
        return array([encode(one, protocol) for one in value])
    return bulk(str(value).encode())
