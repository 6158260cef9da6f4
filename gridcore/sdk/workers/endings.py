"""What a process' exit code says to a person."""

from __future__ import annotations

import signal


def how_it_ended(code: int | None, ours: str | None = None) -> str:
    """`code` as in subprocess; `ours`: why we ended it, if we did."""
    if ours is not None:
        return f"was ended: {ours}"
    if code is None:
        return "is gone"
    if code >= 0:
        return f"exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "an unknown signal"
    said = f"was killed by signal {-code} ({name})"
    if code == -signal.SIGKILL:
        said += ", perhaps because the machine ran out of memory"
    return said
