"""Sockets: the connections of one slot's containers, and what became of the last reply on them.

A peer that sends without end, reads nothing, or speaks nonsense loses its connection; what it may
cost is bounded per slot, so that other slots do not notice.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from gridcore.logs import EventLog
from gridnode.gateway import resp
from gridnode.gateway.conversation import Conversation
from gridnode.gateway.desk import Desk

MAX_CONNECTIONS = 128
"""Of one slot. A program with one core has no use for more."""

BACKLOG = 1_024
"""Who knocks while that many wait to be let in knocks again after a second."""

MAX_SLOT_BYTES = 128 * 1024 * 1024
"""Commands that are not complete, or wait for the answer to the one before; and replies that are
not read."""

LOGIN_WITHIN_S = 10.0
"""A stranger must not hold a slot's place for ever."""

MAX_STRANGERS_BYTES = 64 * 1024
"""Who has not logged in has no need for long commands."""

GOODBYE_S = 5.0
"""For a last word to a peer that may not read it."""

READ_AT_ONCE = 64 * 1024
"""So many bytes are probably not all that there is."""

RECEIPT_SETTLES_S = 0.005
"""What was sent just as the peer ended is refused within a moment, or has been read."""

SHARE_S = 0.002
"""What one slot may take of a round of the event loop before it is others' turn: a flood of
commands in one must not be felt in the others."""

LITTLE_S = 0.0003
"""What takes no longer is not counted."""

IMPATIENT_AFTER_S = 0.002
IMPATIENT_SETTLES_S = 0.1
"""A peer that ends after it has waited may have given up. Some clients (redis-py) end a connection
first and close it then, and only that tells that something was left unread: in between their
thread may have to wait for a core, or for Python's lock."""

FIRST_LOOK_S = 0.001

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
        self._connections: dict[_Connection, None] = {}
        """The oldest first."""
        self._all_closed = asyncio.Event()
        self._all_closed.set()
        self._server: asyncio.Server | None = None
        self._closed_for: set[str] = set()
        self._listening: socket.socket | None = None
        self._used_s = 0.0
        self._in_turn: deque[Callable[[], None]] = deque()

    async def listen_on(self, listening: socket.socket) -> None:
        if self._listening is listening and self._server:
            return
        await self.close()
        self._listening = listening
        loop = asyncio.get_running_loop()
        kind = _BufferedConnection if isinstance(loop, asyncio.BaseEventLoop) else _Connection
        # The socket stays its owner's: asyncio closes what it is given.
        self._server = await loop.create_server(
            lambda: kind(self), sock=listening.dup(), backlog=BACKLOG
        )

    async def quiet(self) -> None:
        """The run has ended: returns when the last of its connections is closed."""
        for connection in list(self._connections):
            if connection.is_strangers:
                connection.abort()
            else:
                connection.settle_now()
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
        if self.desk is None:
            return None
        if len(self._connections) >= MAX_CONNECTIONS:
            self.note_closed("more connections than a slot may have")
            # The program is known; somebody else on this machine or network may be knocking.
            stranger = next((c for c in self._connections if c.is_strangers), None)
            if stranger is None:
                return None
            self.forget(stranger)
            stranger.abort()
        self._connections[connection] = None
        self._all_closed.clear()
        return self.desk

    def forget(self, connection: _Connection) -> None:
        self._connections.pop(connection, None)
        if not self._connections:
            self._all_closed.set()

    def is_over_budget(self) -> bool:
        return sum(connection.kept_bytes for connection in self._connections) > MAX_SLOT_BYTES

    @property
    def has_time(self) -> bool:
        return self._used_s < SHARE_S and not self._in_turn

    def used(self, seconds: float) -> None:
        if not (self._used_s or self._in_turn):
            asyncio.get_running_loop().call_soon(self._next_round)
        self._used_s += seconds

    def in_turn(self, then: Callable[[], None]) -> None:
        """Does that in one of the next rounds of the event loop."""
        if not (self._used_s or self._in_turn):
            asyncio.get_running_loop().call_soon(self._next_round)
        self._in_turn.append(then)

    def _next_round(self) -> None:
        used_s = 0.0
        began_s = time.monotonic()
        # What is added meanwhile is for another round.
        for _ in range(len(self._in_turn)):
            self._in_turn.popleft()()
            used_s = time.monotonic() - began_s
            if used_s > SHARE_S:
                break
        self._used_s = used_s if self._in_turn else 0.0
        if self._in_turn:
            asyncio.get_running_loop().call_soon(self._next_round)

    def note_closed(self, reason: str, detail: object = "") -> None:
        # Once a run: a hostile one must not fill the log.
        if reason not in self._closed_for:
            self._closed_for.add(reason)
            log.warning("connection_closed", slot=self._slot, reason=reason, detail=detail)


