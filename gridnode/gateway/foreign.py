"""Commands on further keys, which a task may allow its containers: may this one pass? No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_NEVER = {"@admin", "@blocking", "@connection", "@dangerous", "@pubsub", "@scripting"}
"""Kinds of commands that would block a connection that all slots share, or reach other keys."""

_NEVER_BY_NAME = {b"COPY", b"MOVE", b"OBJECT", b"RANDOMKEY", b"SCAN", b"WAIT", b"WAITAOF"}

OUR_KEYS = b"gc:"


class KeyRules:
    def __init__(
        self, queues: Iterable[str], patterns: Sequence[str], constants: Sequence[str] = ()
    ) -> None:
        """Constants are further keys too."""
        self._queues = {queue.encode() for queue in queues}
        self._constants = [_compiled(pattern) for pattern in constants]
        self._patterns = [_compiled(pattern) for pattern in patterns] + self._constants
        self.shown = ", ".join(repr(pattern) for pattern in (*patterns, *constants))

    def allow(self, key: bytes) -> bool:
        if key in self._queues or key.startswith(OUR_KEYS):
            return False
        return any(pattern.fullmatch(key) for pattern in self._patterns)

    def is_constant(self, key: bytes) -> bool:
        """Its value never changes."""
        return any(p.fullmatch(key) for p in self._constants) and self.allow(key)

    @property
    def allow_any(self) -> bool:
        return bool(self._patterns)


@dataclass(frozen=True)
class CommandFacts:
    """What COMMAND INFO says of one command."""

    categories: frozenset[str]
    first_key: int
    last_key: int
    step: int
    has_movable_keys: bool


def facts(entry: Sequence[Any]) -> CommandFacts:
    flags = {_text(flag) for flag in entry[2]}
    return CommandFacts(
        categories=frozenset(_text(category) for category in entry[6]),
        first_key=int(entry[3]),
        last_key=int(entry[4]),
        step=int(entry[5]),
        has_movable_keys="movablekeys" in flags,
    )


def keys_of(command: Sequence[bytes], known: CommandFacts) -> list[bytes] | None:
    """Every key that it touches; None if that cannot be told, or it may not pass for its kind."""
    if known.categories & _NEVER or command[0].upper() in _NEVER_BY_NAME:
        return None
    if known.has_movable_keys or known.first_key <= 0 or known.step <= 0:
        return None
    last = known.last_key if known.last_key >= 0 else len(command) + known.last_key
    return list(command[known.first_key : last + 1 : known.step]) or None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _compiled(pattern: str) -> re.Pattern[bytes]:
    parts = {"*": b".*", "?": b"."}
    text = b"".join(parts.get(letter) or re.escape(letter.encode()) for letter in pattern)
    return re.compile(text, re.DOTALL)
