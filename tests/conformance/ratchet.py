"""Outcomes against what is known to fail: a new failure is wrong, and so is a failure that is gone
from the suite and not from our list."""

from __future__ import annotations

from collections.abc import Mapping


def judge(passed: Mapping[str, bool], known_to_fail: Mapping[str, str]) -> list[str]:
    """What is wrong, a line each. `passed`: for each test that ran; `known_to_fail`: the reason for
    each test."""
    return [
        *(
            f"{name} fails, which is new"
            for name, is_ok in passed.items()
            if not is_ok and name not in known_to_fail
        ),
        *(
            f"{name} passes: take it off the list of those that fail"
            for name, is_ok in passed.items()
            if is_ok and name in known_to_fail
        ),
        *(
            f"{name} did not run: take it off the list, or find its new name"
            for name in known_to_fail
            if name not in passed
        ),
    ]
