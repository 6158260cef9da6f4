"""Why no node works on the running task, where that can be told (no I/O)."""

from __future__ import annotations

from collections.abc import Sequence

from gridcore.wire import NodeView, TaskSpec


def why_nobody_can(task: TaskSpec, nodes: Sequence[NodeView]) -> str | None:
    """None if some online node can run it; whether it does is for its page to show."""
    online = [node for node in nodes if node.status == "Online"]
    if not online:
        return "no node is online: start one with 'gridnode' ('gridnode doctor' checks a machine)"
    reasons: dict[str, None] = {}
    for node in online:
        if node.runtime == "process":
            if task.command:
                return None
            reasons['nodes with runtime = "process" need a "command"'] = None
        else:
            if task.image_for(node.platform):
                return None
            reasons[f'{node.platform or node.architecture} has no image in "image" or "images"'] = (
                None
            )
    of_them = "the online node" if len(online) == 1 else f"any of the {len(online)} online nodes"
    return f"it is not for {of_them}: {'; '.join(reasons)}"
