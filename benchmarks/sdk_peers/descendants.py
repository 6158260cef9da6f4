"""How much memory and CPU do a program and all that it has started take?"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STATE, _PARENT, _USER_TIME, _SYSTEM_TIME = 0, 1, 11, 12


def keep_orphans() -> None:
    """What a program starts and leaves to init stays its descendant."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def everybody() -> list[int]:
    """This process, and its descendants that are not dead."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) and fields[_STATE] != "Z":
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:  # which grows
        found += children.get(pid, ())
    return found


def proportional_mb(pid: int) -> float:
    """Resident memory, of which pages that n processes share count as an n-th."""
    return _rollup_mb(pid, "Pss:")


def resident_mb(pid: int) -> float:
    return _rollup_mb(pid, "Rss:")


def cpu_s(pids: list[int]) -> float:
    """Exact to a tick, which is 10 ms, of each process."""
    ticks = 0
    for pid in pids:
        if fields := _stat(pid):
            ticks += int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    return ticks / _TICKS_PER_S


def peak_mb() -> float:
    """The most resident memory of this process since it was forgotten."""
    return _first_mb(Path("/proc/self/status"), "VmHWM:")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _rollup_mb(pid: int, field: str) -> float:
    return _first_mb(Path(f"/proc/{pid}/smaps_rollup"), field)


def _first_mb(file: Path, field: str) -> float:
    return next((int(line.split()[1]) * 1024 / 1e6 for line in _lines(file, field)), 0.0)


def _lines(file: Path, field: str) -> Iterator[str]:
    try:
        yield from (line for line in file.read_text().splitlines() if line.startswith(field))
    except OSError:  # it has ended
        return


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The name, in parentheses, may hold anything.
    return text.rpartition(")")[2].split()
