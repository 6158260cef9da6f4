"""The driver's two connections to the task's Redis: one for what it sends, one that waits for
letters. While Redis is away what is sent waits, and goes out again on the next connection."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from gridcore.backoff import full_jitter_s
from gridcore.lease_queue.keys import QueueKeys
from gridcore.lease_queue.times import PRODUCER_FORGOTTEN_S
from gridcore.redis_urls import hide_password
from gridcore.sdk.blobs import Blob
from gridcore.sdk.driver.pump import Poller
from gridcore.sdk.engine import Exported
from gridcore.sdk.grid.kept import LOSABLE_S
from gridcore.sdk.grid.keys import ALIVE_S, BEAT_S, KEPT_S, JobKeys
from gridcore.sdk.grid.letters import SLOW_BYTES_PER_S, Command
from gridcore.sdk.grid.link import Link, Opening, opened
from gridcore.sdk.grid.messages import Ticket
from gridcore.sdk.grid.resp import ReplyError
from gridcore.sdk.grid.values import fields_of, joined, pieces_of
from gridcore.sdk.grid.versions import function_field, with_versions

LETTERS_AT_ONCE = 500

LISTEN_S = 10.0
"""Of one XREAD: a connection that has died in silence is found out by the next."""

SILENT_S = LISTEN_S + 10.0

RETRY_S = 0.5
"""Redis is there and refuses: it is loading, or full."""

_NEED_MEMORY = frozenset({"HSET", "LPUSH", "RPUSH", "SET", "XADD"})
"""What a full Redis refuses."""

LONGEST_PAUSE_S = 5.0

LOOK_FOR_CONNECTION_S = 0.05
"""Whether it is there, while there is none."""

MOST_YOUNG_BYTES = 64 * 1024 * 1024

_log = logging.getLogger("gridcore")


class Store:
    def __init__(
        self,
        url: str,
        queue: str,
        job: str,
        *,
        poller: Poller,
        on_letter: Callable[[bytes], None],
        on_forgotten: Callable[[], None],
        on_repeated: Callable[[], None],
    ) -> None:
        """`on_forgotten`: Redis may have lost something of this job; `on_repeated`: it may have
        something of it twice."""
        self.keys = JobKeys(queue, job)
        self._url = url
        self._queue = queue
        self._job = job
        self._poller = poller
        self._on_letter = on_letter
        self._on_forgotten = on_forgotten
        self._on_repeated = on_repeated
        self._queue_keys = QueueKeys(queue)
        self._calls = Link(url, wants_to_write=lambda on: self._also_write(self._calls, on))
        self._letters = Link(url, wants_to_write=lambda on: self._also_write(self._letters, on))
        self._last_read = b"0-0"
        self._trimmed = b"0-0"
        self._heard_at = self._heard_since = 0.0
        self._beat_at = 0.0
        self._has_beaten = False
        self._server = b""
        self._attempt = 0
        self._opening: Opening | None = None
        self._connect_at = math.inf
        """`start` connects for the first time, and the pump's thread is there before."""
        self._refused: deque[tuple[Command, Callable[[Any], None] | None]] = deque()
        """In their order: an item is of no use before what it refers to is there."""
        self._again_at = 0.0
        self._is_trying = False
        self._listen_again_at: float | None = None
        self._is_announcing = False
        self._functions: set[bytes] = set()
        self._values_expire = False
        self._young: OrderedDict[str, tuple[float, Blob]] = OrderedDict()
        """Values that were put lately, and when: Redis may still lose them."""
        self._young_bytes = 0
        self._ordered: dict[str, float] = {}
        """Streams of orders, and when their ends were put off."""

    def start(self) -> None:
        """Raises OSError if Redis cannot be reached."""
        for link in (self._calls, self._letters):
            self._connect(link, opened(self._url))
        # Before any item: nobody works for a driver that is not there.
        self._beat(time.monotonic())
        self._read_on()

    def close(self) -> None:
        """The job is over, and so is all that it has in Redis."""
        if self._calls.is_connected:
            for command in (
                ("EVAL", _LEAVE, 1, self._queue_keys.producers, self._job),
                ("UNLINK", self.keys.alive, self.keys.up, self.keys.values, *self._ordered),
            ):
                self._calls.send(command, _ignore)
            deadline = time.monotonic() + 1.0
            while self._calls.unanswered and time.monotonic() < deadline:
                try:
                    self._calls.flush()
                    self._calls.receive()
                except OSError:
                    break
                time.sleep(0.001)
        for link in (self._calls, self._letters):
            self._disconnect(link)
        if self._opening is not None:
            self._opening.close()

    @property
    def is_connected(self) -> bool:
        return self._calls.is_connected and self._letters.is_connected

    @property
    def heard_at(self) -> float:
        """When the last letters, or the word that there are none, came."""
        return self._heard_at

    @property
    def heard_since(self) -> float:
        """Since when they have come without a gap: a full Redis takes none."""
        return self._heard_at if self._refused else self._heard_since

    # What is sent

    def push(self, items: Sequence[bytes], *, first: bool = False) -> None:
        """To the end of the queue, or to where the next item is taken from."""
        command = "RPUSH" if first else "LPUSH"
        ordered = list(reversed(items)) if first else list(items)
        self._send((command, self._queue, *ordered))

    def take_back(self, item: bytes, then: Callable[[], None]) -> None:
        """If nobody has it yet; `then` is called if so."""

        def answered(count: Any) -> None:
            if count:
                then()

        self._send(("LREM", self._queue, 1, item), answered)

    def order(self, run: str, data: bytes, then: Callable[[], None]) -> None:
        """`then` is called when it is there."""
        key = self.keys.to(run)
        self._send(("XADD", key, "*", "o", data), lambda _: then())
        now = time.monotonic()
        if now - self._ordered.get(key, -KEPT_S) > KEPT_S / 2:
            # Nobody may be left to read it.
            self._ordered = {k: at for k, at in self._ordered.items() if now - at < KEPT_S}
            self._ordered[key] = now
            self._send(("EXPIRE", key, KEPT_S))

    def put_function(self, exported: Exported) -> None:
        if exported.id not in self._functions:
            self._functions.add(exported.id)
            data = with_versions(exported)
            self._put(function_field(exported.id), data)

    def put(self, name: str, blob: Blob) -> Ticket:
        ticket = (name, blob.size)
        # Signs of life have to wait until all of it is there.
        longer_s = blob.size // SLOW_BYTES_PER_S
        if longer_s:
            self._send(("EXPIRE", self.keys.alive, ALIVE_S + longer_s))
        self._put_pieces(ticket, blob)
        self.flush()
        self._young[name] = (time.monotonic(), blob)
        self._young_bytes += blob.size
        while self._young_bytes > MOST_YOUNG_BYTES:
            self._grow_up(next(iter(self._young)))
        return ticket

    def _grow_up(self, name: str) -> None:
        _, blob = self._young.pop(name)
        self._young_bytes -= blob.size

    def _put_pieces(self, ticket: Ticket, blob: Blob) -> None:
        for field, piece in zip(fields_of(ticket), pieces_of(blob), strict=True):
            self._put(field, piece)

    def _put(self, field: str, data: bytes | memoryview) -> None:
        self._send(("HSET", self.keys.values, field, data))
        if not self._values_expire:
            # A key has no end before it is there.
            self._values_expire = True
            self._send(("EXPIRE", self.keys.values, KEPT_S))

    def fetch(self, ticket: Ticket, then: Callable[[Blob | Exception], None]) -> None:
        fields = fields_of(ticket)
        found: list[bytes | None] = []

        def got(reply: Any) -> None:
            found.append(reply)
            if len(found) == len(fields):
                try:
                    blob: Blob | Exception = joined(ticket, found)
                except Exception as error:  # noqa: BLE001 - it is for who waits for the value
                    blob = error
                then(blob)

        for field in fields:
            self._send(("HGET", self.keys.values, field), got)
        self.flush()

    def drop(self, tickets: Sequence[Ticket]) -> None:
        fields = [field for ticket in tickets for field in fields_of(ticket)]
        for name, _ in tickets:
            if name in self._young:
                self._grow_up(name)
        if fields:
            self._send(("HDEL", self.keys.values, *fields))

    def flush(self) -> None:
        try:
            self._calls.flush()
        except OSError as error:
            self._broke(self._calls, error)

    def _send(self, command: Command, then: Callable[[Any], None] | None = None) -> None:
        if self._refused and command[0] in _NEED_MEMORY:
            self._refused.append((command, then))
        else:
            self._calls.send(command, lambda reply: self._answered(command, then, reply))

    def _answered(self, command: Command, then: Callable[[Any], None] | None, reply: Any) -> None:
        if isinstance(reply, ReplyError):
            if not self._refused:
                self._again_at = time.monotonic() + RETRY_S
                _log.warning("the grid's Redis refuses %s (%s): trying again", command[0], reply)
            self._refused.append((command, then))
        elif then is not None:
            then(reply)

    def _try_again(self) -> None:
        """One of them, and the others when it was taken."""
        self._is_trying = True
        command, then = self._refused[0]

        def answered(reply: Any) -> None:
            self._is_trying = False
            self._again_at = time.monotonic() + RETRY_S
            if isinstance(reply, ReplyError):
                return
            refused, self._refused = self._refused, deque()
            refused.popleft()
            if then is not None:
                then(reply)
            for entry in refused:
                self._send(*entry)

        self._calls.send(command, answered)

    # What comes with time

    def tick(self, now: float) -> None:
        if not self.is_connected:
            if now >= self._connect_at:
                self._connect_again(now)
            return
        if now - self._heard_at > SILENT_S:
            self._broke(self._letters, TimeoutError(f"silent for {SILENT_S:g} s"))
            return
        if self._refused and not self._is_trying and now >= self._again_at:
            self._try_again()
        if self._listen_again_at is not None and now >= self._listen_again_at:
            self._listen_again_at = None
            self._read_on()
        if now - self._beat_at >= BEAT_S:
            self._beat(now)
        self.flush()

    def next_time(self) -> float:
        if not self.is_connected:
            return self._connect_at
        times = [self._beat_at + BEAT_S]
        if self._refused and not self._is_trying:
            times.append(self._again_at)
        if self._listen_again_at is not None:
            times.append(self._listen_again_at)
        return min(times)

    def _beat(self, now: float) -> None:
        # From the one before on: Redis may have been away since.
        old = self._beat_at - LOSABLE_S
        for name in [name for name, (put_at, _) in self._young.items() if put_at < old]:
            self._grow_up(name)
        self._beat_at = now
        keys = self.keys
        if self._has_beaten:
            # Unlike SET, this is what a full Redis does as well.
            self._send(("EXPIRE", keys.alive, ALIVE_S), self._was_alive)
        else:
            self._has_beaten = True
            self._announce()
        producers, stats = self._queue_keys.producers, self._queue_keys.stats
        forgotten_ms = int(PRODUCER_FORGOTTEN_S * 1000)
        # If it is refused, there is the next one.
        self._calls.send(("EVAL", _PRODUCE, 2, producers, stats, self._job, forgotten_ms), _ignore)
        for key in (keys.up, keys.values):
            self._send(("EXPIRE", key, KEPT_S))
        if self._trimmed != self._last_read:
            self._trimmed = self._last_read
            self._send(("XTRIM", keys.up, "MINID", _after(self._last_read)))

    def _announce(self) -> None:
        self._is_announcing = True

        def is_announced(_: Any) -> None:
            self._is_announcing = False

        self._send(("SET", self.keys.alive, b"1", "EX", ALIVE_S), is_announced)

    def _was_alive(self, count: Any) -> None:
        if count == 0 and not self._is_announcing:
            self._announce()
            self._send_again()

    def _send_again(self) -> None:
        """Redis may have forgotten something of this job."""
        self._functions.clear()
        for name, (_, blob) in self._young.items():
            self._put_pieces((name, blob.size), blob)
        self._on_forgotten()

    # Letters

    def _read_on(self) -> None:
        self._letters.send(
            (
                "XREAD", "COUNT", LETTERS_AT_ONCE, "BLOCK", int(LISTEN_S * 1000),
                "STREAMS", self.keys.up, self._last_read,
            ),
            self._came,
        )  # fmt: skip
        self._letters.flush()

    def _came(self, reply: Any) -> None:
        now = self._heard_at = time.monotonic()
        if isinstance(reply, ReplyError):
            _log.warning("the grid's Redis refuses to be read (%s): trying again", reply)
            self._listen_again_at, self._heard_since = now + RETRY_S, now
            return
        for _, entries in reply or ():
            for entry, fields in entries:
                self._last_read = entry
                try:
                    self._on_letter(fields[1])
                except Exception:  # noqa: BLE001 - the others are to be read
                    _log.exception("a letter of the grid's containers cannot be read")
        self._read_on()

    # Connections

    def _connect(self, link: Link, sock: socket.socket) -> None:
        if link.unanswered:
            self._on_repeated()
        try:
            link.use(sock)
        except OSError:
            link.close()
            raise
        self._poller.watch(link.fileno(), lambda can_read: self._ready(link, can_read))
        if link is self._calls:
            link.send(("INFO", "server"), self._met)
        else:
            self._heard_at = self._heard_since = time.monotonic()

    def _met(self, info: Any) -> None:
        if not isinstance(info, bytes):
            return
        server = next((line for line in info.split() if line.startswith(b"run_id:")), b"")
        before, self._server = self._server, server
        if before and before != server:
            self._send_again()

    def _ready(self, link: Link, can_read: bool) -> None:
        try:
            if can_read:
                link.receive()
            link.flush()
        except OSError as error:
            self._broke(link, error)

    def _broke(self, link: Link, error: OSError) -> None:
        self._disconnect(link)
        self._connect_at = time.monotonic()
        if self._attempt == 0:
            _log.warning(
                "the grid's Redis (%s) cannot be reached (%s): calls wait until it is back",
                hide_password(self._url),
                error,
            )

    def _connect_again(self, now: float) -> None:
        if self._opening is None:
            self._opening = Opening(self._url)
        try:
            sock = self._opening.take()
            if sock is None:
                self._connect_at = now + LOOK_FOR_CONNECTION_S
                return
            self._opening = None
            self._connect(self._letters if self._calls.is_connected else self._calls, sock)
        except OSError as error:
            self._opening = None
            self._attempt += 1
            pause = full_jitter_s(self._attempt, first_s=0.1, most_s=LONGEST_PAUSE_S)
            self._connect_at = now + pause
            if self._attempt == 1:
                _log.warning("it is still away (%s)", error)
            return
        if not self.is_connected:
            self._connect_again(now)
            return
        if self._attempt:
            _log.warning("the grid's Redis is back")
        self._attempt = 0

    def _disconnect(self, link: Link) -> None:
        if link.is_connected:
            self._poller.forget(link.fileno())
            link.close()

    def _also_write(self, link: Link, wanted: bool) -> None:
        if link.is_connected:
            self._poller.also_write(link.fileno(), wanted)


def _ignore(reply: Any) -> None:
    del reply


def _after(entry: bytes) -> bytes:
    milliseconds, _, number = entry.partition(b"-")
    return b"%b-%d" % (milliseconds, int(number) + 1)


def _script(name: str) -> str:
    return (
        resources.files("gridcore.lease_queue.scripts").joinpath(f"{name}.lua").read_text("utf-8")
    )


_PRODUCE, _LEAVE = _script("produce"), _script("leave")
