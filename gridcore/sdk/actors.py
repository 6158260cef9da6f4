"""`@remote` on a class: each instance is an actor, in a process of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, Unpack

from gridcore.sdk import session
from gridcore.sdk.binding import checker
from gridcore.sdk.engine import Engine, Exported
from gridcore.sdk.errors import NotConnected
from gridcore.sdk.exporting import arguments_of, export
from gridcore.sdk.options import (
    STREAMING,
    ActorClassOptions,
    ActorOptions,
    CallOptions,
    MethodOptions,
    actor_options,
    call_options,
)
from gridcore.sdk.packing import note_reference, pack, unpack
from gridcore.sdk.refs import ObjectRef
from gridcore.sdk.streaming import returned

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_METHOD_OPTIONS = "__gridcore_method__"


class ActorClass(Generic[T]):
    """A class whose instances live elsewhere: `Class.remote(...)` makes one and gives a handle."""

    def __init__(self, kind: type[T], options: ActorOptions) -> None:
        self._kind = kind
        self._options = options
        self._name = kind.__qualname__
        self._check = checker(kind, self._name)
        self._exported: Exported | None = None
        self.__doc__ = kind.__doc__
        self.__name__ = kind.__name__
        self.__qualname__ = kind.__qualname__
        self.__module__ = kind.__module__

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Makes an actor. Raises TypeError if the arguments do not fit, ValueError if its name is
        taken; what its constructor raises comes with ActorDied from its methods."""
        self._check(args, kwargs)
        engine = session.engine()
        if self._exported is None:
            self._exported = export((self._kind, False), self._name)
        methods = _methods(self._kind)
        handle = pack((self._name, methods), f"the class {self._name}")
        number = engine.submit_actor(
            self._exported, arguments_of(args, kwargs, self._name), self._options, handle
        )
        return ActorHandle(number, self._name, methods, engine)

    def local(self, /, *args: Any, **kwargs: Any) -> T:
        """An instance here, as if the class were not decorated."""
        return self._kind(*args, **kwargs)

    def options(self, **options: Unpack[ActorClassOptions]) -> ActorClass[T]:
        """The same class with other options."""
        return ActorClass(self._kind, actor_options(options, base=self._options))

    def __call__(self, *_args: object, **_kwargs: object) -> T:
        raise TypeError(
            f"{self._name} is remote: call {self._name}.remote(...), or {self._name}.local(...) for"
            " an instance here"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._kind, self._options)


class ActorHandle(Generic[T]):
    """An actor: `handle.method.remote(...)` calls it. It ends when no handle is left and its calls
    are over. Can be passed to calls."""

    def __init__(
        self, number: int, name: str, methods: dict[str, CallOptions], engine: Engine
    ) -> None:
        self._number = number
        self._name = name
        self._methods = methods
        self._engine = engine

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("__") or name not in self.__dict__.get("_methods", ()):
            known = ", ".join(self.__dict__.get("_methods", ()))
            raise AttributeError(
                f"{self.__dict__.get('_name')} has no method {name!r}. It has: {known}"
            )
        return ActorMethod(self, name, self._methods[name])

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._methods]

    def __reduce__(self) -> tuple[Any, ...]:
        note_reference(self._number)
        return _adopt, (self._number, self._name, self._methods)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ActorHandle):
            return NotImplemented
        return self._number == other._number and self._engine is other._engine

    def __hash__(self) -> int:
        return hash(self._number)

    def __repr__(self) -> str:
        return f"ActorHandle({self._name}, {self._engine.identify(-self._number)})"

    def __del__(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.release(self._number)


class ActorMethod:
    """A method of an actor: `handle.method.remote(...)`."""

    __slots__ = ("_handle", "_name", "_options")

    def __init__(self, handle: ActorHandle[Any], name: str, options: CallOptions) -> None:
        self._handle = handle
        self._name = name
        self._options = options

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """A reference to what the method returns. What one caller calls runs in its order."""
        handle = self._handle
        engine = handle._engine
        if engine is not session.require():
            raise NotConnected(
                f"Calling {handle._name}.{self._name}",
                cause="the actor belongs to an engine that was shut down",
                next_step="Create it anew",
            )
        arguments = arguments_of(args, kwargs, self._name)
        numbers = engine.call_actor(handle._number, self._name, arguments, self._options)
        if self._options.num_returns == 1:
            return ObjectRef(numbers[0], engine)
        return returned(numbers, self._options.num_returns, engine)

    def options(self, **options: Unpack[MethodOptions]) -> ActorMethod:
        """The same method with other options."""
        return ActorMethod(self._handle, self._name, call_options(options, base=self._options))

    def __call__(self, *_args: object, **_kwargs: object) -> Any:
        raise TypeError(f"{self._name} is an actor's: call {self._name}.remote(...)")


def method(**options: Unpack[MethodOptions]) -> Callable[[F], F]:
    """Options of a method, inside a class that is to be remote."""
    checked = call_options(options)

    def decorate(function: F) -> F:
        is_said = "num_returns" in options
        setattr(function, _METHOD_OPTIONS, checked if is_said else _streaming(function, checked))
        return function

    return decorate


def get_actor(name: str) -> ActorHandle[Any]:
    """The actor of that name; ValueError if there is none."""
    engine = session.engine()
    number, handle = engine.find_actor(name)
    kind, methods = unpack(handle)
    return ActorHandle(number, kind, methods, engine)


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """Ends an actor's process at once; calls that it has not answered raise ActorDied."""
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill: {type(actor).__name__} is no actor. For a call use cancel")
    actor._engine.kill(actor._number, no_restart=no_restart)


def actor_class(kind: type[T], given: Mapping[str, Any]) -> ActorClass[T]:
    return ActorClass(kind, actor_options(given))


def _methods(kind: type) -> dict[str, CallOptions]:
    return {
        name: getattr(member, _METHOD_OPTIONS, None) or _streaming(member, CallOptions())
        for name, member in inspect.getmembers(kind, callable)
        if not (name.startswith("__") and name.endswith("__"))
    }


def _streaming(method: Callable[..., Any], options: CallOptions) -> CallOptions:
    """A method that is a generator streams, unless it says otherwise."""
    if inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method):
        return call_options({"num_returns": STREAMING}, base=options)
    return options


def _adopt(number: int, name: str, methods: dict[str, CallOptions]) -> ActorHandle[Any]:
    engine = session.require()
    engine.hold(number)
    return ActorHandle(number, name, methods, engine)
