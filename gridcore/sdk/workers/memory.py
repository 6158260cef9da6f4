"""How much memory a process may take, and whether the kernel killed it for what it took.

An exit code only says SIGKILL, which anybody may send. But the kernel counts what it kills for
memory, for each cgroup and for the machine, and counts before it kills: if the count has risen when
a process is found killed, that is why. Of two that were killed at the same moment, one of them by
somebody else, the wrong one may get the blame.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

NO_LIMIT = 1 << 60
"""Version 1 has a number for that."""


class KernelKills:
    """Each kill that the kernel counts explains one death."""

    def __init__(self, count: Callable[[], int | None]) -> None:
        self._count = count
        self._seen = count()

    def explain(self, code: int | None) -> bool:
        """`code`: with which a process of this cgroup ended, as in subprocess."""
        if code != -signal.SIGKILL:
            return False
        now = self._count()
        if now is None or self._seen is None or now <= self._seen:
            return False
        self._seen += 1
        return True


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for memory in the cgroup of this one; where that is
    not said, on this machine; None if nothing says."""
    files = _of_cgroup(root, "memory.events", "memory.oom_control")
    for file in (*files, root / "proc/vmstat"):
        for line in _lines(file):
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None


def memory_limit(root: Path = Path("/")) -> int | None:
    """In bytes, of the cgroup of this process; None if nothing says."""
    limits = [
        int(line)
        for file in _of_cgroup(root, "memory.max", "memory.limit_in_bytes")
        for line in _lines(file)
        if line.isdigit() and int(line) < NO_LIMIT
    ]
    return min(limits, default=None)


def _of_cgroup(root: Path, name: str, old_name: str) -> Iterator[Path]:
    """Where that may be found; `old_name`: of version 1."""
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, file = mounted, name
        elif "memory" in controllers.split(","):
            top, file = mounted / "memory", old_name
        else:
            continue
        yield top / path.lstrip("/") / file
        yield top / file  # in a container, what is mounted may be its own part of the tree


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
