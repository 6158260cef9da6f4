"""A worker process: runs calls one after the other, and passes on what they ask of the grid.

The main thread runs the calls. A second thread reads the control socket, so that a worker which is
busy with a long call can be asked to give back those behind it, or to stop.

Results wait for each other while short calls follow, at most FLUSH_S, and never while a call runs
that is not known to be short: sending costs more than such a call.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections import deque

from gridcore.sdk import session
from gridcore.sdk.workers.frames import Incoming, Message, let_go
from gridcore.sdk.workers.running import Interrupts, Runner
from gridcore.sdk.workers.worker_engine import WorkerEngine

FLUSH_S = 0.001
SHORT_S = 0.0005

INTERRUPT = signal.SIGUSR1
"""Ends a system call that the main thread waits in: a call that sleeps can be cancelled."""

SIGNAL_AGAIN_MS = 5


def main(seat: int, data: socket.socket, control: socket.socket) -> None:
    Worker(seat, data, control).run()


class Worker:
    def __init__(self, seat: int, data: socket.socket, control: socket.socket) -> None:
        self._control = control
        self.interrupts = Interrupts()
        self.engine = WorkerEngine(seat, data, self.interrupts, self._take, self._unstarted)
        self.runner = Runner(self.engine, self.interrupts)
        self._queue: deque[tuple[Message, list[int]]] = deque()
        self.engine.run_nested = self.runner.run
        self._gives_back = False
        """What is read next is not wanted here, but for the first call."""

    def run(self) -> None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        session.use(self.engine)
        signal.signal(INTERRUPT, self.interrupts.on_signal)
        threading.Thread(target=self._listen, name="gridcore-control", daemon=True).start()
        self.engine.send(("hello", os.getpid()))
        try:
            while True:
                self._run_queue()
                self.engine.flush()
                self.engine.read()
        except (EOFError, ConnectionError):
            pass  # the driver is gone, or needs this worker no more
        self.runner.close()

    def _run_queue(self) -> None:
        engine, runner, queue = self.engine, self.runner, self._queue
        since = 0.0
        while True:
            try:
                message, fds = queue.popleft()
            except IndexError:
                return
            if self._gives_back:
                self._gives_back = False
                engine.give_back(self._unstarted())
                engine.flush()
            if message[0] == "x":
                runner.stop_in_turn(*message[1:])
                continue
            if engine.has_results:
                now = time.perf_counter()
                if now - since > FLUSH_S or not runner.is_short(message, SHORT_S):
                    engine.flush()
                    since = now
            else:
                since = time.perf_counter()
            runner.run(message, fds)

    def _take(self, message: Message, fds: list[int]) -> None:
        """What the driver sent, read by whichever thread waits."""
        self._queue.append((message, fds))

    def _unstarted(self) -> list[int]:
        """Takes calls of functions that have not begun out of the queue; they go back."""
        numbers: list[int] = []
        if self.engine.is_actor:
            return numbers
        while True:
            try:
                message, fds = self._queue.pop()
            except IndexError:
                return numbers[::-1]
            numbers.append(message[1])
            let_go(message, fds)

    def _listen(self) -> None:
        incoming = Incoming(self._control)
        poll = select.poll()
        poll.register(self._control.fileno(), select.POLLIN)
        try:
            while True:
                if not poll.poll(SIGNAL_AGAIN_MS if self.interrupts.is_due else None):
                    signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
                    continue
                for messages, _ in incoming.receive():
                    for message in messages:
                        self._obey(message)
        except (EOFError, OSError):
            return

    def _obey(self, message: Message) -> None:
        if message[0] == "b":
            if not self.engine.read_what_is_there():
                # What the main thread is just reading it will find in the queue.
                self._gives_back = True
            numbers = self._unstarted()
            if numbers:
                self.engine.give_back(numbers)
            self.engine.flush()
        elif message[0] == "x":
            self._stop(message[1], message[2])
        elif message[0] == "e":
            self._stop(message[1], message[2], is_gentle=True)

    def _stop(self, number: int, attempt: int, *, is_gentle: bool = False) -> None:
        """It may not have begun, or run. `is_gentle`: one that yields goes on until it does so
        next."""
        # First, as it may begin at any moment: either it looks here then, or it is found below.
        self.runner.unwanted[number] = attempt
        if self.runner.is_another(number, attempt) or self.runner.stop(number, is_gentle=is_gentle):
            return
        if self.interrupts.ask(number):
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
