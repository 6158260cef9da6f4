"""Which image a node gets, and by which address it finds Redis."""

from __future__ import annotations

from dataclasses import dataclass

from gridcore.redis_urls import readdress_loopback
from gridcore.wire import RuntimeName, TaskConfig, TaskSpec


@dataclass(frozen=True)
class Place:
    """What decides whether, and how, a node can work on a task."""

    platform: str | None
    runtime: RuntimeName
    hub_host: str
    """The name by which the node reached the hub."""


def assign(
    task: TaskSpec | None, version: str, place: Place, hub_redis_url: str, *, lease_s: float
) -> TaskConfig | None:
    """The task as that node gets it, or None if it is not for such a node."""
    if task is None:
        return None
    image = task.image_for(place.platform)
    needed = image if place.runtime == "docker" else task.command
    if not needed:
        return None
    input_redis = task.input_redis or hub_redis_url
    input_queue, output_queue = task.queues
    return TaskConfig(
        task_name=task.name,
        image=image,
        input_redis=readdress_loopback(input_redis, place.hub_host),
        output_redis=readdress_loopback(task.output_redis or input_redis, place.hub_host),
        input_queue=input_queue,
        output_queue=output_queue,
        command=task.command,
        delivery=task.delivery,
        ack=task.ack,
        item_timeout=task.item_timeout,
        max_attempts=task.max_attempts,
        alone_after_failure=task.alone_after_failure,
        keys=task.keys,
        constants=task.constants,
        network=task.network,
        lease_s=lease_s,
        version=version,
    )
