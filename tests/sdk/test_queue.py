"""`Queue`: items handed from process to process."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import pytest

import gridcore
from tests.sdk.signals import WITHIN_S, reach, wait_reached

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
def produce(items: gridcore.Queue[int], count: int) -> None:
    for number in range(count):
        items.put(number)


@gridcore.remote
def consume(items: gridcore.Queue[int], count: int) -> list[int]:
    return [items.get() for _ in range(count)]


def test_items_come_in_the_order_in_which_they_were_put() -> None:
    items: gridcore.Queue[int] = gridcore.Queue()
    for number in range(5):
        items.put(number)
    assert (items.qsize(), len(items), items.empty(), items.full()) == (5, 5, False, False)
    assert [items.get(timeout=WITHIN_S) for _ in range(5)] == list(range(5))
    assert items.empty()


def test_an_empty_queue_has_nothing_to_get() -> None:
    items: gridcore.Queue[int] = gridcore.Queue()
    with pytest.raises(queue.Empty):
        items.get_nowait()
    with pytest.raises(queue.Empty):
        items.get(block=False)
    with pytest.raises(queue.Empty):
        items.get(timeout=0.01)


def test_a_full_queue_takes_no_more() -> None:
    items: gridcore.Queue[int] = gridcore.Queue(maxsize=1)
    items.put_nowait(1)
    assert items.full()
    with pytest.raises(queue.Full):
        items.put_nowait(2)
    with pytest.raises(queue.Full):
        items.put(2, timeout=0.01)
    assert items.get_nowait() == 1
    items.put(3)
    assert items.get_nowait() == 3


def test_a_batch_is_put_or_taken_whole_or_not_at_all() -> None:
    items: gridcore.Queue[int] = gridcore.Queue(maxsize=3)
    items.put_nowait_batch(range(2))
    with pytest.raises(queue.Full, match="no room for 2 items in a queue of 3"):
        items.put_nowait_batch([8, 9])
    with pytest.raises(queue.Empty, match="fewer than 3"):
        items.get_nowait_batch(3)
    assert items.get_nowait_batch(2) == [0, 1]
    assert items.get_nowait_batch(0) == []


def test_batches_must_make_sense() -> None:
    items: gridcore.Queue[int] = gridcore.Queue()
    with pytest.raises(TypeError, match="5 is no iterable"):
        items.put_nowait_batch(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="num_items='2'"):
        items.get_nowait_batch("2")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0 or more"):
        items.get_nowait_batch(-1)
    with pytest.raises(ValueError, match="timeout=-1"):
        items.get(timeout=-1)


def test_calls_hand_items_to_each_other() -> None:
    items: gridcore.Queue[int] = gridcore.Queue(maxsize=2)
    consumer, producer = consume.remote(items, 20), produce.remote(items, 20)
    gridcore.get(producer, timeout=WITHIN_S)
    assert gridcore.get(consumer, timeout=WITHIN_S) == list(range(20))


def test_a_reference_that_is_put_comes_out_as_one() -> None:
    items: gridcore.Queue[gridcore.ObjectRef[int]] = gridcore.Queue()
    items.put(gridcore.put(7))
    ref = items.get(timeout=WITHIN_S)
    assert isinstance(ref, gridcore.ObjectRef)
    assert gridcore.get(ref, timeout=WITHIN_S) == 7


def test_who_waits_gets_what_is_put_later() -> None:
    items: gridcore.Queue[int] = gridcore.Queue()
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.append(items.get()))
    thread.start()
    items.put(1)
    thread.join(WITHIN_S)
    assert taken == [1]


def test_a_call_that_is_cancelled_while_it_waits_takes_nothing(tmp_path: Path) -> None:
    @gridcore.remote
    def wait_in_line(items: gridcore.Queue[int], point: Path) -> int:
        reach(point)
        return items.get()

    items: gridcore.Queue[int] = gridcore.Queue()
    ref = wait_in_line.remote(items, tmp_path / "waits")
    wait_reached(tmp_path / "waits")
    gridcore.cancel(ref)
    with pytest.raises(gridcore.TaskCancelled):
        gridcore.get(ref, timeout=WITHIN_S)
    items.put(1)
    assert items.get(timeout=WITHIN_S) == 1


def test_nor_one_that_is_cancelled_as_it_begins_to(tmp_path: Path) -> None:
    @gridcore.remote
    def wait_in_line(items: gridcore.Queue[int], point: Path) -> int:
        reach(point)
        return items.get()

    items: gridcore.Queue[int] = gridcore.Queue()
    for moment in range(30):
        ref = wait_in_line.remote(items, tmp_path / str(moment))
        wait_reached(tmp_path / str(moment))
        begun = time.monotonic()
        while time.monotonic() < begun + moment * 0.0001:
            pass  # to meet it at different moments
        gridcore.cancel(ref)
        assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)
        items.put(moment)
        assert items.get(timeout=WITHIN_S) == moment


def test_one_by_name_is_the_same_for_all() -> None:
    first: gridcore.Queue[int] = gridcore.Queue(name="numbers", get_if_exists=True)
    second: gridcore.Queue[int] = gridcore.Queue(name="numbers", get_if_exists=True)
    first.put(1)
    assert second.get(timeout=WITHIN_S) == 1


def test_after_shutdown_it_is_gone() -> None:
    items: gridcore.Queue[int] = gridcore.Queue()
    items.put(1)
    items.shutdown()
    with pytest.raises(gridcore.ActorDied):
        items.get()
