"""When `auto_advance` calls a task done, told look by look."""

from datetime import UTC, datetime
from typing import Any

import pytest

from computehub.census import Ledger
from computehub.drained import DrainWatch, is_empty
from computehub.producers import Producers, understood
from computehub.task_list import Current
from gridcore.lease_queue.times import PRODUCER_SILENCE_S
from gridcore.wire import NodeView, QueueLengths, TaskSpec, WorkReport

TASK = TaskSpec(name="t", image="i")
FRESH = Current("v", TASK)
WORKED = Current("v", TASK, has_had_work=True)


def node(active: int, *, task: str | None = "t", **details: Any) -> NodeView:
    known = {
        "id": "n",
        "hostname": "h",
        "architecture": "x86_64",
        "cpu_count": 4,
        "last_seen": datetime.now(UTC),
        "status": "Online",
        "runtime_status": "Idle",
        "active_containers": active,
        "platform": "linux/amd64",
        "runtime": "docker",
        "parallelism": 4,
        "version": "",
        "task": task,
        "task_version": "v",
        "error": None,
        "image_pull": None,
        "slots": [],
        "isolation": None,
        "work": None,
        "stop_requested": False,
    }
    return NodeView(**(known | details))


EMPTY = QueueLengths(input=0, output=5)


@pytest.mark.parametrize(
    ("lengths", "nodes", "empty"),
    [
        (EMPTY, [], True),
        (EMPTY, [node(0), node(0)], True),
        (EMPTY, [node(0), node(1)], False),
        (EMPTY, [node(1, task=None)], False),
        (EMPTY, [node(3, task="another")], True),
        (EMPTY, [node(1, status="Lost")], True),
        (QueueLengths(input=1), [], False),
        (QueueLengths(error="away"), [], False),
    ],
)
def test_with_direct_delivery_a_run_may_hold_an_item(
    lengths: QueueLengths, nodes: list[NodeView], empty: bool
) -> None:
    assert is_empty(WORKED, lengths, nodes) is empty


def test_with_direct_delivery_two_looks_in_a_row_must_agree() -> None:
    watch = DrainWatch()
    assert watch.see(FRESH, EMPTY, [node(0)]) == "wait", "it never had work"
    assert watch.see(FRESH, QueueLengths(input=1), []) == "has_work"
    assert watch.see(FRESH, EMPTY, [node(1)]) == "has_work"

    assert watch.see(WORKED, EMPTY, [node(0)]) == "wait"
    assert watch.see(WORKED, EMPTY, [node(1)]) == "wait"
    assert watch.see(WORKED, EMPTY, [node(0)]) == "wait"
    assert watch.see(WORKED, QueueLengths(error="away"), [node(0)]) == "wait"
    assert watch.see(WORKED, EMPTY, [node(0)]) == "wait"
    assert watch.see(WORKED, EMPTY, [node(0)]) == "drained"


def test_another_task_begins_anew() -> None:
    watch = DrainWatch()
    assert watch.see(WORKED, EMPTY, []) == "wait"
    assert watch.see(Current("w", TASK, has_had_work=True), EMPTY, []) == "wait"


AT_THE_GATEWAY = node(4, work=WorkReport())
"""Its runs wait for items: that they run says nothing."""


def ledger(*, taken: int = 10, committed: int = 10, **places: int | None) -> Ledger:
    moves = (taken, committed, 0, 0, 0, 0, 0, 0, 0)
    known: dict[str, Any] = {"waiting": 0, "retrying": 0, "dead": 0, "leased": 0}
    return Ledger(**(known | places), moves=moves)


@pytest.mark.parametrize(
    ("look", "nodes", "empty"),
    [
        (ledger(), [], True),
        (ledger(), [AT_THE_GATEWAY], True),
        (ledger(dead=3), [], True),
        (ledger(waiting=1, leased=None), [], False),
        (ledger(retrying=1, leased=None), [], False),
        (ledger(leased=1), [], False),
        (ledger(), [node(1)], False),
        (ledger(), [node(1, task="another")], True),
    ],
)
def test_with_leases_redis_knows_all_but_what_agents_without_a_gateway_hold(
    look: Ledger, nodes: list[NodeView], empty: bool
) -> None:
    assert is_empty(WORKED, look, nodes) is empty


def test_two_looks_between_which_nothing_moved_are_the_end() -> None:
    watch = DrainWatch()
    assert watch.see(WORKED, ledger(dead=2), [AT_THE_GATEWAY]) == "wait"
    assert watch.see(WORKED, ledger(dead=2), [AT_THE_GATEWAY]) == "drained"


