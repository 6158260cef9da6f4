"""`@remote` on a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Never, ParamSpec, TypeVar, Unpack, overload

from gridcore.sdk import mapping, session
from gridcore.sdk.binding import checker
from gridcore.sdk.engine import Exported
from gridcore.sdk.exporting import arguments_of, export
from gridcore.sdk.options import STREAMING, FunctionOptions, TaskOptions, task_options
from gridcore.sdk.refs import ObjectRef
from gridcore.sdk.streaming import ObjectRefGenerator, returned

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class RemoteFunction(Generic[P, R_co]):
    """A function whose calls run elsewhere: `f.remote(...)` returns a reference at once."""

    def __init__(self, function: Callable[P, R_co], options: TaskOptions) -> None:
        self._function = function
        self._options = options
        self._name = options.name or getattr(function, "__qualname__", type(function).__name__)
        self._check = checker(function, self._name)
        self._exported: Exported | None = None
        functools.update_wrapper(self, function)

    @overload
    # Of functions without types: nothing but Any takes the place of Never.
    def remote(  # type: ignore[overload-overlap]
        self: RemoteFunction[P, Never], /, *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRef[Any]: ...
    @overload
    def remote(  # type: ignore[overload-overlap]
        self: RemoteFunction[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> ObjectRefGenerator[T]: ...
    @overload
    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R_co]: ...
    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Calls it elsewhere. Raises TypeError if the arguments do not fit.

        A generator's call returns a generator of references; with another `num_returns` than 1 it
        is a list of references, or None.
        """
        self._check(args, kwargs)
        engine = session.engine()
        exported = self._exported or self._export()
        numbers = engine.submit(exported, arguments_of(args, kwargs, self._name), self._options)
        if self._options.num_returns == 1:
            return ObjectRef(numbers[0], engine)
        return returned(numbers, self._options.num_returns, engine)

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Calls it here and now, as if it were not decorated."""
        return self._function(*args, **kwargs)

    def options(self, **options: Unpack[FunctionOptions]) -> RemoteFunction[P, R_co]:
        """The same function with other options."""
        return RemoteFunction(self._function, task_options(options, base=self._options))

    def map(
        self,
        items: Iterable[Any],
        /,
        *more: Iterable[Any],
        max_in_flight: int = mapping.MAX_IN_FLIGHT,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Iterator[R_co]:
        """Results of one call for each item, as the built-in `map`.

        Items are taken as results are: no more than `max_in_flight` calls are open. Unordered
        results come as they are done. With `return_exceptions` a failed call gives its exception.
        """
        if self._options.num_returns == STREAMING:
            raise TypeError(
                f"{self._name} yields: map needs a function with one result. Call"
                f" {self._name}.remote(...) for each item"
            )
        return mapping.run(
            self.remote,
            zip(items, *more) if more else ((item,) for item in items),  # noqa: B905 - as `map` does
            max_in_flight=max_in_flight,
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def __call__(self, *_args: object, **_kwargs: object) -> R_co:
        raise TypeError(
            f"{self._name} is remote: call {self._name}.remote(...), or {self._name}.local(...) to"
            " run it here"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)

    def _export(self) -> Exported:
        kinds = self._options.retry_exceptions
        self._exported = export((self._function, kinds), self._name)
        return self._exported


def remote_function(
    function: Callable[P, R_co], given: Mapping[str, Any]
) -> RemoteFunction[P, R_co]:
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{function.__qualname__} is async, which only methods of actors may be. Write a"
            " function that calls asyncio.run"
        )
    if inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is an async generator, which only methods of actors may be."
            " Write a generator that calls asyncio.run"
        )
    if "num_returns" not in given and inspect.isgeneratorfunction(function):
        given = {**given, "num_returns": STREAMING}
    return RemoteFunction(function, task_options(given))
