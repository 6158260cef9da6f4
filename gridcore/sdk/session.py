"""The engine that this process uses."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping

from gridcore.sdk.engine import Engine
from gridcore.sdk.errors import NotConnected

_lock = threading.RLock()
_engine: Engine | None = None
_is_registered = False


def engine() -> Engine:
    """The one that is there, or a new one on this machine."""
    return _engine or _start()


def init(
    hub: str | None = None,
    *,
    num_cpus: int | None = None,
    memory: int | str | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | str | None = None,
    spill_dir: str | None = None,
    ignore_reinit_error: bool = False,
) -> None:
    """Starts an engine: without a hub's address on this machine, with as many workers as cores.

    Calls start one by themselves, so this is for programs that want another one than they get.

    `memory` and `resources` are what calls may ask for in all; `object_store_memory` is how much
    large values may take (a quarter of the machine's memory by default) before the oldest go to
    files in `spill_dir`. Raises RuntimeError if there is an engine already.
    """
    if hub is not None:
        raise NotImplementedError("init(hub) comes with the grid engine. Leave the address out")
    with _lock:
        if _engine is not None:
            if ignore_reinit_error:
                return
            raise RuntimeError(
                "gridcore.init: there is an engine already. Call gridcore.shutdown first, or pass"
                " ignore_reinit_error=True"
            )
        _start(
            num_cpus=num_cpus,
            memory=memory,
            resources=resources,
            object_store_memory=object_store_memory,
            spill_dir=spill_dir,
        )


def shutdown() -> None:
    """Ends the engine and its processes; calls that are under way are dropped. Does nothing if
    there is none."""
    with _lock:
        ended = _engine
        use(None)
    if ended is not None:
        ended.shutdown()


def is_initialized() -> bool:
    return _engine is not None


def use(other: Engine | None) -> None:
    """Makes `other` this process' engine."""
    global _engine
    _engine = other


def _start(
    *,
    num_cpus: int | None = None,
    memory: int | str | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | str | None = None,
    spill_dir: str | None = None,
) -> Engine:
    global _is_registered
    # Imported late: a worker has another engine, and `import gridcore` none.
    from gridcore.sdk.local.capacity import capacity_of
    from gridcore.sdk.local.engine import LocalEngine

    with _lock:
        if _engine is not None:
            return _engine
        started = LocalEngine(
            capacity_of(
                num_cpus=num_cpus,
                memory=memory,
                resources=resources,
                object_store_memory=object_store_memory,
                spill_dir=spill_dir,
            )
        )
        use(started)
        if not _is_registered:
            _is_registered = True
            atexit.register(shutdown)
            os.register_at_fork(after_in_child=_forget)
        return started


def _forget() -> None:
    """In a forked child the engine's sockets are its parent's: calls there start another one."""
    global _lock
    _lock = threading.RLock()
    if _engine is not None:
        use(None)


def require() -> Engine:
    """The engine that there is; never a new one."""
    if _engine is None:
        raise NotConnected(
            "Using a reference",
            cause="its engine was shut down, and what it stood for is gone with it",
            next_step="Call gridcore.shutdown only when all results are there",
        )
    return _engine
