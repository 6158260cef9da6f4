"""The shared libraries that programs and extension modules need, as this machine's loader says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from gridnode.image_archive import Tree
from gridnode.python_image import elf
from gridnode.python_image.tree import PythonImageError

LDD_TIMEOUT_S = 120.0
"""It starts the loader for each of a hundred files, which takes seconds on a Raspberry Pi."""

_OPENED_AT_RUN_TIME = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
"""Libraries that no file asks for: looking up names (before glibc 2.34), and ending threads."""

_FOUND = re.compile(r"^\s+(\S+) => (/\S+) \(0x", re.MULTILINE)


def shared_libraries(program: Path, loader: str | None, extensions: Iterable[Path]) -> Tree:
    """What `program`, whose ELF header names `loader`, and `extensions` need, and the loader."""
    if loader is None:
        return {}  # a static program cannot load anything
    found = _needed([program, *extensions])
    c_library = next(
        (path for name, path in found.items() if name.startswith(("libc.so", "libc.musl"))), None
    )
    if c_library is None:
        raise PythonImageError(
            f"looking for the libraries of {program}",
            cause="ldd names no C library among them",
            next_step="Use another Python, for example the system's own",
        )
    folder = c_library.parent
    opened = [folder / name for name in _OPENED_AT_RUN_TIME if (folder / name).exists()]
    found |= _needed(opened) | {path.name: path for path in opened}
    tree: Tree = {f"{folder}/{name}".lstrip("/"): path for name, path in found.items()}
    return tree | {loader.lstrip("/"): Path(loader)}


def _needed(files: list[Path]) -> dict[str, Path]:
    """By the name under which a file asks for it. What is missing here is missing there, too."""
    try:
        done = subprocess.run(
            ["ldd", *files],
            capture_output=True,
            text=True,
            timeout=LDD_TIMEOUT_S,
            # It fails if one of the files is not for this machine.
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PythonImageError(
            "asking ldd which libraries Python needs",
            cause=str(error),
            next_step="Install it (Debian: 'sudo apt install libc-bin') and try again",
        ) from error
    return {name: Path(path) for name, path in _FOUND.findall(done.stdout)}


def platform_of(program: elf.Elf, path: Path) -> dict[str, str]:
    """The fields that say in an image's configuration for which machine it is."""
    known = {
        elf.X86_64: {"architecture": "amd64"},
        elf.AARCH64: {"architecture": "arm64"},
        elf.ARM: {"architecture": "arm", "variant": "v7"},
    }
    if program.machine not in known:
        raise PythonImageError(
            f"making an image of {path}",
            cause=f"it is for a machine (ELF number {program.machine}) that has no images",
            next_step="Use a Python for x86-64 or ARM",
        )
    return known[program.machine]
