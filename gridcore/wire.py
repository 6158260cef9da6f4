"""The messages between hub, nodes and people's scripts.

The fields that older agents, hubs and scripts know keep their names, types and meaning; every other
field has a default, so that either end may be older than the other. What a person writes
(`TaskSpec`) refuses unknown fields, what a program sends ignores them.
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

from gridcore.lease_queue.times import LEASE_S
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
FailureReason = Literal["exit", "out_of_memory", "start", "image", "fruitless", "item_timeout"]
DeliveryName = Literal["leased", "direct"]
AckMode = Literal["next", "explicit", "exit"]
NetworkName = Literal["none", "bridge"]
Isolation = Literal["namespace", "internal_bridge", "none"]
"""namespace: a run has loopback and the gateway's socket on it. internal_bridge: it shares a bridge
without a way out with nobody, but reaches services of the host. none: it has the usual network."""

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
KeyPattern = Annotated[
    str, StringConstraints(min_length=1, max_length=500), AfterValidator(_check_no_nul)
]
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
    delivery: DeliveryName = "leased"
    """leased: containers get their items through the node's gateway, each exactly once. direct:
    they get the task's own Redis URLs."""
    ack: AckMode = "next"
    """When an item is done. next: at the run's next pop, or its exit with code 0. explicit: at the
    LREM from the list of its own to which the program moved it. exit: at exit with code 0."""
    item_timeout: Annotated[float, Field(gt=0, le=30 * 86_400)] | None = None
    """Seconds after which a run that still holds an item is killed; the item has failed once."""
    max_attempts: Annotated[int, Field(ge=1, le=1_000)] = 3
    """Runs of an item that may fail before it becomes a dead letter."""
    alone_after_failure: bool = True
    """An item that has failed comes alone, to a run with nothing else in hand. Without that a run
    that always has something in hand goes on getting items, but one that fails again takes with it
    what the run has besides."""
    keys: Annotated[list[KeyPattern], Field(max_length=100)] = Field(default_factory=list)
    """Further keys of the input Redis that its containers may use, as patterns with `*` and `?`."""
    constants: Annotated[list[KeyPattern], Field(max_length=100)] = Field(default_factory=list)
    """Likewise, and their values never change once they are there: GET and HGET read each once for
    all runs of a node. A write does not change what was read."""
    network: NetworkName = "none"
    """none: a container reaches the gateway and nothing else. bridge: Docker's usual network."""

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
        self._check_delivery()
        return self

    def _check_delivery(self) -> None:
        if self.delivery == "leased":
            return
        for option in (
            "ack",
            "item_timeout",
            "max_attempts",
            "alone_after_failure",
            "keys",
            "constants",
            "network",
        ):
            if getattr(self, option) != type(self).model_fields[option].get_default(
                call_default_factory=True
            ):
                raise ValueError(
                    f"{option!r} is the gateway's affair, and delivery = 'direct' goes past it:"
                    f" leave {option!r} out, or take delivery = 'leased'"
                )

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
    delivery: DeliveryName = "direct"
    """A hub that does not say knows nothing of leases, and would not reap those of a lost node."""
    ack: AckMode = "next"
    item_timeout: float | None = None
    max_attempts: int = 3
    alone_after_failure: bool = True
    keys: list[KeyPattern] = Field(default_factory=list)
    constants: list[KeyPattern] = Field(default_factory=list)
    network: NetworkName = "none"
    lease_s: float = LEASE_S
    """Seconds without a renewal after which the hub takes a node's leases back."""
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
    taken: int = 0
    """Items of the task at hand that its runs got; those below are of the same task."""
    committed: int = 0
    aborted: int = 0
    seconds_per_item: float | None = None
    """By the latest items; None before the first."""


class WorkReport(Message):
    """What a node's gateway has done for the task at hand."""

    taken: int = 0
    committed: int = 0
    aborted: int = 0
    items_per_s: float = 0.0
    """Committed, over the last seconds."""
    seconds_per_item: float | None = None
    """How long a slot takes for one; None before the first."""


