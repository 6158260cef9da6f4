"""`f.map(items)`: a call for each item, and never more of them open than allowed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gridcore.sdk.refs import ObjectRef, engine_of, error_of, number_of, value_of

MAX_IN_FLIGHT = 1000
"""Enough to keep every core busy with calls of a millisecond, and few enough to forget about."""


def run(
    call: Callable[..., ObjectRef[Any]],
    arguments: Iterable[tuple[Any, ...]],
    *,
    max_in_flight: int,
    ordered: bool,
    return_exceptions: bool,
) -> Iterator[Any]:
    if max_in_flight < 1:
        raise ValueError(f"max_in_flight={max_in_flight!r} must be 1 or more")
    results = _ordered if ordered else _unordered
    return results(call, iter(arguments), max_in_flight, return_exceptions)


def _ordered(
    call: Callable[..., ObjectRef[Any]],
    arguments: Iterator[tuple[Any, ...]],
    max_in_flight: int,
    return_exceptions: bool,
) -> Iterator[Any]:
    open_calls: deque[ObjectRef[Any]] = deque()
    for given in arguments:
        open_calls.append(call(*given))
        if len(open_calls) >= max_in_flight:
            yield _result(open_calls.popleft(), return_exceptions)
    while open_calls:
        yield _result(open_calls.popleft(), return_exceptions)


def _unordered(
    call: Callable[..., ObjectRef[Any]],
    arguments: Iterator[tuple[Any, ...]],
    max_in_flight: int,
    return_exceptions: bool,
) -> Iterator[Any]:
    open_calls: dict[int, ObjectRef[Any]] = {}
    is_exhausted = False
    while not is_exhausted or open_calls:
        while not is_exhausted and len(open_calls) < max_in_flight:
            given = next(arguments, None)
            if given is None:
                is_exhausted = True
            else:
                ref = call(*given)
                open_calls[number_of(ref)] = ref
        if open_calls:
            some = next(iter(open_calls.values()))
            done = engine_of(some).wait(tuple(open_calls), 1, None)
            for ref in [open_calls.pop(number) for number in tuple(open_calls) if number in done]:
                yield _result(ref, return_exceptions)


def _result(ref: ObjectRef[Any], return_exceptions: bool) -> Any:
    outcome = engine_of(ref).get((number_of(ref),), None)[0]
    if return_exceptions and outcome.is_error:
        return error_of(outcome)
    return value_of(outcome)
