"""What runs a task: Docker containers, or plain processes.

A slot knows only this module. `docker` and `process` implement it, each with its helpers:

    docker         containers, on top of docker_engine (the only module that knows the Docker SDK),
                   docker_host (where an engine may be), image_pulls and slot_networks
    slot_networks  where each slot's gateway listens, and how its containers get there: isolation
                   (which ways the facts allow), namespaces (the best of them) and holder_image
    process        child processes, started through process_child
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gridcore.errors import GridCoreError
from gridcore.wire import ImagePull, Isolation, NetworkName, RuntimeName, TaskConfig
from gridnode.ending import Ended
from gridnode.watched import Watched

LOG_LINES = 50
"""A run's last lines that go into the report of its failure."""


class RuntimeUnavailable(GridCoreError):
    """Nothing can be run now, whatever the task: the engine is away."""


class CannotStart(GridCoreError):
    """This task cannot be started here."""


class ImageUnavailable(GridCoreError):
    """The task's image cannot be had now."""


@dataclass(frozen=True)
class Listening:
    """Where a slot's gateway listens."""

    socket: socket.socket
    """Listening, not blocking; only runs of that slot should be able to reach it. It is the
    runtime's, which closes it when the place is given up: accept on a duplicate."""
    host: str
    """As a run of that slot calls it."""
    port: int
    isolation: Isolation
    network: str = ""
    """What the runtime needs to put a run there; nobody else's affair."""


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
    listening: Listening | None = None
    """Where the run finds its gateway; None if it is to have the engine's usual network."""


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

    async def listen(self, slot: int, network: NetworkName) -> Listening:
        """A place for that slot's gateway: the same as long as it holds, else a new one."""

    async def stop_listening(self, slot: int) -> None:
        """Closes that place; nothing of it is left."""

    async def start(self, order: RunOrder) -> Run: ...

    async def remove_leftovers(self) -> int:
        """Removes what an earlier agent of this node left running, and says how many."""

    async def aclose(self) -> None: ...
