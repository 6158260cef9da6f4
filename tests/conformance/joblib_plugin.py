"""A plug-in of pytest for joblib's own tests: they generate their cases from the backends that are
registered when they are imported. Writes name -> whether it passed to $GRIDCORE_OUTCOMES."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import gridcore.joblib

gridcore.joblib.register()

_passed: dict[str, bool] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if not report.skipped:
        name = report.nodeid.rpartition("::")[2]
        _passed[name] = _passed.get(name, True) and report.passed


def pytest_sessionfinish() -> None:
    Path(os.environ["GRIDCORE_OUTCOMES"]).write_text(json.dumps(_passed))
