"""`@remote`, bare or with options, on a function or a class; `@actor` on a class."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from gridcore.sdk.actors import ActorClass, actor_class
from gridcore.sdk.functions import RemoteFunction, remote_function
from gridcore.sdk.options import ActorClassOptions, RemoteOptions

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Decorator(Protocol):
    """What `remote(...)` with options returns."""

    @overload
    def __call__(self, thing: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, thing: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def remote(thing: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(thing: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Unpack[RemoteOptions]) -> Decorator: ...
def remote(*things: Any, **options: Any) -> Any:
    """Makes a function's calls, or a class' instances, run elsewhere.

    `@remote` or `@remote(num_cpus=2, ...)`: see FunctionOptions and ActorClassOptions. Raises
    TypeError or ValueError for options that do not exist or make no sense.
    """
    if things and options:
        raise TypeError("remote: write @remote(option=...) above the function, or @remote alone")
    if len(things) > 1:
        raise TypeError(f"remote: takes one function or class, not {len(things)}")
    if things:
        return _decorated(things[0], {})
    if not options:
        raise TypeError("remote: write @remote without parentheses if there are no options")
    _check_early(options)
    return lambda thing: _decorated(thing, options)


class ActorDecorator(Protocol):
    def __call__(self, thing: type[T], /) -> ActorClass[T]: ...


@overload
def actor(thing: type[T], /) -> ActorClass[T]: ...
@overload
def actor(**options: Unpack[ActorClassOptions]) -> ActorDecorator: ...
def actor(*things: Any, **options: Any) -> Any:
    """`remote`, for classes only: says what will become of it."""
    for thing in things:
        _check_class(thing)
    made = remote(*things, **options)
    if things:
        return made

    def decorate(thing: Any) -> Any:
        _check_class(thing)
        return made(thing)

    return decorate


def _check_class(thing: Any) -> None:
    if not inspect.isclass(thing):
        raise TypeError(f"actor: {thing!r} is no class: write @remote above a function")


def _decorated(thing: Any, options: dict[str, Any]) -> Any:
    if isinstance(thing, RemoteFunction | ActorClass):
        raise TypeError(f"{thing!r} is remote already: use its .options(...)")
    if inspect.isclass(thing):
        return actor_class(thing, options)
    if callable(thing):
        return remote_function(thing, options)
    raise TypeError(f"remote: {thing!r} is neither a function nor a class")


def _check_early(options: dict[str, Any]) -> None:
    """What neither functions nor classes have is wrong on the line where it stands."""
    known = RemoteOptions.__annotations__
    for key in options:
        if key not in known:
            raise TypeError(f"remote has no option {key!r}. Known: {', '.join(sorted(known))}")
