"""Values as bytes, and back.

Up to INLINE_BYTES a value is one string of bytes that travels with its message; above, it is a
sealed blob. What a value holds as raw memory (a numpy array, a bytearray, all that pickles with
out-of-band buffers) is copied into the blob once, at an offset that is a multiple of 64, and is
never copied again: readers get read-only views of the same pages.

    0x80 ...                     pickled, without buffers
    "GCB1" count inband          then (offset, length) of each buffer, the pickle, the buffers
"""

from __future__ import annotations

import pickle
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any

from gridcore.sdk.blobs import ALIGNMENT, Blob, seal
from gridcore.sdk.errors import NotPicklable, describe

INLINE_BYTES = 100 * 1024

SMALL_BUFFER_BYTES = 2048
"""Less than this is copied faster than it is kept apart."""

_MAGIC = b"GCB1"
_HEAD = struct.Struct("<4sIQ")
_PLACE = struct.Struct("<QQ")


class Packed:
    """A value, packed: either `data` or `blob`, and the references inside."""

    __slots__ = ("blob", "data", "refs")

    def __init__(self, data: bytes | None, blob: Blob | None, refs: tuple[int, ...] = ()) -> None:
        self.data = data
        self.blob = blob
        self.refs = refs

    @property
    def size(self) -> int:
        return len(self.data) if self.data is not None else self.blob.size if self.blob else 0


class _Thread(threading.local):
    refs: list[int] | None = None
    """The references met while this thread packs something."""


_thread = _Thread()

_by_value: tuple[bytes, ...] = (b"__main__",)
"""Modules whose classes and functions travel by value."""


def send_by_value(modules: Iterable[str]) -> None:
    """Besides `__main__`; cloudpickle is told by whoever calls this."""
    global _by_value
    _by_value = (b"__main__", *(name.encode() for name in modules))


_look: Callable[[], None] | None = None


def look_first(look: Callable[[], None] | None) -> None:
    """What to call before anything is packed: modules may have been imported since."""
    global _look
    _look = look


def look() -> None:
    if _look is not None:
        _look()


def note_reference(number: int) -> None:
    """A reference was pickled: whoever packs must know what is inside."""
    if _thread.refs is None:
        raise NotPicklable(
            "Pickling an ObjectRef",
            cause="references only mean something inside calls, results and put values",
            next_step="Pickle what gridcore.get returns for it",
        )
    _thread.refs.append(number)


def pack(value: object, what: str) -> Packed:
    """`what`: how an error calls the value.

    The standard pickle is tried first, as it is five times as fast. It refuses what only
    cloudpickle can do, except classes and functions of `__main__`: those it names, and the other
    process has another `__main__`. So with other modules that travel by value.
    """
    if _look is not None:
        _look()
    outer, _thread.refs = _thread.refs, []
    try:
        buffers: list[pickle.PickleBuffer] = []
        try:
            data = pickle.dumps(value, 5, buffer_callback=_collector(buffers))
        except Exception:  # noqa: BLE001 - whatever it is, cloudpickle knows better or says so
            data = b""
        if not data or any(name in data for name in _by_value):
            buffers.clear()
            _thread.refs.clear()
            data = _cloudpickled(value, what, buffers)
        refs = tuple(_thread.refs)
    finally:
        _thread.refs = outer
    if not buffers and len(data) <= INLINE_BYTES:
        return Packed(data, None, refs)
    return _laid_out(data, buffers, refs)


def _cloudpickled(value: object, what: str, buffers: list[pickle.PickleBuffer]) -> bytes:
    from gridcore.sdk import by_value  # late, as cloudpickle takes as long as all of `gridcore`

    try:
        return by_value.dumps(value, _collector(buffers))
    except Exception as error:
        raise NotPicklable(
            f"Sending {what}",
            cause=f"it cannot be pickled: {describe(error)}",
            next_step="Send what it is made of, and make it where it is used",
        ) from error


def _collector(buffers: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        try:
            with buffer.raw() as raw:
                if raw.nbytes < SMALL_BUFFER_BYTES:
                    return True
        except BufferError:  # not contiguous
            return True
        buffers.append(buffer)
        return False

    return keep_in_band


def _laid_out(data: bytes, buffers: list[pickle.PickleBuffer], refs: tuple[int, ...]) -> Packed:
    views = [buffer.raw() for buffer in buffers]
    start = _HEAD.size + len(views) * _PLACE.size
    end = start + len(data)
    head = bytearray(_HEAD.pack(_MAGIC, len(views), len(data)))
    parts: list[tuple[int, bytes | bytearray | memoryview]] = [(0, head), (start, data)]
    for view in views:
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        head += _PLACE.pack(offset, view.nbytes)
        parts.append((offset, view))
        end = offset + view.nbytes
    if end > INLINE_BYTES:
        packed = Packed(None, seal(parts, end), refs)
    else:
        whole = bytearray(end)
        for offset, part in parts:
            whole[offset : offset + len(part)] = part
        packed = Packed(bytes(whole), None, refs)
    for view in views:
        view.release()
    return packed


def unpack(packed: Packed) -> Any:
    return unpack_bytes(packed.data if packed.blob is None else packed.blob.view())


def unpack_bytes(data: bytes | memoryview | None) -> Any:
    assert data is not None
    if data[0] == 0x80:
        return pickle.loads(data)  # noqa: S301 - written by this program's own processes
    _, count, inband = _HEAD.unpack_from(data)
    view = memoryview(data)
    start = _HEAD.size + count * _PLACE.size
    buffers = [
        view[offset : offset + length]
        for offset, length in _PLACE.iter_unpack(view[_HEAD.size : start])
    ]
    return pickle.loads(view[start : start + inband], buffers=buffers)  # noqa: S301
