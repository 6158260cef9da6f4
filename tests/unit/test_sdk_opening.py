"""A connection that is made in a thread: nobody waits for it, and none is left over."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from gridcore.sdk.grid.link import Opening
from tests.support.processes import free_port
from tests.support.waiting import wait_until

WITHIN_S = 20.0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WITHIN_S)
        yield listening


def url_of(server: socket.socket) -> str:
    return f"redis://127.0.0.1:{server.getsockname()[1]}/0"


def test_it_is_taken_when_it_is_there(server: socket.socket) -> None:
    opening = Opening(url_of(server))
    accepted, _ = server.accept()
    with accepted:
        wait_until(lambda: opening.take() is not None, within_s=WITHIN_S, what="it is there")
        sock = opening.take()
        assert sock is not None
        with sock:
            sock.send(b"x")
            assert accepted.recv(1) == b"x"


def test_who_is_refused_hears_of_it_when_asking() -> None:
    opening = Opening(f"redis://127.0.0.1:{free_port()}/0")

    def is_refused() -> bool:
        try:
            return opening.take() is not None
        except ConnectionRefusedError:
            return True

    wait_until(is_refused, within_s=WITHIN_S, what="it is refused")


def test_one_that_nobody_wants_any_more_is_closed(server: socket.socket) -> None:
    opening = Opening(url_of(server))
    opening.close()
    accepted, _ = server.accept()
    with accepted:
        accepted.settimeout(WITHIN_S)
        assert accepted.recv(1) == b""
