"""Opens a socket inside another process's network namespace.

Only the one thread that asks for it changes its namespace, for as long as it takes to make the
socket: a socket stays in the namespace in which it was made, whoever uses it. The thread is a new
one and ends then, or what runs on it later would find itself without a network.

The namespaces of a rootless engine lie in a user namespace, and no process with threads can enter
one of those: there `namespace_child` does it and hands the socket over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gridnode.runtimes.isolation import Obstacle

BACKLOG = 128

HOLDER_RUNS_WITHIN_S = 5.0
"""The engine says that a container runs a moment before its program does."""

LOOK_EVERY_S = 0.002

CHILD_ENDS_WITHIN_S = 30.0
"""Starting Python takes a second on a Raspberry Pi that has much to do."""

_CLONE_NEWNET = 0x40000000
_CHILD = Path(__file__).with_name("namespace_child.py")


class CannotEnter(Exception):
    """Here that way is closed, and what would open it."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.obstacle = Obstacle(why, remedy)


async def listen_inside(
    pid: int, command: Sequence[str], host: str, port: int, *, in_user_namespace: bool
) -> socket.socket:
    """A listening socket in the network of that process, which runs `command`; raises CannotEnter.

    `pid` is what an engine says, and it may count its processes in a namespace of its own.
    """
    process = await _open_process(pid, command)
    try:
        network = _open_namespace(process, "net")
        try:
            if not in_user_namespace:
                return _listen_in_thread(network, host, port)
            user = _open_namespace(process, "user")
            try:
                return await _listen_in_child(user, network, host, port)
            finally:
                os.close(user)
        finally:
            os.close(network)
    finally:
        os.close(process)


async def _open_process(pid: int, command: Sequence[str]) -> int:
    """Its folder in /proc: that stays with this process when another one gets its number."""
    try:
        process = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _not_visible(pid) from error
    try:
        async with asyncio.timeout(HOLDER_RUNS_WITHIN_S):
            while not _runs(process, command):  # noqa: ASYNC110  nothing tells of an exec
                await asyncio.sleep(LOOK_EVERY_S)
    except (TimeoutError, OSError) as error:
        os.close(process)
        raise _not_visible(pid) from error
    except BaseException:
        os.close(process)
        raise
    return process


def _runs(process: int, command: Sequence[str]) -> bool:
    line = os.open("cmdline", os.O_RDONLY, dir_fd=process)
    try:
        wanted = b"".join(os.fsencode(word) + b"\0" for word in command)
        return os.read(line, len(wanted) + 1) == wanted
    finally:
        os.close(line)


def _open_namespace(process: int, kind: str) -> int:
    try:
        namespace = os.open(f"ns/{kind}", os.O_RDONLY, dir_fd=process)
    except OSError as error:
        raise _refused(error) from error
    if kind == "net" and _is_own(namespace):
        os.close(namespace)
        raise CannotEnter(
            "the engine gives a container that is to have no network this machine's own",
            "Look for a setting of the engine that makes all containers share it",
        )
    return namespace


def _is_own(namespace: int) -> bool:
    return os.path.samestat(os.fstat(namespace), Path("/proc/thread-self/ns/net").stat())


def _listen_in_thread(namespace: int, host: str, port: int) -> socket.socket:
    opened: list[socket.socket] = []
    failed: list[OSError] = []

    def enter_and_listen() -> None:
        try:
            _set_network_namespace(namespace)
            if not _is_own(namespace):
                raise OSError("the thread is in another namespace than it has entered")
            opened.append(_listen(host, port))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter_and_listen, name="namespace")
    thread.start()
    thread.join()
    if failed:
        raise _refused(failed[0]) from failed[0]
    return opened[0]


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _set_network_namespace(namespace: int) -> None:
    if sys.version_info >= (3, 12):
        os.setns(namespace, _CLONE_NEWNET)
        return
    import ctypes

    # The kind is named: deploy/gridnode.service permits to enter those of a network alone.
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


async def _listen_in_child(user: int, network: int, host: str, port: int) -> socket.socket:
    ours, its = socket.socketpair()
    with ours, its:
        ours.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _CHILD),
            *(str(user), str(network), str(its.fileno()), host, str(port), str(BACKLOG)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(user, network, its.fileno()),
        )
        try:
            async with asyncio.timeout(CHILD_ENDS_WITHIN_S):
                _, said = await process.communicate()
        except TimeoutError as error:
            raise _refused(error) from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode != 0:
            raise _refused(OSError(said.decode("utf-8", "replace").strip()))
        _, (handed_over, *_), _, _ = socket.recv_fds(ours, 1, 1)
    listener = socket.socket(fileno=handed_over)
    listener.setblocking(False)
    return listener


def _not_visible(pid: int) -> CannotEnter:
    return CannotEnter(
        f"the engine's process {pid} is not to be seen here: the agent is in a container of its"
        " own, or the engine is",
        "Run the node beside its engine, not in a container; else give that container --pid=host,"
        " --user=root and --cap-add=SYS_ADMIN",
    )


def _refused(error: OSError) -> CannotEnter:
    return CannotEnter(
        f"the system does not let the agent into a container's network ({error})",
        "Look at what confines the agent: its unit, its container, AppArmor or SELinux",
    )
