"""Puts an image of this machine's Python together, and hands it to an engine."""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from gridnode.image_archive import Tree, write_archive
from gridnode.python_image import elf
from gridnode.python_image.modules import (
    interpreter_path,
    package_tree,
    packages_tree,
    python_tree,
)
from gridnode.python_image.shared_libraries import platform_of, shared_libraries
from gridnode.python_image.tree import (
    PREFIX,
    PythonImageError,
    content_of,
    given_files,
    is_shared_library,
)
from gridnode.runtimes.docker_engine import Engine

USER = "65534:65534"
"""Nobody, as for containers that have no business with files of their host."""

_SYSTEM_FILES: Tree = {
    "etc/passwd": b"root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/tmp:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
}

_ENVIRONMENT = {
    "PATH": f"/{PREFIX}/bin",
    "HOME": "/tmp",  # noqa: S108  # the container's own
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


async def build_python_image(
    engine: Engine,
    tag: str,
    *,
    command: Sequence[str],
    packages: Sequence[str] = (),
    bare_packages: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Gives an engine, one for this machine's architecture, an image of that name.

    `packages` are top-level modules of this environment; what they require comes along, but for
    `bare_packages`. `files` are by their absolute path in the image. Raises PythonImageError, and
    what the engine raises.
    """
    with tempfile.TemporaryFile() as archive:
        await asyncio.to_thread(
            write_python_archive,
            archive,
            tag,
            command=command,
            packages=packages,
            bare_packages=bare_packages,
            files=files,
            labels=labels,
        )
        archive.seek(0)
        await engine.load_image(archive)
    if await engine.image(tag) is None:
        raise PythonImageError(
            f"loading image {tag}",
            cause="the engine took it, and does not have it",
            next_step="Look for the reason in the engine's log; often it is a full disk",
        )


def write_python_archive(
    archive: IO[bytes],
    tag: str,
    *,
    command: Sequence[str],
    packages: Sequence[str] = (),
    bare_packages: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Writes what `docker load` reads, by the arguments of `build_python_image`."""
    if sys.platform != "linux":
        raise PythonImageError(
            "making an image of this machine's Python",
            cause=f"images hold Linux programs, and this is {platform.system()}",
            next_step="Do it on a Linux machine, or take an image from a registry, for example"
            " python:3.11-slim",
        )
    path = interpreter_path()
    try:
        interpreter = _read(path)
        tree = _SYSTEM_FILES | python_tree(interpreter) | packages_tree(packages)
        for name in bare_packages:
            tree |= package_tree(name)
        extensions = [
            entry
            for name, entry in tree.items()
            if isinstance(entry, Path) and is_shared_library(name)
        ]
        tree |= shared_libraries(path, interpreter.loader, extensions)
        write_archive(
            archive,
            _with_version(tag),
            tree | given_files(files or {}),
            platform=platform_of(interpreter, path),
            settings={
                "Cmd": list(command),
                "Env": [f"{name}={value}" for name, value in _ENVIRONMENT.items()],
                "Labels": dict(labels or {}),
                "User": USER,
                "WorkingDir": "/tmp",  # noqa: S108  # the container's own
            },
            made_by="gridnode python-image",
            content_of=content_of,
        )
    except OSError as error:
        raise PythonImageError(
            "making an image of this machine's Python",
            cause=str(error),
            next_step="Make that file readable for this user, or free some space for temporary"
            " files",
        ) from error


def _read(path: Path) -> elf.Elf:
    try:
        return elf.read(path.read_bytes())
    except elf.NotElf as error:
        raise PythonImageError(
            f"making an image of {path}", cause=str(error), next_step="Use another Python"
        ) from error


def _with_version(tag: str) -> str:
    return tag if ":" in tag.rpartition("/")[2] else f"{tag}:latest"
