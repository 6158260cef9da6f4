"""Plain child processes, one per core: for machines without Docker, and hubs that are trusted.

Each runs in a process group of its own, in an empty folder that goes with it, pinned to its core,
with a limit on the memory it may allocate. That is no isolation: it can read what this user can.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from gridcore.logs import EventLog
from gridcore.wire import ImagePull, NetworkName, RuntimeName, TaskConfig
from gridnode.ending import Ended
from gridnode.runtimes import LOG_LINES, CannotStart, Listening, RunOrder
from gridnode.watched import Watched

BACKLOG = 128

OUTPUT_LINE_BYTES = 64 * 1024
OUTPUT_ENDS_WITHIN_S = 1.0

# What a program needs to find others and to speak the user's language; nothing of ours.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")

MARK = "GRIDCORE_NODE"
"""In the environment of every process of ours, so that leftovers can be told from others: the
node's folder, as nodes of two hubs that run on one machine may have the same id."""

_CHILD = Path(__file__).with_name("process_child.py")

log = EventLog("gridnode.process")


class ProcessRuntime:
    name: RuntimeName = "process"
    host_alias: str | None = None

    def __init__(self, *, node_id: str, memory_mb: int) -> None:
        self._memory_bytes = memory_mb * 1024 * 1024
        self._folder = Path(tempfile.gettempdir()) / f"gridnode-{node_id}"
        self._listening: dict[int, Listening] = {}
        self.problem: Watched[str | None] = Watched(None)

    async def run(self) -> None:
        await asyncio.Event().wait()  # there is no engine to watch

    async def wait_available(self) -> None:
        pass

    async def prepare(self, task: TaskConfig, on_progress: Callable[[ImagePull], None]) -> None:  # noqa: ARG002
        if not task.command:
            raise CannotStart(
                f"preparing task {task.task_name!r}",
                cause='this node has runtime = "process", and the task has no command',
                next_step="Give the task a command, or let nodes with Docker do it",
            )

    async def listen(self, slot: int, network: NetworkName) -> Listening:  # noqa: ARG002
        """On loopback, where every process of this machine can knock: the secret is what keeps
        others out."""
        if slot not in self._listening:
            try:
                listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
            except OSError as error:
                raise CannotStart(
                    f"opening a port for slot {slot}",
                    cause=str(error),
                    next_step="Look for what uses up this machine's ports or this user's files",
                ) from error
            listener.setblocking(False)
            host, port = listener.getsockname()
            self._listening[slot] = Listening(listener, host, port, "none")
        return self._listening[slot]

    async def stop_listening(self, slot: int) -> None:
        if listening := self._listening.pop(slot, None):
            listening.socket.close()

    async def start(self, order: RunOrder) -> ProcessRun:
        assert order.command, "prepare() comes first"
        passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        # "python3" is the Python that runs this agent: the SDK's calls need gridcore in it.
        own = str(Path(sys.executable).parent)
        passed_on["PATH"] = os.pathsep.join(filter(None, (own, passed_on.get("PATH"))))
        # A pipe of our own: asyncio's Process.wait() waits until its pipes are closed, and what the
        # program has left in the background may hold them open for ever.
        folder, output, its_end = "", -1, -1
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            folder = tempfile.mkdtemp(prefix=f"{order.task}-{order.slot}-", dir=self._folder)
            output, its_end = os.pipe()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", _CHILD),
                "-" if order.core is None else str(order.core),
                str(self._memory_bytes),
                str(os.getpid()),
                *order.command,
                env=passed_on | {"TMPDIR": folder, MARK: str(self._folder)} | order.environment,
                cwd=folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=its_end,
                stderr=its_end,
                start_new_session=True,
            )
        except BaseException as error:
            if output >= 0:
                os.close(output)
            shutil.rmtree(folder, ignore_errors=True)
            if not isinstance(error, (OSError, ValueError)):
                raise
            raise CannotStart(
                f"starting {order.command[0]!r}",
                cause=str(error),
                next_step="Check the task's command on this machine",
            ) from error
        finally:
            if its_end >= 0:
                os.close(its_end)
        return ProcessRun(process, output, folder)

    async def remove_leftovers(self) -> int:
        """The kernel has ended our children with us; what they had started may be left."""
        return await asyncio.to_thread(_remove_marked, self._folder)

    async def aclose(self) -> None:
        for slot in list(self._listening):
            await self.stop_listening(slot)
        with contextlib.suppress(OSError):  # there was no run, or something is left
            self._folder.rmdir()


class ProcessRun:
    def __init__(self, process: asyncio.subprocess.Process, output: int, folder: str) -> None:
        self._process = process
        self._folder = folder
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._reading = asyncio.create_task(self._read_lines(output))

    async def wait(self) -> Ended:
        code = await self._process.wait()
        # What it has left in the background ends with it.
        self._signal(signal.SIGKILL)
        await self._finish_reading()
        out_of_memory = code != 0 and any("MemoryError" in line for line in self._lines)
        lines = () if code == 0 else tuple(self._lines)
        return Ended(code, 0.0, out_of_memory=out_of_memory, log_lines=lines)

    async def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def remove(self) -> None:
        self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._finish_reading()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        # The group's id is the leader's: it stays taken while any member lives.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _finish_reading(self) -> None:
        # A process that has left the group may hold the pipe open: nobody waits for that one.
        await asyncio.wait({self._reading}, timeout=OUTPUT_ENDS_WITHIN_S)
        self._reading.cancel()

    async def _read_lines(self, output: int) -> None:
        reader = asyncio.StreamReader(limit=OUTPUT_LINE_BYTES)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(output, "rb", buffering=0)
        )
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    continue  # longer than anybody wants to read: the stream has dropped it
                if not line:
                    return
                self._lines.append(line.decode("utf-8", "replace").rstrip())
        finally:
            transport.close()


def _remove_marked(folder: Path) -> int:
    killed = 0
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(folder) and process.pid != os.getpid():
                process.kill()
                killed += 1
        except (psutil.Error, OSError):
            continue
    shutil.rmtree(folder, ignore_errors=True)
    return killed
