"""Tries a limit from inside, in a container or process of its own: `probe.py cores|memory`.

Ends with code LIMIT_MISSING if it may use more than one core, or could take far more memory than
it was given. Needs nothing but Python: it is copied into an image.
"""

from __future__ import annotations

import os
import sys

MEMORY_LIMIT_MB = 64
TAKEN_MB = 256
LIMIT_MISSING = 3

_STEP_MB = 16


def main(what: str) -> None:
    if what == "cores":
        cores = len(os.sched_getaffinity(0))
        print(f"{cores} cores")
        if cores == 1:
            return
    else:
        # Not zeros: a page of those is promised, not given.
        taken = [b"x" * (_STEP_MB * 1024 * 1024) for _ in range(TAKEN_MB // _STEP_MB)]
        print(f"{len(taken) * _STEP_MB} MB")
    sys.exit(LIMIT_MISSING)


if __name__ == "__main__":
    main(sys.argv[1])
