"""Puts a server far away: what it hears and says arrives so much later, in its order.

Runs as a process of its own. It delays bytes, not packets: connecting takes no time, nothing is
lost, and no window has to grow. That is kinder to a client that talks often than a real network.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import uvloop

from tests.support.processes import end_process, free_port, start_process
from tests.support.waiting import wait_until


@contextmanager
def far_away(port: int, *, round_trip_ms: float) -> Iterator[int]:
    """The port at which that port of this machine is so far away."""
    listening = free_port()
    with TemporaryDirectory(prefix="gridcore-bench-") as folder:
        log = Path(folder) / "log"
        arguments = [str(listening), str(port), str(round_trip_ms)]
        process = start_process([sys.executable, "-m", __name__, *arguments], log=log)
        try:
            wait_until(lambda: log.read_text(), within_s=10, what="the proxy listens")
            assert process.poll() is None, log.read_text()
            yield listening
        finally:
            end_process(process)


class _End(asyncio.Protocol):
    """One end of a connection; what it receives leaves at the other one, later."""

    def __init__(self, delay_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay_s = delay_s
        self._under_way: deque[tuple[float, bytes | None]] = deque()
        self._transport: asyncio.Transport | None = None
        self.other: _End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._send_later(data)

    def connection_lost(self, _error: Exception | None) -> None:
        self._send_later(None)

    def _send_later(self, data: bytes | None) -> None:
        due_s = self._loop.time() + self._delay_s
        self._under_way.append((due_s, data))
        # One timer at a time: those that are due at the same moment have no order.
        if len(self._under_way) == 1:
            self._loop.call_at(due_s, self._arrive)

    def _arrive(self) -> None:
        transport = self.other and self.other._transport
        now_s = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now_s:
            _, data = self._under_way.popleft()
            if transport and data is not None:
                transport.write(data)
            elif transport:
                transport.close()
        if self._under_way:
            self._loop.call_at(self._under_way[0][0], self._arrive)


class _Near(_End):
    def __init__(self, target_port: int, delay_s: float) -> None:
        super().__init__(delay_s)
        self._target_port = target_port
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._transport
        self._transport.pause_reading()
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        far = _End(self._delay_s)
        far.other, self.other = self, far
        await self._loop.create_connection(lambda: far, "127.0.0.1", self._target_port)
        assert self._transport
        self._transport.resume_reading()


async def _serve(port: int, target_port: int, round_trip_ms: float) -> None:
    delay_s = round_trip_ms / 2000
    server = await asyncio.get_running_loop().create_server(
        lambda: _Near(target_port, delay_s), "127.0.0.1", port
    )
    print("listening", flush=True)
    await server.serve_forever()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("port", type=int)
    arguments.add_argument("target_port", type=int)
    arguments.add_argument("round_trip_ms", type=float)
    chosen = arguments.parse_args()
    uvloop.run(_serve(chosen.port, chosen.target_port, chosen.round_trip_ms))


if __name__ == "__main__":
    main()
