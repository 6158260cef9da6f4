"""computehub -> gridcore <- gridnode, never across; what is foreign stays at the edge."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def imports(package: str) -> Iterator[tuple[str, str]]:
    """(file, imported module) of a whole package."""
    for path in (TOP / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            for name in names:
                yield path.relative_to(TOP).as_posix(), name


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("gridcore", {"computehub", "gridnode"}),
        ("computehub", {"gridnode"}),
        ("gridnode", {"computehub"}),
    ],
)
def test_packages_depend_one_way(package: str, forbidden: set[str]) -> None:
    across = [(file, name) for file, name in imports(package) if name.split(".")[0] in forbidden]
    assert across == []


@pytest.mark.parametrize(
    ("foreign", "homes"),
    [
        ("docker", {"gridnode/runtimes/docker_engine.py"}),
        ("httpx", {"gridnode/hub_client.py"}),
        ("uvicorn", {"computehub/service.py"}),
    ],
)
def test_each_foreign_client_lives_in_one_module(foreign: str, homes: set[str]) -> None:
    found = {
        file
        for package in ("gridcore", "computehub", "gridnode")
        for file, name in imports(package)
        if name.split(".")[0] == foreign
    }
    assert found == homes


def test_asking_for_the_version_loads_nothing_heavy() -> None:
    heavy = {"fastapi", "pydantic", "docker", "httpx", "redis", "rich", "asyncio"}
    script = (
        "import sys; sys.argv = ['gridcore', '--version']\n"
        "from gridcore.cli import cli\n"
        "try: cli()\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & {heavy}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=TOP
    ).stdout
    assert printed.splitlines()[-1] == "[]"


def test_every_dependency_is_named_with_its_reason() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))
    required = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    explained = (TOP / "docs" / "architecture.md").read_text("utf-8")
    names = [line.split(";")[0].split(">=")[0].split("[")[0].strip() for line in required]
    assert [name for name in names if f"| {name} |" not in explained] == []
