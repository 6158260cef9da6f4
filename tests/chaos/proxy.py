"""The network between nodes and their Redis: it cuts connections in the middle of what they carry,
and it stalls.

What a client has sent before it hung up still arrives, however late, as with a real network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Literal

Direction = Literal["requests", "replies"]


class Proxy:
    """Listens on `port` from `open` to `close`."""

    def __init__(self, *, target_port: int, seed: int) -> None:
        self.port = 0
        self.carried = 0
        self._target_port = target_port
        self._random = Random(f"proxy {seed}")
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Pair(self).client, "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for pair in list(self._pairs):
            pair.abort()
        await self._server.wait_closed()

    def cut(self, direction: Direction, share: float) -> int:
        """The next message of some connections comes to its half, and no further; how many."""
        chosen = self._choose(share)
        for pair in chosen:
            pair.cut_next = direction
            pair.cut_at = self._random.random()
        return len(chosen)

    def stall(self, direction: Direction, share: float) -> Callable[[], None]:
        """Some connections carry nothing in that direction until the returned is called."""
        chosen = self._choose(share)
        for pair in chosen:
            pair.stalled.add(direction)

        def go_on() -> None:
            for pair in chosen:
                pair.stalled.discard(direction)
                pair.flush()

        return go_on

    def _choose(self, share: float) -> list[_Pair]:
        pairs = sorted(self._pairs, key=lambda pair: pair.number)
        if not pairs:
            return []
        return self._random.sample(pairs, max(1, round(share * len(pairs))))

    def add(self, pair: _Pair) -> None:
        self.carried += 1
        pair.number = self.carried
        self._pairs.add(pair)

    def remove(self, pair: _Pair) -> None:
        self._pairs.discard(pair)

    def connect(self, server: _End) -> asyncio.Task[object]:
        connecting = asyncio.get_running_loop().create_connection(
            lambda: server, "127.0.0.1", self._target_port
        )
        return asyncio.create_task(_quietly(connecting, server))


async def _quietly(connecting: object, server: _End) -> None:
    try:
        await connecting  # type: ignore[misc]
    except OSError:
        server.lost()


class _Pair:
    def __init__(self, proxy: Proxy) -> None:
        self.number = 0
        self.cut_next: Direction | None = None
        self.cut_at = 0.0
        self.stalled: set[Direction] = set()
        self.client = _End(self, "requests")
        self.server = _End(self, "replies")
        self._proxy = proxy
        self._connecting: asyncio.Task[object] | None = None

    def began(self) -> None:
        self._proxy.add(self)
        self._connecting = self._proxy.connect(self.server)

    def carry(self, end: _End, data: bytes) -> None:
        other = self.server if end is self.client else self.client
        if end.direction in self.stalled or end.kept or other.transport is None:
            end.kept.append(data)
            return
        if self.cut_next == end.direction:
            other.write(data[: int(len(data) * self.cut_at)])
            self._hang_up()
            return
        other.write(data)

    def flush(self) -> None:
        for end, other in ((self.client, self.server), (self.server, self.client)):
            if end.direction in self.stalled or other.transport is None:
                continue
            while end.kept:
                other.write(end.kept.pop(0))
            if end.is_lost:
                other.transport.close()

    def ended(self, end: _End) -> None:
        other = self.server if end is self.client else self.client
        if not end.kept and other.transport is not None:
            other.transport.close()
        if end is self.server:
            self.client.kept.clear()
            if self.client.transport is not None:
                self.client.transport.close()
        if self.client.is_lost and self.server.is_lost:
            self._proxy.remove(self)

    def abort(self) -> None:
        if self._connecting:
            self._connecting.cancel()
        for end in (self.client, self.server):
            if end.transport:
                end.transport.abort()

    def _hang_up(self) -> None:
        for end in (self.client, self.server):
            end.kept.clear()
            if end.transport:
                end.transport.close()


class _End(asyncio.Protocol):
    def __init__(self, pair: _Pair, direction: Direction) -> None:
        self.transport: asyncio.Transport | None = None
        self.direction = direction
        self.kept: list[bytes] = []
        self.is_lost = False
        self._pair = pair

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        if self is self._pair.client:
            self._pair.began()
        else:
            self._pair.flush()

    def write(self, data: bytes) -> None:
        if self.transport is not None and not self.is_lost:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._pair.carry(self, data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        self.lost()

    def lost(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self._pair.ended(self)
