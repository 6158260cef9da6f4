"""Calls that take more memory than there is, in a cgroup of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.signals import WITHIN_S
from tests.support.waiting import wait_until

TOP = Path(__file__).parents[2]

LIMIT = 200 * 1024 * 1024

PROGRAM = """
import os, sys, signal
with open(sys.argv[1], "w") as members:
    members.write(str(os.getpid()))
import gridcore

@gridcore.remote(max_retries=1)
def greedy():
    return len(b"x" * (400 * 1024 * 1024))

@gridcore.remote(max_retries=0)
def killed():
    os.kill(os.getpid(), signal.SIGKILL)

@gridcore.remote
class Greedy:
    def take(self):
        return greedy.local()

gridcore.init(num_cpus=1)
for call in (greedy.remote, killed.remote, Greedy.remote().take.remote):
    error = call().exception()
    is_ours = isinstance(error, gridcore.OutOfMemory)
    print(type(error).__name__, is_ours, "by the kernel" in str(error))
"""


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """With little memory and no swap."""
    top = Path("/sys/fs/cgroup")
    is_v2 = (top / "cgroup.controllers").exists()
    folder = (top if is_v2 else top / "memory") / f"gridcore-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs the right to make a cgroup, as root has it outside containers: {error}")
    try:
        limits = {"memory.max": LIMIT, "memory.swap.max": 0} if is_v2 else {
            "memory.limit_in_bytes": LIMIT, "memory.memsw.limit_in_bytes": LIMIT
        }  # fmt: skip
        for number, (name, value) in enumerate(limits.items()):
            file = folder / name
            if file.exists():  # a kernel without swap has no limit for it
                file.write_text(str(value))
            elif number == 0:
                pytest.skip(f"memory is not limited in cgroups here: {file} does not exist")
        yield folder
    finally:
        wait_until(
            lambda: not (folder / "cgroup.procs").read_text(), within_s=WITHIN_S, what="it is empty"
        )
        folder.rmdir()


def test_a_call_that_the_kernel_kills_for_its_memory_says_so(cgroup: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), str(cgroup / "cgroup.procs")],
        capture_output=True,
        text=True,
        timeout=3 * WITHIN_S,
        env={**os.environ, "PYTHONPATH": str(TOP)},
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "OutOfMemory True True",
        "WorkerDied False False",
        "ActorDied False True",
    ]
