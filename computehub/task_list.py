"""The line of tasks: one runs, the others wait for their turn or are done.

Whatever is pending waits behind a running task; when that ends the next one starts, in one step.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import ValidationError

from computehub import keys
from computehub.redis_store import RedisStore
from gridcore.errors import GridCoreError
from gridcore.logs import EventLog
from gridcore.wire import StoredTask, TaskList, TaskSpec

log = EventLog("computehub")


class UnknownTask(GridCoreError):
    """No task has that name."""


class TaskConflict(GridCoreError):
    """The task is in a state that forbids the call."""


class NothingToDo(GridCoreError):
    """There is no task to finish, or none to go to."""


@dataclass(frozen=True)
class Current:
    """What the fleet works on, as of one moment."""

    version: str = ""
    task: TaskSpec | None = None
    has_had_work: bool = False
    stops: frozenset[str] = frozenset()
    """Nodes that are asked to stop."""


@dataclass(frozen=True)
class Move:
    left: str | None
    started: str | None


@dataclass(frozen=True)
class TaskRecord:
    spec: TaskSpec
    submitted_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None


def _new_version() -> str:
    # Random, not counted: a Redis that lost its last second would count to the same number again,
    # and a node that saw the lost one would take the new task for it.
    return secrets.token_hex(8)


class Tasks:
    """The task list in Redis."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store

    async def submit(self, spec: TaskSpec) -> int:
        """Its place: 0 if it runs now, else how many are ahead of it."""
        reply = await self._store.run(
            "submit_task",
            [keys.TASKS, keys.TIMES, keys.PENDING, keys.CURRENT, keys.COMPLETED, keys.VERSION],
            [spec.name, spec.model_dump_json(), _new_version(), keys.CHANGED],
        )
        if reply == "live":
            raise TaskConflict(
                f"submitting task {spec.name!r}",
                cause="a task of that name runs or waits already",
                next_step="Choose another name, or finish or delete that one first",
            )
        return int(reply)

    async def go_to_next(self) -> Move:
        reply = await self._advance(only_to_next=True)
        if reply[0] == "none_pending":
            raise NothingToDo(
                "going to the next task",
                cause="no task is waiting",
                next_step="Submit one with POST /api/tasks, or end the running one with"
                " POST /api/tasks/finish",
            )
        return Move(reply[1] or None, reply[2] or None)

    async def finish(self) -> Move:
        reply = await self._advance()
        if reply[0] == "none_running":
            raise NothingToDo(
                "finishing the running task",
                cause="no task runs",
                next_step="Submit one with POST /api/tasks: it starts at once",
            )
        return Move(reply[1] or None, reply[2] or None)

    async def finish_if_still(self, version: str) -> Move | None:
        """Finishes the running task unless the fleet has moved on since `version`."""
        reply = await self._advance(version=version)
        return Move(reply[1] or None, reply[2] or None) if reply[0] == "moved" else None

    async def delete(self, name: str, *, even_if_running: bool) -> None:
        reply = await self._delete(name)
        if reply == "running" and even_if_running:
            current = await self.current()
            if current.task and current.task.name == name:
                await self.finish_if_still(current.version)
            reply = await self._delete(name)
        if reply == "unknown":
            raise _unknown(name)
        if reply == "running":
            raise TaskConflict(
                f"deleting task {name!r}",
                cause="it is running",
                next_step="Finish it first (POST /api/tasks/finish), or add ?force=true",
            )

    async def current(self) -> Current:
        version, task, worked, stops = await self._store.run(
            "read_current", [keys.TASKS, keys.TIMES, keys.CURRENT, keys.VERSION, keys.STOPS]
        )
        return Current(
            version=version,
            task=_read_back(task) if task else None,
            has_had_work=bool(worked),
            stops=frozenset(stops),
        )

    async def note_work(self, version: str) -> None:
        """The running task has, or had, something to do."""
        await self._store.run("note_work", [keys.TIMES, keys.CURRENT, keys.VERSION], [version])

    async def overview(self) -> TaskList:
        current, pending, completed, version = await self._store.run(
            "read_tasks", [keys.PENDING, keys.CURRENT, keys.COMPLETED, keys.VERSION]
        )
        return TaskList(
            current=current or None, pending=pending, completed=completed, version=version
        )

    async def get(self, name: str) -> TaskRecord:
        task, submitted, started, completed = await self._store.read(
            ("HGET", keys.TASKS, name),
            ("HGET", keys.TIMES, f"submitted:{name}"),
            ("HGET", keys.TIMES, f"started:{name}"),
            ("HGET", keys.TIMES, f"completed:{name}"),
        )
        spec = _read_back(task) if task else None
        if spec is None:
            raise _unknown(name)
        return TaskRecord(
            spec=spec,
            submitted_at=moment(submitted),
            started_at=moment(started),
            completed_at=moment(completed),
        )

    async def age_s(self, name: str) -> float:
        """Since it was submitted."""
        (seconds, micros), submitted = await self._store.read(
            ("TIME",), ("HGET", keys.TIMES, f"submitted:{name}")
        )
        return float(seconds + micros / 1e6) - float(submitted or 0) / 1000

    async def all(self) -> list[TaskSpec]:
        """In no order; those that this version of the hub cannot understand are left out."""
        (stored,) = await self._store.read(("HVALS", keys.TASKS))
        found: list[TaskSpec] = []
        for task in stored:
            with suppress(ValidationError):
                found.append(StoredTask.model_validate_json(task))
        return found

    async def _advance(self, *, version: str = "", only_to_next: bool = False) -> list[str]:
        reply: list[str] = await self._store.run(
            "advance",
            [keys.TIMES, keys.PENDING, keys.CURRENT, keys.COMPLETED, keys.VERSION],
            [_new_version(), keys.CHANGED, version, "1" if only_to_next else ""],
        )
        return reply

    async def _delete(self, name: str) -> str:
        reply: str = await self._store.run(
            "delete_task",
            [keys.TASKS, keys.TIMES, keys.PENDING, keys.CURRENT, keys.COMPLETED],
            [name],
        )
        return reply


def _read_back(stored: str) -> TaskSpec | None:
    """None for a task that this version of the hub cannot understand: it is no task here."""
    try:
        return StoredTask.model_validate_json(stored)
    except ValidationError as error:
        log.error("task_unreadable", stored=stored[:200], reason=error.errors()[0]["msg"])
        return None


def moment(milliseconds: str | float | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


def _unknown(name: str) -> UnknownTask:
    return UnknownTask(
        f"looking for task {name!r}",
        cause="there is none of that name",
        next_step="GET /api/tasks lists them",
    )
