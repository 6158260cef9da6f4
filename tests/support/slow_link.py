"""A server at the end of a slow link: bytes pass at a rate, which all connections share.

with slow_link(redis_server.port, up=200_000, down=1_000_000) as link:
    redis.Redis(port=link.port)
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

BUFFER_BYTES = 65_536
"""Of its sockets: what the kernels hold besides would make it look faster than it is."""

CHUNK_BYTES = 4_096


class SlowLink:
    def __init__(self, port: int, *, up: float, down: float) -> None:
        self.connections = 0
        self._target = port
        self._up, self._down = _Rate(up), _Rate(down)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening = socket.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen()
        self.port: int = self._listening.getsockname()[1]
        self._start(self._serve)

    def close(self) -> None:
        for each in (self._listening, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listening, *self._open):
            each.close()

    def _start(self, run: object, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="slow link")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self.connections += 1
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                self._start(self._pass_on, near, far, self._up)
                self._start(self._pass_on, far, near, self._down)

    def _pass_on(self, source: socket.socket, sink: socket.socket, rate: _Rate) -> None:
        with suppress(OSError):
            while received := source.recv(CHUNK_BYTES):
                rate.wait_for(len(received))
                sink.sendall(received)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Rate:
    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._lock = threading.Lock()
        self._free_at_s = 0.0

    def wait_for(self, size: int) -> None:
        with self._lock:
            now_s = time.monotonic()
            self._free_at_s = max(self._free_at_s, now_s) + size / self._bytes_per_s
            pause_s = self._free_at_s - now_s
        time.sleep(pause_s)


@contextmanager
def slow_link(port: int, *, up: float, down: float) -> Iterator[SlowLink]:
    """So many bytes a second from the client to that port of this machine, and back."""
    made = SlowLink(port, up=up, down=down)
    try:
        yield made
    finally:
        made.close()
