"""Virtual environments for what is measured beside ours, each made once, under .cache/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha1
from pathlib import Path

from benchmarks.report import say

CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks" / "peers"


def made_for(requirements: Sequence[str]) -> Path:
    """A virtual environment with these versions; CalledProcessError if it cannot be made."""
    digest = sha1(" ".join(requirements).encode(), usedforsecurity=False).hexdigest()[:12]
    home = CACHE / digest
    if (home / "done").exists():
        return home
    shutil.rmtree(home, ignore_errors=True)
    say(f"installing {', '.join(requirements)} ...")
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run(
        [home / "bin" / "python", "-m", "pip", "install", "--quiet", *requirements], check=True
    )
    (home / "done").touch()
    return home
