"""Getting results: `get`, `wait`, `as_completed`, `gather`; and `put`, `cancel`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, overload

from gridcore.sdk import session
from gridcore.sdk.errors import GetTimeout
from gridcore.sdk.packing import pack
from gridcore.sdk.refs import ObjectRef, engine_of, error_of, number_of, value_of
from gridcore.sdk.streaming import ObjectRefGenerator

T = TypeVar("T")


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a reference, or the values of a list of them, in its order.

    Waits for them. Raises what the call raised, as an instance of its own class and of TaskError;
    GetTimeout, a TimeoutError, if `timeout` seconds were not enough: the calls then go on. Large
    arrays are read-only views of shared memory: copy one to change it.
    """
    if isinstance(refs, ObjectRef):
        return value_of(engine_of(refs).get((number_of(refs),), _checked(timeout))[0])
    _check_list("get", refs)
    if not refs:
        return []
    engine = engine_of(refs[0])
    outcomes = engine.get(tuple(number_of(ref) for ref in refs), _checked(timeout))
    return [value_of(outcome) for outcome in outcomes]


def put(value: T) -> ObjectRef[T]:
    """Stores a value once, for any number of calls."""
    if isinstance(value, ObjectRef):
        raise TypeError("put: it is an ObjectRef already, and can be passed as it is")
    engine = session.engine()
    return ObjectRef(engine.put(pack(value, "a value")), engine)


def wait(
    refs: Sequence[ObjectRef[T]], *, num_returns: int = 1, timeout: float | None = None
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """Those that are over, `num_returns` of them at most, and the others; both in the given order.

    Waits until there are so many, or for `timeout` seconds.
    """
    _check_list("wait", refs)
    if not 1 <= num_returns <= len(refs):
        raise ValueError(
            f"wait: num_returns={num_returns} must be from 1 to the number of references,"
            f" {len(refs)}"
        )
    numbers = tuple(number_of(ref) for ref in refs)
    if len(set(numbers)) != len(numbers):
        raise ValueError("wait: a reference is given twice")
    over = engine_of(refs[0]).wait(numbers, num_returns, _checked(timeout))
    done: list[ObjectRef[T]] = []
    others: list[ObjectRef[T]] = []
    for ref in refs:
        is_done = number_of(ref) in over and len(done) < num_returns
        (done if is_done else others).append(ref)
    return done, others


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False) -> None:
    """Its call does not start, or is interrupted; `get` then raises TaskCancelled.

    A call inside C code notices late; `force` kills its process. What is over stays as it is.
    """
    if not isinstance(ref, ObjectRef | ObjectRefGenerator):
        raise TypeError(f"cancel: {type(ref).__name__} is no ObjectRef")
    ref.cancel(force=force)


@overload
def as_completed(
    refs: Iterable[ObjectRef[T]], *, timeout: float | None = None, with_results: Literal[True]
) -> Iterator[tuple[ObjectRef[T], T]]: ...
@overload
def as_completed(
    refs: Iterable[ObjectRef[T]],
    *,
    timeout: float | None = None,
    with_results: Literal[False] = False,
) -> Iterator[ObjectRef[T]]: ...
def as_completed(
    refs: Iterable[ObjectRef[Any]], *, timeout: float | None = None, with_results: bool = False
) -> Iterator[Any]:
    """The references as their calls end. Raises GetTimeout after `timeout` seconds in all."""
    return _as_completed({number_of(ref): ref for ref in refs}, _checked(timeout), with_results)


def _as_completed(
    left: dict[int, ObjectRef[Any]], timeout: float | None, with_results: bool
) -> Iterator[Any]:
    deadline = None if timeout is None else time.monotonic() + timeout
    while left:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        engine = engine_of(next(iter(left.values())))
        over = engine.wait(tuple(left), 1, remaining)
        if not over:
            raise GetTimeout(
                "Waiting for the next result",
                cause=f"{len(left)} are not there after {timeout:g} s",
                next_step="They go on: call as_completed again with those left, or cancel them",
            )
        for number in [number for number in left if number in over]:
            ref = left.pop(number)
            yield (ref, get(ref)) if with_results else ref


def gather(
    *refs: ObjectRef[Any], timeout: float | None = None, return_exceptions: bool = False
) -> list[Any]:
    """The values of all; with `return_exceptions` a failed call gives its exception."""
    if not return_exceptions:
        return get(list(refs), timeout=timeout)
    _check_list("gather", refs)
    if not refs:
        return []
    outcomes = engine_of(refs[0]).get(tuple(number_of(ref) for ref in refs), _checked(timeout))
    return [error_of(outcome) or value_of(outcome) for outcome in outcomes]


def _check_list(name: str, refs: Any) -> None:
    if not isinstance(refs, list | tuple):
        raise TypeError(
            f"{name}: {type(refs).__name__} is neither an ObjectRef nor a list of them"
            if name == "get"
            else f"{name}: {type(refs).__name__} is no list of ObjectRefs"
        )
    for ref in refs:
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"{name}: {type(ref).__name__} in the list is no ObjectRef")


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout={timeout!r} must be 0 or more, or None for as long as it takes")
    return timeout
