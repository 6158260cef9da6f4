"""The seam between the API and what runs the calls.

The API packs arguments, names functions and hands out references; an engine moves bytes and decides
where calls run. Inside a worker there is an engine as well, which passes all of this on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from gridcore.sdk.context import Node, RuntimeContext
from gridcore.sdk.listening import Listener
from gridcore.sdk.options import ActorOptions, CallOptions, TaskOptions
from gridcore.sdk.packing import Packed


class Exported:
    """A function or class as bytes, made once and known by their hash."""

    __slots__ = ("data", "id", "name")

    def __init__(self, id: bytes, data: bytes, name: str) -> None:  # noqa: A002
        self.id = id
        self.data = data
        self.name = name


class Arguments(NamedTuple):
    """A call's arguments; those that are references themselves are left out and named apart."""

    packed: Packed
    places: tuple[int | str, ...] = ()
    """Where values of references belong: positions and keywords."""
    numbers: tuple[int, ...] = ()
    """The references, in the same order."""


class Outcome(NamedTuple):
    """What a reference stands for once its call is over."""

    packed: Packed
    is_error: bool


class Engine(Protocol):
    """References are numbers here, handles of actors are numbers below zero. Who gets one from an
    engine holds it once, and releases it."""

    def submit(
        self, function: Exported, arguments: Arguments, options: TaskOptions
    ) -> tuple[int, ...]: ...

    def submit_actor(
        self, made_by: Exported, arguments: Arguments, options: ActorOptions, handle: Packed
    ) -> int:
        """The actor's number, which is below zero; its constructor runs later. `handle` is what
        `find_actor` returns. Raises ValueError if the name is taken."""
        ...

    def call_actor(
        self, actor: int, method: str, arguments: Arguments, options: CallOptions
    ) -> tuple[int, ...]: ...

    def find_actor(self, name: str) -> tuple[int, Packed]:
        """The actor of that name and what its handle was made with; raises ValueError."""
        ...

    def kill(self, actor: int, *, no_restart: bool) -> None: ...

    def put(self, packed: Packed) -> int: ...

    def get(self, numbers: Sequence[int], timeout: float | None) -> list[Outcome]:
        """In the order of `numbers`; raises GetTimeout."""
        ...

    def wait(
        self, numbers: Sequence[int], num_returns: int, timeout: float | None
    ) -> frozenset[int]:
        """Those that are over: at least so many of them, or fewer after the timeout."""
        ...

    def next_value(self, stream: int, index: int) -> int | None:
        """A reference to a streaming call's value with this index, once it is there; None after
        the last. `stream` is what `submit` returned. To ask for one is to have all before it."""
        ...

    def when_value(self, stream: int, index: int, callback: Callable[[], object]) -> None:
        """Calls back once, from any thread, when `next_value` would not wait."""
        ...

    def cancel(self, number: int, *, force: bool) -> None: ...

    def when_done(self, number: int, callback: Callable[[], object]) -> None:
        """Calls back once, from any thread."""
        ...

    def hold(self, number: int) -> None:
        """One more reference to it."""
        ...

    def release(self, number: int) -> None:
        """One less. Called by the garbage collector, anywhere and at any time: takes no lock."""
        ...

    def identify(self, number: int) -> str:
        """A name that no other reference has."""
        ...

    def find(self, id: str) -> int:  # noqa: A002
        """What `identify` has named; raises ObjectLost, or ValueError for what is no name."""
        ...

    def nodes(self) -> list[Node]: ...

    def resources(self, *, available: bool) -> dict[str, float]:
        """Of all nodes, or what is free of them."""
        ...

    def context(self) -> RuntimeContext:
        """Where the thread or coroutine that asks is."""
        ...

    def report(self, fraction: float, text: str) -> None:
        """Of the call that says so; nothing if there is none."""
        ...

    def subscribe(self, listener: Listener) -> None:
        """It is told what happens to calls."""
        ...

    def unsubscribe(self, listener: Listener) -> None: ...

    def wait_for_note(self, listener: Listener) -> bool:
        """Until it has one; False if there will be none."""
        ...

    def shutdown(self) -> None: ...
