"""What there is, and where code runs, as engines say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


def id_of(job: str, number: int) -> str:
    """Of a reference, and so of a call."""
    return f"{job}-{number:x}"


def parsed_id(text: str) -> tuple[str, int]:
    """The job and the number; raises ValueError."""
    job, separator, number = text.rpartition("-")
    try:
        if not (job and separator):
            raise ValueError
        return job, int(number, 16)
    except ValueError:
        raise ValueError(f"{text!r} is no id of a reference: take the one in `ref.id`") from None


def worker_id_of(job: str, number: int) -> str:
    return f"{job}-w{number:x}"


class Node(TypedDict):
    """A machine that runs calls."""

    id: str
    hostname: str
    architecture: str
    """As the machine calls it, such as "x86_64"."""
    cpus: float
    memory: int
    """Bytes that calls may ask for."""
    resources: dict[str, float]
    alive: bool


@dataclass(frozen=True, slots=True)
class RuntimeContext:
    """Where this code runs: in which job, on which node, in which call."""

    job_id: str
    node_id: str
    worker_id: str
    """Of the process; a program that makes calls has one as well."""
    task_id: str | None = None
    """Of the call; None outside of calls."""
    task_name: str | None = None
    actor_id: str | None = None
    attempt_number: int = 0
    """0, and one more each time that the call is repeated."""
    was_current_actor_restarted: bool = False

    def get_job_id(self) -> str:
        return self.job_id

    def get_node_id(self) -> str:
        return self.node_id

    def get_worker_id(self) -> str:
        return self.worker_id

    def get_task_id(self) -> str | None:
        return self.task_id

    def get_task_name(self) -> str | None:
        return self.task_name

    def get_actor_id(self) -> str | None:
        return self.actor_id
