"""Every program in docs/sdk.md runs, and prints what the guide says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

import gridcore
from tests.support.fixtures import require
from tests.support.grid import Grid
from tests.support.redis_server import unavailable_reason

TOP = Path(__file__).parents[2]
GUIDE = (TOP / "docs" / "sdk.md").read_text("utf-8")

PROGRAMS = re.findall(
    r"^```python\n(.*?)^```$(?:\n\n```text\n(.*?)^```$)?", GUIDE, re.DOTALL | re.MULTILINE
)
"""Each whole program and what it prints, if the guide says so; what is only a part of one is marked
```python fragment."""

OPTIONAL = ("joblib", "numpy")

WITHIN_S = 60


@pytest.fixture(scope="module", params=["local", "grid"])
def environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What has a program's calls run there."""
    with ExitStack() as parts:
        if request.param == "local":
            yield {"GRIDCORE_HUB": ""}
            return
        require(unavailable_reason())
        grid = parts.enter_context(Grid(slots=2))
        # A driver that stays: else the task would end between two programs, and begin anew.
        gridcore.init(grid.hub.url, token=grid.token)
        parts.callback(gridcore.shutdown)
        yield {"GRIDCORE_HUB": grid.hub.url, "GRIDCORE_TOKEN": grid.token}


def imported(program: str) -> set[str]:
    return set(re.findall(r"^import (\w+)", program, re.MULTILINE))


@pytest.mark.parametrize(("program", "printed"), PROGRAMS)
def test_a_program_of_the_guide_prints_what_it_says(
    program: str, printed: str, environment: dict[str, str], tmp_path: Path
) -> None:
    for package in imported(program) & set(OPTIONAL):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    path = tmp_path / "program.py"
    path.write_text(program, "utf-8")
    ended = subprocess.run(
        [sys.executable, path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error", "PYTHONUTF8": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=WITHIN_S,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (printed, "")
    assert ended.returncode == 0


def test_every_fence_is_a_program_a_fragment_or_what_a_program_prints() -> None:
    fences = re.findall(r"^```(.+)$", GUIDE, re.MULTILINE)
    assert set(fences) == {"python", "python fragment", "text"}
    assert fences.count("python") == len(PROGRAMS)
    assert fences.count("text") == sum(printed != "" for _, printed in PROGRAMS)


@pytest.mark.parametrize(
    "fragment", re.findall(r"^```python fragment\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
)
def test_a_fragment_is_python(fragment: str) -> None:
    compile(fragment, "docs/sdk.md", "exec")


def test_the_guide_names_everything_that_is_public() -> None:
    public = {name for name in gridcore._HOMES if not is_error(name)}
    table = GUIDE.partition("### Names")[2].partition("### Options")[0]
    assert public - set(re.findall(r"`(\w+)`", table)) == set()


def is_error(name: str) -> bool:
    found = getattr(gridcore, name)
    return isinstance(found, type) and issubclass(found, Exception) and name != "GridError"


def test_the_guide_names_every_error() -> None:
    from gridcore.sdk import errors

    table = GUIDE.partition("### When something fails")[2].partition("### Actors")[0]
    kinds = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, errors.GridError)
    }
    assert kinds - set(re.findall(r"`(\w+)`", table)) == set()
