"""The messages between hub, nodes and people's scripts.

The fields of DESIGN's wire table keep their names, types and meaning; every other field has a
default, so that either end may be older than the other. What a person writes (`TaskSpec`) refuses
unknown fields, what a program sends ignores them.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from gridcore.platforms import PLATFORMS, canonical_platform
from gridcore.redis_urls import check_redis_url

MAX_LOG_LINE = 4_000
"""Characters of a container's log line that travel to the hub."""

MAX_LOG_LINES = 100

VERSION_HEADER = "GridCore-Task-Version"
"""Says with each answer of GET /gridnode/task which version of the task list it speaks of."""

STOP_HEADER = "GridCore-Stop-Requested"
"""Set to "true" on a long poll's answer when the waiting node is asked to stop."""

RuntimeName = Literal["docker", "process"]
NodeStatus = Literal["Running", "Idle", "Error"]
SlotState = Literal["idle", "starting", "running", "stopping", "backing_off"]
FailureReason = Literal["exit", "out_of_memory", "start", "image", "fruitless"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")


def _check_name(name: str) -> str:
    # Names become part of container names, so Docker's rule for those is ours.
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} cannot be part of a container's name: use 1 to 63 letters, digits,"
            " '_', '.' or '-', the first a letter or digit"
        )
    return name


# Docker's own grammar: what it refuses, no node can pull.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/|\[[0-9a-fA-F:]+\](?::[0-9]+)?/)?"
    rf"{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::\w[\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


def _check_image(image: str) -> str:
    if not _IMAGE.fullmatch(image):
        raise ValueError(
            f"{image[:80]!r} is no image reference: write it as registry/name:tag, the name in"
            " lower case"
        )
    return image


def _check_no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL, which no program can be given")
    return text


# Every string has a limit: one node must not fill the hub's Redis. (A limit also makes pydantic
# refuse lone surrogates, which could not be stored.)
Word = Annotated[str, StringConstraints(max_length=500)]
Text = Annotated[str, StringConstraints(max_length=MAX_LOG_LINE)]
Argument = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_check_no_nul)]
Name = Annotated[str, AfterValidator(_check_name)]
Image = Annotated[str, StringConstraints(max_length=500), AfterValidator(_check_image)]
Platform = Annotated[str, AfterValidator(canonical_platform)]
RedisURL = Annotated[str, StringConstraints(max_length=2_000), AfterValidator(check_redis_url)]
QueueName = Annotated[
    str, StringConstraints(min_length=1, max_length=500), AfterValidator(_check_no_nul)
]


class Message(BaseModel):
    """What one program sends another: unknown fields are a newer program's, and ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class TaskSpec(BaseModel):
    """A task as its owner describes it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {"name": "primes", "image": "registry.example/primes:1"},
                {
                    "name": "both",
                    "images": {
                        "linux/amd64": "registry.example/both:amd64",
                        "linux/arm64": "registry.example/both:arm64",
                    },
                    "auto_advance": True,
                },
            ]
        },
    )

    name: Name
    image: Image | None = None
    """For every platform that `images` does not name."""
    images: dict[Platform, Image] = Field(default_factory=dict)
    """By platform: linux/amd64, linux/arm64, linux/arm/v7."""
    command: Annotated[list[Argument], Field(min_length=1, max_length=1_000)] | None = None
    """Replaces the image's own command; without any image it is for process nodes only."""
    input_redis: RedisURL | None = None
    """Default: the hub's own Redis."""
    output_redis: RedisURL | None = None
    """Default: `input_redis`."""
    input_queue: QueueName | None = None
    """Default: `<name>:input`."""
    output_queue: QueueName | None = None
    """Default: `<name>:output`."""
    auto_advance: bool = False
    """Move the fleet on when the input queue is drained and nothing is in flight."""
    delivery: Literal["direct"] = "direct"
    """Containers get the task's own Redis URLs."""

    @model_validator(mode="after")
    def _makes_sense(self) -> TaskSpec:
        if not self.image and not self.images and not self.command:
            raise ValueError(
                f"task {self.name!r} has nothing to run: give it 'image', 'images' (one for each of"
                f" {', '.join(PLATFORMS)}) or, for nodes with runtime = \"process\", 'command'"
            )
        same_redis = self.output_redis in (None, self.input_redis)
        if same_redis and self.queues[0] == self.queues[1]:
            raise ValueError(
                f"input and output queue are both {self.queues[0]!r}, so results would be taken as"
                " items: choose another 'output_queue'"
            )
        return self

    @property
    def queues(self) -> tuple[str, str]:
        return self.input_queue or f"{self.name}:input", self.output_queue or f"{self.name}:output"

    def image_for(self, platform: str | None) -> str | None:
        return (self.images.get(platform) if platform else None) or self.image


