"""What is installed elsewhere is whole."""

import subprocess
import sys
import zipfile
from pathlib import Path

TOP = Path(__file__).parents[2]


def test_the_wheel_holds_every_script_and_every_module(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, TOP],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")

    held = set(zipfile.ZipFile(wheel).namelist())

    ours = {
        path.relative_to(TOP).as_posix()
        for package in ("gridcore", "computehub", "gridnode")
        for path in (TOP / package).rglob("*")
        if path.suffix in {".py", ".lua", ".typed"}
    }
    assert ours <= held
    assert [name for name in held if name.startswith(("tests/", "benchmarks/"))] == []
