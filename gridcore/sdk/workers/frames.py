"""Messages between driver and workers: marshalled tuples on a Unix socket, with descriptors beside.

A frame is its length, the number of its descriptors, and a list of messages. Several messages share
a frame, and so a write and a wake-up, which cost more than all the rest. `marshal` is twice as fast
as pickle for tuples of numbers and bytes, and both ends are the same Python.
"""

from __future__ import annotations

import array
import marshal
import socket
import struct
from collections import deque
from typing import Any

from gridcore.sdk.blobs import Blob
from gridcore.sdk.packing import Packed

Message = tuple[Any, ...]
Wire = bytes | tuple[int, int]
"""A packed value in a message: itself, or which of the frame's descriptors it is, and its size."""

MAX_FDS = 200
"""Of one frame; the kernel takes 253 at once."""

READ_BYTES = 128 * 1024

_HEAD = struct.Struct("<IH")
_ANCILLARY = socket.CMSG_SPACE(253 * 4)


class Outgoing:
    """A frame that is being made."""

    __slots__ = ("fds", "kept", "messages")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.fds: list[int] = []
        self.kept: list[Blob] = []
        """Must not be closed before the frame is sent."""

    def wire(self, packed: Packed) -> Wire:
        blob = packed.blob
        if blob is None:
            assert packed.data is not None
            return packed.data
        self.fds.append(blob.fd)
        self.kept.append(blob)
        return len(self.fds) - 1, blob.size

    def encoded(self) -> bytes:
        body = marshal.dumps(self.messages)
        return _HEAD.pack(len(body), len(self.fds)) + body


class Incoming:
    """Takes a socket's bytes apart."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._rest = b""
        self._fds: deque[int] = deque()

    def receive(self, flags: int = 0) -> list[tuple[list[Message], list[int]]]:
        """The frames that are complete after one read, with their descriptors; raises EOFError at
        the end, BlockingIOError as recv does."""
        count, ancillary, _, _ = self._socket.recvmsg_into([self._view], _ANCILLARY, flags)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds.extend(array.array("i", content[: len(content) // 4 * 4]))
        if count == 0:
            raise EOFError
        data: bytes | memoryview = self._view[:count]
        if self._rest:
            data = self._rest + bytes(data)
            self._rest = b""
        frames = []
        start, size = 0, len(data)
        while size - start >= _HEAD.size:
            length, fd_count = _HEAD.unpack_from(data, start)
            end = start + _HEAD.size + length
            if end > size:
                if end - start > 4 * READ_BYTES:
                    data = self._read_all(data, start, end)
                    start, size = 0, len(data)
                    continue
                break
            fds = [self._fds.popleft() for _ in range(fd_count)] if fd_count else []
            frames.append((marshal.loads(data[start + _HEAD.size : end]), fds))  # noqa: S302
            start = end
        if start < size:
            self._rest = bytes(data[start:])
        return frames

    def _read_all(self, data: bytes | memoryview, start: int, end: int) -> bytes:
        """A large frame's remainder, in one go: adding piece to piece would copy it each time."""
        whole = bytearray(end - start)
        have = len(data) - start
        whole[:have] = data[start:]
        view = memoryview(whole)
        while have < len(whole):
            count, ancillary, _, _ = self._socket.recvmsg_into([view[have:]], _ANCILLARY)
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self._fds.extend(array.array("i", content[: len(content) // 4 * 4]))
            if count == 0:
                raise EOFError
            have += count
        return bytes(whole)


def packed_from(wire: Wire, beside: list[Any], refs: tuple[int, ...] = ()) -> Packed:
    """The value of a message. `beside` it came descriptors, or blobs that are elsewhere; one is the
    value's from now on."""
    if isinstance(wire, bytes):
        return Packed(wire, None, refs)
    place, size = wire
    found, beside[place] = beside[place], -1
    return Packed(None, found if isinstance(found, Blob) else Blob(found, size), refs)


def let_go(message: Message, fds: list[int]) -> None:
    """Closes the descriptors of a call that will not run here."""
    for wire in (message[3], *message[5]):
        packed_from(wire, fds)


def send_all(sock: socket.socket, frame: Outgoing) -> None:
    """Sends it, waiting as long as it takes."""
    data = frame.encoded()
    if not frame.fds:
        sock.sendall(data)
        return
    sent = sock.sendmsg(
        [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", frame.fds))]
    )
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


class Sender:
    """Sends without waiting; what the socket does not take is kept for later."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._waiting: deque[tuple[memoryview, list[Blob]]] = deque()

    def send(self, frame: Outgoing) -> bool:
        """Whether all of it is gone. Raises OSError if the other end is."""
        data = frame.encoded()
        sent = 0
        if not self._waiting and not frame.kept:
            try:
                sent = self._socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                return True
        is_first = not self._waiting
        self._waiting.append((memoryview(data)[sent:], frame.kept))
        return self.send_more() if is_first and frame.kept else False

    def send_more(self) -> bool:
        while self._waiting:
            data, blobs = self._waiting[0]
            # Asked for only now: a blob that went to disk meanwhile has another descriptor.
            fds = array.array("i", [blob.fd for blob in blobs])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
            try:
                sent = self._socket.sendmsg([data], ancillary, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            if sent == len(data):
                self._waiting.popleft()
            else:
                # The descriptors went with the first byte.
                self._waiting[0] = (data[sent:], [])
        return True
