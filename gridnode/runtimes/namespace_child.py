"""Opens a socket in a user's own namespaces, and hands it over.

Run by `namespaces` as a program of its own, `python -I -S namespace_child.py USER NETWORK CONTROL
HOST PORT BACKLOG`, the first three as open files: no process with threads can enter a user
namespace, and one that has cannot leave it.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000


def _enter(namespace: int, kind: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, kind) != 0:
        number = ctypes.get_errno()
        sys.exit(f"{os.strerror(number)}")


def main() -> None:
    user, network, control, port, backlog = (int(sys.argv[n]) for n in (1, 2, 3, 5, 6))
    _enter(user, _CLONE_NEWUSER)
    _enter(network, _CLONE_NEWNET)
    with socket.socket(fileno=control) as sender, socket.socket() as listener:
        try:
            listener.bind((sys.argv[4], port))
            listener.listen(backlog)
        except OSError as error:
            sys.exit(str(error))
        socket.send_fds(sender, [b"."], [listener.fileno()])


if __name__ == "__main__":
    main()
