"""Files by which a test and its calls tell each other how far they are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gridcore
from tests.support.waiting import POLL_S, wait_until

WITHIN_S = 20.0


def reach(point: Path) -> None:
    """In a call: it is here."""
    with point.open("a") as file:
        file.write("x")


def wait_for(point: Path) -> None:
    """In a call: goes on when the test says so."""
    while not point.exists():
        time.sleep(POLL_S)


def wait_reached(point: Path, *, times: int = 1) -> None:
    """In the test."""
    wait_until(
        lambda: point.exists() and len(point.read_text()) >= times,
        within_s=WITHIN_S,
        what=f"{point.name} reached {times} times",
    )


def times_reached(point: Path) -> int:
    return len(point.read_text()) if point.exists() else 0


@gridcore.remote
def _hold(folder: Path) -> None:
    reach(folder / "holds")
    wait_for(folder / "go")


def hold_all(folder: Path) -> list[gridcore.ObjectRef[Any]]:
    """Calls that keep both workers of a test's engine until `folder / "go"` is reached."""
    held = [_hold.remote(folder), _hold.remote(folder)]
    wait_reached(folder / "holds", times=2)
    return held
