"""Which modules are the user's own: those travel by value, and all others by name."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import cloudpickle
import numpy as np
import pytest

import gridcore
from gridcore.sdk import by_value
from gridcore.sdk.grid import own_code
from gridcore.sdk.grid.own_code import OwnCode
from gridcore.sdk.packing import pack, unpack, unpack_bytes


class Project:
    """A folder with modules of somebody's own, and an engine that looks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own_code = OwnCode()
        self.modules: list[str] = []

    def module(self, name: str, source: str = "def answer(): return 42") -> ModuleType:
        file = self.folder.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        importlib.invalidate_caches()
        self.modules.append(name)
        return importlib.import_module(name)

    def forget_modules(self) -> None:
        """As if it were another machine."""
        for name in self.modules:
            sys.modules.pop(name, None)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.syspath_prepend(tmp_path)
    project = Project(tmp_path)
    yield project
    project.own_code.forget()
    project.forget_modules()


def names() -> set[str]:
    return {module.__name__ for module in own_code._own_modules()}


def test_what_lies_in_a_folder_of_the_user_is_their_own(project: Project) -> None:
    project.module("mine_at_home")
    project.module("mine_in_parts.inner")
    assert {"mine_at_home", "mine_in_parts.inner"} <= names()


def test_so_is_what_is_imported_when_there_is_an_engine_already(project: Project) -> None:
    project.own_code.look()
    module = project.module("mine_and_late", "class Thing:\n    answer = 42")
    packed = pack(module.Thing(), "a thing")
    assert packed.data is not None
    assert b"by_value" in packed.data or b"cloudpickle" in packed.data
    project.forget_modules()
    assert unpack(packed).answer == 42


def test_what_a_program_has_registered_itself_stays_so(project: Project) -> None:
    module = project.module("mine_by_value")
    cloudpickle.register_pickle_by_value(module)
    try:
        project.own_code.look()
        project.own_code.forget()
        assert module.__name__ in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_nothing_of_python_of_packages_or_of_ours_is(project: Project) -> None:
    theirs = {json.__name__, np.__name__, gridcore.__name__, sys.__name__, "numpy.linalg"}
    assert theirs <= set(sys.modules)
    assert not theirs & names()
    assert "__main__" not in names()
    assert not [name for name in names() if name.partition(".")[0] in ("gridcore", "pytest")]


def test_a_package_is_one_wherever_it_is_installed(project: Project, tmp_path: Path) -> None:
    project.folder = tmp_path / "site-packages"
    project.folder.mkdir()
    sys.path.insert(0, str(project.folder))
    try:
        project.module("installed_elsewhere")
    finally:
        sys.path.remove(str(project.folder))
    assert "installed_elsewhere" not in names()


def test_a_folder_beside_pythons_own_with_a_longer_name_is_the_users(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_code, "_ELSEWHERE", (tmp_path / "python3",))
    project.module("python3.of_python")
    project.module("python3_scripts.of_mine")
    assert "python3.of_python" not in names()
    assert "python3_scripts.of_mine" in names()


def test_what_is_defined_there_goes_where_nobody_has_it(project: Project) -> None:
    project.module("mine_to_send", "class Point: x = 3\ndef answer(): return Point().x")
    project.own_code.look()
    function = by_value.dumps(sys.modules["mine_to_send"].answer)
    value = pack(sys.modules["mine_to_send"].Point(), "a point")
    project.forget_modules()
    assert unpack_bytes(function)() == 3
    assert unpack(value).x == 3
    assert "mine_to_send" not in sys.modules


def test_a_module_that_is_imported_later_is_found_by_the_next_look(project: Project) -> None:
    project.own_code.look()
    project.own_code.look()
    project.module("mine_and_late")
    project.own_code.look()
    function = by_value.dumps(sys.modules["mine_and_late"].answer)
    assert b"mine_and_late\x94\x8c\x06answer\x94\x93" not in function
    project.forget_modules()
    assert unpack_bytes(function)() == 42


def test_without_a_grid_all_of_it_goes_by_name_again(project: Project) -> None:
    project.module("mine_for_now")
    project.own_code.look()
    by_copy = by_value.dumps(sys.modules["mine_for_now"].answer)
    project.own_code.forget()
    by_name = by_value.dumps(sys.modules["mine_for_now"].answer)
    assert len(by_name) < len(by_copy)
    assert unpack_bytes(by_name) is sys.modules["mine_for_now"].answer
