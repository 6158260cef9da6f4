"""What the tests of the SDK on a grid call, and programs of others beside them."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil

import gridcore
from tests.support.grid import Grid

LONG_S = 60.0
"""For what comes back only after a lease time."""


@gridcore.remote
def square(n: int) -> int:
    return n * n


@gridcore.remote
class Counter:
    def __init__(self) -> None:
        self.value = 0

    def increment(self) -> int:
        self.value += 1
        return self.value

    def process(self) -> int:
        return os.getpid()


def runners(node: psutil.Process) -> list[psutil.Process]:
    """The containers' programs, here plain processes."""
    return [
        child
        for child in node.children(recursive=True)
        if "gridcore.sdk.grid.runner" in child.cmdline()
    ]


def node_of(grid: Grid) -> psutil.Process:
    return psutil.Process(grid.node.process.pid)


DRIVER = """
    import sys, time
    from pathlib import Path
    import gridcore

    folder, name = Path(sys.argv[1]), sys.argv[2]

    @gridcore.remote
    def mark(n):
        with (folder / name).open("a") as file:
            file.write("x")
        while not (folder / "go").exists():
            time.sleep(0.01)
        return n

    @gridcore.remote
    class Host:
        def __init__(self):
            (folder / f"{name}.actor").write_text("x")

    host = Host.remote()
    refs = [mark.remote(n) for n in range(10)]
    Path(folder / f"{name}.id").write_text(refs[0].id)
    print(sum(gridcore.get(refs)), flush=True)
"""


def end_drivers() -> None:
    """Those that a test which failed has left."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # others end meanwhile
            if any(part.endswith("driver.py") for part in child.cmdline()):
                child.kill()


def start_driver(grid: Grid, folder: Path, name: str) -> subprocess.Popen[str]:
    program = folder / "driver.py"
    program.write_text(textwrap.dedent(DRIVER))
    return subprocess.Popen(
        [sys.executable, str(program), str(folder), name],
        env=os.environ | {"GRIDCORE_HUB": grid.hub.url, "GRIDCORE_TOKEN": grid.token},
        stdout=subprocess.PIPE,
        text=True,
    )
