"""Whether what a function of the driver needs is there where it is to run.

A function travels with the names and versions of the packages that it refers to. Another Python, a
package that is missing, or one with another major version are told before anything goes wrong in a
way that nobody understands.
"""

from __future__ import annotations

import functools
import importlib.metadata
import marshal
import pickletools
from collections.abc import Callable, Mapping

from gridcore.sdk.engine import Exported
from gridcore.sdk.errors import PayloadTooLarge
from gridcore.sdk.grid.messages import PYTHON

MOST_FUNCTION_BYTES = 48 * 1024 * 1024
"""A gateway takes 64 MB with one command."""

OURS = "idm-gridcore"

_IMPORT = object()
"""Stands for cloudpickle's function that imports what is named next."""


def function_field(id: bytes) -> str:  # noqa: A002
    return f"f:{id.hex()}"


def with_versions(exported: Exported) -> bytes:
    if len(exported.data) > MOST_FUNCTION_BYTES:
        raise PayloadTooLarge(
            f"Sending the function {exported.name}",
            cause=f"with what it refers to it has {len(exported.data):,} bytes",
            next_step="Pass large values as arguments, by gridcore.put if several calls use them",
        )
    return marshal.dumps((versions_of(exported.data), exported.data), 4)


def without_versions(data: bytes) -> tuple[dict[str, str], bytes]:
    found: tuple[dict[str, str], bytes] = marshal.loads(data)  # noqa: S302 - of a driver
    return found


def versions_of(pickled: bytes) -> dict[str, str]:
    """The packages that a pickle refers to."""
    packages = _packages()
    return {
        package: importlib.metadata.version(package)
        for module in {name.partition(".")[0] for name in modules_in(pickled)}
        for package in packages.get(module, ())[:1]
        if package != OURS
    }


def modules_in(pickled: bytes) -> set[str]:
    """Modules of which it takes something, and those that cloudpickle has it import."""
    found: set[str] = set()
    memo: dict[int, object] = {}
    texts: list[str] = []
    last: object = None
    is_import = False
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        last = None
        if opcode.name.endswith(("BINUNICODE", "BINUNICODE8")):
            last = str(argument)
        elif opcode.name.endswith("BINGET"):
            last = memo.get(int(argument or 0))
        elif opcode.name == "STACK_GLOBAL":
            module, name = texts[-2:]
            found.add(module)
            if module.startswith("cloudpickle") and name == "subimport":
                last = _IMPORT
        if isinstance(last, str):
            texts.append(last)
            if is_import:
                found.add(last)
            is_import = False
        is_import = is_import or last is _IMPORT
    return found


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    """By module; reads the folders of all packages, which takes a while."""
    return importlib.metadata.packages_distributions()


def mismatch(
    python: str, packages: Mapping[str, str], installed: Callable[[str], str | None]
) -> tuple[str, str] | None:
    """None, or what does not fit and what to do; `python` and `packages` are the driver's."""
    if python != PYTHON:
        why = f"the driver runs Python {python}, and the container {PYTHON}"
        what = f"Use an image with Python {python} (gridcore.init(image=...))"
        return why, f"{what}, or run the driver with Python {PYTHON}"
    for package, version in sorted(packages.items()):
        here = installed(package)
        if here is None:
            return (
                f"the driver has {package} {version}, and the container does not have it",
                f"Add {package} to the image: see deploy/worker.Dockerfile",
            )
        if here.partition(".")[0] != version.partition(".")[0]:
            return (
                f"the driver has {package} {version}, and the container {here}",
                "Install the same version on both sides",
            )
    return None


@functools.cache
def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
