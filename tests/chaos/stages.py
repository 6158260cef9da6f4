"""Where consumers run: as processes, or in containers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import docker
import psutil
from docker.errors import APIError

from tests.support.docker_engine import DockerEngine
from tests.support.programs import NodeProgram

CONSUMER = Path(__file__).with_name("consumer.py")
IN_IMAGE = "/app/consumer.py"


@dataclass(frozen=True)
class Consumer:
    name: str
    kill: Callable[[], bool]
    """With SIGKILL; False if it has ended before."""


class Stage(Protocol):
    def node_settings(self) -> dict[str, Any]:
        """For NodeProgram."""

    def task(self, marks: Path, *arguments: str) -> dict[str, Any]:
        """What runs the consumer with these arguments, as fields of a task."""

    def consumers(self, node: NodeProgram) -> list[Consumer]:
        """That run there now."""


class Processes:
    def node_settings(self) -> dict[str, Any]:
        return {"runtime": "process"}

    def task(self, marks: Path, *arguments: str) -> dict[str, Any]:
        return {"command": [sys.executable, str(CONSUMER), str(marks), *arguments]}

    def consumers(self, node: NodeProgram) -> list[Consumer]:
        try:
            children = psutil.Process(node.process.pid).children()
            found = [child for child in children if str(CONSUMER) in child.cmdline()]
        except psutil.Error:
            return []
        found.sort(key=lambda process: process.pid)
        return [Consumer(f"pid {process.pid}", _killer(process)) for process in found]


def _killer(process: psutil.Process) -> Callable[[], bool]:
    def kill() -> bool:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return False
        return True

    return kill


class Containers:
    """Of an image that has `CONSUMER` at `IN_IMAGE`."""

    def __init__(self, engine: DockerEngine, client: docker.APIClient, image: str) -> None:
        self._engine = engine
        self._client = client
        self._image = image

    def node_settings(self) -> dict[str, Any]:
        return {"environment": {"DOCKER_HOST": self._engine.host}}

    def task(self, marks: Path, *arguments: str) -> dict[str, Any]:  # noqa: ARG002
        # Each has a folder of its own, and no memory: what crashes once crashes each time.
        return {"image": self._image, "command": ["python", IN_IMAGE, "/tmp", *arguments]}

    def consumers(self, node: NodeProgram) -> list[Consumer]:
        labels = [f"io.gridcore.node={node.saved_id()}", "io.gridcore.task"]
        found = self._client.containers(filters={"label": labels})
        return [
            Consumer(f"container {container['Id'][:12]}", self._killer(container["Id"]))
            for container in found
        ]

    def _killer(self, container: str) -> Callable[[], bool]:
        def kill() -> bool:
            try:
                self._client.kill(container, "SIGKILL")
            except APIError:
                return False
            return True

        return kill
