"""Values that never change, as the task says: read once for all slots of a node. No I/O."""

from __future__ import annotations

from collections import OrderedDict

from gridnode.gateway.outside import IsWanted, NotWanted, Then
from gridnode.gateway.resp import Command

MAX_BYTES = 256 * 1024 * 1024
"""Of a task's values on one node. What was not asked for longest is forgotten first."""

_BESIDES = 300
"""What a value takes besides its bytes and its name's, about."""

Name = tuple[bytes, ...]
"""Of a value: a key, or a key and a field."""


def name_of(command: Command) -> Name | None:
    """What it reads, if it is a read that is kept."""
    words = {b"GET": 2, b"HGET": 3}.get(command[0].upper())
    return tuple(command[1:]) if words == len(command) else None


class Constants:
    def __init__(self, most_bytes: int = MAX_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._values: OrderedDict[Name, bytes] = OrderedDict()
        self._asking: dict[Name, list[tuple[Then, IsWanted]]] = {}

    def get(self, name: Name) -> bytes | None:
        value = self._values.get(name)
        if value is not None:
            self._values.move_to_end(name)
        return value

    def ask(self, name: Name, then: Then, is_wanted: IsWanted) -> bool:
        """`then` gets what Redis answers. False if somebody has asked already; otherwise who calls
        this asks now, and tells `came`."""
        is_first = name not in self._asking
        self._asking.setdefault(name, []).append((then, is_wanted))
        return is_first

    def is_wanted(self, name: Name) -> bool:
        return any(is_wanted() for _, is_wanted in self._asking[name])

    def came(self, name: Name, answer: object) -> None:
        """A value, nothing, or an error; only a value is kept."""
        if isinstance(answer, bytes):
            self._keep(name, answer)
        for then, is_wanted in self._asking.pop(name):
            then(answer if is_wanted() else NotWanted())

    def _keep(self, name: Name, value: bytes) -> None:
        size = _size(name, value)
        if size > self._most_bytes:
            return
        self._values[name] = value
        self._bytes += size
        while self._bytes > self._most_bytes:
            self._bytes -= _size(*self._values.popitem(last=False))


def _size(name: Name, value: bytes) -> int:
    return _BESIDES + sum(map(len, name)) + len(value)