class RegisterRequest(Message):
    node_id: Name | None = None
    hostname: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    architecture: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    cpu_count: Annotated[int, Field(ge=1, le=100_000)]
    runtime: RuntimeName = "docker"
    parallelism: Annotated[int, Field(ge=1, le=100_000)] | None = None
    container_memory: Annotated[int, Field(ge=1)] | None = None
    """Megabytes that each run may take; None from an agent that does not say."""
    version: Annotated[str, StringConstraints(max_length=100)] = ""
    heartbeat_interval: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """What the node would like; the hub's answer holds."""
    agent: Word = ""
    """Made anew at every start: two machines with one node id (a copied disk) are told apart by
    it. Empty from an agent that knows nothing of it."""


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
    agent: Word = ""
    """As in its registration."""
    isolation: Isolation | None = None
    """What keeps its runs from the network; None before the first."""
    work: WorkReport | None = None
    """None with direct delivery, of which a node sees nothing."""


class HeartbeatReply(Message):
    stop_requested: bool = False
    heartbeat_interval: float | None = None
    server_time: float | None = None
    superseded: bool = False
    """Another agent has registered with this node id since: this one is to join under a new id."""


class GoodbyeRequest(Message):
    node_id: Name
    agent: Word = ""
    """As in its registration; the goodbye of a superseded one changes nothing."""


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
    retrying: int | None = None
    """Items that came back, and wait to be tried again. This and the next two are for leased
    delivery."""
    leased: int | None = None
    """Items that nodes have now."""
    dead: int | None = None
    """Dead letters."""
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
    ack: str
    item_timeout: float | None
    max_attempts: int
    alone_after_failure: bool = True
    keys: list[str]
    constants: list[str] = Field(default_factory=list)
    network: str
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


class TaskQueues(Message):
    """Where a task's items and results are, for a program that pushes and takes them itself."""

    input_redis: RedisURL
    """With its password, and by a host that the caller can reach."""
    output_redis: RedisURL
    input_queue: QueueName
    output_queue: QueueName


class DeadLetterReport(Message):
    """What a node writes of the last failure of an item."""

    reason: str | None = None
    message: str = ""
    exit_code: int | None = None
    out_of_memory: bool = False
    log_lines: list[str] = Field(default_factory=list)
    slot: int | None = None
    task: str | None = None


class DeadLetterView(DeadLetterReport):
    id: str
    node: str
    """Where its last run failed."""
    attempts: int
    """Runs that have failed."""
    at: datetime
    payload_bytes: int
    payload: str | None
    """Its beginning as text; None if it is not UTF-8."""
    payload_base64: str | None
    """The whole item; None in a list if it is large, never in an export."""


class DeadLetterList(Message):
    total: int
    reasons: dict[str, int]
    """How many of those shown have which reason."""
    dead_letters: list[DeadLetterView]
    """The newest first."""


class DeadLetterChoice(BaseModel):
    """Which dead letters are meant."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [{"reason": "exit"}, {"all": True}]},
    )

    ids: Annotated[list[Word], Field(max_length=10_000)] | None = None
    reason: Annotated[Word, Field(min_length=1)] | None = None
    all: bool = False

    @model_validator(mode="after")
    def _is_one_choice(self) -> DeadLetterChoice:
        if [self.ids is not None, self.reason is not None, self.all].count(True) != 1:
            raise ValueError(
                'say which dead letters are meant, in one way: {"ids": ["..."]}, {"reason": "..."}'
                ' or {"all": true}'
            )
        return self


class DeadLetterCount(Message):
    count: int


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
    container_memory: int | None = None
    version: str
    task: str | None
    task_version: str
    """Of the task list that it acts on."""
    error: str | None
    image_pull: ImagePull | None
    slots: list[SlotReport]
    isolation: Isolation | None
    work: WorkReport | None
    stop_requested: bool


class Problem(Message):
    """The body of every refusal."""

    detail: str
    """A sentence that says what to do."""
    code: str
