"""The process that workers are forked from.

Started fresh by the driver, so nothing of the user's (threads, locks, open files) is in it, and it
has no threads, so that forking it is safe. It has imported what a worker needs: a fork takes a
millisecond where a new interpreter takes a hundred, and shares its memory.

It ends, and its workers with it, when the driver is gone, however that went: it then reads the end
of its socket, or learns it from the driver's pidfd if a fork of the driver keeps the socket open.
The kernel ends the workers with it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from gridcore.sdk.workers import worker
from gridcore.sdk.workers.frames import Incoming, Outgoing, send_all

_PR_SET_PDEATHSIG = 1


def main(fd: int, driver: int) -> None:
    driver_socket = socket.socket(fileno=fd)
    importlib.import_module("gridcore.sdk.by_value")
    # Ctrl-C is for the driver. Not SIG_IGN, which programs started by a call would inherit.
    signal.signal(signal.SIGINT, _ignore)
    gc.collect()
    gc.freeze()
    with driver_socket:
        Template(driver_socket, driver).run()


class Template:
    def __init__(self, driver_socket: socket.socket, driver: int) -> None:
        self._socket = driver_socket
        self._driver = driver
        self._incoming = Incoming(driver_socket)
        self._workers: dict[int, int] = {}
        """Process id -> seat."""
        self._prctl = _find_prctl()

    def run(self) -> None:
        children, wake_up = os.pipe()
        for end in (children, wake_up):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_up)
        signal.signal(signal.SIGCHLD, _ignore)
        poller = select.poll()
        poller.register(self._socket.fileno(), select.POLLIN)
        poller.register(children, select.POLLIN)
        driver = _watch(self._driver)
        if driver is not None:
            poller.register(driver, select.POLLIN)
        try:
            while True:
                for fd, _ in poller.poll():
                    if fd == driver:
                        return
                    if fd == children:
                        os.read(children, 4096)
                        self._reap()
                    else:
                        self._obey()
        except (EOFError, OSError):
            pass
        finally:
            self._end_all()

    def _obey(self) -> None:
        for messages, fds in self._incoming.receive():
            for kind, seat, *arguments in messages:
                if kind == "fork":
                    self._fork(seat, fds, *arguments)
                elif kind == "kill":
                    for pid, other in self._workers.items():
                        if other == seat:
                            os.kill(pid, signal.SIGKILL)

    def _fork(self, seat: int, fds: list[int], path: list[str], folder: str) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_worker(seat, fds, path, folder)
        self._workers[pid] = seat
        for fd in fds:
            os.close(fd)

    def _become_worker(self, seat: int, fds: list[int], path: list[str], folder: str) -> NoReturn:
        code = 1
        try:
            if self._prctl is not None:
                parent = os.getppid()
                self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._socket.close()
            sys.path[:] = path
            with contextlib.suppress(OSError):  # it was removed; who needs it will say so
                os.chdir(folder)
            worker.main(seat, *(socket.socket(fileno=fd) for fd in fds))
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def _reap(self) -> None:
        while self._workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            seat = self._workers.pop(pid, None)
            if seat is not None:
                report = Outgoing()
                report.messages.append(("exited", seat, os.waitstatus_to_exitcode(status)))
                send_all(self._socket, report)

    def _end_all(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._workers:
            os.waitpid(pid, 0)


def _ignore(*_: object) -> None:
    pass


def _watch(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _find_prctl() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    import ctypes

    found: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    return found
