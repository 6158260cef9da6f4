"""What the driver knows of calls, values and actors."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gridcore.sdk.engine import Arguments, Exported
from gridcore.sdk.options import ActorOptions
from gridcore.sdk.packing import Packed
from gridcore.sdk.workers.scheduler import Call, Need

DRIVER = 0
"""Who calls; workers have numbers of their own."""


class Peer:
    """A worker, as the driver sees it: it runs calls, and asks the driver for everything."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.functions: set[bytes] = set()
        """Those that it has been sent."""
        self.held: set[int] = set()
        """References that it has, as far as it has said."""
        self.pins: list[int] = []
        """Actors that it asked for by name and has not held yet."""
        self.requests: dict[int, Request] = {}
        self.actor: Actor | None = None
        self.pid = 0
        self.is_nudged = False
        self.end: str | None = None
        """Why we ended it, if it was us."""


class CallRecord(Call):
    """A call of a function, of a method, or of an actor's constructor."""

    __slots__ = (
        "actor",
        "arguments",
        "attempt",
        "caller",
        "deadline",
        "ends_as",
        "exported",
        "given_name",
        "is_late",
        "method",
        "missing",
        "name",
        "num_returns",
        "results",
        "retries",
        "retries_timeouts",
        "stream",
        "timeout",
    )

    def __init__(
        self,
        number: int,
        exported: Exported,
        need: Need,
        arguments: Arguments,
        results: tuple[int, ...],
        *,
        name: str,
        given_name: str = "",
        retries: int,
        priority: int = 0,
        timeout: float | None = None,
        retries_timeouts: bool = False,
        actor: Actor | None = None,
        method: str = "",
        caller: int = DRIVER,
    ) -> None:
        super().__init__(
            number,
            exported.id,
            need,
            priority,
            is_alone=timeout is not None,
            is_inner=caller != DRIVER,
        )
        self.exported = exported
        self.arguments = arguments
        self.results = results
        self.name = name
        self.given_name = given_name
        self.attempt = 0
        self.retries = retries
        self.retries_timeouts = retries_timeouts
        self.timeout = timeout
        self.deadline: float | None = None
        self.actor = actor
        self.method = method
        self.caller = caller
        self.missing = 0
        """References among its arguments that are not there yet."""
        self.ends_as: Packed | None = None
        """The error with which it ends although it runs: it was cancelled, or took too long."""
        self.is_late = False
        self.stream: Stream | None = None
        """Of a call that returns one value after the other."""

    @property
    def returns(self) -> int:
        """As a worker is told: how many results; below zero it streams, and -1 - n of its values
        are here already."""
        stream = self.stream
        return len(self.results) if stream is None else -1 - stream.received

    @property
    def about(self) -> tuple[int, str] | None:
        """What a worker cannot know by itself: which attempt it is, and how the caller named it."""
        return (self.attempt, self.given_name) if self.attempt or self.given_name else None

    def may_repeat(self) -> bool:
        """Uses up one of its retries."""
        if self.retries == 0:
            return False
        self.attempt += 1
        if self.retries > 0:
            self.retries -= 1
        return True


class Stream:
    """The values of one call that are here, and who waits for more of them or for room."""

    __slots__ = ("asked", "call", "first", "is_failed", "is_over", "numbers", "producers", "waits")

    def __init__(self, call: CallRecord) -> None:
        self.call = call
        self.first = 0
        """Those before it the consumer has, and holds itself."""
        self.numbers: deque[int] = deque()
        self.asked = 0.0
        """So many were asked for; infinitely many if somebody waits for the end."""
        self.is_over = False
        self.is_failed = False
        self.waits: list[tuple[int, Callable[[], object]]] = []
        """An index, and what to do when it is there."""
        self.producers: list[Callable[[int, int], None]] = []
        """Told how much more they may send; nothing if nobody wants it."""

    @property
    def received(self) -> int:
        return self.first + len(self.numbers)

    def is_there(self, index: int) -> bool:
        """The value, or the end."""
        return self.is_over or index < self.received

    def find(self, index: int) -> int | None:
        """The reference to a value that is there; to the error that ended it; None if it ended."""
        if index < self.received:
            return self.numbers[index - self.first]
        return self.call.results[0] if self.is_failed and index == self.received else None


class Entry:
    """A reference's value, or who waits for it."""

    __slots__ = ("call", "count", "dependents", "is_error", "number", "packed", "watches")

    def __init__(self, number: int, call: CallRecord | None) -> None:
        self.number = number
        self.call = call
        self.count = 1
        """Holders: Python objects of the driver, workers, calls that need it, values around it."""
        self.packed: Packed | None = None
        self.is_error = False
        self.dependents: list[CallRecord] | None = None
        self.watches: list[Watch] | None = None


class Watch:
    """Somebody waits until some entries are over."""

    __slots__ = ("fire", "left")

    def __init__(self, left: int, fire: Callable[[], None] | None = None) -> None:
        self.left = left
        self.fire = fire


class Request:
    """A worker waits for values or for some calls to be over."""

    __slots__ = ("numbers", "token", "wants_values", "watch")

    def __init__(self, token: int, numbers: list[int], watch: Watch, *, wants_values: bool) -> None:
        self.token = token
        self.numbers = numbers
        self.watch = watch
        self.wants_values = wants_values


class Actor:
    """
    starting --constructed--> alive --died, may be restarted--> starting
       |                        |
       +------ failed ----------+--died, killed, not needed any more--> dead
    """

    __slots__ = (
        "call_retries",
        "created_by",
        "death",
        "handle",
        "handles",
        "has_lost_its_process",
        "is_alive",
        "lines",
        "need",
        "number",
        "open_calls",
        "options",
        "process",
        "restarts",
        "sent",
        "was_restarted",
    )

    def __init__(self, number: int, options: ActorOptions, handle: Packed, need: Need) -> None:
        self.number = number
        self.options = options
        self.handle = handle
        self.need = need
        self.handles = 1
        self.process: Peer | None = None
        self.is_alive = False
        self.death: str | None = None
        """Why it is gone for good."""
        self.has_lost_its_process = False
        """That is why: nobody has ended it, and it could be made."""
        self.restarts = options.max_restarts
        self.was_restarted = False
        self.created_by: CallRecord | None = None
        self.lines: dict[int, deque[CallRecord]] = {}
        """Not sent yet, for each caller: what one of them calls runs in its order."""
        self.sent: dict[int, CallRecord] = {}
        self.open_calls = 0
