"""Who reads the workers' sockets: whoever waits, and a thread of our own only if nobody does.

To hand a message from one thread to another costs more than to handle it. So a thread that waits in
`get` reads the sockets itself, and so does one that submits many calls. The background thread
sleeps in the poller while nothing happens and costs nothing. When somebody else reads, it steps
aside, and looks every TICK_S whether they still do.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

from gridcore.sdk.workers.spinning import Spinner

TICK_S = 0.005

CLOSE_WITHIN_S = 1.0

STALL_S = 0.005
"""No answer for so long: what waits behind the calls that run is taken back."""


class Poller:
    """File descriptors and what to do when they are ready."""

    def __init__(self) -> None:
        self._handlers: dict[int, Callable[[bool], None]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._poll = None if self._epoll is not None else select.poll()
        self._spinner = Spinner()

    def watch(self, fd: int, handler: Callable[[bool], None]) -> None:
        """`handler(True)` when it can be read, `handler(False)` when it can be written."""
        self._handlers[fd] = handler
        (self._epoll or self._poll).register(fd, select.POLLIN)  # type: ignore[union-attr]

    def also_write(self, fd: int, wanted: bool) -> None:
        mask = select.POLLIN | (select.POLLOUT if wanted else 0)
        (self._epoll or self._poll).modify(fd, mask)  # type: ignore[union-attr]

    def forget(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            with contextlib.suppress(OSError, KeyError):
                (self._epoll or self._poll).unregister(fd)  # type: ignore[union-attr]

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        if timeout == 0:
            return self._look(0)
        return self._spinner.wait(self._look, timeout)

    def _look(self, timeout: float | None) -> list[tuple[int, int]]:
        if self._epoll is not None:
            return self._epoll.poll(-1 if timeout is None else timeout)
        assert self._poll is not None
        return self._poll.poll(None if timeout is None else timeout * 1000)

    def handle(self, events: list[tuple[int, int]]) -> None:
        for fd, mask in events:
            handler = self._handlers.get(fd)
            if handler is None:
                continue
            if mask & select.POLLOUT:
                handler(False)
            if mask & ~select.POLLOUT and fd in self._handlers:
                handler(True)

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()


class Pump:
    def __init__(
        self,
        poller: Poller,
        handle: Callable[[list[tuple[int, int]]], None],
        next_time: Callable[[], float | None],
    ) -> None:
        """`handle` gets the events of one wait, with none if time is over; `next_time`: how long a
        wait may be."""
        self._poller = poller
        self._handle = handle
        self._next_time = next_time
        self._lock = threading.Lock()
        self._reader = 0
        """The thread that has the lock."""
        self._handed_over = threading.Condition()
        self._waiters = 0
        self._rounds = 0
        self._is_background = False
        """The background thread reads, and must be asked to step aside."""
        self._is_closed = False
        self._bell, self._button = os.pipe()
        for end in (self._bell, self._button):
            os.set_blocking(end, False)
        poller.watch(self._bell, self._on_bell)
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._background, name="gridcore", daemon=True)
        self._thread.start()

    def run_until(self, is_over: Callable[[], bool], timeout: float | None) -> bool:
        """Reads, or lets another thread read, until `is_over()`; False if time is over first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._reader == threading.get_ident():
            # A callback that waits for something itself: it is this thread that reads.
            return self._read_until(is_over, deadline)
        while not is_over():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            if self._claim():
                try:
                    if not self._read_until(is_over, deadline):
                        return False
                finally:
                    self._release()
            else:
                with self._handed_over:
                    self._waiters += 1
                    try:
                        if not is_over() and self._lock.locked():
                            self._handed_over.wait(left)
                    finally:
                        self._waiters -= 1
        return True

    def _read_until(self, is_over: Callable[[], bool], deadline: float | None) -> bool:
        left = None
        while not is_over():
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
            self._round(left)
        return True

    def look(self) -> None:
        """Handles what is there, without waiting; nothing if another thread is at it."""
        if self._claim():
            try:
                self._rounds += 1
                self._handle(self._poller.wait(0))
            finally:
                self._release()

    def step_aside(self) -> None:
        """Asks the background thread to, if it is it that reads. For who writes a lot."""
        if self._is_background:
            self._ring()

    def wake(self) -> None:
        """What some thread waits for may be there, although no message came."""
        self._ring()
        with self._handed_over:
            self._handed_over.notify_all()

    def read_in_background(self) -> None:
        """Somebody is to be called back, and nobody waits."""
        self._now.set()

    def close(self) -> None:
        self._is_closed = True
        self._now.set()
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        # Who waits sees that all is over, and leaves.
        self._lock.acquire(timeout=CLOSE_WITHIN_S)
        self._poller.forget(self._bell)
        os.close(self._bell)
        os.close(self._button)

    def _claim(self) -> bool:
        me = threading.get_ident()
        if self._reader == me:
            return False
        if not self._lock.acquire(blocking=False):
            if not self._is_background:
                return False
            self._ring()
            if not self._lock.acquire(timeout=TICK_S):
                return False
        self._reader = me
        return True

    def _release(self) -> None:
        self._reader = 0
        self._lock.release()
        if self._waiters:
            with self._handed_over:
                self._handed_over.notify_all()

    def _round(self, left: float | None) -> None:
        self._rounds += 1
        limit = self._next_time()
        if limit is not None and (left is None or limit < left):
            left = limit
        self._handle(self._poller.wait(left))
        if self._waiters:
            with self._handed_over:
                self._handed_over.notify_all()

    def _background(self) -> None:
        while not self._is_closed:
            seen = self._rounds
            self._now.wait(TICK_S)
            is_needed = self._now.is_set()
            self._now.clear()
            if (seen != self._rounds and not is_needed) or not self._lock.acquire(blocking=False):
                continue
            self._is_background, self._reader = True, threading.get_ident()
            try:
                while self._reads_in_background():
                    self._round(None)
            finally:
                self._is_background = False
                self._release()

    def _reads_in_background(self) -> bool:
        return self._is_background and not self._is_closed

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._button, b"x")

    def _on_bell(self, can_read: bool) -> None:
        del can_read
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, 4096)
        self._is_background = False
