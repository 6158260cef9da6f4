"""What travels between driver and runners: marshalled tuples, as between a driver and its workers.

An *item* is a call or the start of an actor, in the task's queue. A *letter* is what a run tells a
driver, an *order* what a driver tells a run; both are numbered, and may come again (see `runs`).

Messages of worker processes go through unread. Where one of those has a descriptor, a packed value
here has its place in a list of *tickets*, which say where the value is in the store.
"""

from __future__ import annotations

import marshal
import sys
from dataclasses import dataclass

from gridcore.sdk.workers.frames import Message, Wire

_VERSION = 4
"""Of marshal: the newest that all our Pythons have; plain values mean the same in all of them."""

_MAGIC = b"GCI1"

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

Ticket = tuple[str, int]
"""A value's name in the store, and its size."""

CALL, ACTOR = "c", "a"

LATE = 4
"""A call's status besides those in `outcomes`: it took longer than its timeout."""


@dataclass(frozen=True, slots=True)
class Item:
    job: str
    kind: str
    number: int
    attempt: int
    python: str
    """Which the driver has."""
    function: bytes = b""
    name: str = ""
    arguments: Wire = b""
    places: tuple[int | str, ...] = ()
    values: tuple[Wire, ...] = ()
    returns: int = 1
    about: tuple[int, str] | None = None
    """As workers are told."""
    timeout: float | None = None
    memory: int = 0
    cpus: float = 1.0
    tickets: tuple[Ticket, ...] = ()

    def encoded(self) -> bytes:
        return _MAGIC + marshal.dumps(
            tuple(getattr(self, field) for field in self.__slots__), _VERSION
        )

    @classmethod
    def decoded(cls, data: bytes) -> Item:
        """Raises ValueError for what somebody else has pushed."""
        if not data.startswith(_MAGIC):
            raise ValueError("this is no call of the SDK")
        try:
            return cls(*marshal.loads(data[len(_MAGIC) :]))  # noqa: S302 - of a driver with a token
        except (EOFError, TypeError, ValueError) as error:
            raise ValueError(f"this call cannot be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Part:
    """Some messages of, or for, one worker of a run; worker 0 is the run itself."""

    worker: int
    messages: list[Message]
    tickets: list[Ticket]

    def encoded(self) -> bytes:
        return marshal.dumps((self.worker, self.messages, self.tickets), _VERSION)


MOST_BYTES = 8 * 1024 * 1024
"""Of one letter or order, apart from its last part."""


UNNUMBERED = 0
"""Of a letter or an order that is read whatever came before it."""


def letter(run: str, number: int, parts: list[bytes]) -> bytes:
    return marshal.dumps((run, number, parts), _VERSION)


def read_letter(data: bytes) -> tuple[str, int, list[Part]]:
    run, number, parts = marshal.loads(data)  # noqa: S302 - of a runner with our secret
    return run, number, [_part(part) for part in parts]


def order(number: int, parts: list[bytes]) -> bytes:
    return marshal.dumps((number, parts), _VERSION)


def read_order(data: bytes) -> tuple[int, list[Part]]:
    number, parts = marshal.loads(data)  # noqa: S302 - of a driver with a token
    return number, [_part(part) for part in parts]


def _part(data: bytes) -> Part:
    return Part(*marshal.loads(data))  # noqa: S302 - as above
