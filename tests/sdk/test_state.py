"""What there is to run calls, and what code can know of where it runs."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import gridcore
from gridcore.sdk.context import RuntimeContext
from tests.sdk.signals import WITHIN_S, reach, times_reached, wait_for, wait_reached
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
def where() -> RuntimeContext:
    return gridcore.get_runtime_context()


@gridcore.remote(max_restarts=-1)
class Keeper:
    def where(self) -> RuntimeContext:
        return gridcore.get_runtime_context()

    async def where_async(self) -> RuntimeContext:
        return gridcore.get_runtime_context()

    def die_once(self, point: Path) -> RuntimeContext:
        reach(point)
        if times_reached(point) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return gridcore.get_runtime_context()


@gridcore.remote
class Pool:
    def where(self) -> RuntimeContext:
        return gridcore.get_runtime_context()


def test_nodes_say_what_they_are() -> None:
    nodes = gridcore.nodes()
    assert nodes
    for node in nodes:
        assert node["alive"]
        assert node["hostname"]
        assert node["architecture"]
        assert node["cpus"] >= 1
        assert node["memory"] > 0
    assert sum(node["cpus"] for node in nodes) == gridcore.cluster_resources()["CPU"]


def test_what_a_call_holds_is_not_available(tmp_path: Path) -> None:
    @gridcore.remote(memory="1 MB")
    def hold() -> None:
        reach(tmp_path / "holds")
        wait_for(tmp_path / "go")

    total = gridcore.cluster_resources()
    assert total["CPU"] == 2.0
    held = [hold.remote(), hold.remote()]
    wait_reached(tmp_path / "holds", times=2)
    free = gridcore.available_resources()
    assert free["CPU"] == 0.0
    assert free["memory"] == total["memory"] - 2_000_000
    reach(tmp_path / "go")
    gridcore.get(held, timeout=WITHIN_S)
    wait_until(
        lambda: gridcore.available_resources()["CPU"] == 2.0, within_s=WITHIN_S, what="all is free"
    )


def test_calls_can_ask_as_well() -> None:
    @gridcore.remote
    def ask() -> tuple[Any, Any, Any]:
        return gridcore.nodes(), gridcore.cluster_resources(), gridcore.available_resources()

    nodes, total, free = gridcore.get(ask.remote(), timeout=WITHIN_S)
    assert nodes == gridcore.nodes()
    assert total == gridcore.cluster_resources()
    assert free["CPU"] <= total["CPU"]


def test_a_program_knows_its_job_and_is_in_no_call() -> None:
    context = gridcore.get_runtime_context()
    assert context.get_job_id()
    assert context.get_task_id() is None
    assert context.get_actor_id() is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.job_id = "another"  # type: ignore[misc]


def test_a_call_knows_who_it_is() -> None:
    ref = where.options(name="who am I").remote()
    context = gridcore.get(ref, timeout=WITHIN_S)
    here = gridcore.get_runtime_context()
    assert context.get_job_id() == here.get_job_id()
    assert context.get_task_id() == ref.id
    assert context.get_task_name() == "who am I"
    assert context.get_worker_id() != here.get_worker_id()
    assert context.get_node_id() in {node["id"] for node in gridcore.nodes()}
    assert context.get_actor_id() is None
    assert context.attempt_number == 0
    assert gridcore.get(where.remote(), timeout=WITHIN_S).task_name == "where"


def test_a_repeated_call_knows_that_it_is(tmp_path: Path) -> None:
    @gridcore.remote(retry_exceptions=True)
    def third_time(point: Path) -> int:
        reach(point)
        if times_reached(point) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if times_reached(point) == 2:
            raise OSError("not yet")
        return gridcore.get_runtime_context().attempt_number

    assert gridcore.get(third_time.remote(tmp_path / "p"), timeout=WITHIN_S) == 2


def test_a_call_below_another_has_an_id_of_its_own() -> None:
    @gridcore.remote
    def outer() -> list[str | None]:
        inner = where.remote()
        below = gridcore.get(inner)
        return [gridcore.get_runtime_context().task_id, below.task_id, inner.id]

    ref = outer.remote()
    mine, below, known = gridcore.get(ref, timeout=WITHIN_S)
    assert mine == ref.id
    assert below == known != mine


@pytest.mark.parametrize("method", ["where", "where_async"])
def test_methods_know_their_actor_and_whether_it_was_restarted(tmp_path: Path, method: str) -> None:
    keeper = Keeper.options(max_task_retries=1).remote()
    ask = getattr(keeper, method)
    refs = [ask.remote() for _ in range(2)]
    first, second = gridcore.get(refs, timeout=WITHIN_S)
    assert first.actor_id == second.actor_id
    assert first.actor_id in repr(keeper)
    assert (first.task_id, second.task_id) == (refs[0].id, refs[1].id)
    assert first.task_name == f"Keeper.{method}"
    assert not first.was_current_actor_restarted
    died = gridcore.get(keeper.die_once.remote(tmp_path / "p"), timeout=WITHIN_S)
    assert died.was_current_actor_restarted
    assert died.attempt_number == 1
    assert died.actor_id == first.actor_id


@pytest.mark.parametrize("concurrency", [1, 3])
def test_methods_know_their_call_wherever_they_run(concurrency: int) -> None:
    pool = Pool.options(max_concurrency=concurrency).remote()
    refs = [pool.where.remote() for _ in range(6)]
    contexts = gridcore.get(refs, timeout=WITHIN_S)
    assert [context.task_id for context in contexts] == [ref.id for ref in refs]
