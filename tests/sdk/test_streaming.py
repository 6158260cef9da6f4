"""Generators: values one by one, as they are yielded."""

# mypy takes a class for what it was before it was decorated (pyright does not).
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import pytest

import gridcore
from gridcore.sdk import session
from gridcore.sdk.workers.streams import MOST_AHEAD, MOST_BYTES_AHEAD
from tests.sdk.signals import WITHIN_S, hold_all, reach, times_reached, wait_for, wait_reached
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("engine")


@gridcore.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@gridcore.remote
def note_each(n: int, point: Path, end: Path) -> Iterator[int]:
    """Yields for ever, unless it is closed."""
    try:
        for number in range(n):
            reach(point)
            yield number
    finally:
        reach(end)


@gridcore.remote
def double(x: int) -> int:
    return 2 * x


def values(refs: Any) -> list[Any]:
    return [gridcore.get(ref, timeout=WITHIN_S) for ref in refs]


def test_a_generators_values_come_in_its_order() -> None:
    generator = assert_type(count.remote(1000), gridcore.ObjectRefGenerator[int])
    first = assert_type(next(generator), gridcore.ObjectRef[int])
    assert gridcore.get(first) == 0
    assert values(generator) == list(range(1, 1000))
    assert list(generator) == []
    assert values(count.remote(0)) == []


def test_each_is_there_before_the_next_is_yielded(tmp_path: Path) -> None:
    @gridcore.remote
    def step_by_step(folder: Path) -> Iterator[int]:
        for number in range(3):
            yield number
            wait_for(folder / str(number))

    for number, ref in enumerate(step_by_step.remote(tmp_path)):
        assert gridcore.get(ref, timeout=WITHIN_S) == number
        reach(tmp_path / str(number))


def test_what_can_be_iterated_streams_if_options_say_so() -> None:
    @gridcore.remote(num_returns="streaming")
    def letters(text: str) -> list[str]:
        return list(text)

    generator: Any = letters.remote("abc")
    assert values(generator) == ["a", "b", "c"]
    number: Any = double.options(num_returns="streaming").remote(1)
    with pytest.raises(TypeError, match="returned int: yield its values"):
        values(number)


def test_a_generator_may_return_a_fixed_number_of_results_instead() -> None:
    refs: Any = count.options(num_returns=3).remote(3)
    assert gridcore.get(refs, timeout=WITHIN_S) == [0, 1, 2]


def test_the_end_is_a_reference_and_who_waits_for_it_takes_all() -> None:
    generator = count.remote(5 * MOST_AHEAD)
    assert gridcore.get(generator.completed(), timeout=WITHIN_S) == 5 * MOST_AHEAD
    assert len(values(generator)) == 5 * MOST_AHEAD
    end: Any = count.remote(5 * MOST_AHEAD).completed()
    assert gridcore.get(double.remote(end), timeout=WITHIN_S) == 10 * MOST_AHEAD


def test_what_it_raises_is_raised_by_the_last_reference() -> None:
    @gridcore.remote
    def breaks() -> Iterator[int]:
        yield 1
        raise LookupError("no more of them")

    generator = breaks.remote()
    first, last = list(generator)
    assert gridcore.get(first) == 1
    with pytest.raises(LookupError, match="no more of them") as caught:
        gridcore.get(last)
    assert isinstance(caught.value, gridcore.TaskError)
    assert "streams.py" not in caught.value.remote_traceback, "only what the user wrote"
    with pytest.raises(LookupError):
        gridcore.get(generator.completed())


def test_a_value_that_cannot_be_pickled_ends_it() -> None:
    @gridcore.remote
    def locks() -> Iterator[object]:
        yield 1
        yield threading.Lock()

    first, last = list(locks.remote())
    assert gridcore.get(first) == 1
    with pytest.raises(gridcore.NotPicklable, match=r"a value of .*locks"):
        gridcore.get(last)


def test_values_are_arguments_like_all_references() -> None:
    refs = [double.remote(ref) for ref in count.remote(10)]  # type: ignore[arg-type]
    assert gridcore.get(refs, timeout=WITHIN_S) == [2 * n for n in range(10)]


