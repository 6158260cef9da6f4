"""Whether what a function of the driver needs is there where it is to run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gridcore.sdk import by_value
from gridcore.sdk.engine import Exported
from gridcore.sdk.errors import PayloadTooLarge
from gridcore.sdk.grid.messages import PYTHON
from gridcore.sdk.grid.versions import (
    mismatch,
    modules_in,
    versions_of,
    with_versions,
    without_versions,
)


def test_modules_that_a_function_refers_to_are_found_and_mere_words_are_not() -> None:
    words = ["pydantic", "redis"]
    found = modules_in(by_value.dumps(lambda: (np.zeros(1), json.dumps(words))))
    assert {"numpy", "json"} <= found
    assert not found & {"pydantic", "redis"}


def test_what_is_defined_in_a_package_counts_by_its_top() -> None:
    assert versions_of(by_value.dumps(np.linalg.norm)) == {"numpy": np.__version__}


def test_a_function_travels_with_its_versions() -> None:
    data = by_value.dumps(np.zeros)
    packed = with_versions(Exported(b"id", data, "zeros"))
    assert without_versions(packed) == ({"numpy": np.__version__}, data)


def test_a_function_with_too_much_in_it_is_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=r"function big: .* by gridcore\.put"):
        with_versions(Exported(b"id", bytes(60_000_000), "big"))


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({"numpy": "2.1.0"}, None),
        ({"numpy": "2.4.1"}, None),
        ({"numpy": "1.26.4"}, "the driver has numpy 2.1.0, and the container 1.26.4"),
        ({}, "the driver has numpy 2.1.0, and the container does not have it"),
    ],
)
def test_another_major_version_or_none_is_a_mismatch(
    here: dict[str, str], said: str | None
) -> None:
    found = mismatch(PYTHON, {"numpy": "2.1.0"}, lambda name: here.get(name))
    assert (found[0] if found else None) == said


def test_another_python_is_a_mismatch_that_names_both() -> None:
    found = mismatch("2.7", {}, lambda _: None)
    assert found is not None
    assert "Python 2.7" in found[0]
    assert PYTHON in found[0]
