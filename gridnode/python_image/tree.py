"""What a caller adds to an image, and which parts of a file go into it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from gridcore.errors import GridCoreError
from gridnode.image_archive import Tree, read_content
from gridnode.python_image import elf


class PythonImageError(GridCoreError):
    """This machine's Python cannot be put into an image."""


PREFIX = PurePosixPath("usr/local")


def given_files(files: Mapping[str, bytes]) -> Tree:
    tree: Tree = {}
    for name, content in files.items():
        path = PurePosixPath(name)
        if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
            raise PythonImageError(
                f"putting a file at {name!r} into an image",
                cause="that is no absolute path of a file",
                next_step='Write it as "/app/main.py"',
            )
        tree[str(path.relative_to("/"))] = content
    return tree


def content_of(path: str, entry: bytes | Path) -> bytes:
    content = read_content(path, entry)
    if isinstance(entry, Path) and is_shared_library(path):
        try:
            return elf.read(content).stripped
        except elf.NotElf:
            pass  # a linker script, or a library for another machine: not ours to judge
    return content


def is_shared_library(path: str) -> bool:
    name = PurePosixPath(path).name
    return name.endswith(".so") or ".so." in name
