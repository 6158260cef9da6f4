"""The driver's calls of the hub, answered by a server of the test's own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from gridcore.sdk.grid.hub import Hub


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\n\r\n<html>Log in to this network</html>",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
    ids=["cut off", "of a proxy", "of another program"],
)
def test_an_answer_that_cannot_be_read_is_no_answer(listener: socket.socket, answer: bytes) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    hub = Hub("http://{}:{}".format(*listener.getsockname()), "token")
    with pytest.raises(ConnectionError, match="cannot be read"):
        hub.call("GET", "/api/nodes")
    thread.join()