def test_values_outlive_their_generator() -> None:
    generator = count.remote(3)
    refs = list(generator)
    del generator
    gc.collect()
    gridcore.get(double.remote(1))
    assert gridcore.get(refs) == [0, 1, 2]


def test_a_producer_waits_for_its_consumer(tmp_path: Path) -> None:
    produced = tmp_path / "produced"
    generator = note_each.remote(10 * MOST_AHEAD, produced, tmp_path / "end")
    wait_reached(produced, times=MOST_AHEAD)
    assert gridcore.get(double.remote(1), timeout=WITHIN_S) == 2
    assert times_reached(produced) == MOST_AHEAD
    for _ in range(MOST_AHEAD):
        next(generator)
    wait_reached(produced, times=2 * MOST_AHEAD)
    assert len(values(generator)) == 9 * MOST_AHEAD


def test_large_values_wait_sooner(tmp_path: Path) -> None:
    @gridcore.remote
    def blocks(point: Path) -> Iterator[bytes]:
        for _ in range(6):
            reach(point)
            yield bytes(MOST_BYTES_AHEAD // 2)

    generator = blocks.remote(tmp_path / "p")
    wait_reached(tmp_path / "p", times=2)
    assert gridcore.get(double.remote(1), timeout=WITHIN_S) == 2
    assert times_reached(tmp_path / "p") == 2
    assert sum(len(gridcore.get(ref)) for ref in generator) == 3 * MOST_BYTES_AHEAD
    assert times_reached(tmp_path / "p") == 6


def test_producers_that_wait_take_no_core(tmp_path: Path) -> None:
    generators = [
        note_each.remote(2 * MOST_AHEAD, tmp_path / name, tmp_path / "end") for name in "abc"
    ]
    for name in "abc":
        wait_reached(tmp_path / name, times=MOST_AHEAD)
    held = hold_all(tmp_path)
    reach(tmp_path / "go")
    gridcore.get(held, timeout=WITHIN_S)
    assert [len(values(generator)) for generator in generators] == [2 * MOST_AHEAD] * 3


def test_a_generator_that_nobody_wants_is_closed(tmp_path: Path) -> None:
    for number, name in enumerate(("waits", "runs")):
        produced, end = tmp_path / name, tmp_path / f"{name}.end"
        generator = note_each.remote(10**9, produced, end)
        wait_reached(produced, times=MOST_AHEAD if number == 0 else 1)
        del generator
        gc.collect()
        gridcore.get(double.remote(1), timeout=WITHIN_S)
        wait_reached(end)


def test_one_that_has_not_begun_does_not_begin_when_nobody_wants_it(tmp_path: Path) -> None:
    held = hold_all(tmp_path)
    generator = note_each.remote(1, tmp_path / "never", tmp_path / "end")
    del generator
    gridcore.put("whatever is next sees to what was dropped")
    gridcore.wait(held, timeout=0.1)  # on a grid it is taken back from the queue
    reach(tmp_path / "go")
    gridcore.get([*held, *(double.remote(1) for _ in range(20))], timeout=WITHIN_S)
    assert not (tmp_path / "never").exists()


def test_one_that_takes_longer_than_its_timeout_says_so() -> None:
    @gridcore.remote(timeout=0.5)
    def numbers() -> Iterator[int]:
        yield from range(3 * MOST_AHEAD)

    generator = numbers.remote()
    first = next(generator)
    # It waits for its consumer, who takes no more until its time is over.
    wait_until(generator.completed().done, within_s=WITHIN_S, what="it has ended")
    with pytest.raises(gridcore.TaskTimeout):
        values(generator)
    assert gridcore.get(first, timeout=WITHIN_S) == 0


@pytest.mark.parametrize("taken", [1, MOST_AHEAD // 2])
def test_it_can_be_cancelled(tmp_path: Path, taken: int) -> None:
    produced, end = tmp_path / "produced", tmp_path / "end"
    generator = note_each.remote(10**9, produced, end)
    for _ in range(taken):
        next(generator)
    wait_reached(produced, times=MOST_AHEAD)
    gridcore.cancel(generator)
    with pytest.raises(gridcore.TaskCancelled):
        values(generator)
    wait_reached(end)
    assert gridcore.get(double.remote(1), timeout=WITHIN_S) == 2


def test_an_attempt_that_takes_too_long_ends_after_what_it_gave(tmp_path: Path) -> None:
    @gridcore.remote(timeout=1.0)
    def slow() -> Iterator[int]:
        yield 1
        time.sleep(1000)

    first, last = list(slow.remote())
    assert gridcore.get(first) == 1
    with pytest.raises(gridcore.TaskTimeout):
        gridcore.get(last)


def test_a_repeated_attempt_gives_each_index_once(tmp_path: Path) -> None:
    @gridcore.remote
    def dies_on_the_way(point: Path, times: int) -> Iterator[int]:
        reach(point)
        for number in range(3 * MOST_AHEAD):
            if number == 5 + MOST_AHEAD and times_reached(point) <= times:
                os.kill(os.getpid(), signal.SIGKILL)
            yield number

    assert values(dies_on_the_way.remote(tmp_path / "p", 2)) == list(range(3 * MOST_AHEAD))
    assert times_reached(tmp_path / "p") == 3
    *good, last = dies_on_the_way.options(max_retries=1).remote(tmp_path / "q", 100)
    assert gridcore.get(good) == list(range(5 + MOST_AHEAD))
    with pytest.raises(gridcore.WorkerDied):
        gridcore.get(last)


def test_an_exception_is_repeated_if_options_say_so(tmp_path: Path) -> None:
    @gridcore.remote(retry_exceptions=[OSError])
    def stumbles(point: Path) -> Iterator[int]:
        reach(point)
        yield 1
        yield 2
        if times_reached(point) < 3:
            raise OSError("not yet")
        yield 3

    assert values(stumbles.remote(tmp_path / "p")) == [1, 2, 3]


def test_a_call_can_consume_what_another_yields() -> None:
    @gridcore.remote
    def add_up(n: int) -> int:
        return sum(gridcore.get(ref) for ref in count.remote(n))

    refs = [add_up.remote(3 * MOST_AHEAD) for _ in range(4)]
    assert gridcore.get(refs, timeout=WITHIN_S) == [sum(range(3 * MOST_AHEAD))] * 4


def test_a_generator_can_consume_generators() -> None:
    @gridcore.remote
    def doubled(depth: int, n: int) -> Iterator[int]:
        for ref in doubled.remote(depth - 1, n) if depth else count.remote(n):
            yield 2 * gridcore.get(ref)

    assert values(doubled.remote(3, 2 * MOST_AHEAD)) == [16 * n for n in range(2 * MOST_AHEAD)]


def test_a_call_that_waits_for_the_next_value_can_be_cancelled(tmp_path: Path) -> None:
    @gridcore.remote
    def stuck(folder: Path) -> Iterator[int]:
        reach(folder / "stuck")
        wait_for(folder / "go")
        yield 1

    @gridcore.remote
    def consume(folder: Path) -> int:
        return gridcore.get(next(stuck.remote(folder)))

    ref = consume.remote(tmp_path)
    wait_reached(tmp_path / "stuck")
    gridcore.cancel(ref)
    assert isinstance(ref.exception(WITHIN_S), gridcore.TaskCancelled)
    reach(tmp_path / "go")


def test_a_generator_cannot_be_sent() -> None:
    generator = count.remote(1)
    with pytest.raises(gridcore.NotPicklable, match="Send the references that it gives"):
        double.remote(generator)  # type: ignore[arg-type]


def test_map_refuses_generators() -> None:
    with pytest.raises(TypeError, match="map needs a function with one result"):
        count.map([1, 2])


def test_it_can_be_consumed_by_coroutines() -> None:
    async def consume(n: int) -> list[int]:
        return [await ref async for ref in count.remote(n)]

    async def several() -> list[list[int]]:
        return list(await asyncio.gather(consume(10), consume(2 * MOST_AHEAD)))

    assert asyncio.run(several()) == [list(range(10)), list(range(2 * MOST_AHEAD))]


@gridcore.remote
class Source:
    def __init__(self) -> None:
        self.total = 0

    def numbers(self, n: int) -> Iterator[int]:
        for number in range(n):
            self.total += 1
            yield number

    @gridcore.method(num_returns="streaming")
    def as_list(self, n: int) -> list[int]:
        return list(range(n))

    @gridcore.method(max_task_retries=3)
    def dies_once(self, point: Path, n: int) -> Iterator[int]:
        reach(point)
        yield from range(n)
        if times_reached(point) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield n

    def yielded(self) -> int:
        return self.total


@pytest.mark.parametrize("concurrency", [1, 3])
def test_methods_stream_as_functions_do(concurrency: int) -> None:
    source = Source.options(max_concurrency=concurrency).remote()
    n = 2 * MOST_AHEAD
    assert values(source.numbers.remote(n)) == list(range(n))
    assert values(source.as_list.remote(n)) == list(range(n))
    assert gridcore.get(source.yielded.remote(), timeout=WITHIN_S) == n


def test_methods_are_repeated_too(tmp_path: Path) -> None:
    source = Source.options(max_restarts=1).remote()
    assert values(source.dies_once.remote(tmp_path / "p", 5)) == list(range(6))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_method_whose_generator_is_dropped_frees_its_actor(concurrency: int) -> None:
    source = Source.options(max_concurrency=concurrency).remote()
    for _ in range(3):
        generator = source.numbers.remote(10**9)
        next(generator)
        del generator
    gc.collect()
    assert gridcore.get(source.yielded.remote(), timeout=WITHIN_S) > 0


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_method_that_streams_can_be_cancelled(concurrency: int) -> None:
    source = Source.options(max_concurrency=concurrency).remote()
    generator = source.numbers.remote(10**9)
    next(generator)
    generator.cancel()
    with pytest.raises(gridcore.TaskCancelled):
        values(generator)
    assert gridcore.get(source.yielded.remote(), timeout=WITHIN_S) > 0


def test_async_generators_of_actors_run_at_the_same_time() -> None:
    @gridcore.remote
    class Channel:
        def __init__(self) -> None:
            self.queue: asyncio.Queue[int | None] = asyncio.Queue()

        async def put(self, item: int | None) -> None:
            await self.queue.put(item)

        async def items(self) -> AsyncIterator[int]:
            while (item := await self.queue.get()) is not None:
                yield item

        async def many(self, n: int) -> AsyncIterator[int]:
            for number in range(n):
                yield number

        def some(self, n: int) -> Iterator[int]:
            yield from range(n)

    channel = Channel.remote()
    items = channel.items.remote()
    for number in range(3):
        channel.put.remote(number)
        assert gridcore.get(next(items), timeout=WITHIN_S) == number
    # More of them than wait for their consumers in threads of a loop's pool.
    waiting = [channel.many.remote(2 * MOST_AHEAD) for _ in range(20)]
    assert values(channel.some.remote(2 * MOST_AHEAD)) == list(range(2 * MOST_AHEAD))
    channel.put.remote(None)
    assert list(items) == []
    assert [len(values(generator)) for generator in waiting[::-1]] == [2 * MOST_AHEAD] * 20
    forever = channel.items.remote()
    forever.cancel()
    with pytest.raises(gridcore.TaskCancelled):
        values(forever)


def test_an_actor_that_dies_ends_its_streams(tmp_path: Path) -> None:
    source = Source.remote()
    *good, last = source.dies_once.options(max_task_retries=0).remote(tmp_path / "p", 5)
    assert gridcore.get(good) == list(range(5))
    with pytest.raises(gridcore.ActorDied):
        gridcore.get(last)
    with pytest.raises(gridcore.ActorDied):
        values(source.numbers.remote(1))


def test_async_functions_are_refused_where_they_are_written() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(TypeError, match="an async generator, which only methods of actors may be"):
        gridcore.remote(numbers)


def test_nothing_is_left_of_it_all(engine: str) -> None:
    gc.collect()
    assert gridcore.get([double.remote(n) for n in range(20)], timeout=WITHIN_S)[-1] == 38
    core: Any = session.require()._core
    assert core.streams.by_number == {}
