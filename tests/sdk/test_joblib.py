"""joblib on the grid. Its own tests run with our backend in tests/conformance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
from joblib import Parallel, delayed, parallel_config

import gridcore.joblib
from tests.sdk.signals import reach, wait_for, wait_reached

pytestmark = pytest.mark.usefixtures("engine")

gridcore.joblib.register()


def process() -> int:
    return os.getpid()


def square(number: int) -> int:
    return number * number


def nested(number: int) -> list[int]:
    squares: list[int] = Parallel(n_jobs=2)(delayed(square)(n) for n in range(number))
    return squares


def nested_on_the_grid(number: int) -> list[int]:
    squares: list[int] = Parallel(n_jobs=2, backend="gridcore")(
        delayed(square)(n) for n in range(number)
    )
    return squares


def fail_or_block(number: int, folder: Path) -> None:
    if number == 0:
        wait_for(folder / "begun")
        raise KeyError("the first one")
    reach(folder / "begun")
    try:
        wait_for(folder / "never")
    finally:
        reach(folder / "ended")


def test_calls_run_in_other_processes() -> None:
    with parallel_config("gridcore", n_jobs=2):
        processes = Parallel()(delayed(process)() for _ in range(10))
        assert os.getpid() not in processes
        assert Parallel()(delayed(square)(n) for n in range(1000)) == [n * n for n in range(1000)]


@pytest.mark.parametrize(
    ("option", "error"), [({"num_cpus": 1000}, "1000"), ({"cores": 1}, "no option 'cores'")]
)
def test_options_are_those_of_functions(option: dict[str, int], error: str) -> None:
    with (
        parallel_config("gridcore", n_jobs=2, **option),
        pytest.raises((gridcore.GridError, TypeError), match=error),
    ):
        Parallel()(delayed(square)(n) for n in range(3))


def test_results_can_be_taken_as_they_come() -> None:
    parallel = Parallel(n_jobs=2, backend="gridcore", return_as="generator_unordered")
    assert sorted(parallel(delayed(square)(n) for n in range(20))) == [n * n for n in range(20)]


@pytest.mark.parametrize("function", [nested, nested_on_the_grid])
def test_calls_may_run_parallel_calls_themselves(function: object) -> None:
    with parallel_config("gridcore", n_jobs=2):
        results = Parallel()(delayed(function)(n) for n in range(4))
    assert results == [[n * n for n in range(count)] for count in range(4)]


def test_a_call_that_fails_ends_those_that_run(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="the first one"):
        Parallel(n_jobs=2, backend="gridcore")(
            delayed(fail_or_block)(n, tmp_path) for n in range(2)
        )
    wait_reached(tmp_path / "ended")
    assert Parallel(n_jobs=2, backend="gridcore")([delayed(square)(3)] * 2) == [9, 9]


def test_as_many_jobs_as_cores_by_default() -> None:
    backend = gridcore.joblib.GridBackend()
    cores = int(gridcore.cluster_resources()["CPU"])
    assert backend.effective_n_jobs(-1) == cores
    assert backend.effective_n_jobs(500) == 500
    with parallel_config("gridcore"):
        assert joblib.effective_n_jobs() == cores


def test_who_does_not_import_it_does_not_pay_for_it() -> None:
    program = "import sys, gridcore; gridcore.Executor; sys.exit('joblib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
