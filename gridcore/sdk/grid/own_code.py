"""Modules of the user's own, which no container has: what is defined there travels by value, as
what is defined in the main file does."""

from __future__ import annotations

import site
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from gridcore.sdk.packing import look_first, send_by_value

_ELSEWHERE = tuple(
    Path(folder).resolve()
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)


class OwnCode:
    """While there is a grid engine."""

    def __init__(self) -> None:
        self._registered: dict[str, ModuleType] = {}
        self._seen = 0
        look_first(self.look)

    def look(self) -> None:
        """Modules may have been imported since."""
        if len(sys.modules) == self._seen:
            return
        self._seen = len(sys.modules)
        import cloudpickle

        theirs = cloudpickle.list_registry_pickle_by_value()
        for module in _own_modules():
            if module.__name__ not in theirs:
                self._registered[module.__name__] = module
                cloudpickle.register_pickle_by_value(module)
        send_by_value(cloudpickle.list_registry_pickle_by_value())

    def forget(self) -> None:
        import cloudpickle

        for module in self._registered.values():
            cloudpickle.unregister_pickle_by_value(module)
        self._registered.clear()
        send_by_value(())
        look_first(None)


def _own_modules() -> list[ModuleType]:
    """Those in use that are neither Python's, nor an installed package's, nor ours."""
    return [
        module
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] != "gridcore"
        # Which it may be by another name as well.
        and getattr(module, "__name__", None) != "__main__"
        and _is_own(module)
    ]


def _is_own(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    path = Path(file).resolve()
    is_elsewhere = any(path.is_relative_to(folder) for folder in _ELSEWHERE)
    return not is_elsewhere and "site-packages" not in path.parts
