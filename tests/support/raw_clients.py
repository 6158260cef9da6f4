"""Connections that are as careless, slow or hostile as a test needs them."""

from __future__ import annotations

import socket
import struct
from typing import Self

from tests.support.desks import pack

WITHIN_S = 20.0


class RawClient:
    """It has logged in if there is a password; closed by the `with`."""

    def __init__(self, host: str, port: int, password: str | None = None) -> None:
        self.socket = socket.create_connection((host, port), timeout=WITHIN_S)
        if password is not None:
            assert self.ask("AUTH", password) == b"+OK\r\n"

    def send(self, *words: str | bytes) -> None:
        self.socket.sendall(pack(*words))

    def ask(self, *words: str | bytes) -> bytes:
        """The reply, if it is a short one."""
        self.send(*words)
        return self.socket.recv(4096)

    def read_to_the_end(self) -> bytes:
        """What still comes until the other side closes or resets the connection."""
        read = b""
        try:
            while data := self.socket.recv(65_536):
                read += data
        except ConnectionResetError:
            pass
        return read

    def reset(self) -> None:
        """As a program that is killed with something unread."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
