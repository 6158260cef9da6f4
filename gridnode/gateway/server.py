"""Sockets: the connections of one slot's containers, and what became of the last reply on them.

A peer that sends without end, reads nothing, or speaks nonsense loses its connection; what it may
cost is bounded per slot, so that other slots do not notice.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from gridcore.logs import EventLog
from gridnode.gateway import resp
from gridnode.gateway.conversation import Conversation
from gridnode.gateway.desk import Desk

MAX_CONNECTIONS = 128
"""Of one slot. A program with one core has no use for more."""

MAX_SLOT_BYTES = 128 * 1024 * 1024
"""Commands that are not complete, or wait for the answer to the one before."""

READ_AT_ONCE = 64 * 1024
"""So many bytes are probably not all that there is."""

RECEIPT_SETTLES_S = 0.005
"""What was sent just as the peer closed its end is refused within a moment, or has been read."""

QUIET_WITHIN_S = 2.0
"""After a run has ended the kernel closes its connections; what it has sent last is still read."""

_CLOSE = 7  # TCP_CLOSE in include/net/tcp_states.h
_UNACKED = 24  # offset of tcpi_unacked in struct tcp_info

log = EventLog("gridnode.gateway")


class SlotServer:
    """Serves whoever connects to one slot's socket, at the desk of its present run."""

    def __init__(self, slot: int) -> None:
        self.desk: Desk | None = None
        self._slot = slot
        self._connections: set[_Connection] = set()
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._server: asyncio.Server | None = None
        self._closed_for: set[str] = set()
        self._listening: socket.socket | None = None

    async def listen_on(self, listening: socket.socket) -> None:
        if self._listening is listening and self._server:
            return
        await self.close()
        self._listening = listening
        # The socket stays its owner's: asyncio closes what it is given.
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), sock=listening.dup()
        )

    async def quiet(self) -> None:
        """The run has ended: returns when the last of its connections is closed."""
        try:
            async with asyncio.timeout(QUIET_WITHIN_S):
                await self._all_closed.wait()
        except TimeoutError:
            # Somebody outside of the container holds them: nothing more can be known.
            for connection in list(self._connections):
                connection.abort()
        self.desk = None
        self._closed_for.clear()

    async def close(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.abort()

    # --- for connections

    def admits(self, connection: _Connection) -> Desk | None:
        if self.desk is None or len(self._connections) >= MAX_CONNECTIONS:
            return None
        self._connections.add(connection)
        self._all_closed.clear()
        return self.desk

    def forget(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def is_over_budget(self) -> bool:
        return sum(connection.kept_bytes for connection in self._connections) > MAX_SLOT_BYTES

    def note_closed(self, reason: str) -> None:
        # Once a run: a hostile one must not fill the log.
        if reason not in self._closed_for:
            self._closed_for.add(reason)
            log.warning("connection_closed", slot=self._slot, reason=reason)


class _Connection(asyncio.BufferedProtocol):
    # One buffer for all, as what is in it is read at once. (For a plain Protocol asyncio allocates
    # a quarter of a megabyte for each read, which takes longer than all else that is done here.)
    _buffer = memoryview(bytearray(READ_AT_ONCE))

    def __init__(self, server: SlotServer) -> None:
        self._server = server
        self._reader = resp.CommandReader()
        self._transport: asyncio.Transport | None = None
        self._conversation: Conversation | None = None
        self._goes_on = False
        self._is_settled = False
        self.kept_bytes = 0

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        desk = self._server.admits(self)
        if desk is None:
            self._server.note_closed("more connections than a slot may have")
            transport.write(resp.error("ERR max number of clients reached"))
            transport.close()
            return
        self._transport = transport
        self._conversation = Conversation(desk, write=transport.write, hang_up=transport.close)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._conversation is None:
            return
        try:
            commands = self._reader.feed(bytes(self._buffer[:nbytes]))
        except resp.ProtocolError as error:
            self._refuse(f"Protocol error: {error}")
            return
        goes_on = self._goes_on
        self._goes_on = bool(self._reader.kept_bytes) or nbytes == READ_AT_ONCE
        self._conversation.receive(commands, goes_on=goes_on)
        self.kept_bytes = self._reader.kept_bytes + self._conversation.backlog_bytes
        if self.kept_bytes > resp.MAX_INLINE_BYTES and self._server.is_over_budget():
            self._refuse("more unanswered commands than a slot may have")

    def eof_received(self) -> bool:
        if self._conversation is None:
            return False
        self._conversation.hangs_up()
        was_read = _was_read(self._transport)
        if was_read is None:
            asyncio.get_running_loop().call_later(RECEIPT_SETTLES_S, self._settle_and_close)
            return True
        self._settle(was_read=was_read)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._settle(was_read=error is None and _was_read(self._transport) is not False)
        self._server.forget(self)

    def pause_writing(self) -> None:
        if self._transport and self._conversation:
            self._transport.pause_reading()
            self._conversation.pause()

    def resume_writing(self) -> None:
        if self._transport and self._conversation:
            self._transport.resume_reading()
            self._conversation.resume()

    def _settle_and_close(self) -> None:
        self._settle(was_read=bool(_was_read(self._transport)))
        if self._transport:
            self._transport.close()

    def _settle(self, *, was_read: bool) -> None:
        if self._conversation and not self._is_settled:
            self._is_settled = True
            self._conversation.closed(was_read=was_read)

    def _refuse(self, reason: str) -> None:
        assert self._transport is not None
        self._server.note_closed(reason)
        self._transport.write(resp.error(f"ERR {reason}"))
        self._transport.close()


def _was_read(transport: asyncio.Transport | None) -> bool | None:
    """Whether the peer had read all that it was sent when it closed its end; None if that is not
    known yet.

    Who closes with something unread sends a reset instead of an end; and a reset answers what comes
    after the end. What has been acknowledged, and was followed by an end, was read.
    """
    peer = transport.get_extra_info("socket") if transport else None
    if peer is None:
        return False
    try:
        if peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        if sys.platform != "linux" or peer.family == socket.AF_UNIX:
            return True
        info = peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED + 4)
    except OSError:
        return False
    if info[0] == _CLOSE:
        return False
    return None if int.from_bytes(info[_UNACKED:], sys.byteorder) else True
