"""What runs a task: Docker containers, or plain processes.

A slot knows only this module. `docker` and `process` implement it, each with its helpers:

    docker         containers, on top of docker_engine (the only module that knows the Docker SDK),
                   docker_host (where an engine may be) and image_pulls
    process        child processes, started through process_child
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gridcore.errors import GridCoreError
from gridcore.wire import ImagePull, RuntimeName, TaskConfig
from gridnode.ending import Ended
from gridnode.watched import Watched

LOG_LINES = 20
"""A run's last lines that go into the report of its failure."""


class RuntimeUnavailable(GridCoreError):
    """Nothing can be run now, whatever the task: the engine is away."""


class CannotStart(GridCoreError):
    """This task cannot be started here."""


class ImageUnavailable(GridCoreError):
    """The task's image cannot be had now."""


@dataclass(frozen=True)
class RunOrder:
    """All that is needed to start one run."""

    name: str
    """Unique on this machine, readable by a person."""
    task: str
    slot: int
    core: int | None
    image: str | None
    command: list[str] | None
    environment: dict[str, str] = field(repr=False)
    """Holds the Redis URLs with their passwords."""


class Run(Protocol):
    """One container or process that has been started."""

    async def wait(self) -> Ended: ...

    async def terminate(self) -> None:
        """Asks it to finish (SIGTERM)."""

    async def kill(self) -> None: ...

    async def remove(self) -> None:
        """Leaves nothing of it behind, running or not."""


class Runtime(Protocol):
    name: RuntimeName
    host_alias: str | None
    """What a run calls this machine, where its own loopback is another one."""

    problem: Watched[str | None]
    """Why nothing can be run now; None when all is well."""

    async def run(self) -> None:
        """Watches the engine, until cancelled."""

    async def wait_available(self) -> None: ...

    async def prepare(self, task: TaskConfig, on_progress: Callable[[ImagePull], None]) -> None:
        """Returns when the task can be started here; raises ImageUnavailable or CannotStart."""

    async def start(self, order: RunOrder) -> Run: ...

    async def remove_leftovers(self) -> int:
        """Removes what an earlier agent of this node left running, and says how many."""

    async def aclose(self) -> None: ...