class StoredTask(TaskSpec):
    """A task as it is read back: another version of the hub may have stored it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class TaskConfig(Message):
    """What a node needs to work on a task."""

    task_name: Name
    image: str | None = None
    """None only for a node whose runtime is "process"."""
    redis_url: None = None
    """Kept for agents that look for it; `input_redis` and `output_redis` say where to connect."""
    input_redis: RedisURL
    output_redis: RedisURL
    input_queue: QueueName
    output_queue: QueueName
    command: list[Argument] | None = None
    delivery: Literal["direct"] = "direct"
    version: str = ""
    """Changes with every change of the task list and is never used again; empty from a hub that
    knows nothing of it."""


class Failure(Message):
    """One run of a container that ended badly, or an image that could not be had."""

    id: Word
    """Made by the node, so that a report that is sent twice is kept once."""
    task: Word
    reason: FailureReason
    message: Text
    slot: int | None = None
    exit_code: int | None = None
    at: datetime
    log_lines: list[Text] = Field(default_factory=list, max_length=MAX_LOG_LINES)


class ImagePull(Message):
    image: Word
    downloaded_bytes: int
    total_bytes: int
    """Grows while the registry is still naming layers."""


class SlotReport(Message):
    slot: int
    core: int | None = None
    """None where the node cannot pin."""
    state: SlotState
    starts: int = 0
    failures: int = 0


class RegisterRequest(Message):
    node_id: Name | None = None
    hostname: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    architecture: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    cpu_count: Annotated[int, Field(ge=1, le=100_000)]
    runtime: RuntimeName = "docker"
    parallelism: Annotated[int, Field(ge=1, le=100_000)] | None = None
    version: Annotated[str, StringConstraints(max_length=100)] = ""
    heartbeat_interval: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """What the node would like; the hub's answer holds."""


class RegisterReply(Message):
    node_id: str
    current_task: TaskConfig | None = None
    heartbeat_interval: float | None = None
    """What holds; without it, what the node asked for."""
    server_time: float | None = None
    """Seconds since 1970 by the hub's Redis."""


class HeartbeatRequest(Message):
    node_id: Name
    status: NodeStatus
    active_containers: Annotated[int, Field(ge=0, le=100_000)] = 0
    task: Word | None = None
    version: Word = ""
    """Of the task list that the node acts on."""
    error: Text | None = None
    """Why the status is "Error", or what the node is waiting for."""
    image_pull: ImagePull | None = None
    slots: Annotated[list[SlotReport], Field(max_length=4_096)] = Field(default_factory=list)
    failures: Annotated[list[Failure], Field(max_length=100)] = Field(default_factory=list)
    """New since the last heartbeat that was answered."""
    heartbeat_interval: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """What the node would like, as in its registration."""


class HeartbeatReply(Message):
    stop_requested: bool = False
    heartbeat_interval: float | None = None
    server_time: float | None = None


class GoodbyeRequest(Message):
    node_id: Name


class TaskList(Message):
    current: str | None
    pending: list[str]
    completed: list[str]
    version: str = ""


class Moved(Message):
    previous: str | None
    current: str | None


class Finished(Message):
    completed: str
    started: str | None
    message: str


class QueueLengths(Message):
    input: int | None = None
    output: int | None = None
    error: str | None = None
    """Why a length is missing."""


class TaskDetails(Message):
    name: str
    state: Literal["running", "pending", "completed"]
    image: str | None
    images: dict[str, str]
    command: list[str] | None
    input_redis: str
    output_redis: str
    input_queue: str
    output_queue: str
    auto_advance: bool
    delivery: str
    submitted_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    queues: QueueLengths
    nodes: int
    """Online nodes that work on it."""
    active_containers: int
    failures: list[Failure]
    """The newest first."""
    waiting_for: str | None
    """Why no node can work on it, while it runs."""


class Submitted(Message):
    name: str
    state: Literal["running", "pending"]
    position: int
    """0 when it runs, else its place in the line."""
    input_queue: str
    output_queue: str
    waiting_for: str | None
    """Why no node can work on it now, if it runs."""


class NodeView(Message):
    id: str
    hostname: str
    architecture: str
    cpu_count: int
    last_seen: datetime
    status: Literal["Online", "Lost"]
    runtime_status: NodeStatus | None
    active_containers: int
    platform: str | None
    runtime: RuntimeName
    parallelism: int
    version: str
    task: str | None
    error: str | None
    image_pull: ImagePull | None
    slots: list[SlotReport]
    stop_requested: bool


class Problem(Message):
    """The body of every refusal."""

    detail: str
    """A sentence that says what to do."""
    code: str
