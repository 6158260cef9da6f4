"""Is the running task done? (no I/O)"""

from __future__ import annotations

from collections.abc import Iterable

from computehub.task_list import Current
from gridcore.wire import NodeView, QueueLengths


def has_work(current: Current, lengths: QueueLengths, nodes: Iterable[NodeView]) -> bool:
    return bool(lengths.input) or _in_flight(current, nodes) > 0


def is_drained(current: Current, lengths: QueueLengths, nodes: Iterable[NodeView]) -> bool:
    """True when there was work, the queue is empty, and no online node has a container running.

    A node reports a container before it starts it, so an item that has left the queue is either
    in flight here or done. What a lost node still does is not waited for.
    """
    return current.has_had_work and lengths.input == 0 and _in_flight(current, nodes) == 0


def _in_flight(current: Current, nodes: Iterable[NodeView]) -> int:
    name = current.task.name if current.task else None
    # An agent that does not say what it works on can only be working on what runs.
    return sum(
        node.active_containers
        for node in nodes
        if node.status == "Online" and node.task in (name, None)
    )
