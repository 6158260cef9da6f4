"""What a call returns before it has run: a reference to its result, which is also a future."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

from gridcore.sdk import session
from gridcore.sdk.engine import Engine, Outcome
from gridcore.sdk.errors import NotConnected
from gridcore.sdk.packing import note_reference, unpack

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ObjectRef(Generic[T_co]):
    """The result of a call, or a value that was put, wherever it is and whenever it will be there.

    As an argument of a call it becomes its value; inside a list or dict it stays what it is. When
    the last reference is gone, so is the value.
    """

    __slots__ = ("__weakref__", "_engine", "_number")

    def __init__(self, number: int, engine: Engine) -> None:
        self._number = number
        self._engine = engine

    @property
    def id(self) -> str:
        return self._engine.identify(self._number)

    @staticmethod
    def from_id(id: str) -> ObjectRef[Any]:  # noqa: A002
        """The reference with this `id`. On a grid it may be another program's, which must still be
        there. Raises ValueError if it is no id of a reference, ObjectLost if it is gone."""
        engine = session.engine()
        return ObjectRef(engine.find(id), engine)

    def result(self, timeout: float | None = None) -> T_co:
        """Waits for it, as `gridcore.get` does."""
        value: T_co = value_of(engine_of(self).get((self._number,), timeout)[0])
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits, and returns what the call raised, or None."""
        return error_of(engine_of(self).get((self._number,), timeout)[0])

    def done(self) -> bool:
        return bool(engine_of(self).wait((self._number,), 1, 0))

    def cancel(self, *, force: bool = False) -> None:
        """See `gridcore.cancel`."""
        engine_of(self).cancel(self._number, force=force)

    def add_done_callback(self, callback: Callable[[ObjectRef[T_co]], object]) -> None:
        """Calls `callback(self)` when it is there, from whichever thread sees it first."""
        engine_of(self).when_done(self._number, lambda: callback(self))

    def future(self) -> concurrent.futures.Future[T_co]:
        """A future of the standard library, with the same result."""
        future: concurrent.futures.Future[T_co] = concurrent.futures.Future()
        self.add_done_callback(lambda ref: _settle(future, ref))
        return future

    def __await__(self) -> Generator[Any, None, T_co]:
        import asyncio  # a third of what `import gridcore` would cost; who awaits has it anyway

        return asyncio.wrap_future(self.future()).__await__()

    def __reduce__(self) -> tuple[Any, ...]:
        note_reference(self._number)
        return _adopt, (self._number,)

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: object) -> ObjectRef[T_co]:
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObjectRef):
            return NotImplemented
        return self._number == other._number and self._engine is other._engine

    def __hash__(self) -> int:
        return hash(self._number)

    def __repr__(self) -> str:
        return f"ObjectRef({self.id})"

    def __del__(self) -> None:
        self._engine.release(self._number)


def _adopt(number: int) -> ObjectRef[Any]:
    engine = session.require()
    engine.hold(number)
    return ObjectRef(number, engine)


def engine_of(ref: ObjectRef[Any]) -> Engine:
    if ref._engine is not session.require():
        raise NotConnected(
            "Using a reference",
            cause="it belongs to an engine that was shut down",
            next_step="Call gridcore.shutdown only when all results are there",
        )
    return ref._engine


def number_of(ref: ObjectRef[Any]) -> int:
    return ref._number


def value_of(outcome: Outcome) -> Any:
    if outcome.is_error:
        raise unpack(outcome.packed)
    return unpack(outcome.packed)


def error_of(outcome: Outcome) -> BaseException | None:
    if not outcome.is_error:
        return None
    error: BaseException = unpack(outcome.packed)
    return error


def _settle(future: concurrent.futures.Future[T], ref: ObjectRef[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(ref.result())
    except Exception as error:  # noqa: BLE001 - whatever the call raised
        future.set_exception(error)