class _Connection(asyncio.Protocol):
    def __init__(self, server: SlotServer) -> None:
        self._server = server
        self._reader = resp.CommandReader()
        self._transport: asyncio.Transport | None = None
        self._conversation: Conversation | None = None
        self._goes_on = False
        self._waits_for_turn = False
        self._is_unread = False
        """The peer does not read what it is sent."""
        self._is_aborted = False
        self._is_cut_off = False
        """It was closed before all that there was for the peer could be sent."""
        self._is_settled = False
        self._settling: asyncio.TimerHandle | None = None
        self._settles_at_s = 0.0
        self._heard_at_s = 0.0
        self._login_timer: asyncio.TimerHandle | None = None

    @property
    def is_strangers(self) -> bool:
        return self._conversation is not None and not self._conversation.is_authenticated

    @property
    def kept_bytes(self) -> int:
        if self._conversation is None or self._transport is None:
            return 0
        if self._is_aborted:
            return 0
        unread = max(self._transport.get_write_buffer_size(), self._conversation.sending_bytes)
        # An item may be larger than any command, and is no fault of who has asked for it.
        unread = min(unread, resp.MAX_COMMAND_BYTES)
        return self._reader.kept_bytes + self._conversation.kept_bytes + unread

    def abort(self) -> None:
        if self._transport:
            self._is_cut_off |= self._transport.get_write_buffer_size() > 0
            self._is_aborted = True
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        desk = self._server.admits(self)
        if desk is None:
            transport.write(resp.error("ERR max number of clients reached"))
            transport.close()
            return
        self._transport = transport
        self._conversation = Conversation(
            desk,
            write=transport.write,
            hang_up=self._hang_up,
            in_turn=self._do_in_turn,
            has_grown=self._check_budget,
        )
        self._login_timer = asyncio.get_running_loop().call_later(
            LOGIN_WITHIN_S, self._must_have_logged_in
        )

    def data_received(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._heard_at_s = time.monotonic()
        if self._server.has_time:
            self._take(data)
            spent_s = time.monotonic() - self._heard_at_s
            if spent_s > LITTLE_S:
                self._server.used(spent_s)
        else:
            self._do_in_turn(lambda: self._take(data))

    def _do_in_turn(self, then: Callable[[], None]) -> None:
        """Until then nothing more is read."""
        assert self._transport is not None
        self._waits_for_turn = True
        self._transport.pause_reading()

        def go_on() -> None:
            self._waits_for_turn = False
            then()
            self._read_on()

        self._server.in_turn(go_on)

    def _read_on(self) -> None:
        assert self._transport is not None
        if not (self._is_unread or self._waits_for_turn or self._transport.is_closing()):
            self._transport.resume_reading()

    def _take(self, data: bytes) -> None:
        assert self._conversation is not None
        assert self._transport is not None
        if self._transport.is_closing():
            return
        try:
            commands = self._reader.feed(data)
        except resp.ProtocolError as error:
            self._refuse("Protocol error", str(error))
            return
        goes_on = self._goes_on
        self._goes_on = bool(self._reader.kept_bytes) or len(data) >= READ_AT_ONCE
        self._conversation.receive(commands, goes_on=goes_on)
        if goes_on or self._goes_on or self._conversation.backlog_bytes:
            self._check_budget()

    def eof_received(self) -> bool:
        if self._conversation is None:
            return False
        return self._conversation.ends(self._close_when_read) or self._ends()

    def _close_when_read(self) -> None:
        if not self._ends() and self._transport:
            self._transport.close()

    def _ends(self) -> bool:
        """Whether it has to stay open until it is known what the peer has read."""
        assert self._conversation is not None
        self._conversation.hangs_up()
        has_waited = time.monotonic() - self._heard_at_s > IMPATIENT_AFTER_S
        settles_s = IMPATIENT_SETTLES_S if has_waited else RECEIPT_SETTLES_S
        self._settles_at_s = asyncio.get_running_loop().time() + settles_s
        return self._look_for_receipt(FIRST_LOOK_S)

    def _look_for_receipt(self, again_in_s: float) -> bool:
        """Whether it has to be looked for again."""
        assert self._conversation is not None
        loop = asyncio.get_running_loop()
        was_read = _was_read(self._transport)
        is_due = loop.time() >= self._settles_at_s
        if was_read is not False and self._conversation.awaits_receipt and not is_due:
            self._settling = loop.call_later(again_in_s, self._look_again, 2 * again_in_s)
            return True
        self._settle(was_read=bool(was_read))
        return False

    def _look_again(self, next_in_s: float) -> None:
        if not self._look_for_receipt(next_in_s) and self._transport:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._login_timer:
            self._login_timer.cancel()
        was_sent = error is None and not self._is_cut_off
        self._settle(was_read=was_sent and _was_read(self._transport) is not False)
        self._server.forget(self)

    def pause_writing(self) -> None:
        if self._transport and self._conversation:
            self._is_unread = True
            self._transport.pause_reading()
            self._conversation.pause()
            self._check_budget()

    def resume_writing(self) -> None:
        if self._transport and self._conversation:
            self._is_unread = False
            self._read_on()
            self._conversation.resume()

    def settle_now(self) -> None:
        """The peer is no more: what it has left unread it has refused by now."""
        if self._settling and not self._is_settled:
            self._settles_at_s = 0.0
            self._settling.cancel()
            self._look_again(0.0)

    def _settle(self, *, was_read: bool) -> None:
        if self._settling:
            self._settling.cancel()
        if self._conversation and not self._is_settled:
            self._is_settled = True
            self._conversation.closed(was_read=was_read)

    def _check_budget(self) -> None:
        assert self._transport is not None
        if self.kept_bytes < MAX_STRANGERS_BYTES or self._transport.is_closing():
            return
        if self.is_strangers:
            self._refuse("long commands before a password")
        elif self._server.is_over_budget():
            self._refuse("more unanswered commands, or unread replies, than a slot may have")

    def _must_have_logged_in(self) -> None:
        if self.is_strangers:
            self._refuse("no password in time")

    def _hang_up(self, reason: str) -> None:
        if reason:
            self._server.note_closed(reason)
        self._close()

    def _refuse(self, reason: str, detail: str = "") -> None:
        assert self._transport is not None
        assert self._conversation is not None
        self._server.note_closed(reason, detail)
        self._is_cut_off |= self._conversation.drop_replies()
        if self._transport.get_write_buffer_size():
            # Who does not read would never see why, and what there is for it takes room.
            self.abort()
            return
        self._transport.write(resp.error(f"ERR {reason}: {detail}" if detail else f"ERR {reason}"))
        self._close()

    def _close(self) -> None:
        assert self._transport is not None
        self._transport.close()
        if self._transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(GOODBYE_S, self.abort)


class _BufferedConnection(_Connection, asyncio.BufferedProtocol):
    """For asyncio's own loop, which for a plain Protocol allocates a quarter of a megabyte for each
    read; that takes longer than all else that is done here."""

    # One for all, as what is in it is read at once.
    _buffer = memoryview(bytearray(READ_AT_ONCE))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))


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
