"""What a streaming call returns: its references, one after the other as they are yielded."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

from gridcore.sdk.engine import Engine
from gridcore.sdk.errors import NotPicklable
from gridcore.sdk.refs import ObjectRef, engine_of, number_of

T_co = TypeVar("T_co", covariant=True)


class ObjectRefGenerator(Generic[T_co]):
    """References to what a call yields, each as soon as it is there: `for ref in generator`, or
    `async for`.

    If the call fails, `get` of the last reference raises why. The call stays at most 100 values
    ahead of who takes them, and waits. It ends, with GeneratorExit at its next `yield`, when its
    generator is gone here.
    """

    def __init__(self, number: int, engine: Engine) -> None:
        self._end: ObjectRef[int] = ObjectRef(number, engine)
        self._index = 0

    def __iter__(self) -> ObjectRefGenerator[T_co]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        """Waits until it is yielded."""
        ref = self._next()
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> ObjectRefGenerator[T_co]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        import asyncio  # late, as in refs

        loop = asyncio.get_running_loop()
        there: asyncio.Future[None] = loop.create_future()

        def settle() -> None:
            if not there.done():
                there.set_result(None)

        engine_of(self._end).when_value(
            number_of(self._end), self._index, lambda: loop.call_soon_threadsafe(settle)
        )
        await there
        ref = self._next()
        if ref is None:
            raise StopAsyncIteration
        return ref

    def completed(self) -> ObjectRef[int]:
        """A reference to the end: how many values there were, or what the call raised. Who waits
        for it takes all values: the call does not wait for them to be taken."""
        return self._end

    def cancel(self, *, force: bool = False) -> None:
        """See `gridcore.cancel`."""
        self._end.cancel(force=force)

    def _next(self) -> ObjectRef[T_co] | None:
        engine = engine_of(self._end)
        number = engine.next_value(number_of(self._end), self._index)
        if number is None:
            return None
        self._index += 1
        return ObjectRef(number, engine)

    def __reduce__(self) -> NoReturn:
        raise NotPicklable(
            "Sending an ObjectRefGenerator",
            cause="one consumer takes what is yielded, and it is here",
            next_step="Send the references that it gives, or make the call where it is consumed",
        )

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._end.id}, {self._index} taken)"


def returned(numbers: tuple[int, ...], num_returns: int | str, engine: Engine) -> Any:
    """What a call with this option gives to its caller, who holds these references."""
    if num_returns == 1:
        return ObjectRef(numbers[0], engine)
    if isinstance(num_returns, str):
        return ObjectRefGenerator(numbers[0], engine)
    return [ObjectRef(number, engine) for number in numbers] or None
