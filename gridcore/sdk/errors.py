"""What a call can end with besides its result.

GridError (a GridCoreError: what was tried, the likely cause, the next step)
├── TaskError            the function raised; also an instance of the class that it raised
├── TaskCancelled        somebody cancelled the call
├── TaskTimeout          an attempt took longer than its `timeout`
├── GetTimeout           `get` waited long enough (a TimeoutError); the call goes on
├── WorkerDied           the process that ran the call is gone
│   └── OutOfMemory      it was killed for the memory that it took
├── ActorDied            the actor is gone for good
├── ActorUnavailable     the actor is being restarted; this call may have run
├── ObjectLost           the value behind a reference is gone
├── PayloadTooLarge      an argument or result is larger than may be sent
├── NotPicklable         an argument or result cannot be sent to another process (a TypeError)
├── Unschedulable        no machine has what the call asks for
├── VersionMismatch      the worker has another Python, or other packages, than this program
└── NotConnected         there is no engine, or it was shut down
"""

from __future__ import annotations

import builtins
import traceback
from typing import Any, Self

from gridcore.errors import GridCoreError


class GridError(GridCoreError):
    """Every error of a call, of its arguments or of its result."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


class TaskCancelled(GridError):
    """Somebody cancelled the call."""

    @classmethod
    def of(cls, name: str) -> Self:
        return cls(
            f"The result of {name}",
            cause="the call was cancelled",
            next_step="Call it again if its result is needed after all",
        )


class TaskTimeout(GridError):
    """An attempt took longer than the call's `timeout` and was ended."""

    @classmethod
    def of(cls, name: str, seconds: float) -> TaskTimeout:
        return cls(
            f"Running {name}",
            cause=f"it took longer than its timeout of {seconds:g} s",
            next_step="Give it more time, or less to do",
        )


class GetTimeout(GridError, TimeoutError):
    """The wait was over before the call was. The call goes on."""


class WorkerDied(GridError):
    """The process that ran the call is gone, and the call may not be repeated once more."""


class OutOfMemory(WorkerDied):
    """The process that ran the call was killed for the memory that it took."""


class ActorDied(GridError):
    """The actor is gone for good; what it had not answered will not be."""


class ActorUnavailable(GridError):
    """The actor's process died during this call; the actor itself is started again."""


class ObjectLost(GridError):
    """The value behind a reference is gone."""


class PayloadTooLarge(GridError):
    """An argument or a result is larger than may be sent."""


class NotPicklable(GridError, TypeError):
    """An argument or a result cannot be turned into bytes, or not back."""


class Unschedulable(GridError):
    """Nothing here will ever have what the call asks for."""


class VersionMismatch(GridError):
    """What this program sends cannot be used by the Python, or the packages, of a worker."""


class NotConnected(GridError):
    """There is no engine, or it was shut down."""


class TaskError(GridError):
    """The function raised.

    `get` raises an instance of a class derived from both this one and that of the exception, with
    its message, arguments and attributes, so `except ValueError` works as it does without a grid.
    """

    cause: BaseException | None  # type: ignore[assignment]
    """The exception as it was raised; None if it could not be sent."""
    remote_traceback: str
    """Where it was raised, as Python prints it."""

    def __str__(self) -> str:
        # Of a SystemExit its text is a number, of a KeyboardInterrupt there is none.
        return str(self.cause) if isinstance(self.cause, Exception) else str(self.tried)

    def __repr__(self) -> str:
        if isinstance(self.cause, Exception):
            return repr(self.cause)
        return f"{type(self).__name__}({str(self)!r})"

    @staticmethod
    def of(cause: BaseException | None, *, remote_traceback: str, summary: str) -> TaskError:
        """`summary`: its class and message, for an exception that did not survive the journey."""
        if isinstance(cause, TaskError):
            # A call inside the call failed: what counts is what was raised at the bottom.
            remote_traceback = f"{cause.remote_traceback.rstrip()}\n\n{remote_traceback}"
            cause = cause.cause
        error = _twin(cause)
        error.tried = summary
        error.cause = cause
        error.next_step = ""
        error.remote_traceback = remote_traceback
        error.add_note(f"Raised in another process:\n{remote_traceback.rstrip()}")
        return error

    def __reduce__(self) -> tuple[Any, ...]:
        return _task_error, (self.cause, self.remote_traceback, self.tried)

    def in_parts(self) -> InParts | None:
        """For a cause that cannot be made from its `args`, as pickle does it: its class takes other
        arguments than it passes on."""
        if not isinstance(self.cause, Exception):
            return None
        return InParts(self, self.cause)


class InParts:
    """A TaskError that is put together without the class of its cause being called."""

    def __init__(self, error: TaskError, cause: Exception) -> None:
        state = dict(vars(cause))
        self._parts = (
            type(cause), cause.args, state, error.remote_traceback, error.tried,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_parts, self._parts


_twins: dict[type[BaseException], type[TaskError]] = {}


def _twin(cause: BaseException | None) -> TaskError:
    """An empty TaskError that is also what `cause` is, if classes allow it."""
    # SystemExit and its like end programs: a call that raised one has failed, no more.
    if not isinstance(cause, Exception):
        return TaskError.__new__(TaskError)
    kind = type(cause)
    try:
        if kind not in _twins:
            _twins[kind] = _derive(kind)
        # Fields that C code keeps, such as an OSError's errno, are set by the builtin class.
        builtin = next(base for base in kind.__mro__ if base.__module__ == builtins.__name__)
        # An OSError keeps a file's name out of its args.
        made_with = builtin.__reduce__(cause)[1]  # type: ignore[call-arg]
        error: TaskError = builtin.__new__(_twins[kind], *made_with)
        builtin.__init__(error, *made_with)  # type: ignore[misc]
        error.args = cause.args
        error.__dict__.update(cause.__dict__)
        error.__dict__["__notes__"] = list(getattr(cause, "__notes__", ()))
    except Exception:  # noqa: BLE001 - a stranger's class may refuse in any way
        return TaskError.__new__(TaskError)
    return error


def _derive(kind: type[Exception]) -> type[TaskError]:
    bases = (TaskError,) if issubclass(TaskError, kind) else (TaskError, kind)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, bases, names)


def _rebuild(kind: type[GridError], args: tuple[Any, ...], state: dict[str, Any]) -> GridError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


def _task_error(cause: BaseException | None, remote_traceback: str, summary: str) -> TaskError:
    return TaskError.of(cause, remote_traceback=remote_traceback, summary=summary)


def _from_parts(
    kind: type[Exception], args: Any, state: dict[str, Any], remote_traceback: str, summary: str
) -> TaskError:
    cause = kind.__new__(kind, *args)
    cause.args = args
    cause.__dict__.update(state)
    return _task_error(cause, remote_traceback, summary)


def describe(error: BaseException) -> str:
    """Class and message on one line, whatever the class does when it is asked."""
    try:
        return "".join(traceback.format_exception_only(error)).strip()
    except Exception:  # noqa: BLE001 - a stranger's __str__
        return type(error).__name__
