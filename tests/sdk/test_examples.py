"""Every program in `examples/` prints what its README says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fixtures import require
from tests.support.grid import Grid
from tests.support.redis_server import unavailable_reason

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text()
DOCUMENTED = dict(re.findall(r"```console\n\$ python examples/(.+)\n((?:.+\n)*)```", README))
"""Program and arguments -> what it prints."""

ENGINES = ("local", "grid")

WITHIN_S = 120


@pytest.fixture(scope="module", params=ENGINES)
def environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """In which `gridcore.init()` starts that engine."""
    if request.param == "local":
        yield {}
        return
    require(unavailable_reason())
    with Grid(slots=2) as grid:
        yield {"GRIDCORE_HUB": grid.hub.url, "GRIDCORE_TOKEN": grid.token}


@pytest.mark.parametrize("command", DOCUMENTED)
def test_an_example_prints_what_its_readme_says(
    command: str, environment: dict[str, str], tmp_path: Path
) -> None:
    name, *arguments = shlex.split(command)
    if "import numpy" in (EXAMPLES / name).read_text():
        pytest.importorskip("numpy")
    ended = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONWARNINGS": "error", "PYTHONUTF8": "1", **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=WITHIN_S,
        check=False,
    )
    assert (ended.stdout, ended.stderr) == (DOCUMENTED[command], "")
    assert ended.returncode == 0


def test_every_example_is_in_the_readme() -> None:
    programs = {path.name for path in EXAMPLES.glob("*.py")} - {"__init__.py"}
    assert {command.split()[0] for command in DOCUMENTED} == programs
    assert set(re.findall(r"^\| \[(\w+\.py)\]", README, re.MULTILINE)) == programs


@pytest.mark.parametrize("program", [path.name for path in sorted(EXAMPLES.glob("[!_]*.py"))])
def test_an_example_says_how_it_is_run(program: str) -> None:
    docstring = (EXAMPLES / program).read_text().split('"""')[1]
    assert f"python examples/{program}" in docstring
