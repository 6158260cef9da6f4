"""Becomes the task's command: pinned, limited, and gone when the agent is gone.

Run by `process` as a program of its own, `python -I -S process_child.py CORE MEMORY_BYTES AGENT
COMMAND...`: what is set here must be set between fork and exec, and doing that inside the agent,
which has threads, can deadlock.
"""

from __future__ import annotations

import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def _die_with(agent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != agent:  # it died before the kernel was told
        sys.exit(1)


def _keep_no_capability() -> None:
    """What deploy/gridnode.service gives the agent for Docker's sake is not for tasks."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def _prctl(*arguments: int) -> None:
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(*arguments)


def main() -> None:
    core, memory_bytes, agent, *command = sys.argv[1:]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    if sys.platform == "linux":
        _die_with(int(agent))
        _keep_no_capability()
    # What a program has allocated and may write, not what it has merely mapped.
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(126 if isinstance(error, PermissionError) else 127)


main()
