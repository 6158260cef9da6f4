"""The executor tests of CPython, which it runs with threads and processes, pass with ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

from tests.conformance.cpython_suite import SUITE
from tests.conformance.ratchet import judge

ROOT = Path(__file__).parents[2]

_OWN_NAME = "it imports the class from concurrent.futures by its name, in a program of its own"

KNOWN_TO_FAIL = {
    "ExecutorShutdownTest.test_interpreter_shutdown": _OWN_NAME,
    "ExecutorShutdownTest.test_submit_after_interpreter_shutdown": _OWN_NAME,
    "ExecutorShutdownTest.test_hang_gh83386": _OWN_NAME,
}

LEAST = 25
"""Tests that an interpreter has. Fewer: they have moved, and this folder has not followed."""

MISSING = (
    f"no Python >= 3.11 here has {SUITE}. Debian: apt install libpython3.11-testsuite (as"
    " tests/packages.sh does); pyenv: pyenv install 3.13"
)


def _interpreters() -> Iterator[str]:
    yield sys.executable
    yield "/usr/bin/python3"
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    yield from (str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python3"), reverse=True))


def _has_suite(python: str) -> bool:
    program = f"import sys, {SUITE}; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([python, "-c", program], capture_output=True).returncode == 0
    except OSError:
        return False


def test_executor_tests_of_cpython(tmp_path: Path) -> None:
    python = next((python for python in _interpreters() if _has_suite(python)), None)
    if python is None:
        pytest.skip(MISSING)
    # It may be another interpreter than ours, without what ours has installed.
    (tmp_path / "cloudpickle").symlink_to(Path(cloudpickle.__file__).parent)
    outcomes = tmp_path / "outcomes.json"
    ran = subprocess.run(
        [python, "-m", "tests.conformance.cpython_suite", str(outcomes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    passed: dict[str, bool] = json.loads(outcomes.read_text())
    print(f"{python}: {sum(passed.values())} of {len(passed)} pass")
    wrong = judge(passed, KNOWN_TO_FAIL)
    assert not wrong, "\n".join([*wrong, "", ran.stderr])
    assert len(passed) >= LEAST, sorted(passed)
