"""What this machine offers to calls."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gridcore.sdk.options import parse_bytes
from gridcore.sdk.workers.cores import usable_cores

STORE_SHARE = 0.25
"""Of the machine's memory, for large values; the rest is for programs."""


@dataclass(frozen=True)
class Capacity:
    cpus: int
    memory: int
    resources: tuple[tuple[str, float], ...]
    store_bytes: int
    spill_folder: Path


def capacity_of(
    *,
    num_cpus: object = None,
    memory: int | str | None = None,
    resources: Mapping[str, Any] | None = None,
    object_store_memory: int | str | None = None,
    spill_dir: str | None = None,
) -> Capacity:
    if num_cpus is not None and (not isinstance(num_cpus, int) or num_cpus < 1):
        raise ValueError(f"num_cpus={num_cpus!r} must be a whole number, 1 or more")
    for name, amount in (resources or {}).items():
        if not (isinstance(amount, int | float) and 0 <= amount < math.inf):
            raise ValueError(f"resources[{name!r}]={amount!r} must be a number, 0 or more")
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    folder = Path(spill_dir) if spill_dir else _folder_on_disk()
    if not folder.is_dir():
        raise ValueError(f"spill_dir={spill_dir!r} is no folder")
    return Capacity(
        cpus=num_cpus or usable_cores(),
        memory=machine if memory is None else parse_bytes(memory),
        resources=tuple(sorted((resources or {}).items())),
        store_bytes=int(machine * STORE_SHARE)
        if object_store_memory is None
        else parse_bytes(object_store_memory),
        spill_folder=folder,
    )


def _folder_on_disk() -> Path:
    """The usual folder for such files is memory on some systems, and would save none."""
    lasting = Path("/var/tmp")  # noqa: S108 - files there have no name
    if lasting.is_dir() and os.access(lasting, os.W_OK):
        return lasting
    return Path(tempfile.gettempdir())
