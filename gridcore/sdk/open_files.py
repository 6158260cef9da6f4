"""Each large value is an open file of this process, of which shells allow a thousand."""

from __future__ import annotations

import contextlib
import resource


def allow_as_many_as_possible() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS says that there is no limit, and has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
