"""One connection of a container: who it is, in which protocol it is answered, and in what order.

Bytes have become commands before they come here, and replies leave as bytes; no sockets, no clocks.
Commands on queues and keys are the desk's affair (gridnode.gateway.desk).
"""

from __future__ import annotations

import hmac
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gridnode.gateway import resp
from gridnode.gateway.arguments import has_wrong_number, shown, wrong_number
from gridnode.gateway.outside import IsWanted, always
from gridnode.gateway.resp import Command

if TYPE_CHECKING:
    from gridnode.gateway.desk import Desk

SHOWN_VERSION = b"7.0.15"
"""Clients choose their commands by it."""

MAX_NAME_BYTES = 200

MAX_WRONG_PASSWORDS = 10
"""On one connection. Some clients try twice: with a user name, and without."""

COMMANDS_AT_ONCE = 500
"""Then it is others' turn."""

_WRITE_AT_ONCE = 64 * 1024
"""Replies that are made before the container must read some; and those of an EXEC that are made
before it is looked whether there is room for more."""

_MADE_AT_ONCE = 1024 * 1024
"""Replies of an EXEC. Then it is others' turn."""

_KEPT_WITH_A_REPLY = 64
"""What a reply takes besides its bytes, about."""

_ids = itertools.count(1)

_WHOLE_URL = (
    " gridcore: connect with the whole of INPUT_REDIS_URL or OUTPUT_REDIS_URL, password included"
)
_NOAUTH = resp.error(f"NOAUTH Authentication required.{_WHOLE_URL}")
_WRONGPASS = resp.error(
    "WRONGPASS invalid username-password pair or user is disabled. A container's password is in"
    " its INPUT_REDIS_URL, and changes with every start."
)
_BAD_NAME = resp.error(
    "ERR Client names cannot contain spaces, newlines or special characters, nor have more than"
    f" {MAX_NAME_BYTES} of them"
)
_IN_MULTI_AT_ONCE = {b"EXEC", b"DISCARD", b"MULTI", b"WATCH", b"QUIT", b"RESET"}
DESK_COMMANDS = {b"BRPOP", b"BLPOP", b"LPUSH", b"RPUSH"}
"""Those of the usual loop, as most clients spell them: straight to the desk."""

_BEFORE_AUTH = {b"AUTH", b"HELLO", b"QUIT", b"RESET"}

Reply = bytes | None
"""None: the answer comes later, by `Conversation.answer`."""


