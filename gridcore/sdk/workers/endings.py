"""What a process' exit code says to a person."""

from __future__ import annotations

import signal

from gridcore.sdk.errors import OutOfMemory, WorkerDied


def how_it_ended(
    code: int | None, ours: str | None = None, *, is_out_of_memory: bool = False
) -> str:
    """`code` as in subprocess; `ours`: why we ended it, if we did."""
    if ours is not None:
        return f"was ended: {ours}"
    if is_out_of_memory:
        return "was killed by the kernel, because the memory that it may use was full"
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


def worker_died(name: str, process: int, how: str, *, is_out_of_memory: bool) -> WorkerDied:
    """What a call ends with that may not be repeated once more."""
    tried, cause = f"Running {name}", f"its worker (process {process}) {how}"
    if is_out_of_memory:
        return OutOfMemory(
            tried,
            cause=cause,
            next_step="Say with memory=... how much it needs, so that fewer run at once, or give it"
            " less to hold",
        )
    return WorkerDied(tried, cause=cause, next_step="It was tried as often as max_retries allows")
