"""What `@remote` and `.options()` may say, and that what they say makes sense.

A wrong option is an error where it is written, not when the first call runs.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from gridcore.sdk.errors import TaskTimeout

RetryExceptions = bool | list[type[Exception]] | tuple[type[Exception], ...]
Streaming = Literal["streaming"]

STREAMING: Streaming = "streaming"

DEFAULT_RETRIES = 3


class FunctionOptions(TypedDict, total=False):
    """Of a function."""

    num_cpus: float
    """Cores that a call keeps busy; it runs when so many are free."""
    memory: int | str
    """Bytes that a call needs, or a text such as "2GiB"; it runs when so much is free."""
    resources: Mapping[str, float]
    """What else it needs, by the names given to `init`."""
    max_retries: int
    """How often a call is repeated after its process died; -1 is without end."""
    retry_exceptions: RetryExceptions
    """Whether what the function raises is a reason to repeat it; True, or a list of classes."""
    timeout: float | None
    """Seconds that one attempt may take; a generator's waits for its consumer count as well."""
    priority: int
    """Calls of a higher one start first."""
    num_returns: int | Streaming
    """References that a call returns; "streaming" is a reference for each value as it is yielded,
    and what functions that are generators do by themselves."""
    name: str
    """How messages call it."""


class ActorClassOptions(TypedDict, total=False):
    """Of a class."""

    num_cpus: float
    memory: int | str
    resources: Mapping[str, float]
    name: str
    """By which `get_actor` finds it."""
    get_if_exists: bool
    """The actor of that name is used if there is one."""
    max_restarts: int
    """How often it is created anew after its process died; -1 is without end."""
    max_task_retries: int
    """How often a method is repeated after the process died in it; -1 is without end."""
    max_concurrency: int
    """Methods that run at the same time, in threads; for async methods, coroutines."""


class MethodOptions(TypedDict, total=False):
    """Of one method of an actor."""

    num_returns: int | Streaming
    max_task_retries: int
    timeout: float | None
    name: str


class RemoteOptions(FunctionOptions, ActorClassOptions, total=False):
    """What `@remote(...)` takes before it knows what it decorates."""


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """A call's options, checked."""

    num_cpus: float = 1.0
    memory: int = 0
    resources: tuple[tuple[str, float], ...] = ()
    max_retries: int = DEFAULT_RETRIES
    retry_exceptions: bool | tuple[type[Exception], ...] = False
    timeout: float | None = None
    priority: int = 0
    num_returns: int | Streaming = 1
    name: str = ""


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """An actor's options, checked."""

    num_cpus: float = 0.0
    """An actor waits most of the time: by default it takes no core away from calls."""
    memory: int = 0
    resources: tuple[tuple[str, float], ...] = ()
    name: str = ""
    get_if_exists: bool = False
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class CallOptions:
    """The options of one call of a method, checked."""

    num_returns: int | Streaming = 1
    max_task_retries: int | None = None
    timeout: float | None = None
    name: str = ""


def task_options(given: Mapping[str, Any], *, base: TaskOptions | None = None) -> TaskOptions:
    return dataclasses.replace(base or TaskOptions(), **_checked(given, TaskOptions, "a function"))


def actor_options(given: Mapping[str, Any], *, base: ActorOptions | None = None) -> ActorOptions:
    return dataclasses.replace(base or ActorOptions(), **_checked(given, ActorOptions, "a class"))


def call_options(given: Mapping[str, Any], *, base: CallOptions | None = None) -> CallOptions:
    return dataclasses.replace(base or CallOptions(), **_checked(given, CallOptions, "a method"))


def _checked(given: Mapping[str, Any], kind: type, of: str) -> dict[str, Any]:
    known = sorted(field.name for field in dataclasses.fields(kind))
    for key in given:
        if key not in known:
            raise TypeError(f"{of} has no option {key!r}. Known: {', '.join(known)}")
    return {key: _CHECKS[key](key, value) for key, value in given.items()}


def repeats_timeouts(options: TaskOptions) -> bool:
    """Whether an attempt that took too long is followed by another."""
    kinds = options.retry_exceptions
    if isinstance(kinds, bool):
        return kinds
    return any(issubclass(TaskTimeout, kind) for kind in kinds)


def parse_bytes(text: int | str) -> int:
    """1_000, "500 MB" or "2GiB" in bytes; ValueError with what to write."""
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kMGT]i?)?B?\s*", str(text))
    if isinstance(text, str) and found:
        unit = found[2] or ""
        power = " kMGT".index(unit[0]) if unit else 0
        return int(float(found[1]) * (1024 if unit.endswith("i") else 1000) ** power)
    raise ValueError(f"{text!r} is no amount of memory. Write bytes, or a text like '2GiB'")


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{key}={value!r} is not a number")
    if not 0 <= value < math.inf:
        raise ValueError(f"{key}={value!r} must be 0 or more")
    return float(value)


def _memory(key: str, value: Any) -> int:
    try:
        return parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _resources(key: str, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{key}={value!r} is not a mapping such as {{'gpu': 1}}")
    for name in value:
        if not isinstance(name, str) or not name:
            raise TypeError(f"{key}: {name!r} is not a name")
        if name in ("CPU", "num_cpus", "memory"):
            raise ValueError(f"{key}: {name!r} has an option of its own")
    return tuple(
        sorted((name, _number(f"{key}[{name!r}]", amount)) for name, amount in value.items())
    )


def _count(key: str, value: Any, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key}={value!r} is not a whole number")
    if value < least:
        raise ValueError(f"{key}={value!r} must be {least} or more")
    return value


def _repeats(key: str, value: Any) -> int:
    return _count(key, value, least=-1)


def _timeout(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if _number(key, value) == 0:
        raise ValueError(f"{key}=0 leaves no time at all. Leave it out for as long as it takes")
    return float(value)


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{key}={value!r} is not a whole number")
    return value


def _num_returns(key: str, value: Any) -> int | Streaming:
    if isinstance(value, str):
        if value not in get_args(Streaming):
            raise ValueError(f"{key}={value!r} is neither a number nor 'streaming'")
        return STREAMING
    return _count(key, value, least=0)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key}={value!r} is not a text")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{key}={value!r} is neither True nor False")
    return value


def _retry_exceptions(key: str, value: Any) -> bool | tuple[type[Exception], ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise TypeError(f"{key}={value!r} is neither True, False nor a list of exception classes")
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise TypeError(f"{key}: {kind!r} is not a class of exceptions")
    return tuple(value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "num_cpus": _number,
    "memory": _memory,
    "resources": _resources,
    "max_retries": _repeats,
    "retry_exceptions": _retry_exceptions,
    "timeout": _timeout,
    "priority": _whole,
    "num_returns": _num_returns,
    "name": _text,
    "get_if_exists": _flag,
    "max_restarts": _repeats,
    "max_task_retries": _repeats,
    "max_concurrency": lambda key, value: _count(key, value, least=1),
}