class Conversation:
    def __init__(
        self,
        desk: Desk,
        *,
        write: Callable[[bytes], None],
        hang_up: Callable[[str], None],
        in_turn: Callable[[Callable[[], None]], None],
        has_grown: Callable[[], None],
    ) -> None:
        """`hang_up` is called with the reason, or with none if the container wished it; `in_turn`
        with what is to be done when others have had their turn; `has_grown` when replies have
        become more that cannot be sent yet."""
        self.protocol = 2
        self.heard = 0
        """How often something was received; a pipeline counts once."""
        self.is_closed = False
        self.in_exec = False
        self.backlog_bytes = 0
        """About what is kept of commands that wait for the answer to the one before, or for the
        EXEC of their MULTI."""
        self.sending_bytes = 0
        """Of replies that are on their way since the container has stopped reading: a loop may keep
        the whole of what it has sent in part."""
        self._desk = desk
        self._write = write
        self._hang_up = hang_up
        self._in_turn = in_turn
        self._has_grown = has_grown
        self._id = next(_ids)
        self._name = b""
        self._is_known = False
        self._wrong_passwords = 0
        self._waits = False
        self._at_hand: Command = []
        """What is waited for."""
        self._is_paused = False
        self._drops_replies = False
        self._rests = False
        self._then_ends: Callable[[], None] | None = None
        self._backlog: deque[tuple[Command, int, int]] = deque()
        self._out: list[bytes] = []
        self._multi: list[Command] | None = None
        self._multi_bytes = 0
        self._multi_is_spoilt = False
        self._to_run: deque[Command] = deque()
        self._to_run_bytes = 0
        self._run_heard = 0
        self._replies: deque[bytes] = deque()
        self._reply_bytes = 0

    @property
    def has_ended(self) -> bool:
        """It sends no more, though it may still be answered."""
        return self.is_closed or self._then_ends is not None

    @property
    def is_authenticated(self) -> bool:
        return self._is_known

    @property
    def kept_bytes(self) -> int:
        """About what it costs now, apart from what is to be sent already."""
        at_hand = _size(self._at_hand) if self._at_hand else 0
        return self.backlog_bytes + at_hand + self._reply_bytes

    def is_there(self) -> bool:
        """It may still be told something."""
        return not self.is_closed

    def still_wants(self) -> IsWanted:
        """What is carried out now. An EXEC is carried out to its end, whoever is there."""
        return always if self.in_exec else self.is_there

    def receive(self, commands: Sequence[Command], *, goes_on: bool = False) -> None:
        """`goes_on` if these belong to one stretch of bytes with what was received before."""
        if not goes_on or not self.heard:
            self.heard += 1
        heard = self.heard
        if self._backlog or self._waits or self._is_paused or len(commands) != 1:
            for command in commands:
                size = _size(command)
                self._backlog.append((command, heard, size))
                self.backlog_bytes += size
            self._proceed()
            return
        # One command, and nothing before it: nearly always.
        command = commands[0]
        if self._is_known and self._multi is None and command[0] in DESK_COMMANDS:
            reply = self._desk.command(self, command, heard)
        else:
            reply = self._handle(command, heard)
            if reply and len(reply) > _WRITE_AT_ONCE:
                self._out.append(reply)
                self._flush()
                return
        if reply is None:
            self._waits = True
            self._at_hand = command
        elif reply:
            self._write(reply)

    def answer(self, reply: bytes) -> None:
        """The answer that was due."""
        if self.is_closed:
            return
        self._waits = False
        self._at_hand = []
        if self.in_exec:
            last = self._run_multi(reply)
            if last is None:
                return
            reply = last
        self._out.append(reply)
        self._proceed()
        if self._is_paused:
            # Nothing else tells of it: what could not be sent was too much already.
            self._has_grown()

    def pause(self) -> None:
        """The container does not read its replies: no more are made."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self.sending_bytes = 0
        self._proceed()

    def drop_replies(self) -> bool:
        """They will not be read: none are kept from now on. True if that loses any."""
        loses_any = bool(self._replies or self._out)
        self._drops_replies = self._is_paused = True
        self._replies.clear()
        self._out.clear()
        self._reply_bytes = 0
        return loses_any

    def ends(self, then: Callable[[], None]) -> bool:
        """The container sends no more, as a shell that has piped its commands into nc. False if
        there is nothing that it would get all the same; otherwise `then` is called after that."""
        if not self._is_owed:
            return False
        self._then_ends = then
        return True

    def hangs_up(self) -> None:
        """The container is gone: whatever it waits for is called off."""
        self.is_closed = True
        self._then_ends = None
        self._forget_backlog()
        self.drop_replies()
        self._desk.call_off(self)
        if self.in_exec:
            # Redis would have carried out the whole at once.
            self._run_multi()

    def closed(self, *, was_read: bool) -> None:
        """The connection is gone; `was_read` if nothing that was sent was left unread."""
        self.hangs_up()
        self._desk.hung_up(self, was_read=was_read)

    @property
    def awaits_receipt(self) -> bool:
        """It has ended, and what it has read last makes a difference."""
        return self._desk.awaits_receipt(self)

    @property
    def _is_owed(self) -> bool:
        """It will be answered, without waiting for what may never come."""
        return (self._waits and not self._desk.is_blocked(self)) or bool(
            self._backlog and not self._waits
        )

    def _proceed(self) -> None:
        made = handled = 0
        while self._backlog and not (
            self._waits or self.is_closed or self._is_paused or self._rests
        ):
            if handled == COMMANDS_AT_ONCE:
                self._rests = True
                self._in_turn(self._has_rested)
                break
            handled += 1
            command, heard, size = self._backlog.popleft()
            self.backlog_bytes -= size
            reply = self._handle(command, heard)
            if reply is None:
                self._waits = True
                self._at_hand = command
            elif reply:
                self._out.append(reply)
                made += len(reply)
                if made > _WRITE_AT_ONCE:
                    made = 0
                    self._flush()
        self._flush()
        if self._then_ends and not self._is_owed:
            self._then_ends()

    def _has_rested(self) -> None:
        self._rests = False
        self._proceed()

    def _flush(self) -> None:
        if self._out:
            written = b"".join(self._out)
            self._out.clear()
            self.sending_bytes += len(written)
            self._write(written)
            if not self._is_paused:
                self.sending_bytes = 0

    def _end(self, last: bytes, reason: str = "") -> bytes:
        self._out.append(last)
        self._flush()
        self._forget_backlog()
        self._hang_up(reason)
        return b""

    def _forget_backlog(self) -> None:
        self._backlog.clear()
        self._multi = None
        self._at_hand = []
        self._multi_bytes = self._to_run_bytes = self.backlog_bytes = 0

    def _forget_multi(self) -> None:
        self._multi = None
        self.backlog_bytes -= self._multi_bytes
        self._multi_bytes = 0

    def _handle(self, command: Command, heard: int) -> Reply:
        if self._is_known and self._multi is None and command[0] in DESK_COMMANDS:
            return self._desk.command(self, command, heard)
        name = command[0].upper()
        if not self._is_known and name not in _BEFORE_AUTH:
            return _NOAUTH
        if self._multi is not None and name not in _IN_MULTI_AT_ONCE:
            return self._queue(name, command)
        if name == b"EXEC":
            return self._exec(command, heard)
        own = _OWN.get(name)
        if own:
            self._desk.work.heard_from(self, heard)
            return own(self, command)
        return self._desk.command(self, command, heard)

    # --- MULTI

    def _queue(self, name: bytes, command: Command) -> bytes:
        assert self._multi is not None
        refusal = None if name in _OWN else self._desk.refuses(command)
        if has_wrong_number(name, command):
            refusal = wrong_number(command)
        if refusal:
            self._forget_multi()
            self._multi, self._multi_is_spoilt = [], True
            return refusal
        if not self._multi_is_spoilt:
            self._multi.append(command)
            size = _size(command)
            self._multi_bytes += size
            self.backlog_bytes += size
        return resp.simple(b"QUEUED")

    def _begin_multi(self, command: Command) -> bytes:
        if len(command) != 1:
            return wrong_number(command)
        if self._multi is not None:
            return resp.error("ERR MULTI calls can not be nested")
        self._multi, self._multi_is_spoilt = [], False
        return resp.OK

    def _discard(self, _command: Command) -> bytes:
        if self._multi is None:
            return resp.error("ERR DISCARD without MULTI")
        self._forget_multi()
        return resp.OK

    def _watch(self, _command: Command) -> bytes:
        # What a container may use changes under nobody else's hands but its own.
        if self._multi is not None:
            return resp.error("ERR WATCH inside MULTI is not allowed")
        return resp.OK

    def _exec(self, command: Command, heard: int) -> Reply:
        if len(command) != 1:
            return wrong_number(command)
        if self._multi is None:
            return resp.error("ERR EXEC without MULTI")
        if self._multi_is_spoilt:
            self._forget_multi()
            return resp.error("EXECABORT Transaction discarded because of previous errors.")
        self._to_run, self._run_heard = deque(self._multi), heard
        # They are kept until all are carried out.
        self._to_run_bytes, self._multi_bytes = self._multi_bytes, 0
        self._multi = None
        self.in_exec = True
        return self._run_multi()

    def _run_multi(self, reply: Reply = None) -> Reply:
        """Goes on with it; `reply` is the one that it has waited for."""
        handled = 0
        before = next_look = self._reply_bytes
        while True:
            if reply is not None and not self._drops_replies:
                self._replies.append(reply)
                self._reply_bytes += len(reply) + _KEPT_WITH_A_REPLY
                if self._reply_bytes > next_look + _WRITE_AT_ONCE:
                    next_look = self._reply_bytes
                    self._has_grown()
            if not self._to_run:
                break
            if self._drops_replies and not self.is_closed:
                # It is closed in a moment, and carried out then.
                self._waits = True
                return None
            much = handled == COMMANDS_AT_ONCE or self._reply_bytes > before + _MADE_AT_ONCE
            if much and not self.is_closed:
                self._waits = True
                self._in_turn(self._go_on_with_multi)
                return None
            handled += 1
            command = self._to_run.popleft()
            own = _OWN.get(command[0].upper())
            reply = own(self, command) if own else None
            if not own:
                reply = self._desk.command(self, command, self._run_heard)
            if reply is None and not self.is_closed:
                self._waits = True
                return None
        self.in_exec = False
        self.backlog_bytes -= self._to_run_bytes
        self._to_run_bytes = 0
        self._desk.multi_is_over(self)
        return self._reply_of_exec()

    def _reply_of_exec(self) -> bytes:
        count = resp.array_of(len(self._replies))
        if self._reply_bytes <= _WRITE_AT_ONCE:
            reply = count + b"".join(self._replies)
            self._replies.clear()
            self._reply_bytes = 0
            return reply
        # Joined they would take their room twice.
        self._out.append(count)
        made = 0
        while self._replies:
            reply = self._replies.popleft()
            size = len(reply) + _KEPT_WITH_A_REPLY
            self._reply_bytes -= size
            self._out.append(reply)
            made += size
            if made > _WRITE_AT_ONCE:
                made = 0
                self._flush()
        self._flush()
        return b""

    def _go_on_with_multi(self) -> None:
        if self.is_closed:
            return
        self._waits = False
        reply = self._run_multi()
        if reply is not None:
            self._out.append(reply)
            self._proceed()

    # --- what every client asks

    def _auth(self, command: Command) -> bytes:
        if len(command) not in (2, 3):
            return wrong_number(command)
        return resp.OK if self._admits(command[-1]) else self._has_wrong_password()

    def _has_wrong_password(self) -> bytes:
        self._wrong_passwords += 1
        if self._wrong_passwords < MAX_WRONG_PASSWORDS:
            return _WRONGPASS
        return self._end(_WRONGPASS, "it kept on sending wrong passwords")

    def _admits(self, password: bytes) -> bool:
        # Any user name: clients differ in whether they send one, and in which.
        if not hmac.compare_digest(password, self._desk.secret):
            self._desk.noted_wrong_password()
            return False
        self._is_known = True
        return True

    def _hello(self, command: Command) -> bytes:
        protocol, name, i = self.protocol, self._name, 1
        if len(command) > 1:
            if command[1] not in (b"2", b"3"):
                return resp.error("NOPROTO unsupported protocol version")
            protocol, i = int(command[1]), 2
        while i < len(command):
            option = command[i].upper()
            if option == b"AUTH" and i + 2 < len(command):
                if not self._admits(command[i + 2]):
                    return self._has_wrong_password()
                i += 3
            elif option == b"SETNAME" and i + 1 < len(command):
                name = command[i + 1]
                if not _is_name(name):
                    return _BAD_NAME
                i += 2
            else:
                return resp.error(f"ERR Syntax error in HELLO option '{shown(command[i])}'")
        if not self._is_known:
            return resp.error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the"
                " HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client"
                f" and select the RESP protocol version at the same time.{_WHOLE_URL}"
            )
        self.protocol, self._name = protocol, name
        return resp.mapping(
            [
                *(resp.bulk(b"server"), resp.bulk(b"redis")),
                *(resp.bulk(b"version"), resp.bulk(SHOWN_VERSION)),
                *(resp.bulk(b"proto"), resp.integer(protocol)),
                *(resp.bulk(b"id"), resp.integer(self._id)),
                *(resp.bulk(b"mode"), resp.bulk(b"standalone")),
                *(resp.bulk(b"role"), resp.bulk(b"master")),
                *(resp.bulk(b"modules"), resp.EMPTY_ARRAY),
            ],
            protocol,
        )

    def _client(self, command: Command) -> bytes:
        what = command[1].upper() if len(command) > 1 else b""
        if what == b"SETNAME" and len(command) == 3:
            if not _is_name(command[2]):
                return _BAD_NAME
            self._name = command[2]
            return resp.OK
        if what in (b"SETINFO", b"NO-EVICT", b"NO-TOUCH"):
            return resp.OK
        if what == b"TRACKING" and command[2:3] and command[2].upper() == b"OFF":
            return resp.OK
        if what == b"REPLY" and command[2:3] and command[2].upper() == b"ON":
            return resp.OK
        if what == b"GETNAME":
            return resp.bulk(self._name) if self._name else resp.NIL[self.protocol]
        if what == b"ID":
            return resp.integer(self._id)
        if what in (b"INFO", b"LIST"):
            line = b"id=%d name=%b db=0 resp=%d cmd=client|%b\n" % (
                self._id,
                self._name,
                self.protocol,
                what.lower(),
            )
            return resp.bulk(line)
        return resp.error(
            f"ERR unknown subcommand or wrong number of arguments for '{shown(what)}'."
            " Try CLIENT HELP."
        )

    def _select(self, command: Command) -> bytes:
        if len(command) != 2:
            return wrong_number(command)
        if command[1] == b"0":
            return resp.OK
        return resp.error("ERR DB index is out of range: a container has database 0 only")

    def _ping(self, command: Command) -> bytes:
        if len(command) > 2:
            return wrong_number(command)
        return resp.bulk(command[1]) if len(command) == 2 else resp.simple(b"PONG")

    def _echo(self, command: Command) -> bytes:
        return resp.bulk(command[1]) if len(command) == 2 else wrong_number(command)

    def _info(self, _command: Command) -> bytes:
        return resp.bulk(
            b"# Server\r\nredis_version:%b\r\nredis_mode:standalone\r\nos:gridcore gateway\r\n"
            b"\r\n# Clients\r\nconnected_clients:1\r\n"
            b"\r\n# Persistence\r\nloading:0\r\nasync_loading:0\r\n"
            b"\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
            b"\r\n# Cluster\r\ncluster_enabled:0\r\n" % SHOWN_VERSION
        )

    def _commands(self, command: Command) -> bytes:
        # Clients go on without: redis-cli completes nothing, and a cluster client is no guest here.
        what = command[1].upper() if len(command) > 1 else b""
        if what == b"COUNT":
            return resp.integer(0)
        if what == b"DOCS":
            return resp.mapping([], self.protocol)
        if what == b"INFO":
            return resp.array([resp.NIL_ARRAY[self.protocol]] * (len(command) - 2))
        return resp.EMPTY_ARRAY

    def _config(self, command: Command) -> bytes:
        if len(command) > 2 and command[1].upper() == b"GET":
            return resp.mapping([], self.protocol)
        return resp.error("NOPERM gridcore: a container may not change the configuration")

    def _ok(self, _command: Command) -> bytes:
        return resp.OK

    def _quit(self, _command: Command) -> bytes:
        return self._end(resp.OK)

    def _reset(self, _command: Command) -> bytes:
        self.protocol, self._name, self._is_known = 2, b"", False
        self._forget_multi()
        return resp.simple(b"RESET")


_OWN: dict[bytes, Callable[[Conversation, Command], bytes]] = {
    b"AUTH": Conversation._auth,
    b"CLIENT": Conversation._client,
    b"COMMAND": Conversation._commands,
    b"CONFIG": Conversation._config,
    b"DISCARD": Conversation._discard,
    b"ECHO": Conversation._echo,
    b"HELLO": Conversation._hello,
    b"INFO": Conversation._info,
    b"MULTI": Conversation._begin_multi,
    b"PING": Conversation._ping,
    b"QUIT": Conversation._quit,
    b"READONLY": Conversation._ok,
    b"READWRITE": Conversation._ok,
    b"RESET": Conversation._reset,
    b"SELECT": Conversation._select,
    b"UNWATCH": Conversation._ok,
    b"WATCH": Conversation._watch,
}


def _size(command: Command) -> int:
    """About what it takes to keep it."""
    return sum(map(len, command)) + 64 * (len(command) + 2)


def _is_name(name: bytes) -> bool:
    """As in Redis, and short: it is repeated in replies."""
    return len(name) <= MAX_NAME_BYTES and all(33 <= letter <= 126 for letter in name)