def test_an_item_that_hops_about_between_the_looks_is_not_overlooked() -> None:
    """Each look found every place empty: the item was always where it had just been counted. Had it
    hopped, it would have been taken once more."""
    watch = DrainWatch()
    assert watch.see(WORKED, ledger(taken=10), []) == "wait"
    assert watch.see(WORKED, ledger(taken=11), []) == "wait"
    assert watch.see(WORKED, ledger(taken=11), []) == "drained"


def test_a_queue_that_cannot_be_looked_at_is_not_drained() -> None:
    watch = DrainWatch()
    assert watch.see(WORKED, ledger(), []) == "wait"
    assert watch.see(WORKED, None, []) == "wait"
    assert watch.see(WORKED, ledger(), []) == "wait"


def test_a_task_has_work_when_any_is_there() -> None:
    for look in (
        ledger(waiting=1, leased=None),
        ledger(retrying=1, leased=None),
        ledger(leased=1),
    ):
        assert DrainWatch().see(FRESH, look, []) == "has_work"
    assert DrainWatch().see(FRESH, ledger(), [node(1)]) == "has_work"


def test_what_an_earlier_task_of_the_same_queue_has_left_is_not_this_ones_work() -> None:
    watch = DrainWatch()
    earlier = node(0, work=WorkReport(taken=5), task_version="an earlier one")
    for _ in range(3):
        assert watch.see(FRESH, ledger(taken=10, dead=4), [earlier, AT_THE_GATEWAY]) == "wait"


def test_work_that_is_done_between_two_looks_was_work() -> None:
    watch = DrainWatch()
    assert watch.see(FRESH, ledger(taken=10), []) == "wait"
    assert watch.see(FRESH, ledger(taken=13), []) == "has_work"


def test_work_that_was_done_before_the_first_look_is_known_from_a_nodes_report() -> None:
    done = node(0, work=WorkReport(taken=3, committed=3))
    assert DrainWatch().see(FRESH, ledger(taken=13), [done]) == "has_work"


# --- producers

WILL_PUSH = Producers(silent_s=PRODUCER_SILENCE_S - 1, last_word_s=3.0)
SILENT = Producers(silent_s=PRODUCER_SILENCE_S + 1, last_word_s=PRODUCER_SILENCE_S + 1)
LEFT = Producers(silent_s=None, last_word_s=3.0)


@pytest.mark.parametrize("look", [ledger(), EMPTY])
def test_while_a_producer_says_that_it_will_push_more_a_task_is_not_drained(
    look: Ledger | QueueLengths,
) -> None:
    watch = DrainWatch()
    for _ in range(3):
        assert watch.see(WORKED, look, [], producers=WILL_PUSH) == "wait"
    assert watch.see(WORKED, look, [], producers=SILENT) == "wait"
    assert watch.see(WORKED, look, [], producers=WILL_PUSH) == "wait", "it spoke again"
    assert watch.see(WORKED, look, [], producers=LEFT) == "wait"
    assert watch.see(WORKED, look, [], producers=None) == "wait", "nobody knows"
    assert watch.see(WORKED, look, [], producers=LEFT) == "wait"
    assert watch.see(WORKED, look, [], producers=LEFT) == "drained"


@pytest.mark.parametrize("producers", [WILL_PUSH, SILENT, LEFT])
def test_a_producer_that_came_for_this_task_was_work(producers: Producers) -> None:
    assert DrainWatch().see(FRESH, ledger(), [], producers=producers, age_s=100.0) == "has_work"
    assert DrainWatch().see(FRESH, EMPTY, [], producers=producers, age_s=100.0) == "has_work"


def test_a_producer_of_an_earlier_task_of_the_same_queue_says_nothing_of_this_one() -> None:
    long_ago = Producers(silent_s=3_000.0, last_word_s=3_000.0)
    assert DrainWatch().see(FRESH, ledger(), [], producers=long_ago, age_s=5.0) == "wait"
    just_before = Producers(silent_s=8.0, last_word_s=8.0)
    assert DrainWatch().see(FRESH, ledger(), [], producers=just_before, age_s=5.0) == "has_work"


def test_what_redis_says_of_producers_is_told_by_its_own_clock() -> None:
    assert understood((1_000, 500_000), [], None) == Producers()
    assert understood((1_000, 500_000), [b"p", b"999500"], None) == Producers(1.0, 1.0)
    assert understood((1_000, 500_000), [b"p", 970_500.0], b"998500") == Producers(30.0, 2.0)
    assert understood((1_000, 500_000), [], b"998500") == Producers(None, 2.0)
