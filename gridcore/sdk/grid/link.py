"""A connection to Redis that waits for nothing: commands go out, replies come by callbacks.

What is not answered when it breaks is sent again on the next one: whoever sends something that must
not happen twice has to say so in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from gridcore.sdk.grid.resp import Bytes, Replies, encoded

CONNECT_WITHIN_S = 10.0

DEAF_S = 20.0
"""The other end's machine has not confirmed anything for so long: it is gone without a word."""

READ_BYTES = 256 * 1024

MOST_READ_AT_ONCE = 4 * 1024 * 1024
"""Then it is others' turn."""

_PIECES_AT_ONCE = 64

Then = Callable[[Any], None]


class Link:
    def __init__(self, url: str, *, wants_to_write: Callable[[bool], None]) -> None:
        """`wants_to_write(True)` when bytes are left that the socket does not take now."""
        self._url = urlsplit(url)
        self._wants_to_write = wants_to_write
        self._socket: socket.socket | None = None
        self._replies = Replies()
        self._buffer = bytearray(READ_BYTES)
        self._greetings = 0
        """Replies to AUTH and SELECT that are due before all others."""
        self._out: deque[Bytes] = deque()
        self._unanswered: deque[tuple[list[Bytes], Then]] = deque()
        self._is_writing = False

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    @property
    def unanswered(self) -> int:
        return len(self._unanswered)

    def fileno(self) -> int:
        assert self._socket is not None
        return self._socket.fileno()

    def connect(self) -> None:
        """Waits for the connection; raises OSError."""
        self.use(opened(self._url.geturl()))

    def use(self, sock: socket.socket) -> None:
        """A new connection. What was not answered on the one before is sent again."""
        url = self._url
        self._socket, self._replies = sock, Replies()
        self._out.clear()
        self._greetings = 0
        if url.password is not None:
            user = [unquote(url.username)] if url.username else []
            self._greet("AUTH", *user, unquote(url.password))
        if database := url.path.strip("/"):
            self._greet("SELECT", database)
        for pieces, _ in self._unanswered:
            self._out.extend(pieces)
        self._is_writing = False
        self.flush()

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def send(self, command: Sequence[str | int | Bytes], then: Then) -> None:
        """`then` gets the reply, which may be a ReplyError. It is not sent before `flush`."""
        pieces = encoded(command)
        self._unanswered.append((pieces, then))
        if self._socket is not None:
            self._out.extend(pieces)

    def flush(self) -> None:
        """Raises OSError if the connection is gone."""
        sock, out = self._socket, self._out
        if sock is None:
            return
        while out:
            try:
                sent = self._send_some(sock)
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                break
            while sent:
                first = out[0]
                if len(first) <= sent:
                    sent -= len(first)
                    out.popleft()
                else:
                    out[0] = memoryview(first)[sent:]
                    sent = 0
        if bool(out) != self._is_writing:
            self._is_writing = bool(out)
            self._wants_to_write(self._is_writing)

    def _send_some(self, sock: socket.socket) -> int:
        out = self._out
        if isinstance(sock, ssl.SSLSocket):
            return sock.send(out[0])
        if len(out) == 1:
            return sock.send(out[0])
        return sock.sendmsg([out[i] for i in range(min(len(out), _PIECES_AT_ONCE))])

    def receive(self) -> None:
        """Reads what is there, and hands out what is complete; raises OSError at the end."""
        sock = self._socket
        if sock is None:
            return
        total = 0
        # What TLS has decrypted already makes no socket readable.
        while total < MOST_READ_AT_ONCE or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            try:
                count = sock.recv_into(self._buffer)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            if count == 0:
                raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            self._replies.feed(memoryview(self._buffer)[:count])
            total += count
            if count < READ_BYTES and not isinstance(sock, ssl.SSLSocket):
                break
        while True:
            is_there, reply = self._replies.next()
            if not is_there:
                return
            if self._greetings:
                self._greetings -= 1
                if isinstance(reply, Exception):
                    raise PermissionError(errno.EACCES, f"Redis does not let us in: {reply}")
                continue
            _, then = self._unanswered.popleft()
            then(reply)
            if self._socket is not sock:
                return  # the callback has closed it

    def _greet(self, *command: str) -> None:
        self._out.extend(encoded(command))
        self._greetings += 1


def opened(url: str) -> socket.socket:
    """A connection that is ready to be spoken on; waits for it, and raises OSError."""
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port or 6379), CONNECT_WITHIN_S)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(DEAF_S * 1000))
        if parts.scheme == "rediss":
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=parts.hostname)
        sock.setblocking(False)
    except BaseException:  # whatever it is, nobody else would close it
        sock.close()
        raise
    return sock


class Opening:
    """A connection that is on its way, in a thread: nobody else is to wait for a host that does not
    answer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._found: socket.socket | OSError | None = None
        self._is_wanted = True
        self._lock = threading.Lock()
        threading.Thread(target=self._open, name="gridcore-connect", daemon=True).start()

    def _open(self) -> None:
        found: socket.socket | OSError
        try:
            found = opened(self._url)
        except OSError as error:
            found = error
        with self._lock:
            self._found = found
            if not self._is_wanted and isinstance(found, socket.socket):
                found.close()

    def take(self) -> socket.socket | None:
        """None if it is not there yet; raises OSError."""
        with self._lock:
            if isinstance(self._found, OSError):
                raise self._found
            return self._found

    def close(self) -> None:
        with self._lock:
            self._is_wanted = False
            if isinstance(self._found, socket.socket):
                self._found.close()


def ask(link: Link, *command: str | int | Bytes, within_s: float = CONNECT_WITHIN_S) -> Any:
    """One command, waiting for its reply; for when nothing else is under way."""
    replies: list[Any] = []
    link.send(command, replies.append)
    link.flush()
    poll = select.poll()
    while not replies:
        poll.register(link.fileno(), select.POLLIN | (select.POLLOUT if link._is_writing else 0))
        if not poll.poll(within_s * 1000):
            raise TimeoutError(f"no answer to {command[0]!r} in {within_s:g} s")
        with contextlib.suppress(BlockingIOError):
            link.flush()
            link.receive()
    return replies[0]
