"""All containers together fit into this machine's memory."""

from __future__ import annotations

import os

import psutil

from gridnode.config import NodeConfig
from gridnode.cores import plan_slots, usable_cores
from gridnode.doctor.check import Check, ok, warning

NAME = "memory"

SHARE_FOR_CONTAINERS = 0.9
"""What is advised leaves something to the system, the engine and the node."""


def check_memory(config: NodeConfig) -> Check:
    slots = plan_slots(usable_cores(), os.cpu_count() or 1, config.parallelism)
    total_mb = psutil.virtual_memory().total // 1024**2
    return judge_memory(len(slots), config.container_memory, total_mb)


def judge_memory(slots: int, container_mb: int, total_mb: int) -> Check:
    message = f"{slots} x {container_mb} MB = {slots * container_mb} MB, of {total_mb} MB"
    if slots * container_mb <= total_mb:
        return ok(NAME, message)
    to_share_mb = int(total_mb * SHARE_FOR_CONTAINERS)
    fits = f"container_memory = {to_share_mb // slots}"
    if (fewer := to_share_mb // container_mb) > 0:
        fits += f" or parallelism = {fewer}"
    return warning(
        NAME,
        f"{message}: if all containers use what they may, this machine runs out of memory",
        fix=f"Set {fits} in gridnode.toml",
    )
