"""When a wait begins with looking, and when it only sleeps."""

from __future__ import annotations

import pytest

from gridcore.sdk.workers import spinning
from gridcore.sdk.workers.spinning import SPIN_S, Spinner


class World:
    """Something to wait for, which comes after so many seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
        self.now = 0.0
        self.comes_at = 0.0
        self.looks: list[float | None] = []
        monkeypatch.setattr("gridcore.sdk.workers.spinning.time.perf_counter", lambda: self.now)
        monkeypatch.setattr(spinning, "usable_cores", lambda: cores)
        self.spinner = Spinner()

    def look(self, timeout: float | None) -> bool:
        self.looks.append(timeout)
        if timeout != 0:
            self.now = self.comes_at if timeout is None else min(self.comes_at, self.now + timeout)
        self.now += SPIN_S / 100
        return self.now >= self.comes_at

    def wait(self, seconds: float, timeout: float | None = None) -> list[float | None]:
        """What was looked for, and how long each time."""
        self.comes_at = self.now + seconds
        self.looks.clear()
        assert self.spinner.wait(self.look, timeout)
        return self.looks


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, cores=2)


def test_who_was_answered_at_once_looks_before_sleeping(world: World) -> None:
    assert world.wait(SPIN_S / 2) == [None]
    assert set(world.wait(SPIN_S / 2)) == {0}


def test_who_had_to_wait_for_long_sleeps_at_once_the_next_time(world: World) -> None:
    world.wait(SPIN_S / 2)
    assert world.wait(1.0)[-1] is None
    assert world.wait(1.0) == [None]
    assert world.wait(SPIN_S / 2) == [None]
    assert set(world.wait(SPIN_S / 2)) == {0}


def test_a_short_timeout_is_kept(world: World) -> None:
    world.wait(SPIN_S / 2)
    assert world.wait(SPIN_S / 10, timeout=SPIN_S / 2) == [SPIN_S / 2]


def test_on_one_core_there_is_nothing_to_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, cores=1)
    world.wait(SPIN_S / 2)
    assert world.wait(SPIN_S / 2) == [None]
