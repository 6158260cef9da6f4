"""The engine that this process uses."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from typing import Any

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
    token: str | None = None,
    image: str | None = None,
    local: bool = False,
    num_cpus: int | None = None,
    memory: int | str | None = None,
    resources: Mapping[str, float] | None = None,
    object_store_memory: int | str | None = None,
    spill_dir: str | None = None,
    ignore_reinit_error: bool = False,
) -> None:
    """Starts an engine: on the grid of a hub, or without an address on this machine, with as many
    workers as cores.

    Calls start one by themselves, so this is for programs that want another one than they get.

    `hub` and `token` come from GRIDCORE_HUB and GRIDCORE_TOKEN if they are not given; `local`: on
    this machine whatever those say. `image` is what the grid's containers are made of: one with
    this Python, and the packages that calls need (GRIDCORE_IMAGE; deploy/worker.Dockerfile).

    The rest is for this machine. `memory` and `resources` are what calls may ask for in all;
    `object_store_memory` is how much large values may take (a quarter of the machine's memory by
    default) before the oldest go to files in `spill_dir`.

    Raises RuntimeError if there is an engine already, NotConnected if the hub or its Redis cannot
    be reached.
    """
    for_this_machine = {
        "num_cpus": num_cpus,
        "memory": memory,
        "resources": resources,
        "object_store_memory": object_store_memory,
        "spill_dir": spill_dir,
    }
    given = [name for name, value in for_this_machine.items() if value is not None]
    if local and hub is not None:
        raise TypeError("gridcore.init: hub=... and local=True exclude each other")
    hub = None if local else hub or os.environ.get("GRIDCORE_HUB") or None
    if hub is not None and given:
        raise TypeError(
            f"gridcore.init: {', '.join(given)} is for an engine on this machine, and {hub} has"
            " what its nodes have. Leave it out, or pass local=True"
        )
    with _lock:
        if _engine is not None:
            if ignore_reinit_error:
                return
            raise RuntimeError(
                "gridcore.init: there is an engine already. Call gridcore.shutdown first, or pass"
                " ignore_reinit_error=True"
            )
        if hub is not None:
            _begin(_on_grid(hub, token, image))
        else:
            _begin(_on_this_machine(**for_this_machine))


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


def _start() -> Engine:
    with _lock:
        if _engine is None:
            hub = os.environ.get("GRIDCORE_HUB")
            _begin(_on_grid(hub, None, None) if hub else _on_this_machine())
        assert _engine is not None
        return _engine


# Imported late: a worker has another engine, and `import gridcore` none.


def _on_this_machine(**options: Any) -> Engine:
    from gridcore.sdk.local.capacity import capacity_of
    from gridcore.sdk.local.engine import LocalEngine

    return LocalEngine(capacity_of(**options))


def _on_grid(hub: str, token: str | None, image: str | None) -> Engine:
    from gridcore.sdk.grid.engine import GridEngine
    from gridcore.sdk.grid.hub import Task

    token = token or os.environ.get("GRIDCORE_TOKEN", "")
    image = image or os.environ.get("GRIDCORE_IMAGE") or None
    return GridEngine(Task.join(hub, token, image))


def _begin(started: Engine) -> None:
    global _is_registered
    use(started)
    if not _is_registered:
        _is_registered = True
        atexit.register(shutdown)
        os.register_at_fork(after_in_child=_forget)


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
