"""CPython's executor tests with `gridcore.Executor`; run by an interpreter that has them.

    python -m tests.conformance.cpython_suite OUTCOMES     a file of JSON: name -> whether it passed

This file imports nothing but the standard library and gridcore.
"""

from __future__ import annotations

import importlib
import json
import sys
import unittest
from pathlib import Path
from typing import Any

import gridcore

SUITE = "test.test_concurrent_futures"

WORKERS = 5
"""As many as the suite's executors ask for; its tests sleep, so cores do not matter."""


def adapted() -> list[type[unittest.TestCase]]:
    util = _part("util")
    ours = type("WithExecutor", (util.ExecutorMixin,), {"executor_type": gridcore.Executor})
    tests = (
        _part("executor").ExecutorTest,
        _part("test_wait").WaitTests,
        _part("test_as_completed").AsCompletedTests,
        _part("test_shutdown").ExecutorShutdownTest,
    )
    return [type(kind.__name__, (ours, kind, util.BaseTestCase), {}) for kind in tests]


def _part(name: str) -> Any:
    """A package since 3.13 (and late releases of 3.12), one module before."""
    whole = importlib.import_module(SUITE)
    return importlib.import_module(f"{SUITE}.{name}") if hasattr(whole, "__path__") else whole


def main(outcomes: Path) -> None:
    gridcore.init(num_cpus=WORKERS)
    passed: dict[str, bool] = {}
    for kind in adapted():
        for name in unittest.defaultTestLoader.getTestCaseNames(kind):
            result = unittest.TextTestRunner(stream=sys.stderr).run(kind(name))
            if not result.skipped:
                passed[f"{kind.__name__}.{name}"] = result.wasSuccessful()
    gridcore.shutdown()
    outcomes.write_text(json.dumps(passed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
