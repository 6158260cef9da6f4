"""How a call ended, and errors as they travel."""

from __future__ import annotations

from gridcore.sdk.errors import GridError, TaskError
from gridcore.sdk.packing import Packed, pack, unpack

DONE, FAILED, MAY_REPEAT, STOPPED = 0, 1, 2, 3
"""With a result, with an error, with one that its options call a reason to try again, or because it
was asked to stop."""


ANY_ATTEMPT = -1
"""Of a call that is to stop: whichever it is at."""


def packed_error(error: GridError) -> Packed:
    """As much of it as survives: an exception may refuse to be pickled, or to be made again."""
    packed = _if_it_survives(error)
    if packed is None and isinstance(error, TaskError):
        packed = _if_it_survives(error.in_parts())
    if packed is None and isinstance(error, TaskError):
        bare = TaskError.of(None, remote_traceback=error.remote_traceback, summary=str(error.tried))
        packed = pack(bare, "an error")
    return packed if packed is not None else pack(error, "an error")


def _if_it_survives(thing: object) -> Packed | None:
    try:
        packed = pack(thing, "an error")
        return packed if isinstance(unpack(packed), GridError) else None
    except Exception:  # noqa: BLE001 - a stranger's class may refuse in any way
        return None
