"""Large values in the store: in pieces, since nobody else's commands should wait long for one."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator

from gridcore.sdk.blobs import Blob, seal
from gridcore.sdk.errors import ObjectLost, PayloadTooLarge
from gridcore.sdk.grid.messages import Ticket

PIECE_BYTES = 4 * 1024 * 1024

MOST_BYTES = 2 * 1024 * 1024 * 1024
"""Of one value. Redis keeps all of them in memory."""


class StoredBlob(Blob):
    """A value in the store, fetched when somebody looks at it.

    The driver's: when the last reference to it goes, `drop` is called with its name.
    """

    __slots__ = ("_drop", "_fetch", "name")

    def __init__(
        self,
        ticket: Ticket,
        *,
        fetch: Callable[[Ticket], Blob],
        drop: Callable[[Ticket], None],
    ) -> None:
        super().__init__(-1, ticket[1])
        self.name = ticket[0]
        self._fetch = fetch
        self._drop = drop

    @property
    def ticket(self) -> Ticket:
        return self.name, self.size

    def view(self) -> memoryview:
        if self.fd < 0:
            found = self._fetch(self.ticket)
            self.fd, found.fd = found.fd, -1
        return super().view()

    def __del__(self) -> None:
        super().__del__()
        self._drop(self.ticket)


def check_size(size: int, what: str) -> None:
    if size > MOST_BYTES:
        raise PayloadTooLarge(
            f"Sending {what}",
            cause=f"it has {size:,} bytes, and the grid's store takes {MOST_BYTES:,} of one value",
            next_step="Split it, or leave it where workers can read it",
        )


def fields_of(ticket: Ticket) -> list[str]:
    """The hash fields of its pieces."""
    name, size = ticket
    return [f"{name}:{place}" for place in range(max(1, -(-size // PIECE_BYTES)))]


def pieces_of(blob: Blob) -> Iterator[memoryview]:
    view = memoryview(mmap.mmap(blob.fd, blob.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
    for start in range(0, blob.size, PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]


def joined(ticket: Ticket, pieces: list[bytes | None]) -> Blob:
    """Raises ObjectLost if one is missing."""
    present = [piece for piece in pieces if isinstance(piece, bytes)]
    if len(present) != len(pieces) or sum(map(len, present)) != ticket[1]:
        raise ObjectLost(
            "Fetching a value",
            cause="it is not in the grid's store any more",
            next_step="Keep an ObjectRef to it in the driver for as long as it is needed",
        )
    parts: list[tuple[int, bytes | bytearray | memoryview]] = []
    offset = 0
    for piece in present:
        parts.append((offset, piece))
        offset += len(piece)
    return seal(parts, ticket[1])


class Names:
    """Names that nobody else gives."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex()
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"{self._prefix}.{self._count:x}"
