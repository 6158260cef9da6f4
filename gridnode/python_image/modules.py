"""Python itself, its standard library, and packages of this environment.

Each module comes with its compiled form, marked so that Python takes it without a look at the
source. Nobody could write it to a read-only image later, and containers are started by the
thousand: compiling costs more than starting one. The source stays, for tracebacks.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import marshal
import os
import re
import struct
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution
from pathlib import Path, PurePosixPath

from gridnode.image_archive import Link, Tree
from gridnode.python_image import elf
from gridnode.python_image.tree import PREFIX, PythonImageError

_LEFT_OUT_FOLDERS = re.compile(
    r"__pycache__|tests?|idle_test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|config-.*"
    r"|(site|dist)-packages"
)
_LEFT_OUT_FILES = re.compile(
    r"turtle\.py|(_tkinter|_test|_ctypes_test|_?xx)[^.]*\..*so|.*\.(pyc|a|o|exe)"
)

_HOME = Path(sysconfig.get_path("stdlib"))
_HOME_IN_IMAGE = PREFIX / sys.platlibdir / _HOME.name

_PYC = struct.Struct("<4sI8s")
_PYC_SOURCE = struct.Struct("<II")
_CHECKED_BY_TIME = 0
_UNCHECKED_HASH = 1

_MARSHAL_VERSION = 2
"""Later ones write what depends on who else holds a string, so no two results are the same."""


def interpreter_path() -> Path:
    """The program itself: a virtual environment only has a link to it."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def python_tree(interpreter: elf.Elf) -> Tree:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    tree: Tree = {
        f"{PREFIX}/bin/{name}": interpreter.stripped,
        f"{PREFIX}/bin/python3": Link(name),
        f"{PREFIX}/bin/python": Link(name),
    }
    for folder, subfolders, names in os.walk(_HOME):
        subfolders[:] = (each for each in subfolders if not _LEFT_OUT_FOLDERS.fullmatch(each))
        kept = (each for each in names if not _LEFT_OUT_FILES.fullmatch(each))
        tree |= _files(Path(folder), kept, _HOME_IN_IMAGE / Path(folder).relative_to(_HOME))
    return tree


def packages_tree(names: Sequence[str]) -> Tree:
    """These top-level modules and, as far as they are installed, those that they require."""
    distributions_of = importlib.metadata.packages_distributions() if names else {}
    tree: Tree = {}
    wanted, seen = list(names), set(sys.stdlib_module_names)
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        tree |= package_tree(name)
        for distribution in map(importlib.metadata.distribution, distributions_of.get(name, ())):
            tree |= _metadata(distribution)
            required = _required(distribution)
            wanted += [
                module
                for module, owners in distributions_of.items()
                if any(_normalized(owner) in required for owner in owners)
            ]
    return tree


def package_tree(name: str) -> Tree:
    """This top-level module alone."""
    spec = None if "." in name else importlib.util.find_spec(name)
    if spec is None:
        raise PythonImageError(
            f"putting package {name!r} into an image",
            cause=f"there is no top-level module of that name for {sys.executable}",
            next_step=f"Check the name, or install it there: {sys.executable} -m pip install ...",
        )
    if spec.submodule_search_locations is None:
        source = Path(spec.origin or "")
        return _files(source.parent, [source.name], _packages_in_image())
    tree: Tree = {}
    for place in map(Path, spec.submodule_search_locations):
        for folder, subfolders, names in os.walk(place):
            subfolders[:] = (each for each in subfolders if each != "__pycache__")
            target = _packages_in_image() / name / Path(folder).relative_to(place)
            tree |= _files(Path(folder), names, target)
    return tree


def _packages_in_image() -> PurePosixPath:
    # Debian's Python looks for packages in folders of a name of its own.
    is_debians = "dist-packages" in (_HOME / "site.py").read_text("utf-8")
    return _HOME_IN_IMAGE / ("dist-packages" if is_debians else "site-packages")


def _metadata(distribution: Distribution) -> Tree:
    """What tells a package its own version, and finds its plug-ins."""
    return {
        str(_packages_in_image() / file): Path(str(file.locate()))
        for file in distribution.files or ()
        if file.name in ("METADATA", "entry_points.txt") and file.parent.suffix == ".dist-info"
    }


def _required(distribution: Distribution) -> set[str]:
    """All but the extras. What is only for other systems is not installed here anyway."""
    return {
        _normalized(found[0])
        for line in distribution.requires or ()
        if "extra ==" not in line and (found := re.match(r"[\w.-]+", line))
    }


def _normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _files(folder: Path, names: Iterable[str], target: PurePosixPath) -> Tree:
    tree: Tree = {}
    for name in names:
        source = folder / name
        if not source.is_file():
            continue  # a link that leads nowhere
        tree[str(target / name)] = source
        if source.suffix == ".py" and (compiled := _compiled(source, target / name)):
            cached = f"{source.stem}.{sys.implementation.cache_tag}.pyc"
            tree[str(target / "__pycache__" / cached)] = compiled
    return tree


def _compiled(source: Path, path_in_image: PurePosixPath) -> bytes | None:
    """None for what does not compile: some packages carry templates that look like modules."""
    text = source.read_bytes()
    code = _cached_code(source)
    if code is None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compiled = compile(text, f"/{path_in_image}", "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):
            return None
        code = marshal.dumps(compiled, _MARSHAL_VERSION)
    source_hash = importlib.util.source_hash(text)
    return _PYC.pack(importlib.util.MAGIC_NUMBER, _UNCHECKED_HASH, source_hash) + code


def _cached_code(source: Path) -> bytes | None:
    """What this machine's Python has compiled before, if it is of this very source."""
    try:
        cached = Path(importlib.util.cache_from_source(source, optimization="")).read_bytes()
    except OSError:
        return None
    if len(cached) < _PYC.size:
        return None
    magic, flags, made_from = _PYC.unpack_from(cached)
    facts = source.stat()
    is_of_source = made_from == _PYC_SOURCE.pack(
        int(facts.st_mtime) & 0xFFFFFFFF, facts.st_size & 0xFFFFFFFF
    )
    if magic != importlib.util.MAGIC_NUMBER or flags != _CHECKED_BY_TIME or not is_of_source:
        return None
    return cached[_PYC.size :]
