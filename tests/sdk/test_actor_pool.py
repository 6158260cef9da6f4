"""`ActorPool`: work shared out among actors."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gridcore
from tests.sdk.signals import WITHIN_S, reach, wait_for

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
class Worker:
    def double(self, number: int) -> int:
        return 2 * number

    def wait_for(self, point: Path | None) -> str:
        if point is None:
            return "at once"
        wait_for(point)
        return "late"

    def divide(self, by: int) -> float:
        return 1 / by


def double(actor: Any, number: int) -> gridcore.ObjectRef[int]:
    return actor.double.remote(number)  # type: ignore[no-any-return]


def waiting(actor: Any, point: Path | None) -> gridcore.ObjectRef[str]:
    return actor.wait_for.remote(point)  # type: ignore[no-any-return]


@pytest.fixture
def pool() -> gridcore.ActorPool:
    return gridcore.ActorPool([Worker.remote(), Worker.remote()])


def test_map_gives_results_in_the_order_of_the_values(pool: gridcore.ActorPool) -> None:
    assert list(pool.map(double, range(20))) == list(range(0, 40, 2))
    assert sorted(pool.map_unordered(double, range(20))) == list(range(0, 40, 2))
    assert list(pool.map(double, range(3))) == [0, 2, 4]
    assert list(pool.map(double, [])) == []


def test_unordered_results_come_as_they_are_done(pool: gridcore.ActorPool, tmp_path: Path) -> None:
    results = pool.map_unordered(waiting, [tmp_path / "go", None, None])
    assert [next(results), next(results)] == ["at once", "at once"]
    reach(tmp_path / "go")
    assert list(results) == ["late"]


def test_ordered_results_wait_for_their_turn(pool: gridcore.ActorPool, tmp_path: Path) -> None:
    for value in (tmp_path / "go", None):
        pool.submit(waiting, value)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.01)
    reach(tmp_path / "go")
    assert [pool.get_next(WITHIN_S), pool.get_next(WITHIN_S)] == ["late", "at once"]


def test_what_is_submitted_to_busy_actors_waits(pool: gridcore.ActorPool, tmp_path: Path) -> None:
    assert pool.has_free()
    assert not pool.has_next()
    for value in (tmp_path / "go", tmp_path / "go", None):
        pool.submit(waiting, value)
    assert not pool.has_free()
    assert pool.pop_idle() is None
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.01)
    reach(tmp_path / "go")
    taken = [pool.get_next_unordered(WITHIN_S) for _ in range(3)]
    assert sorted(taken) == ["at once", "late", "late"]
    assert pool.has_free()


@pytest.mark.parametrize(
    "take", [gridcore.ActorPool.get_next, gridcore.ActorPool.get_next_unordered]
)
def test_without_results_there_is_none_to_get(
    pool: gridcore.ActorPool, take: Callable[[gridcore.ActorPool], Any]
) -> None:
    with pytest.raises(StopIteration, match="no more results"):
        take(pool)


def test_a_call_that_fails_leaves_its_actor_in_the_pool(pool: gridcore.ActorPool) -> None:
    for by in (0, 1, 2):
        pool.submit(lambda actor, by: actor.divide.remote(by), by)
    with pytest.raises(ZeroDivisionError):
        pool.get_next(WITHIN_S)
    assert [pool.get_next(WITHIN_S), pool.get_next(WITHIN_S)] == [1, 0.5]


def test_what_starts_no_call_is_refused_and_leaves_the_actor_free(
    pool: gridcore.ActorPool,
) -> None:
    with pytest.raises(TypeError, match=r"no ObjectRef\. Write lambda actor, value"):
        pool.submit(lambda _, value: value, 1)
    assert pool.has_free()
    assert list(pool.map(double, [1])) == [2]


def test_after_unordered_results_there_is_no_order(pool: gridcore.ActorPool) -> None:
    pool.submit(double, 1)
    pool.submit(double, 2)
    assert pool.get_next(WITHIN_S) == 2
    pool.submit(double, 3)
    taken = {pool.get_next_unordered(WITHIN_S), pool.get_next_unordered(WITHIN_S)}
    assert taken == {4, 6}
    pool.submit(double, 4)
    assert pool.get_next(WITHIN_S) == 8


def test_an_unordered_result_from_the_middle_leaves_no_order(
    pool: gridcore.ActorPool, tmp_path: Path
) -> None:
    pool.submit(waiting, tmp_path / "go")
    pool.submit(waiting, None)
    assert pool.get_next_unordered(WITHIN_S) == "at once"
    with pytest.raises(ValueError, match="the order is lost"):
        pool.get_next()
    reach(tmp_path / "go")
    assert pool.get_next_unordered(WITHIN_S) == "late"


def test_actors_come_and_go(pool: gridcore.ActorPool) -> None:
    actors = [pool.pop_idle(), pool.pop_idle()]
    assert None not in actors
    assert pool.pop_idle() is None
    pool.submit(double, 5)
    assert not pool.has_next()
    pool.push(actors[0])  # type: ignore[arg-type]
    assert pool.get_next(WITHIN_S) == 10
    with pytest.raises(ValueError, match="belongs to this ActorPool already"):
        pool.push(actors[0])  # type: ignore[arg-type]


def test_map_drops_what_was_submitted_before(pool: gridcore.ActorPool) -> None:
    for number in range(5):
        pool.submit(double, number)
    assert list(pool.map(double, [100])) == [200]
