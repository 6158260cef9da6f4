"""Worker processes as whoever has them sees them: started, spoken to, and their ends heard of."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys

from gridcore.sdk.workers.frames import Incoming, Message, Outgoing, Sender, send_all

END_WITHIN_S = 5.0

_FOR_ONE_CORE = {
    # Calls run side by side: threads of numpy and its kin would only be in each other's way.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # glibc gives memory back at the end of each call, and takes it again in the next, a fault for
    # every page: most of what calls on large arrays cost the kernel.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 1024 * 1024),
}
"""Unless the user has set them."""

_PROGRAM = (
    "import sys; sys.path[:] = {path!r}; "
    "from gridcore.sdk.workers.template import main; main({fd}, {driver})"
)


class WorkerProcess:
    """The near ends of one worker's sockets."""

    def __init__(self, number: int, data: socket.socket, control: socket.socket) -> None:
        self.number = number
        self.data = data
        self.control = control
        self.sender = Sender(data)
        self.incoming = Incoming(data)

    def tell(self, message: Message) -> None:
        """On the control socket, which is read even while a call runs."""
        out = Outgoing()
        out.messages.append(message)
        with contextlib.suppress(OSError):  # it is gone
            self.control.send(out.encoded())

    def close(self) -> None:
        self.data.close()
        self.control.close()


class Template:
    """The driver's end of the process that workers are forked from."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - '' is a folder, too
        program = _PROGRAM.format(path=path, fd=theirs.fileno(), driver=os.getpid())
        options = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        self._process = subprocess.Popen(
            [sys.executable, *options, "-c", program],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=_FOR_ONE_CORE | os.environ,
        )
        theirs.close()
        self.incoming = Incoming(self.socket)

    def fork(self, number: int) -> WorkerProcess:
        """A worker that is on its way; it says hello when it is there."""
        data, their_data = socket.socketpair()
        control, their_control = socket.socketpair()
        order = Outgoing()
        order.fds = [their_data.fileno(), their_control.fileno()]
        path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100
        order.messages.append(("fork", number, path, _current_folder()))
        try:
            send_all(self.socket, order)
        except OSError:
            data.close()
            control.close()
            raise
        finally:
            their_data.close()
            their_control.close()
        return WorkerProcess(number, data, control)

    def kill(self, number: int) -> None:
        order = Outgoing()
        order.messages.append(("kill", number))
        with contextlib.suppress(OSError):  # the template is gone, and its workers with it
            send_all(self.socket, order)

    def end(self) -> None:
        """It ends its workers first."""
        self.socket.close()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a text is what travels
    except OSError:
        return "/"
